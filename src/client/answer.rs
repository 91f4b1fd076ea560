//! What a broker says, as a client reads it.
//!
//! [`ServerMessage`](crate::protocol::ServerMessage) is only ever written; this
//! is its counterpart, made of the same structs. What a client does not know it
//! keeps as it came: brokers may be newer than their clients.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use crate::codec::Codec;
use crate::protocol::{
    Ack, AuditResult, AuditVerifyResult, BanAck, BansList, DisconnectAck, ErrorFrame, HelloAck,
    KickAck, MessageStatusResult, PeersList, Push, RequestId, UnbanAck,
};

/// One frame from a broker.
#[derive(Clone, Debug)]
pub struct AnswerFrame {
    /// The request that it answers, if it answers one.
    pub req_id: Option<RequestId>,
    /// What it says.
    pub answer: Answer,
}

/// What a broker may say.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The session is active.
    HelloAck(Box<HelloAck>),
    /// A send was taken or refused; also answers setters.
    Ack(Ack),
    /// Something was refused.
    Error(ErrorFrame),
    /// A message or a system event.
    Push(Box<Push>),
    /// Answers `list_peers`.
    PeersList(PeersList),
    /// Answers `message_status`.
    MessageStatusResult(MessageStatusResult),
    /// Answers `kick`.
    KickAck(KickAck),
    /// Answers `disconnect`.
    DisconnectAck(DisconnectAck),
    /// Answers `ban`.
    BanAck(BanAck),
    /// Answers `unban`.
    UnbanAck(UnbanAck),
    /// Answers `list_bans`.
    ListBansResult(BansList),
    /// Answers `audit_query`.
    AuditResult(AuditResult),
    /// Answers `audit_verify`.
    AuditVerifyResult(AuditVerifyResult),
    /// Something that this client has no type for.
    Other {
        /// Its `type`.
        kind: String,
        /// All of it; null if it has no form as JSON.
        body: Value,
    },
}

impl AnswerFrame {
    /// Reads one frame.
    ///
    /// # Errors
    /// A sentence that says what does not fit.
    pub fn read(codec: Codec, frame: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Head<'a> {
            #[serde(borrow, rename = "type")]
            kind: Cow<'a, str>,
            #[serde(default, rename = "_reqId")]
            req_id: Option<RequestId>,
        }
        let head: Head<'_> = codec.read(frame)?;
        let answer = match head.kind.as_ref() {
            "push" | "inbound" => Answer::Push(codec.read(frame)?),
            "ack" => Answer::Ack(codec.read(frame)?),
            "hello_ack" => Answer::HelloAck(codec.read(frame)?),
            "error" => Answer::Error(codec.read(frame)?),
            "peers_list" => Answer::PeersList(codec.read(frame)?),
            "message_status_result" => Answer::MessageStatusResult(codec.read(frame)?),
            "kick_ack" => Answer::KickAck(codec.read(frame)?),
            "disconnect_ack" => Answer::DisconnectAck(codec.read(frame)?),
            "ban_ack" => Answer::BanAck(codec.read(frame)?),
            "unban_ack" => Answer::UnbanAck(codec.read(frame)?),
            "list_bans_result" => Answer::ListBansResult(codec.read(frame)?),
            "audit_result" => Answer::AuditResult(codec.read(frame)?),
            "audit_verify_result" => Answer::AuditVerifyResult(codec.read(frame)?),
            kind => Answer::Other {
                kind: kind.to_owned(),
                body: codec.read(frame).unwrap_or(Value::Null),
            },
        };
        Ok(Self { req_id: head.req_id, answer })
    }
}

impl Answer {
    /// The `type`, for an error that says what came instead.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::HelloAck(_) => "hello_ack",
            Self::Ack(_) => "ack",
            Self::Error(_) => "error",
            Self::Push(_) => "push",
            Self::PeersList(_) => "peers_list",
            Self::MessageStatusResult(_) => "message_status_result",
            Self::KickAck(_) => "kick_ack",
            Self::DisconnectAck(_) => "disconnect_ack",
            Self::BanAck(_) => "ban_ack",
            Self::UnbanAck(_) => "unban_ack",
            Self::ListBansResult(_) => "list_bans_result",
            Self::AuditResult(_) => "audit_result",
            Self::AuditVerifyResult(_) => "audit_verify_result",
            Self::Other { kind, .. } => kind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::id::MeshId;
    use crate::protocol::{ServerMessage, SystemEvent};

    fn read_back(message: &ServerMessage, req_id: Option<&RequestId>) -> [AnswerFrame; 2] {
        [Codec::Json, Codec::MsgPack].map(|codec| {
            AnswerFrame::read(codec, &codec.encode(message, req_id)).expect("own frame")
        })
    }

    #[test]
    fn what_the_broker_writes_is_read_in_both_codings() {
        let event =
            SystemEvent { event: "peer_left".into(), data: serde_json::json!({"name": "b"}) };
        let push = event.into_push(MeshId::from("m"), Timestamp::from_ms(5));
        for frame in read_back(&ServerMessage::Push(Box::new(push)), None) {
            let Answer::Push(push) = frame.answer else { panic!("{frame:?}") };
            assert_eq!(push.event.as_deref(), Some("peer_left"));
            assert_eq!(push.created_at, Timestamp::from_ms(5));
        }
        let req_id = RequestId::Text("r7".to_owned());
        let error = ServerMessage::Error(ErrorFrame::new("forbidden", "no"));
        for frame in read_back(&error, Some(&req_id)) {
            assert_eq!(frame.req_id.as_ref(), Some(&req_id));
            let Answer::Error(error) = frame.answer else { panic!("{frame:?}") };
            assert_eq!(error.code, "forbidden");
        }
        let list =
            ServerMessage::PeersList(PeersList { peers: Vec::new(), more: false, cursor: None });
        for frame in read_back(&list, Some(&req_id)) {
            assert!(matches!(frame.answer, Answer::PeersList(_)), "{frame:?}");
        }
    }

    #[test]
    fn a_newer_brokers_answer_is_kept_as_it_came() {
        let frame = br#"{"type":"state_result","key":"k","_reqId":3}"#;
        let frame = AnswerFrame::read(Codec::Json, frame).expect("an object");
        assert_eq!(frame.req_id, Some(RequestId::Number(3)));
        let Answer::Other { kind, body } = &frame.answer else { panic!("{frame:?}") };
        assert_eq!((kind.as_str(), &body["key"]), ("state_result", &Value::from("k")));
        assert!(AnswerFrame::read(Codec::Json, b"[]").is_err());
        assert!(AnswerFrame::read(Codec::Json, br#"{"type":"ack"}"#).is_err());
    }
}
