//! The floor: the plainest relay that can be written on the broker's socket
//! library. No proof of identity, no store, no audit; a table of sockets by
//! key, and frames passed on as they came.
//!
//! The relay gets the same frames as the broker (confirmations too, which it reads
//! and drops) and does what no broker can leave out: read a frame, find its
//! target, write it there, tell the sender. What the broker needs beyond that
//! is the price of what it promises. Sockets are set up as the broker's are.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::get;
use axum::serve::ListenerExt as _;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::{Mutex, RwLock};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;

use crate::cli::{listen, output};
use crate::codec::{Codec, JSON_SUBPROTOCOL, MSGPACK_SUBPROTOCOL};
use crate::limits;
use crate::protocol::{Ack, HelloAck, PROTOCOL_VERSION, ServerMessage};

/// Frames that wait for one socket; whoever has one more waits.
const OUTBOX_FRAMES: usize = 4096;
/// Bytes gathered before they are written.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;
/// Frames written between two flushes.
const WRITE_BATCH_FRAMES: usize = 128;

type Sockets = HashMap<String, mpsc::Sender<Message>>;

/// The sockets of each mesh.
#[derive(Clone, Default)]
struct Relay(Arc<Mutex<HashMap<String, Arc<RwLock<Sockets>>>>>);

/// As much of a frame as the relay looks at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Frame<'a> {
    r#type: &'a str,
    #[serde(default)]
    id: Option<&'a str>,
    #[serde(default)]
    target_spec: Option<&'a str>,
    #[serde(default)]
    mesh_id: Option<&'a str>,
    #[serde(default)]
    pubkey: Option<&'a str>,
    #[serde(default)]
    session_pubkey: Option<&'a str>,
}

/// Serves on a free port, prints it, and goes on until it is killed.
pub(super) async fn run() -> anyhow::Result<ExitCode> {
    listen::raise_open_files();
    // The backlog is the broker's: a short one would make a storm wait for TCP.
    let listener = listen::bind_to(Ipv4Addr::LOCALHOST.into(), 0)?;
    output::json(&json!({"status": "listening", "port": listener.local_addr()?.port()}))?;
    let listener = listener.tap_io(|tcp| {
        let _ = tcp.set_nodelay(true);
    });
    let routes = Router::new().route("/ws", get(upgrade)).with_state(Relay::default());
    axum::serve(listener, routes).await?;
    Ok(ExitCode::SUCCESS)
}

async fn upgrade(State(relay): State<Relay>, upgrade: WebSocketUpgrade) -> Response {
    let upgrade = upgrade
        .protocols([MSGPACK_SUBPROTOCOL, JSON_SUBPROTOCOL])
        .read_buffer_size(limits::READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(limits::OUTBOX_BYTES_MAX * 2);
    let agreed = upgrade.selected_protocol().and_then(|name| name.to_str().ok());
    let codec = if agreed == Some(MSGPACK_SUBPROTOCOL) { Codec::MsgPack } else { Codec::Json };
    upgrade.on_upgrade(move |socket| serve(relay, socket, codec))
}

async fn serve(relay: Relay, socket: WebSocket, codec: Codec) {
    let (mut sink, mut stream) = socket.split();
    let (outbox, mut queued) = mpsc::channel::<Message>(OUTBOX_FRAMES);
    let writer = tokio::spawn(async move {
        let mut frames = Vec::new();
        while queued.recv_many(&mut frames, WRITE_BATCH_FRAMES).await > 0 {
            for frame in frames.drain(..) {
                if sink.feed(frame).await.is_err() {
                    return;
                }
            }
            if sink.flush().await.is_err() {
                return;
            }
        }
    });
    let Some(Ok(hello)) = stream.next().await else { return };
    let Some((key, sockets)) = relay.enter(codec, &hello, &outbox) else { return };
    let _ = outbox.send(encode(codec, &hello_ack())).await;
    while let Some(Ok(message)) = stream.next().await {
        pass_on(codec, message, &key, &sockets, &outbox).await;
    }
    sockets.write().remove(&key);
    drop(outbox);
    let _ = writer.await;
}

impl Relay {
    fn enter(
        &self,
        codec: Codec,
        hello: &Message,
        outbox: &mpsc::Sender<Message>,
    ) -> Option<(String, Arc<RwLock<Sockets>>)> {
        let frame: Frame<'_> = read(codec, hello)?;
        let key = frame.session_pubkey.or(frame.pubkey)?.to_owned();
        let mesh = frame.mesh_id?.to_owned();
        let sockets = Arc::clone(self.0.lock().entry(mesh).or_default());
        sockets.write().insert(key.clone(), outbox.clone());
        Some((key, sockets))
    }
}

async fn pass_on(
    codec: Codec,
    message: Message,
    own: &str,
    sockets: &RwLock<Sockets>,
    outbox: &mpsc::Sender<Message>,
) {
    let Some(frame) = read(codec, &message) else { return };
    if frame.r#type != "send" {
        return;
    }
    let id = frame.id.unwrap_or_default().to_owned();
    let ack = Ack { id, message_id: String::new(), queued: true, ..Ack::default() };
    let targets: Vec<mpsc::Sender<Message>> = {
        let sockets = sockets.read();
        match frame.target_spec.unwrap_or_default() {
            "*" => {
                let others = sockets.iter().filter(|(key, _)| key.as_str() != own);
                others.map(|(_, socket)| socket.clone()).collect()
            }
            key => sockets.get(key).cloned().into_iter().collect(),
        }
    };
    for target in targets {
        let _ = target.send(message.clone()).await;
    }
    let _ = outbox.send(encode(codec, &ServerMessage::Ack(ack))).await;
}

fn read(codec: Codec, message: &Message) -> Option<Frame<'_>> {
    match message {
        Message::Text(text) => Codec::Json.read(text.as_bytes()).ok(),
        Message::Binary(bytes) => codec.read(bytes).ok(),
        _ => None,
    }
}

fn encode(codec: Codec, message: &ServerMessage) -> Message {
    let bytes: Bytes = codec.encode(message, None);
    match codec {
        Codec::Json => Message::Text(bytes.try_into().unwrap_or_default()),
        Codec::MsgPack => Message::Binary(bytes),
    }
}

fn hello_ack() -> ServerMessage {
    ServerMessage::HelloAck(Box::new(HelloAck {
        features: Vec::new(),
        audit_head: None,
        presence_id: crate::id::generate(),
        member_display_name: String::new(),
        member_profile: None,
        mesh_policy: None,
        restored: None,
        last_summary: None,
        last_seen_at: None,
        restored_groups: None,
        restored_stats: None,
        services: None,
        node: "floor".to_owned(),
        region: None,
        lease_ttl_ms: 0,
        protocol_version: PROTOCOL_VERSION,
    }))
}
