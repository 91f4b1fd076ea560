//! The peers of a load. They behave as clients do: who hears nothing pings, who
//! is not answered connects anew, and what was not acked is sent again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::id::MeshId;
use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tokio_util::sync::CancellationToken;

use super::record::{Push, Record, Sent};
use super::{GROUP, RECEIVERS, RETRY_PAUSE};
use crate::harness::Member;
use crate::harness::raw::session_hello_frame;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Between two messages of one sender.
const PAUSE: Duration = Duration::from_millis(15);
/// A client that has no ack for so long connects anew and sends again.
const ACK_PATIENCE: Duration = Duration::from_secs(5);
const HELLO_PATIENCE: Duration = Duration::from_secs(4);
/// A receiver pings so often, and connects anew if nothing comes for as long
/// as `SILENCE`.
const PING: Duration = Duration::from_secs(1);
const SILENCE: Duration = Duration::from_secs(4);

/// One peer, and where it can connect.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) nodes: Arc<Vec<SocketAddr>>,
    pub(super) mesh: MeshId,
    pub(super) member: Member,
    pub(super) key: SecretKey,
    pub(super) groups: Value,
}

impl Peer {
    /// Connects to the first node that lets it in, beginning with the one of
    /// that number; the socket and its presence.
    async fn connect(&self, mut node: usize) -> (Socket, String) {
        loop {
            let attempt = self.try_connect(self.nodes[node % self.nodes.len()]);
            if let Ok(Some(entered)) = timeout(HELLO_PATIENCE, attempt).await {
                return entered;
            }
            node += 1;
            sleep(RETRY_PAUSE).await;
        }
    }

    async fn try_connect(&self, address: SocketAddr) -> Option<(Socket, String)> {
        let (mut socket, _) = connect_async(format!("ws://{address}/ws")).await.ok()?;
        let mut hello = session_hello_frame(&self.mesh, &self.member, &self.key);
        hello["groups"] = self.groups.clone();
        socket.send(Message::text(hello.to_string())).await.ok()?;
        loop {
            if let Some(answer) = next(&mut socket).await? {
                let presence = answer["presenceId"].as_str()?.to_owned();
                return Some((socket, presence));
            }
        }
    }
}

/// What comes next: a frame, or a sign of life; `None` at the end.
async fn next(socket: &mut Socket) -> Option<Option<Value>> {
    match socket.next().await?.ok()? {
        Message::Text(text) => serde_json::from_str(&text).ok().map(Some),
        Message::Close(_) => {
            let _ = socket.flush().await;
            None
        }
        _ => Some(None),
    }
}

/// The next frame; pings while none comes. `None` at the end, or if the other
/// side has fallen silent.
async fn next_frame(socket: &mut Socket) -> Option<Value> {
    let mut heard = Instant::now();
    while heard.elapsed() < SILENCE {
        match timeout(PING, next(socket)).await {
            Ok(Some(Some(frame))) => return Some(frame),
            Ok(Some(None)) => heard = Instant::now(),
            Ok(None) => return None,
            Err(_) => {
                let ping = socket.send(Message::Ping(Bytes::new()));
                // A socket that nobody reads may take no more.
                let _ = timeout(PING, ping).await;
            }
        }
    }
    None
}

pub(super) async fn receive(
    number: usize,
    peer: Peer,
    record: Arc<Mutex<Record>>,
    ended: CancellationToken,
) {
    let mut node = number;
    let mut lost = None;
    loop {
        let connected = tokio::select! {
            connected = peer.connect(node) => connected,
            () = ended.cancelled() => return,
        };
        let (mut socket, presence) = connected;
        let connection = {
            let mut record = record.lock();
            record.returns.extend(lost.take().map(|lost: Instant| lost.elapsed()));
            let heard = &mut record.heard[number];
            heard.connections += 1;
            heard.presences.insert(presence);
            heard.connections
        };
        loop {
            let frame = tokio::select! {
                frame = next_frame(&mut socket) => frame,
                () = ended.cancelled() => return,
            };
            let Some(frame) = frame else { break };
            if frame["event"] == "peer_left" {
                let key = frame["eventData"]["pubkey"].as_str().expect("a key").to_owned();
                record.lock().heard[number].left.push(key);
            }
            if frame["type"] != "push" || frame["subtype"] == "system" {
                continue;
            }
            let text = frame["ciphertext"].as_str().expect("a text");
            let (sender, sequence) = text.split_at(2);
            let message = frame["messageId"].as_str().expect("an id").to_owned();
            let confirm = json!({ "type": "client_ack", "brokerMessageId": message });
            record.lock().heard[number].pushes.push(Push {
                connection,
                sender: number_of(sender),
                number: number_of(sequence),
                message,
                at: Instant::now(),
            });
            let confirmed = timeout(SILENCE, socket.send(Message::text(confirm.to_string()))).await;
            if !matches!(confirmed, Ok(Ok(()))) {
                break;
            }
        }
        lost = Some(Instant::now());
        node += 1;
    }
}

fn number_of(digits: &str) -> usize {
    digits.parse().expect("digits")
}

/// One message after the other, each until it is accepted.
pub(super) async fn send(
    number: usize,
    peer: Peer,
    receivers: Arc<Vec<String>>,
    record: Arc<Mutex<Record>>,
    stop: CancellationToken,
    ended: CancellationToken,
) {
    let mut node = number;
    let (mut socket, presence) = peer.connect(node).await;
    record.lock().sender_presences[number].insert(presence);
    for sequence in 0.. {
        if stop.is_cancelled() || ended.is_cancelled() {
            return;
        }
        // One in three to all; the others in turn.
        let to = (sequence % 3 != 2).then_some(sequence % RECEIVERS);
        let target = to.map_or(format!("@{GROUP}"), |to| receivers[to].clone());
        let begun = Instant::now();
        let message = loop {
            let frame = json!({
                "type": "send", "id": sequence.to_string(), "targetSpec": target,
                "priority": "next", "nonce": "bm9uY2U=",
                "ciphertext": format!("{number:02}{sequence:06}"),
                "client_message_id": format!("{}-{sequence}", peer.member.id),
            });
            match ask(&mut socket, &frame).await {
                Answer::Accepted(message) => break message,
                Answer::Refused => {
                    record.lock().refused += 1;
                    sleep(RETRY_PAUSE).await;
                }
                Answer::None => {
                    record.lock().unanswered += 1;
                    node += 1;
                    let lost = Instant::now();
                    let (again, presence) = peer.connect(node).await;
                    socket = again;
                    let mut record = record.lock();
                    record.returns.push(lost.elapsed());
                    record.sender_presences[number].insert(presence);
                }
            }
        };
        let (at, took) = (Instant::now(), begun.elapsed());
        record.lock().sent[number].push(Sent { message, to, took, at });
        sleep(PAUSE).await;
    }
}

enum Answer {
    Accepted(String),
    Refused,
    None,
}

async fn ask(socket: &mut Socket, frame: &Value) -> Answer {
    let deadline = Instant::now() + ACK_PATIENCE;
    if socket.send(Message::text(frame.to_string())).await.is_err() {
        return Answer::None;
    }
    while let Ok(Some(heard)) = timeout_at(deadline, next(socket)).await {
        let Some(heard) = heard else { continue };
        if heard["type"] == "ack" && heard["id"] == frame["id"] {
            return match heard["messageId"].as_str() {
                Some(message) if heard["queued"] == true => Answer::Accepted(message.to_owned()),
                _ => Answer::Refused,
            };
        }
    }
    Answer::None
}
