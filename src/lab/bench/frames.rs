//! The frames of a run: made before the clock starts, read back while it runs.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::Message;

use crate::auth::{MulticastProof, SecretKey};
use crate::client::{ClientError, socket};
use crate::codec::Codec;
use crate::id::Key;
use crate::protocol::{Blob, Priority, Send};
use crate::sealing::many;
use crate::sealing::{self, BoxKey, Sealed};

/// Bytes of a text that say whose it is and which one.
pub(super) const HEADER_BYTES: usize = 16;

/// What the text of a message says: whose it is, and which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The sender's place among all peers.
    pub(super) sender: u32,
    /// The how-manieth message of that sender this is.
    pub(super) number: u32,
}

impl Stamp {
    /// A text of `bytes` bytes that says so; text, since what goes to many is carried as
    /// text.
    pub(super) fn text(self, bytes: usize) -> String {
        let mut text = format!("{:08x}{:08x}", self.sender, self.number);
        text.extend(std::iter::repeat_n('x', bytes.saturating_sub(HEADER_BYTES)));
        text
    }

    /// Reads a stamp back from a text.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        let half = |at: usize| {
            let digits = std::str::from_utf8(text.get(at..at + 8)?).ok()?;
            u32::from_str_radix(digits, 16).ok()
        };
        let filler = text.get(HEADER_BYTES..)?;
        let whole = filler.iter().all(|byte| *byte == b'x');
        whole.then_some(Self { sender: half(0)?, number: half(8)? })
    }

    /// The `id` of the message's frame: the floor passes frames on as they are, and this
    /// is how a recipient tells there who sent it.
    fn frame_id(self) -> String {
        format!("{:x}.{:x}", self.sender, self.number)
    }

    /// Reads a frame's id back.
    pub(super) fn from_frame_id(id: &str) -> Option<Self> {
        let (sender, number) = id.split_once('.')?;
        let sender = u32::from_str_radix(sender, 16).ok()?;
        Some(Self { sender, number: u32::from_str_radix(number, 16).ok()? })
    }
}

/// What a peer needs to seal for all others.
pub(super) struct ToMany<'a> {
    /// By which it signs.
    pub(super) own: &'a SecretKey,
    /// The others' keys.
    pub(super) recipients: Vec<Key>,
    /// What it shares with each of them.
    pub(super) boxes: HashMap<Key, Arc<BoxKey>>,
}

/// How the frames of a run are made.
#[derive(Clone, Debug)]
pub(super) struct Form {
    pub(super) codec: Codec,
    /// Bytes of a message's text.
    pub(super) bytes: usize,
    /// The beginning of each idempotence key; none are sent without.
    pub(super) key_prefix: Option<String>,
}

impl Form {
    /// A `send` for a key (with the box between the two) or for many, in clear.
    pub(super) fn send(
        &self,
        stamp: Stamp,
        target: &str,
        sealing: Option<&BoxKey>,
    ) -> Result<Message, ClientError> {
        let text = stamp.text(self.bytes);
        let sealed: Sealed = match sealing {
            Some(shared) => shared.seal(text.as_bytes()).ok_or(sealing::InvalidRecipient)?,
            None => sealing::plain(&text),
        };
        let key = self.key_prefix.as_ref().map(|prefix| format!("{prefix}{}", stamp.frame_id()));
        self.frame(stamp, target, &sealed, key.as_deref(), None)
    }

    /// A `send` to everyone, sealed for all of them.
    pub(super) fn send_sealed(
        &self,
        stamp: Stamp,
        mesh: &str,
        to: &ToMany<'_>,
    ) -> Result<Message, ClientError> {
        let text = stamp.text(self.bytes);
        let shared = |key: &Key| to.boxes.get(key).cloned();
        let many = many::seal(text.as_bytes(), &to.recipients, shared);
        let many = many.ok_or(sealing::InvalidRecipient)?;
        // The signature needs one.
        let prefix = self.key_prefix.as_deref().unwrap_or_default();
        let id = format!("{prefix}{}", stamp.frame_id());
        let proof = MulticastProof {
            mesh,
            target_spec: "*",
            client_message_id: &id,
            nonce_b64: &many.sealed.nonce_b64,
            ciphertext: &many.ciphertext,
        };
        let signature = proof.sign(to.own).ok_or(sealing::InvalidRecipient)?;
        self.frame(stamp, "*", &many.sealed, Some(&id), Some((many.keys, signature)))
    }

    fn frame(
        &self,
        stamp: Stamp,
        target: &str,
        sealed: &Sealed,
        key: Option<&str>,
        many: Option<(BTreeMap<Key, String>, String)>,
    ) -> Result<Message, ClientError> {
        #[derive(Serialize)]
        struct Frame<'a> {
            r#type: &'static str,
            #[serde(flatten)]
            send: Send<'a>,
        }
        let id = stamp.frame_id();
        let (sealed_keys, signature) = many.unzip();
        let send = Send {
            id: Some(Cow::Borrowed(&id)),
            target_spec: Cow::Borrowed(target),
            priority: Priority::Next,
            nonce: Blob::from_text(sealed.nonce_b64.as_str()),
            ciphertext: Blob::from_text(sealed.ciphertext_b64.as_str()),
            client_message_id: key.map(Cow::Borrowed),
            request_fingerprint: None,
            reply_to_id: None,
            body_version: None,
            mentions: None,
            ttl_ms: None,
            thread_id: None,
            expects_reply: None,
            supersedes: None,
            receipt: None,
            sealed_keys: sealed_keys.map(Box::new),
            signature: signature.map(String::into_boxed_str),
        };
        socket::encode(self.codec, &Frame { r#type: "send", send })
    }

    /// A `client_ack`.
    pub(super) fn confirmation(&self, message_id: &str) -> Result<Message, ClientError> {
        #[derive(Serialize)]
        struct Frame<'a> {
            r#type: &'static str,
            #[serde(rename = "brokerMessageId")]
            broker_message_id: &'a str,
        }
        let frame = Frame { r#type: "client_ack", broker_message_id: message_id };
        socket::encode(self.codec, &frame)
    }
}

/// As much of any frame as a run looks at; read in one pass, without copies.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Heard<'a> {
    /// The `type`.
    #[serde(rename = "type")]
    pub(super) kind: &'a str,
    /// The `id` of the send that an ack answers, or that the floor passed on.
    #[serde(default)]
    pub(super) id: Option<&'a str>,
    /// The broker's id of a push.
    #[serde(default)]
    pub(super) message_id: Option<&'a str>,
    /// `system` for events.
    #[serde(default)]
    pub(super) subtype: Option<&'a str>,
    /// Whose secret sealed a push.
    #[serde(default)]
    pub(super) sender_pubkey: Option<&'a str>,
    #[serde(default, borrow)]
    pub(super) nonce: Option<Blob<'a>>,
    #[serde(default, borrow)]
    pub(super) ciphertext: Option<Blob<'a>>,
    /// The key of a ciphertext that is sealed for many.
    #[serde(default)]
    pub(super) sealed_key: Option<&'a str>,
    #[serde(default)]
    pub(super) queued: bool,
    /// The reason for a refusal, in an ack.
    #[serde(default)]
    pub(super) error: Option<String>,
}

impl<'a> Heard<'a> {
    /// Reads a data frame; `None` for control frames.
    pub(super) fn read(codec: Codec, frame: &'a Message) -> Option<Result<Self, String>> {
        match frame {
            Message::Text(text) => Some(Codec::Json.read(text.as_bytes())),
            Message::Binary(bytes) => Some(codec.read(bytes)),
            _ => None,
        }
    }

    /// Whether the frame is a message (not an event, not an answer). The floor passes
    /// on what was sent.
    pub(super) fn is_message(&self) -> bool {
        matches!(self.kind, "push" | "send") && self.subtype != Some("system")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { sender: 7, number: 0x1_0001 };

    #[test]
    fn a_text_says_whose_it_is_at_any_length() {
        for bytes in [0, HEADER_BYTES, 200] {
            let text = STAMP.text(bytes);
            assert_eq!(text.len(), bytes.max(HEADER_BYTES));
            assert_eq!(Stamp::read(text.as_bytes()), Some(STAMP));
        }
        for odd in [&b""[..], b"0000000x00000000", b"0000000000000000y"] {
            assert_eq!(Stamp::read(odd), None);
        }
        assert_eq!(Stamp::from_frame_id(&STAMP.frame_id()), Some(STAMP));
        assert_eq!(Stamp::from_frame_id("7"), None);
    }

    #[test]
    fn a_frame_is_read_back_in_both_codings() {
        let (mine, theirs) = (SecretKey::generate(), SecretKey::generate());
        let shared = BoxKey::between(&mine, &theirs.public_key()).expect("a key");
        for codec in [Codec::Json, Codec::MsgPack] {
            let form = Form { codec, bytes: 32, key_prefix: Some("k".to_owned()) };
            let target = theirs.public_key();
            let frame = form.send(STAMP, target.as_str(), Some(&shared)).expect("a frame");
            let heard = Heard::read(codec, &frame).expect("data").expect("readable");
            assert!(heard.is_message());
            assert_eq!(heard.id.and_then(Stamp::from_frame_id), Some(STAMP));
            let (nonce, ciphertext) = (heard.nonce.expect("set"), heard.ciphertext.expect("set"));
            let text = shared.open(nonce.as_text(), ciphertext.as_text()).expect("a box");
            assert_eq!(Stamp::read(&text), Some(STAMP));
        }
    }
}
