//! Bytes to protocol and back. Pure.
//!
//! Two codings of the same messages: JSON in text frames (the default) and
//! MessagePack maps in binary frames (subprotocol
//! [`MSGPACK_SUBPROTOCOL`]), where `nonce` and `ciphertext` are bytes.
//!
//! Decoding borrows: a `send`'s ciphertext is a slice of the frame until the
//! session copies it.

mod surrogates;

use std::borrow::Cow;
use std::fmt;
use std::sync::OnceLock;

use bytes::Bytes;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::limits;
use crate::protocol::{
    ClientMessage, EmptyRead, Group, GroupRequest, Request, RequestId, Send, ServerMessage,
    SetVisible, Status,
};

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
    message: ServerMessage,
    json: OnceLock<Bytes>,
    msgpack: OnceLock<Bytes>,
}

impl SharedFrame {
    /// Wraps a message; nothing is encoded yet.
    #[must_use]
    pub fn new(message: ServerMessage) -> Self {
        Self { message, json: OnceLock::new(), msgpack: OnceLock::new() }
    }

    /// The frame in that coding.
    #[must_use]
    pub fn bytes(&self, codec: Codec) -> Bytes {
        let slot = match codec {
            Codec::Json => &self.json,
            Codec::MsgPack => &self.msgpack,
        };
        slot.get_or_init(|| codec.encode(&self.message, None)).clone()
    }
}

/// Why a frame is no request.
#[derive(Clone, Debug, PartialEq)]
pub enum DecodeError {
    /// No JSON object, or no MessagePack map.
    Malformed,
    /// An object whose `type` this broker does not know.
    UnknownType {
        /// The type as sent, cut to a length fit for a log.
        kind: String,
        /// The request's id.
        req_id: Option<RequestId>,
    },
    /// A known type with fields that are missing or of the wrong kind.
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

/// The fields that decide how the rest is read.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Scalar<'a>,
    #[serde(borrow, default, rename = "_reqId")]
    req_id: Scalar<'a>,
    #[serde(borrow, default)]
    id: Scalar<'a>,
}

/// Text or a whole number; whatever else stands there is passed over.
#[derive(Default)]
enum Scalar<'a> {
    Text(Cow<'a, str>),
    Number(i64),
    #[default]
    Other,
}

impl<'a> Scalar<'a> {
    fn into_text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(_) | Self::Other => None,
        }
    }

    fn into_request_id(self) -> Option<RequestId> {
        let id = match self {
            Self::Text(text) if text.len() <= limits::REQ_ID_BYTES_MAX => {
                RequestId::Text(text.into_owned())
            }
            Self::Number(number) => RequestId::Number(number),
            Self::Text(_) | Self::Other => return None,
        };
        id.is_given().then_some(id)
    }
}

/// Written by hand: a derived untagged enum would copy the value first, and
/// this is read for every frame.
impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("anything")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(number).map_or(Scalar::Other, Scalar::Number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }

    /// A MessagePack extension.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Self::Value, D::Error> {
        IgnoredAny::deserialize(inner).map(|_| Scalar::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
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
        let req_id = head.req_id.into_request_id();
        let kind = head.kind.into_text().unwrap_or_default();
        let id = head.id.into_text().map(Cow::into_owned);
        if kind == "send" {
            let reason = "half of a surrogate pair is no text".to_owned();
            return Err(DecodeError::Invalid { kind: "send", req_id, id, reason });
        }
        match self.decode_owned(&kind, mended) {
            Ok(Some(message)) => Ok(Request { req_id, message }),
            Ok(None) => Err(DecodeError::UnknownType {
                kind: kind.chars().take(limits::LOGGED_TYPE_CHARS).collect(),
                req_id,
            }),
            Err((kind, reason)) => Err(DecodeError::Invalid { kind, req_id, id, reason }),
        }
    }

    fn decode_strictly<'a>(self, frame: &'a [u8]) -> Result<Request<'a>, DecodeError> {
        let head: Head<'a> = self.parse(frame).map_err(|_| DecodeError::Malformed)?;
        let req_id = head.req_id.into_request_id();
        let kind = head.kind.into_text().unwrap_or_default();
        let id = head.id.into_text();
        match self.decode_kind(&kind, frame) {
            Ok(Some(message)) => Ok(Request { req_id, message }),
            Ok(None) => Err(DecodeError::UnknownType {
                kind: kind.chars().take(limits::LOGGED_TYPE_CHARS).collect(),
                req_id,
            }),
            Err((kind, reason)) => {
                Err(DecodeError::Invalid { kind, req_id, id: id.map(Cow::into_owned), reason })
            }
        }
    }

    fn decode_kind<'a>(
        self,
        kind: &str,
        frame: &'a [u8],
    ) -> Result<Option<ClientMessage<'a>>, (&'static str, String)> {
        if kind == "send" {
            let send = self.parse::<Send<'a>>(frame).map_err(|why| ("send", why))?;
            return Ok(Some(ClientMessage::Send(send)));
        }
        self.decode_owned(kind, frame)
    }

    /// All but a `send`, which alone is borrowed from its frame.
    fn decode_owned(
        self,
        kind: &str,
        frame: &[u8],
    ) -> Result<Option<ClientMessage<'static>>, (&'static str, String)> {
        use ClientMessage as M;
        Ok(Some(match kind {
            "client_ack" => M::ClientAck(self.body("client_ack", frame)?),
            "hello" => M::Hello(self.body("hello", frame)?),
            "session_hello" => M::SessionHello(self.body("session_hello", frame)?),
            "message_status" => M::MessageStatus(self.body("message_status", frame)?),
            "list_peers" => M::ListPeers(self.body("list_peers", frame)?),
            "set_status" => {
                #[derive(Deserialize)]
                struct SetStatus {
                    status: Status,
                }
                M::SetStatus(self.body::<SetStatus>("set_status", frame)?.status)
            }
            "set_summary" => {
                #[derive(Deserialize)]
                struct SetSummary {
                    #[serde(default)]
                    summary: Option<String>,
                }
                M::SetSummary(
                    self.body::<SetSummary>("set_summary", frame)?.summary.unwrap_or_default(),
                )
            }
            "set_visible" => M::SetVisible(self.body::<SetVisible>("set_visible", frame)?.visible),
            "set_profile" => M::SetProfile(self.body("set_profile", frame)?),
            "set_stats" => {
                #[derive(Deserialize)]
                struct SetStats {
                    #[serde(default)]
                    stats: crate::protocol::Stats,
                }
                M::SetStats(self.body::<SetStats>("set_stats", frame)?.stats)
            }
            "join_group" => M::JoinGroup(self.body::<Group>("join_group", frame)?),
            "leave_group" => M::LeaveGroup(self.body::<GroupRequest>("leave_group", frame)?.name),
            "kick" => M::Kick(self.body("kick", frame)?),
            "disconnect" => M::Disconnect(self.body("disconnect", frame)?),
            "ban" => M::Ban(self.body("ban", frame)?),
            "unban" => M::Unban(self.body("unban", frame)?),
            "list_bans" => M::ListBans(self.body("list_bans", frame)?),
            "audit_query" => M::AuditQuery(self.body("audit_query", frame)?),
            "audit_verify" => M::AuditVerify,
            _ => match EmptyRead::kind(kind) {
                Some(kind) => M::Empty(EmptyRead { kind, named: self.body(kind, frame)? }),
                None => return Ok(None),
            },
        }))
    }

    fn body<T: DeserializeOwned>(
        self,
        kind: &'static str,
        frame: &[u8],
    ) -> Result<T, (&'static str, String)> {
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
        let encoded = match req_id {
            None => self.write(message),
            Some(req_id) => self.write(&Reply { message, req_id }),
        };
        debug_assert!(encoded.is_ok(), "every server message has a form: {encoded:?}");
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
