//! A raw socket: says exactly what a test wants said, hears everything.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use claudemesh_broker::auth::{SecretKey, sign_attestation, sign_hello, sign_session_hello};
use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::id::MeshId;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::{Member, Node, PATIENCE};

/// A WebSocket that speaks JSON.
pub struct Raw {
    pub socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Heard and not yet asked for.
    heard: VecDeque<Value>,
    requests: u32,
}

/// Now, and later than any other: the same hello signed twice within one
/// millisecond would be one signature, which is good once.
pub fn unused_now() -> Timestamp {
    static LAST_MS: AtomicI64 = AtomicI64::new(0);
    let now_ms = Timestamp::now().as_ms();
    let last_ms = LAST_MS.fetch_max(now_ms, Ordering::Relaxed);
    if last_ms < now_ms {
        return Timestamp::from_ms(now_ms);
    }
    Timestamp::from_ms(LAST_MS.fetch_add(1, Ordering::Relaxed) + 1)
}

/// A `hello` of that member, signed now. Adjust fields before saying it;
/// those that are signed need a new signature.
pub fn hello_frame(mesh: &MeshId, member: &Member) -> Value {
    let now = unused_now();
    json!({
        "type": "hello",
        "meshId": mesh,
        "memberId": member.id,
        "pubkey": member.pubkey(),
        "displayName": member.name,
        "sessionId": format!("{}-session", member.name),
        "pid": 4242,
        "cwd": format!("/work/{}", member.name),
        "hostname": "test",
        "peerType": "ai",
        "channel": "claudemesh-daemon",
        "timestamp": now.as_ms(),
        "signature": sign_hello(&member.key, mesh, &member.id, now),
    })
}

/// A `session_hello` of that member under a session key, signed now.
pub fn session_hello_frame(mesh: &MeshId, member: &Member, session: &SecretKey) -> Value {
    let now = unused_now();
    let expires_at = now.plus_ms(12 * 3_600_000);
    json!({
        "type": "session_hello",
        "meshId": mesh,
        "parentMemberId": member.id,
        "parentMemberPubkey": member.pubkey(),
        "sessionPubkey": session.public_key(),
        "parentAttestation": {
            "sessionPubkey": session.public_key(),
            "parentMemberPubkey": member.pubkey(),
            "expiresAt": expires_at.as_ms(),
            "signature": sign_attestation(&member.key, &session.public_key(), expires_at),
        },
        "displayName": member.name,
        "sessionId": format!("{}-launch", member.name),
        "pid": 4243,
        "cwd": format!("/work/{}", member.name),
        "hostname": "test",
        "peerType": "ai",
        "channel": "claudemesh-session",
        "timestamp": now.as_ms(),
        "signature": sign_session_hello(session, mesh, &member.pubkey(), now),
    })
}

impl Raw {
    /// An open socket that has said nothing.
    pub async fn connect(node: &Node) -> Self {
        let (socket, _) = connect_async(node.url()).await.expect("an upgrade");
        Self::of(socket)
    }

    /// Over a socket that is open already.
    pub fn of(socket: WebSocketStream<MaybeTlsStream<TcpStream>>) -> Self {
        Self { socket, heard: VecDeque::new(), requests: 0 }
    }

    /// An active member connection (client `claudemesh-daemon`: it confirms).
    pub async fn hello(node: &Node, member: &Member) -> Self {
        Self::hello_with(node, member, |_| {}).await.0
    }

    /// As above, with the frame adjusted; also the `hello_ack`.
    pub async fn hello_with(
        node: &Node,
        member: &Member,
        adjust: impl FnOnce(&mut Value),
    ) -> (Self, Value) {
        let mut raw = Self::connect(node).await;
        let mut frame = hello_frame(&node.mesh, member);
        adjust(&mut frame);
        raw.say(frame).await;
        let ack = raw.hear("hello_ack").await;
        (raw, ack)
    }

    /// An active session connection; also the `hello_ack`.
    pub async fn session(node: &Node, member: &Member, session: &SecretKey) -> (Self, Value) {
        let mut raw = Self::connect(node).await;
        raw.say(session_hello_frame(&node.mesh, member, session)).await;
        let ack = raw.hear("hello_ack").await;
        (raw, ack)
    }

    /// A socket that says this hello; also what it hears first.
    pub async fn greet(node: &Node, hello: Value) -> (Self, Value) {
        let mut raw = Self::connect(node).await;
        raw.say(hello).await;
        let answer = raw.greeting().await;
        (raw, answer)
    }

    /// Says this hello, which must be refused: the error frame, then the close.
    pub async fn refused(node: &Node, hello: Value) -> (Value, (u16, String)) {
        let (mut raw, answer) = Self::greet(node, hello).await;
        assert_eq!(answer["type"], "error", "{answer}");
        let close = raw.closed().await;
        assert!(raw.heard.is_empty(), "an error frame, then the close: {:?}", raw.heard);
        (answer, close)
    }

    pub async fn say(&mut self, frame: Value) {
        self.say_text(frame.to_string()).await;
    }

    pub async fn say_text(&mut self, text: String) {
        self.socket.send(Message::Text(text.into())).await.expect("an open socket");
    }

    /// The next frame of that type; others heard before it are kept.
    pub async fn hear(&mut self, kind: &str) -> Value {
        self.hear_where(kind, |_| true).await
    }

    /// The next frame of that type that fits; others are kept.
    pub async fn hear_where(&mut self, kind: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.hear_one(kind, |frame| frame["type"] == kind && fits(frame)).await
    }

    /// The next frame that fits, of whatever type; others are kept.
    pub async fn hear_any(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        self.hear_one("frame that fits", fits).await
    }

    /// What answers a hello: `hello_ack` or `error`.
    async fn greeting(&mut self) -> Value {
        let answers = |frame: &Value| frame["type"] == "hello_ack" || frame["type"] == "error";
        self.hear_one("answer to a hello", answers).await
    }

    async fn hear_one(&mut self, kind: &str, fits: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.heard.iter().position(&fits) {
            return self.heard.remove(at).expect("just found");
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            match self.next(left).await {
                Some(Ok(frame)) if fits(&frame) => return frame,
                Some(Ok(frame)) => self.heard.push_back(frame),
                Some(Err(close)) => {
                    panic!("closed with {close:?} while waiting for {kind}; heard {:?}", self.heard)
                }
                None => panic!("no {kind} came; heard {:?}", self.heard),
            }
        }
    }

    /// The next message (no system event).
    pub async fn message(&mut self) -> Value {
        self.hear_where("push", |push| push["subtype"] != "system").await
    }

    /// The next system event of that name.
    pub async fn event(&mut self, name: &str) -> Value {
        self.hear_where("push", |push| push["event"] == name).await
    }

    /// Asks, and returns the one frame that answers.
    pub async fn ask(&mut self, mut request: Value) -> Value {
        self.requests += 1;
        let req_id = format!("ask-{}", self.requests);
        request["_reqId"] = json!(req_id);
        self.say(request).await;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            match self.next(left).await {
                Some(Ok(frame)) if frame["_reqId"] == req_id => return frame,
                Some(Ok(frame)) => self.heard.push_back(frame),
                other => panic!("no answer to {req_id}: {other:?}"),
            }
        }
    }

    /// Sends a message and returns its `ack`.
    pub async fn send(&mut self, target: &str, priority: &str, text: &str) -> Value {
        self.requests += 1;
        let id = format!("send-{}", self.requests);
        self.say(json!({
            "type": "send", "id": id, "targetSpec": target, "priority": priority,
            "nonce": "bm9uY2U=", "ciphertext": text,
        }))
        .await;
        self.hear_where("ack", |ack| ack["id"] == id).await
    }

    /// As above; it must be accepted. Returns the message's id.
    pub async fn sent(&mut self, target: &str, priority: &str, text: &str) -> String {
        let ack = self.send(target, priority, text).await;
        assert_eq!(ack["queued"], true, "{ack}");
        ack["messageId"].as_str().expect("an id").to_owned()
    }

    /// Confirms a push.
    pub async fn confirm(&mut self, push: &Value) {
        self.say(json!({ "type": "client_ack", "brokerMessageId": push["messageId"] })).await;
    }

    /// Waits for the close; frames before it are kept. An abnormal end is 1006.
    pub async fn closed(&mut self) -> (u16, String) {
        self.closed_within(PATIENCE).await
    }

    /// As above, for closes that come late by design.
    pub async fn closed_within(&mut self, patience: Duration) -> (u16, String) {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            match self.next(left).await {
                Some(Ok(frame)) => self.heard.push_back(frame),
                Some(Err(close)) => return close,
                None => panic!("the socket stays open; heard {:?}", self.heard),
            }
        }
    }

    /// Everything heard and not asked for until the answer to a request made
    /// now: what was sent to this socket before is in it.
    pub async fn so_far(&mut self) -> Vec<Value> {
        self.ask(json!({ "type": "list_peers" })).await;
        self.heard.drain(..).collect()
    }

    /// Everything heard and not asked for, of what was read already.
    pub fn heard(&mut self) -> Vec<Value> {
        self.heard.drain(..).collect()
    }

    /// As above, only messages: no system events, no answers.
    pub async fn messages_so_far(&mut self) -> Vec<Value> {
        let mut heard = self.so_far().await;
        heard.retain(|frame| frame["type"] == "push" && frame["subtype"] != "system");
        heard
    }

    /// Says goodbye as clients do, and waits until the broker has taken it.
    pub async fn goodbye(mut self) {
        self.socket.close(None).await.expect("an open socket");
        let _ =
            timeout(PATIENCE, async { while let Some(Ok(_)) = self.socket.next().await {} }).await;
    }

    /// `None`: nothing came in time. `Err`: the close.
    async fn next(&mut self, patience: Duration) -> Option<Result<Value, (u16, String)>> {
        loop {
            let message = timeout(patience, self.socket.next()).await.ok()?;
            return Some(match message {
                Some(Ok(Message::Text(text))) => {
                    Ok(serde_json::from_str(&text).expect("every frame is JSON"))
                }
                Some(Ok(Message::Close(Some(close)))) => {
                    Err((close.code.into(), close.reason.to_string()))
                }
                Some(Ok(Message::Close(None)) | Err(Error::ConnectionClosed)) | None => {
                    Err((1005, String::new()))
                }
                Some(Err(_)) => Err((1006, String::new())),
                Some(Ok(_)) => continue,
            });
        }
    }
}
