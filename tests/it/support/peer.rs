//! A peer that says exactly what it is told to: a bare WebSocket.

use std::collections::VecDeque;
use std::time::Duration;

use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::client::Identity;
use claudemesh_broker::codec::MSGPACK_SUBPROTOCOL;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::broker::PATIENCE;
use super::frames::{from_msgpack, hello_frame, send_frame, session_hello_frame};

/// A connection that says what it is told to.
pub(crate) struct RawPeer {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    msgpack: bool,
    /// Frames read while another was looked for.
    skipped: VecDeque<Value>,
}

/// Something that came, or did not.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Heard {
    /// A message of the protocol.
    Frame(Value),
    /// A close frame.
    Close(u16, String),
    /// The end without a close frame.
    Lost(String),
    /// Nothing, for as long as was waited.
    Silence,
}

impl RawPeer {
    /// Opens a socket that has said nothing yet.
    pub(crate) async fn connect(url: &str) -> Self {
        Self::try_connect(url, None).await.expect("a socket")
    }

    /// As [`Self::connect`], with the MessagePack subprotocol.
    pub(crate) async fn connect_msgpack(url: &str) -> Self {
        Self::try_connect(url, Some(MSGPACK_SUBPROTOCOL)).await.expect("a socket")
    }

    /// A socket, or why there is none.
    pub(crate) async fn try_connect(url: &str, protocol: Option<&str>) -> Result<Self, WsError> {
        let mut request = url.into_client_request()?;
        if let Some(protocol) = protocol {
            let value = HeaderValue::from_str(protocol).expect("a header");
            request.headers_mut().insert("sec-websocket-protocol", value);
        }
        let (socket, _) = tokio_tungstenite::connect_async(request).await?;
        let msgpack = protocol == Some(MSGPACK_SUBPROTOCOL);
        Ok(Self { socket, msgpack, skipped: VecDeque::new() })
    }

    /// Connects and says `hello` with the member's key alone; the `hello_ack`.
    pub(crate) async fn hello(url: &str, identity: &Identity) -> (Self, Value) {
        Self::enter(url, &hello_frame(identity)).await
    }

    /// Connects and says `session_hello`; the `hello_ack`.
    pub(crate) async fn session(
        url: &str,
        identity: &Identity,
        session: &SecretKey,
    ) -> (Self, Value) {
        Self::enter(url, &session_hello_frame(identity, session)).await
    }

    /// Connects and says that; the `hello_ack`.
    pub(crate) async fn enter(url: &str, hello: &Value) -> (Self, Value) {
        let mut peer = Self::connect(url).await;
        peer.send_json(hello).await;
        let ack = peer.recv_type("hello_ack").await;
        (peer, ack)
    }

    /// Connects and says that, which must be refused; the error's code, which
    /// must be the close reason too.
    pub(crate) async fn refused(url: &str, hello: &Value) -> Value {
        let mut peer = Self::connect(url).await;
        peer.send_json(hello).await;
        let error = peer.recv_type("error").await;
        let code = error["code"].as_str().expect("a code").to_owned();
        if code == "revoked" {
            peer.expect_close(4002, "banned").await;
        } else {
            peer.expect_close(1008, &code).await;
        }
        error
    }

    /// Sends a frame in the connection's coding.
    pub(crate) async fn send_json(&mut self, frame: &Value) {
        if self.msgpack {
            self.send_binary(rmp_serde::to_vec_named(frame).expect("a frame")).await;
        } else {
            self.send_text(&frame.to_string()).await;
        }
    }

    /// Sends a text frame, whatever it holds.
    pub(crate) async fn send_text(&mut self, text: &str) {
        // A broker that has closed already is seen by reading.
        let _ = self.socket.send(Message::text(text)).await;
    }

    /// Sends a binary frame, whatever it holds.
    pub(crate) async fn send_binary(&mut self, bytes: Vec<u8>) {
        let _ = self.socket.send(Message::binary(bytes)).await;
    }

    /// Sends any frame, and says how that went.
    pub(crate) async fn send_message(&mut self, message: Message) -> Result<(), WsError> {
        self.socket.send(message).await
    }

    /// Seals `text` for a key (or leaves it open for a group) and sends it
    /// under `id`.
    pub(crate) async fn send_to(
        &mut self,
        sender: &SecretKey,
        target: &str,
        id: &str,
        priority: &str,
        text: &str,
    ) {
        self.send_json(&send_frame(sender, target, id, priority, text)).await;
    }

    /// Sends as [`Self::send_to`] and returns the ack, accepted or not.
    pub(crate) async fn send_acked(
        &mut self,
        sender: &SecretKey,
        target: &str,
        priority: &str,
        text: &str,
    ) -> Value {
        let id = claudemesh_broker::id::generate();
        self.send_to(sender, target, &id, priority, text).await;
        self.recv_where(|it| it["type"] == "ack" && it["id"] == id.as_str(), "the ack").await
    }

    /// Asks under a `_reqId` and returns the frame that has it.
    pub(crate) async fn ask(&mut self, mut request: Value) -> Value {
        let req_id = claudemesh_broker::id::generate();
        request["_reqId"] = json!(req_id);
        self.send_json(&request).await;
        self.recv_where(|frame| frame["_reqId"] == req_id.as_str(), "the answer").await
    }

    /// What comes next within `patience`.
    pub(crate) async fn recv(&mut self, patience: Duration) -> Heard {
        match self.skipped.pop_front() {
            Some(frame) => Heard::Frame(frame),
            None => self.read(Instant::now() + patience).await,
        }
    }

    async fn read(&mut self, deadline: Instant) -> Heard {
        loop {
            let Ok(next) = tokio::time::timeout_at(deadline, self.socket.next()).await else {
                return Heard::Silence;
            };
            return match next {
                Some(Ok(Message::Text(text))) => {
                    Heard::Frame(serde_json::from_str(&text).expect("JSON from the broker"))
                }
                Some(Ok(Message::Binary(bytes))) => Heard::Frame(from_msgpack(&bytes)),
                Some(Ok(Message::Close(close))) => {
                    // Sends the reply.
                    let _ = self.socket.flush().await;
                    let close = close.map(|it| (it.code.into(), it.reason.as_str().to_owned()));
                    let (code, reason) = close.unwrap_or((1005, String::new()));
                    Heard::Close(code, reason)
                }
                Some(Ok(_)) => continue,
                Some(Err(error)) => Heard::Lost(error.to_string()),
                None => Heard::Lost("the end".to_owned()),
            };
        }
    }

    /// The next frame of that type; others are kept for later.
    pub(crate) async fn recv_type(&mut self, kind: &str) -> Value {
        self.recv_where(|frame| frame["type"] == kind, kind).await
    }

    /// The next message (not an event); others are kept for later.
    pub(crate) async fn recv_message(&mut self) -> Value {
        self.recv_where(is_message, "a message").await
    }

    /// The next system event of that name about that peer.
    pub(crate) async fn recv_event(&mut self, event: &str, name: &str) -> Value {
        let wanted = |frame: &Value| is_event(frame, event, name);
        self.recv_where(wanted, &format!("{event} of {name}")).await
    }

    /// The first frame, kept or coming, for which `wanted` holds.
    pub(crate) async fn recv_where(
        &mut self,
        wanted: impl Fn(&Value) -> bool,
        what: &str,
    ) -> Value {
        if let Some(at) = self.skipped.iter().position(&wanted) {
            return self.skipped.remove(at).expect("just found");
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.read(deadline).await {
                Heard::Frame(frame) if wanted(&frame) => return frame,
                Heard::Frame(frame) => self.skipped.push_back(frame),
                other => panic!("waited for {what}, got {other:?} after {:?}", self.skipped),
            }
        }
    }

    /// Says that a delivery is done.
    pub(crate) async fn client_ack(&mut self, push: &Value) {
        let ack = json!({"type": "client_ack", "brokerMessageId": push["messageId"]});
        self.send_json(&ack).await;
    }

    /// Reads to the close frame, which must be this one.
    pub(crate) async fn expect_close(&mut self, code: u16, reason: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.read(deadline).await {
                Heard::Frame(frame) => self.skipped.push_back(frame),
                heard => {
                    assert_eq!(heard, Heard::Close(code, reason.to_owned()), "{:?}", self.skipped);
                    return;
                }
            }
        }
    }

    /// Nothing for which `unwanted` holds has come or comes within `window`.
    /// Only where silence is what is asserted.
    pub(crate) async fn expect_none(
        &mut self,
        window: Duration,
        unwanted: impl Fn(&Value) -> bool,
    ) {
        let deadline = Instant::now() + window;
        loop {
            if let Some(frame) = self.skipped.iter().find(|frame| unwanted(frame)) {
                panic!("this should not have come: {frame}");
            }
            match self.read(deadline).await {
                Heard::Frame(frame) => self.skipped.push_back(frame),
                Heard::Silence => return,
                other => panic!("silence, not {other:?}"),
            }
        }
    }

    /// Nothing at all comes within `window`.
    pub(crate) async fn expect_silence(&mut self, window: Duration) {
        self.expect_none(window, |_| true).await;
    }

    /// Returns when all that was sent before has been handled.
    pub(crate) async fn sync(&mut self) {
        let answer = self.ask(json!({"type": "list_peers"})).await;
        assert_eq!(answer["type"], "peers_list", "{answer}");
    }

    /// Says goodbye properly.
    pub(crate) async fn close(mut self) {
        let _ = self.socket.close(None).await;
        let reading = async { while let Some(Ok(_)) = self.socket.next().await {} };
        let _ = tokio::time::timeout(PATIENCE, reading).await;
    }

    /// Drops the TCP connection without a goodbye of any kind: a reset.
    pub(crate) fn drop_tcp(self) {
        if let MaybeTlsStream::Plain(tcp) = self.socket.get_ref() {
            let _ = socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO));
        }
    }
}

/// Whether a frame is a message, not an event.
pub(crate) fn is_message(frame: &Value) -> bool {
    frame["type"] == "push" && frame["subtype"] != "system"
}

/// Whether a frame is that event about that peer.
pub(crate) fn is_event(frame: &Value, event: &str, name: &str) -> bool {
    frame["type"] == "push" && frame["event"] == event && frame["eventData"]["name"] == name
}
