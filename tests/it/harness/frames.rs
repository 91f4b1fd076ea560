//! Frames on the bus of a cluster that none of its nodes wrote.

use claudemesh_broker::cluster::redis::seals::{ClusterKey, FrameWords, Seals};
use serde::Serialize;
use serde_bytes::{ByteBuf, Bytes};
use serde_json::Value;

use super::redis::PrivateRedis;

/// A program that writes to the bus beside the nodes.
pub struct Stranger {
    /// What the program calls itself.
    pub node: &'static str,
    pub incarnation: u64,
    /// The version of the program's frames.
    pub version: u32,
    /// A field that no release has today.
    pub later: Option<Value>,
}

/// Somebody who can write Redis, and is no node.
pub const EVIL: Stranger = Stranger { node: "evil", incarnation: 1, version: 1, later: None };

#[derive(Serialize)]
struct Frame<'a> {
    v: u32,
    node: &'a str,
    incarnation: u64,
    seq: u64,
    first: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    control: Option<&'a Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<ByteBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    later: Option<&'a Value>,
}

impl Stranger {
    /// Puts a frame on a channel, unsigned or signed by that key. Returns how many
    /// listened.
    pub fn says(
        &self,
        server: &PrivateRedis,
        channel: &str,
        seq: u64,
        (body, control): (Option<&Value>, Option<&Value>),
        key: Option<&ClusterKey>,
    ) -> u32 {
        let pack = |value: &Value| rmp_serde::to_vec_named(value).expect("plain");
        let (body, control) = (body.map(pack), control.map(pack));
        let words = FrameWords {
            channel,
            node: self.node,
            incarnation: self.incarnation,
            seq,
            first: seq == 1,
            body: body.as_deref(),
            control: control.as_deref(),
        };
        let frame = Frame {
            v: self.version,
            node: words.node,
            incarnation: words.incarnation,
            seq,
            first: words.first,
            body: words.body.map(Bytes::new),
            control: words.control.map(Bytes::new),
            signature: key.map(|key| ByteBuf::from(Seals::new(key).sign_frame(&words))),
            later: self.later.as_ref(),
        };
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(channel).arg(rmp_serde::to_vec_named(&frame).expect("plain"));
        server.query(&publish)
    }
}
