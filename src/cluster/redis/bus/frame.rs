//! What travels on the bus: MessagePack maps with named fields. Unknown fields
//! are ignored, and a body that cannot be read is skipped by itself. Each is
//! signed by the cluster's key, for its channel, origin and number.

use serde::{Deserialize, Serialize};
use serde_bytes::Bytes;

use crate::cluster::BusMessage;
use crate::cluster::redis::seals::{FrameWords, Seals};
use crate::id::MeshId;

/// The form that this release writes.
const VERSION: u32 = 1;

/// One process of a node: a restart is another origin.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::cluster::redis) struct Origin {
    pub(in crate::cluster::redis) node: String,
    pub(in crate::cluster::redis) incarnation: u64,
}

impl Origin {
    /// The origin's text in the sets of nodes.
    pub(in crate::cluster::redis) fn to_text(&self) -> String {
        format!("{:016x}:{}", self.incarnation, self.node)
    }

    pub(in crate::cluster::redis) fn from_text(text: &str) -> Option<Self> {
        let (incarnation, node) = text.split_once(':')?;
        let incarnation = u64::from_str_radix(incarnation, 16).ok()?;
        Some(Self { node: node.to_owned(), incarnation })
    }
}

/// A frame without its body read.
#[derive(Serialize, Deserialize)]
pub(super) struct Frame<'a> {
    pub(super) v: u32,
    pub(super) node: &'a str,
    pub(super) incarnation: u64,
    /// The channel's sequence: of this frame if it has a body, else of the last
    /// one before it.
    pub(super) seq: u64,
    /// The origin counts anew on this channel.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) first: bool,
    /// A [`BusMessage`] of its own, for the mesh's nodes.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) body: Option<&'a Bytes>,
    /// A [`Control`] of its own, for the bus itself.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) control: Option<&'a Bytes>,
    /// By the cluster's key, over all that is above and the channel.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) signature: Option<&'a Bytes>,
}

impl Frame<'_> {
    /// Whether a node of this cluster published it there.
    pub(super) fn is_signed(&self, seals: &Seals, channel: &str) -> bool {
        let signature = self.signature.map(|bytes| &**bytes);
        signature.is_some_and(|signature| seals.is_signed_frame(&self.words(channel), signature))
    }

    fn words<'a>(&'a self, channel: &'a str) -> FrameWords<'a> {
        FrameWords {
            channel,
            node: self.node,
            incarnation: self.incarnation,
            seq: self.seq,
            first: self.first,
            body: self.body.map(|bytes| &**bytes),
            control: self.control.map(|bytes| &**bytes),
        }
    }
}

/// What the buses of two nodes say to each other.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Control {
    /// The origin has joined the mesh: the others answer with [`Control::Here`].
    Joined,
    /// The origin is in the mesh. `lost`: it may have kept frames to itself,
    /// because it did not know of whoever asks.
    Here { lost: bool },
    /// The origin has left the mesh.
    Left,
    /// The last sequences of the origin's channels, as of a moment ago.
    Beats { last: Vec<(MeshId, u64)> },
}

/// What a frame carries, encoded.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    Body(Vec<u8>),
    Control(Vec<u8>),
}

impl Payload {
    pub(super) fn body(message: &BusMessage) -> Result<Self, rmp_serde::encode::Error> {
        rmp_serde::to_vec_named(message).map(Self::Body)
    }

    /// Cannot fail: a control is maps, lists, texts and numbers.
    pub(super) fn control(control: &Control) -> Self {
        Self::Control(rmp_serde::to_vec_named(control).unwrap_or_default())
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Body(bytes) | Self::Control(bytes) => bytes.len(),
        }
    }
}

/// A whole frame, signed for its channel.
pub(super) fn encode(
    seals: &Seals,
    channel: &str,
    origin: &Origin,
    (seq, first): (u64, bool),
    payload: &Payload,
) -> Vec<u8> {
    let (body, control) = match payload {
        Payload::Body(bytes) => (Some(Bytes::new(bytes)), None),
        Payload::Control(bytes) => (None, Some(Bytes::new(bytes))),
    };
    let node = origin.node.as_str();
    let incarnation = origin.incarnation;
    let mut frame =
        Frame { v: VERSION, node, incarnation, seq, first, body, control, signature: None };
    let signature = seals.sign_frame(&frame.words(channel));
    frame.signature = Some(Bytes::new(&signature));
    rmp_serde::to_vec_named(&frame).unwrap_or_default()
}

pub(super) fn decode(bytes: &[u8]) -> Result<Frame<'_>, rmp_serde::decode::Error> {
    rmp_serde::from_slice(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin { node: "n:1".to_owned(), incarnation: u64::MAX - 5 }
    }

    #[test]
    fn an_origin_comes_back_from_its_text() {
        assert_eq!(Origin::from_text(&origin().to_text()), Some(origin()));
        assert_eq!(Origin::from_text("nonsense"), None);
    }

    fn seals() -> Seals {
        use crate::cluster::redis::seals::ClusterKey;
        Seals::new(&ClusterKey { id: "c".to_owned(), secret: b"one".to_vec(), others: Vec::new() })
    }

    #[test]
    fn a_frame_comes_back_and_fields_of_later_releases_do_not_matter() {
        let payload = Payload::control(&Control::Here { lost: true });
        let bytes = encode(&seals(), "a", &origin(), (7, true), &payload);
        let frame = decode(&bytes).expect("own frame");
        assert!(frame.is_signed(&seals(), "a"));
        assert!(!frame.is_signed(&seals(), "b"), "it was published elsewhere");
        assert_eq!((frame.seq, frame.first, frame.node), (7, true, "n:1"));
        assert!(frame.body.is_none());

        let later = serde_json::json!({
            "v": 2, "node": "n", "incarnation": 3, "seq": 9, "later": {"a": [1]}, "first": true,
        });
        let bytes = rmp_serde::to_vec_named(&later).expect("plain");
        assert_eq!(decode(&bytes).expect("tolerant").seq, 9);
    }

    #[test]
    fn an_unknown_kind_is_an_error_of_the_body_alone() {
        let unknown = rmp_serde::to_vec_named(&serde_json::json!({"kind": "later"}));
        let payload = Payload::Body(unknown.expect("plain"));
        let bytes = encode(&seals(), "a", &origin(), (1, false), &payload);
        let frame = decode(&bytes).expect("the frame is whole");
        assert!(rmp_serde::from_slice::<BusMessage>(frame.body.expect("a body")).is_err());
    }
}
