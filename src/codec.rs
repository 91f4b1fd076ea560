//! Bytes to protocol and back. Pure.
//!
//! Two codings of the same messages: JSON in text frames (the default) and
//! MessagePack maps in binary frames (subprotocol
//! [`MSGPACK_SUBPROTOCOL`]), where `nonce` and `ciphertext` are bytes.
//!
//! Decoding borrows: a `send`'s ciphertext is a slice of the frame until the
//! session copies it. Of what is neither a hello nor about a message only the head is
//! read: [`Asked`] is the rest, for the handler of that request to read.

mod asked;
mod extended;
mod head;
mod surrogates;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::asked::Asked;
use self::head::Head;
use crate::limits;
use crate::protocol::{Answer, ClientAck, Greeting, RequestId, Send, ServerMessage};

/// The subprotocol that asks for JSON; also what no subprotocol means.
pub const JSON_SUBPROTOCOL: &str = "claudemesh.v1.json";
/// The subprotocol that asks for MessagePack.
pub const MSGPACK_SUBPROTOCOL: &str = "claudemesh.v1.msgpack";

/// How a connection's messages are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Text frames.
    Json,
    /// Binary frames.
    MsgPack,
}

/// A message that many sockets get: encoded once per codec, then shared.
#[derive(Debug)]
pub struct SharedFrame {
    content: Content,
    json: OnceLock<Bytes>,
    msgpack: OnceLock<Bytes>,
}

/// What a shared frame is encoded from.
#[derive(Debug)]
enum Content {
    Message(ServerMessage),
    /// A frame that others share, and a field that only some get.
    Extended {
        frame: Arc<SharedFrame>,
        name: &'static str,
        value: String,
    },
}

impl SharedFrame {
    /// Wraps a message; nothing is encoded yet.
    #[must_use]
    pub fn new(message: ServerMessage) -> Self {
        Self::of(Content::Message(message))
    }

    /// That frame with one more text field. What is common is still encoded once.
    #[must_use]
    pub fn with_field(frame: &Arc<Self>, name: &'static str, value: &str) -> Self {
        Self::of(Content::Extended { frame: Arc::clone(frame), name, value: value.to_owned() })
    }

    const fn of(content: Content) -> Self {
        Self { content, json: OnceLock::new(), msgpack: OnceLock::new() }
    }

    /// The frame in that coding.
    #[must_use]
    pub fn bytes(&self, codec: Codec) -> Bytes {
        let slot = match codec {
            Codec::Json => &self.json,
            Codec::MsgPack => &self.msgpack,
        };
        let encode = || match &self.content {
            Content::Message(message) => codec.encode(message, None),
            Content::Extended { frame, name, value } => {
                extended::with_text(codec, &frame.bytes(codec), name, value)
            }
        };
        slot.get_or_init(encode).clone()
    }
}

/// One frame from a peer.
#[derive(Debug)]
pub struct Request<'a> {
    /// The `_reqId`, if there was one.
    pub req_id: Option<RequestId>,
    /// The frame's message.
    pub message: ClientMessage<'a>,
}

/// Everything that a peer may say.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "most frames are sends, and a box for each would be an allocation for each"
)]
pub enum ClientMessage<'a> {
    /// `hello` or `session_hello`: who it is.
    Hello(Greeting),
    /// `send`.
    Send(Send<'a>),
    /// `client_ack`.
    ClientAck(ClientAck),
    /// Anything else.
    Asked(Asked<'a>),
}

/// Why a frame is not what its type says.
#[derive(Clone, Debug, PartialEq)]
pub enum DecodeError {
    /// No JSON object, or no MessagePack map.
    Malformed,
    /// A type that is read here, with fields that are missing or of the wrong kind.
    Invalid {
        /// The type.
        kind: &'static str,
        /// The request's id.
        req_id: Option<RequestId>,
        /// The `id` field, if it was text.
        id: Option<String>,
        /// What is wrong, without the offending value.
        reason: String,
    },
}

impl DecodeError {
    /// The id of the request that it is about.
    #[must_use]
    pub fn req_id(&self) -> Option<&RequestId> {
        match self {
            Self::Malformed => None,
            Self::Invalid { req_id, .. } => req_id.as_ref(),
        }
    }
}

/// A value, or the type that was to be read and why it cannot be.
type Body<T> = Result<T, (&'static str, String)>;

/// A request or an answer as a frame.
#[derive(Serialize)]
pub(crate) struct Frame<'a, T: ?Sized, I> {
    /// Its `type`.
    #[serde(rename = "type")]
    pub(crate) kind: &'a str,
    #[serde(flatten)]
    pub(crate) fields: &'a T,
    #[serde(rename = "_reqId", skip_serializing_if = "Option::is_none")]
    pub(crate) req_id: Option<I>,
}

impl Codec {
    /// Reads one frame.
    ///
    /// # Errors
    ///
    /// [`DecodeError`], each kind with what is needed to answer it.
    pub fn decode<'a>(self, frame: &'a [u8]) -> Result<Request<'a>, DecodeError> {
        let decoded = self.decode_strictly(frame);
        if self == Self::Json
            && matches!(decoded, Err(DecodeError::Malformed | DecodeError::Invalid { .. }))
            && let Some(mended) = surrogates::mended(frame)
        {
            return self.decode_mended(&mended);
        }
        decoded
    }

    /// A frame in whose text halves of surrogate pairs were replaced. What a `send`
    /// carries are ids, a target and sealed bytes: changed, they are not what was
    /// sent.
    fn decode_mended(self, mended: &[u8]) -> Result<Request<'static>, DecodeError> {
        let head: Head<'_> = self.parse(mended).map_err(|_| DecodeError::Malformed)?;
        if head.kind() == "send" {
            let reason = "half of a surrogate pair is no text".to_owned();
            return Err(head.invalid("send", reason));
        }
        match self.decode_owned(head.kind(), mended) {
            Some(Ok(message)) => Ok(Request { req_id: head.into_request_id(), message }),
            Some(Err((kind, reason))) => Err(head.invalid(kind, reason)),
            None => {
                let asked = Asked::new(self, head.kind().to_owned(), mended.to_owned());
                let message = ClientMessage::Asked(asked);
                Ok(Request { req_id: head.into_request_id(), message })
            }
        }
    }

    fn decode_strictly(self, frame: &[u8]) -> Result<Request<'_>, DecodeError> {
        let head: Head<'_> = self.parse(frame).map_err(|_| DecodeError::Malformed)?;
        let decoded = match head.kind() {
            "send" => Some(self.body("send", frame).map(ClientMessage::Send)),
            kind => self.decode_owned(kind, frame),
        };
        match decoded {
            Some(Ok(message)) => Ok(Request { req_id: head.into_request_id(), message }),
            Some(Err((kind, reason))) => Err(head.invalid(kind, reason)),
            None => {
                let Head { kind, req_id, .. } = head;
                let kind = kind.into_text().unwrap_or_default();
                let message = ClientMessage::Asked(Asked::new(self, kind, frame));
                Ok(Request { req_id: req_id.into_request_id(), message })
            }
        }
    }

    /// What is read here but a `send`, which alone is borrowed from its frame.
    fn decode_owned<'m>(self, kind: &str, frame: &[u8]) -> Option<Body<ClientMessage<'m>>> {
        let hello = |greeting| ClientMessage::Hello(greeting);
        Some(match kind {
            "client_ack" => self.owned("client_ack", frame).map(ClientMessage::ClientAck),
            "hello" => self.owned("hello", frame).map(Greeting::Member).map(hello),
            "session_hello" => self.owned("session_hello", frame).map(Greeting::Session).map(hello),
            _ => return None,
        })
    }

    fn owned<T: DeserializeOwned>(self, kind: &'static str, frame: &[u8]) -> Body<T> {
        self.body(kind, frame)
    }

    fn body<'a, T: Deserialize<'a>>(self, kind: &'static str, frame: &'a [u8]) -> Body<T> {
        self.parse(frame).map_err(|why| (kind, why))
    }

    fn parse<'a, T: Deserialize<'a>>(self, frame: &'a [u8]) -> Result<T, String> {
        match self {
            Self::Json => parse_json(frame),
            Self::MsgPack => parse_msgpack(frame),
        }
    }

    /// Writes one message.
    ///
    /// A message of this protocol always has a form: an error here is a
    /// programmer's, and is asserted.
    #[must_use]
    pub fn encode(self, message: &ServerMessage, req_id: Option<&RequestId>) -> Bytes {
        #[derive(Serialize)]
        struct Reply<'a> {
            #[serde(flatten)]
            message: &'a ServerMessage,
            #[serde(rename = "_reqId")]
            req_id: &'a RequestId,
        }
        match req_id {
            None => self.write_own(message),
            Some(req_id) => self.write_own(&Reply { message, req_id }),
        }
    }

    /// Writes the answer to a request.
    #[must_use]
    pub fn encode_answer<T: Answer>(self, answer: &T, req_id: Option<&RequestId>) -> Bytes {
        self.encode_fields(T::TYPE, answer, req_id)
    }

    /// Writes an answer whose type is known by name only.
    #[must_use]
    pub fn encode_fields<T: Serialize + ?Sized>(
        self,
        kind: &str,
        fields: &T,
        req_id: Option<&RequestId>,
    ) -> Bytes {
        self.write_own(&Frame { kind, fields, req_id })
    }

    fn write_own<T: Serialize>(self, message: &T) -> Bytes {
        let encoded = self.write(message);
        debug_assert!(encoded.is_ok(), "every message of the broker has a form: {encoded:?}");
        encoded.map(Bytes::from).unwrap_or_default()
    }

    /// Writes any value of the protocol; clients use it for requests.
    ///
    /// # Errors
    ///
    /// A sentence, if the value has no form in this coding.
    pub fn write<T: Serialize + ?Sized>(self, value: &T) -> Result<Vec<u8>, String> {
        let mut out = Vec::with_capacity(512);
        match self {
            Self::Json => {
                serde_json::to_writer(&mut out, value).map_err(|error| error.to_string())?;
            }
            Self::MsgPack => {
                let mut serializer = rmp_serde::Serializer::new(&mut out).with_struct_map();
                value.serialize(&mut serializer).map_err(|error| error.to_string())?;
            }
        }
        Ok(out)
    }

    /// Reads any value; clients use it for what the broker answers.
    ///
    /// # Errors
    ///
    /// A sentence that says what does not fit.
    pub fn read<'a, T: Deserialize<'a>>(self, frame: &'a [u8]) -> Result<T, String> {
        self.parse(frame)
    }
}

fn parse_json<'a, T: Deserialize<'a>>(frame: &'a [u8]) -> Result<T, String> {
    // serde_json stops at 128 levels, so deep nesting costs nothing.
    require_object(frame.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{'))?;
    serde_json::from_slice(frame).map_err(|error| plain_reason(&error.to_string()))
}

fn parse_msgpack<'a, T: Deserialize<'a>>(frame: &'a [u8]) -> Result<T, String> {
    // fixmap, map16, map32
    require_object(matches!(frame.first(), Some(0x80..=0x8f | 0xde | 0xdf)))?;
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(frame);
    deserializer.set_max_depth(limits::MSGPACK_DEPTH_MAX);
    T::deserialize(&mut deserializer).map_err(|error| plain_reason(&error.to_string()))
}

fn require_object(is_object: bool) -> Result<(), String> {
    if is_object { Ok(()) } else { Err("a frame is one object".to_owned()) }
}

/// Parsers quote the offending value; it may be a ciphertext. What stands in
/// quotes or backticks after the first word is cut, field names are kept.
fn plain_reason(reason: &str) -> String {
    if reason.starts_with("missing field") || reason.starts_with("duplicate field") {
        return reason.split(" at line").next().unwrap_or(reason).to_owned();
    }
    let expected = reason
        .split("expected ")
        .nth(1)
        .map(|rest| rest.split(" at line").next().unwrap_or(rest).to_owned());
    match expected {
        Some(expected) => format!("a field is wrong: expected {expected}"),
        None => "a field is wrong".to_owned(),
    }
}

#[cfg(test)]
mod tests;
