//! One frame from a broker, of which only the head is read yet. What a client does not
//! know it keeps as it came: brokers may be newer than their clients.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio_tungstenite::tungstenite::Message;

use super::error::{ClientError, Rejection};
use crate::codec::Codec;
use crate::protocol::{Answer, RequestId};

#[derive(Clone, Debug)]
pub(super) struct Heard {
    /// The request that it answers, if it answers one.
    pub(super) req_id: Option<RequestId>,
    /// The frame's `type`.
    pub(super) kind: String,
    codec: Codec,
    frame: Bytes,
}

impl Heard {
    /// Reads the head of a data frame; `None` for control frames.
    pub(super) fn of(codec: Codec, frame: &Message) -> Option<Result<Self, String>> {
        match frame {
            Message::Text(text) => Some(Self::head(Codec::Json, text.clone().into())),
            Message::Binary(bytes) => Some(Self::head(codec, bytes.clone())),
            _ => None,
        }
    }

    fn head(codec: Codec, frame: Bytes) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Head<'a> {
            #[serde(borrow, rename = "type")]
            kind: Cow<'a, str>,
            #[serde(default, rename = "_reqId")]
            req_id: Option<RequestId>,
        }
        let Head { kind, req_id } = codec.read(&frame)?;
        let kind = kind.into_owned();
        Ok(Self { req_id, kind, codec, frame })
    }

    /// Reads the rest.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, String> {
        self.codec.read(&self.frame)
    }

    /// Reads the rest as an answer of the expected kind.
    pub(super) fn answer<T: Answer>(&self) -> Result<T, ClientError> {
        if self.kind != T::TYPE {
            return Err(ClientError::Unexpected(self.kind.clone()));
        }
        let unread = |reason| ClientError::Unexpected(format!("{}: {reason}", self.kind));
        let answer: T = self.read().map_err(unread)?;
        match answer.refusal() {
            Some(refusal) => Err(ClientError::Rejected(Box::new(Rejection::new(refusal)))),
            None => Ok(answer),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::clock::Timestamp;
    use crate::id::MeshId;
    use crate::protocol::{Ack, BansList, ErrorFrame, PeersList, Push, ServerMessage, SystemEvent};

    fn read_back(encode: impl Fn(Codec) -> Bytes) -> [Heard; 2] {
        [Codec::Json, Codec::MsgPack]
            .map(|codec| Heard::head(codec, encode(codec)).expect("own frame"))
    }

    #[test]
    fn an_ack_that_says_why_not_is_no_answer() {
        let (id, message_id) = (String::new(), String::new());
        let error = Some("no".to_owned());
        let ack = Ack { id, message_id, error, ..Ack::default() };
        for heard in read_back(|codec| codec.encode(&ServerMessage::Ack(ack.clone()), None)) {
            let answer = heard.answer::<Ack>();
            assert!(matches!(answer, Err(ClientError::Rejected(why)) if why.reason == "no"));
        }
    }

    #[test]
    fn what_the_broker_writes_is_read_in_both_codings() {
        let event =
            SystemEvent { event: "peer_left".into(), data: serde_json::json!({"name": "b"}) };
        let push = event.into_push(MeshId::from("m"), Timestamp::from_ms(5));
        let push = ServerMessage::Push(Box::new(push));
        for heard in read_back(|codec| codec.encode(&push, None)) {
            let push: Push = heard.read().expect("a push");
            assert_eq!(push.event.as_deref(), Some("peer_left"));
            assert_eq!(push.created_at, Timestamp::from_ms(5));
        }
        let req_id = RequestId::Text("r7".to_owned());
        let error = ServerMessage::Error(ErrorFrame::new("forbidden", "no"));
        for heard in read_back(|codec| codec.encode(&error, Some(&req_id))) {
            assert_eq!(heard.req_id.as_ref(), Some(&req_id));
            let error: ErrorFrame = heard.read().expect("an error");
            assert_eq!(error.code, "forbidden");
        }
        let list = PeersList { peers: Vec::new(), more: false, cursor: None };
        for heard in read_back(|codec| codec.encode_answer(&list, Some(&req_id))) {
            assert_eq!(heard.req_id.as_ref(), Some(&req_id));
            assert!(heard.answer::<PeersList>().is_ok_and(|list| list.peers.is_empty()));
            let other = heard.answer::<BansList>();
            assert!(matches!(other, Err(ClientError::Unexpected(kind)) if kind == "peers_list"));
        }
    }

    #[test]
    fn a_newer_brokers_answer_is_kept_as_it_came() {
        let frame = br#"{"type":"state_result","key":"k","_reqId":3}"#;
        let heard = Heard::head(Codec::Json, Bytes::from_static(frame)).expect("an object");
        assert_eq!(heard.req_id, Some(RequestId::Number(3)));
        let body: Value = heard.read().expect("a form as JSON");
        assert_eq!((heard.kind.as_str(), &body["key"]), ("state_result", &Value::from("k")));
        assert!(Heard::head(Codec::Json, Bytes::from_static(b"[]")).is_err());
        let ack = Heard::head(Codec::Json, Bytes::from_static(br#"{"type":"ack"}"#));
        assert!(ack.expect("a head").answer::<Ack>().is_err());
    }
}
