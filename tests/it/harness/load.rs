//! A steady stream of messages between peers that reconnect as clients do,
//! and the check that nothing of it was lost, doubled or out of order.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::id::MeshId;
use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tokio_util::sync::CancellationToken;

use super::raw::session_hello_frame;
use super::{Cluster, Member, Raw};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

const SENDERS: usize = 3;
const RECEIVERS: usize = 4;
/// Between two messages of one sender.
const PAUSE: Duration = Duration::from_millis(15);
/// A client that has no ack for so long connects anew and sends again.
const ACK_PATIENCE: Duration = Duration::from_secs(5);
const HELLO_PATIENCE: Duration = Duration::from_secs(4);
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// For all to have arrived once the load ends and nothing is broken any more.
const SETTLE: Duration = Duration::from_secs(20);

/// The group of all receivers.
const GROUP: &str = "load";

/// What was accepted, in the order of its sender.
#[derive(Clone, Debug)]
struct Sent {
    message: String,
    /// The receiver; `None`: all.
    to: Option<usize>,
}

/// What one receiver heard.
#[derive(Debug, Default)]
struct Heard {
    /// Connection, sender, number, message; in the order of arrival.
    pushes: Vec<(u32, usize, usize, String)>,
    /// Who left, by key, and on which connection it was told.
    left: Vec<(u32, String)>,
    connections: u32,
    presences: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Record {
    sent: [Vec<Sent>; SENDERS],
    heard: [Heard; RECEIVERS],
    sender_presences: [BTreeSet<String>; SENDERS],
    /// Sends that were refused, and sends that had no answer.
    refused: u32,
    unanswered: u32,
}

/// The load while it runs.
pub struct Load {
    record: Arc<Mutex<Record>>,
    ended: CancellationToken,
    stop_sending: CancellationToken,
    senders: Vec<JoinHandle<()>>,
    receivers: Vec<JoinHandle<()>>,
    /// One that goes while the load runs, and stays away.
    leaver: Option<Raw>,
    leaver_key: String,
    receiver_keys: Arc<Vec<String>>,
}

/// One peer, and where it can connect.
#[derive(Clone)]
struct Peer {
    nodes: Arc<Vec<SocketAddr>>,
    mesh: MeshId,
    member: Member,
    key: SecretKey,
    groups: Value,
}

impl Load {
    /// Starts it; the peers are spread over the nodes. Returns when all are
    /// connected and every pair of sender and receiver has exchanged messages.
    pub async fn start(cluster: &Cluster) -> Self {
        let record = Arc::new(Mutex::new(Record::default()));
        let (ended, stop_sending) = (CancellationToken::new(), CancellationToken::new());
        let nodes = Arc::new(cluster.nodes.iter().map(|node| node.address).collect::<Vec<_>>());
        let first = &cluster.nodes[0];
        let peer = async |name: String, groups: Value| Peer {
            nodes: Arc::clone(&nodes),
            mesh: first.mesh.clone(),
            member: first.member(&name).await,
            key: SecretKey::generate(),
            groups,
        };
        let mut receivers = Vec::new();
        let mut keys = Vec::new();
        for number in 0..RECEIVERS {
            let peer = peer(format!("receiver-{number}"), json!([{ "name": GROUP }])).await;
            keys.push(peer.key.public_key().to_string());
            let (record, ended) = (Arc::clone(&record), ended.clone());
            receivers.push(tokio::spawn(receive(number, peer, record, ended)));
        }
        let leaver = first.member("leaver").await;
        let leaver_secret = SecretKey::generate();
        let leaver_key = leaver_secret.public_key().to_string();
        let node = cluster.nodes.last().expect("a node");
        let leaver = Some(Raw::session(node, &leaver, &leaver_secret).await.0);
        until_record(&record, "the receivers are there", |record| {
            record.heard.iter().all(|heard| heard.connections == 1)
        })
        .await;
        let receiver_keys = Arc::new(keys);
        let mut senders = Vec::new();
        for number in 0..SENDERS {
            let peer = peer(format!("sender-{number}"), json!([])).await;
            let (record, keys) = (Arc::clone(&record), Arc::clone(&receiver_keys));
            let (stop, ended) = (stop_sending.clone(), ended.clone());
            senders.push(tokio::spawn(send(number, peer, keys, record, stop, ended)));
        }
        let load = Self {
            record,
            ended,
            stop_sending,
            senders,
            receivers,
            leaver,
            leaver_key,
            receiver_keys,
        };
        until_record(&load.record, "messages flow", |record| {
            record.heard.iter().all(|heard| {
                let from: HashSet<_> = heard.pushes.iter().map(|push| push.1).collect();
                from.len() == SENDERS
            })
        })
        .await;
        load
    }

    /// One peer goes, and does not come back.
    pub async fn one_leaves(&mut self) {
        drop(self.leaver.take());
    }

    /// Nobody had to connect anew so far.
    pub fn assert_undisturbed(&self) {
        let record = self.record.lock();
        let connections = record.heard.each_ref().map(|heard| heard.connections);
        assert_eq!(connections, [1; RECEIVERS], "connections of the receivers");
    }

    /// Waits until every sender has had so many more messages accepted.
    pub async fn until_accepted(&self, more: usize) {
        let before = self.record.lock().sent.each_ref().map(Vec::len);
        until_record(&self.record, "messages are accepted", |record| {
            record.sent.iter().zip(before).all(|(sent, before)| sent.len() >= before + more)
        })
        .await;
    }

    /// Ends the load, and checks all of it.
    pub async fn finish(mut self, cluster: &Cluster) {
        self.one_leaves().await;
        self.stop_sending.cancel();
        for sender in self.senders.drain(..) {
            let ended = timeout(SETTLE, sender).await.expect("its last message is accepted");
            ended.expect("no panic");
        }
        until_record(&self.record, "all that was accepted has arrived", |record| {
            (0..RECEIVERS).all(|receiver| record.missing(receiver).is_empty())
        })
        .await;
        self.check_audit(cluster).await;
        self.check_leases(cluster).await;
        // Events are not queued: only those that were there all the time.
        until_record(&self.record, "all are told who left", |record| {
            record.heard.iter().all(|heard| {
                heard.connections > 1 || heard.left.iter().any(|(_, key)| *key == self.leaver_key)
            })
        })
        .await;
        self.ended.cancel();
        for receiver in self.receivers.drain(..) {
            receiver.await.expect("no panic");
        }
        let record = self.record.lock();
        record.check_deliveries();
        record.check_presences();
        record.check_left(&self.receiver_keys);
        let sent: usize = record.sent.iter().map(Vec::len).sum();
        let connections: Vec<u32> = record.heard.iter().map(|it| it.connections).collect();
        println!(
            "{sent} messages; {} refused, {} unanswered; connections of receivers {connections:?}",
            record.refused, record.unanswered
        );
    }

    /// One row per accepted message, and one for the one that left.
    async fn check_audit(&self, cluster: &Cluster) {
        let node = &cluster.nodes[0];
        let sent: usize = self.record.lock().sent.iter().map(Vec::len).sum();
        let rows = node.audit_count("message_sent").await;
        assert_eq!(usize::try_from(rows).expect("a count"), sent, "one audit row per message");
        let deadline = Instant::now() + SETTLE;
        while node.audit_count("peer_left").await == 0 {
            assert!(Instant::now() < deadline, "the one that left is never missed");
            sleep(RETRY_PAUSE).await;
        }
        assert!(node.audit_is_valid().await, "the chain is whole");
    }

    /// The count is exact: the receivers, and nobody else. (Senders that are
    /// done have left as well; each of them once.)
    async fn check_leases(&self, cluster: &Cluster) {
        let deadline = Instant::now() + SETTLE;
        while cluster.leases() != (RECEIVERS, 0) {
            assert!(
                Instant::now() < deadline,
                "leases online and in grace: {:?}",
                cluster.leases()
            );
            sleep(RETRY_PAUSE).await;
        }
        let deadline = Instant::now() + HELLO_PATIENCE;
        let gone = i64::try_from(SENDERS).expect("few") + 1;
        let node = &cluster.nodes[0];
        while node.audit_count("peer_left").await != gone {
            let count = node.audit_count("peer_left").await;
            assert!(Instant::now() < deadline, "{count} rows for {gone} peers that left");
            sleep(RETRY_PAUSE).await;
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.ended.cancel();
        self.stop_sending.cancel();
        for task in self.senders.iter().chain(&self.receivers) {
            task.abort();
        }
    }
}

impl Record {
    /// Accepted, for that receiver, and not heard.
    fn missing(&self, receiver: usize) -> Vec<(usize, usize)> {
        let heard: HashSet<(usize, usize)> =
            self.heard[receiver].pushes.iter().map(|push| (push.1, push.2)).collect();
        let mut missing = Vec::new();
        for (sender, sent) in self.sent.iter().enumerate() {
            for (number, message) in sent.iter().enumerate() {
                let is_for_it = message.to.is_none_or(|to| to == receiver);
                if is_for_it && !heard.contains(&(sender, number)) {
                    missing.push((sender, number));
                }
            }
        }
        missing
    }

    fn check_deliveries(&self) {
        for (receiver, heard) in self.heard.iter().enumerate() {
            assert!(self.missing(receiver).is_empty());
            let mut seen_on: HashSet<(u32, &str)> = HashSet::new();
            let mut first_seen: HashMap<(usize, usize), &str> = HashMap::new();
            let mut newest: BTreeMap<usize, usize> = BTreeMap::new();
            for (connection, sender, number, message) in &heard.pushes {
                assert!(
                    seen_on.insert((*connection, message)),
                    "receiver {receiver}: {sender}/{number} came twice on connection {connection}"
                );
                let sent = &self.sent[*sender][*number];
                assert_eq!(&sent.message, message, "the id that was acked");
                assert!(sent.to.is_none_or(|to| to == receiver), "not for receiver {receiver}");
                if first_seen.insert((*sender, *number), message).is_some() {
                    continue;
                }
                if let Some(before) = newest.insert(*sender, *number) {
                    assert!(
                        before < *number,
                        "receiver {receiver}: {sender}/{number} came after {sender}/{before}"
                    );
                }
            }
        }
    }

    /// Whoever came back was the same presence.
    fn check_presences(&self) {
        let all = self.heard.iter().map(|heard| &heard.presences).chain(&self.sender_presences);
        for presences in all {
            assert_eq!(presences.len(), 1, "it lost its presence: {presences:?}");
        }
    }

    /// Nobody was told twice of one that left, nor of any that came back.
    fn check_left(&self, receivers: &[String]) {
        for (receiver, heard) in self.heard.iter().enumerate() {
            let mut told: HashMap<&str, u32> = HashMap::new();
            for (_, key) in &heard.left {
                *told.entry(key).or_default() += 1;
            }
            assert!(told.values().all(|times| *times == 1), "told twice: {told:?}");
            let came_back = receivers.iter().find(|key| told.contains_key(key.as_str()));
            assert_eq!(came_back, None, "receiver {receiver} was told that it left");
        }
    }
}

async fn until_record(record: &Mutex<Record>, what: &str, holds: impl Fn(&Record) -> bool) {
    let deadline = Instant::now() + SETTLE;
    while !holds(&record.lock()) {
        if Instant::now() > deadline {
            let record = record.lock();
            let missing: Vec<_> = (0..RECEIVERS).map(|receiver| record.missing(receiver)).collect();
            let connections: Vec<u32> = record.heard.iter().map(|it| it.connections).collect();
            panic!(
                "waited in vain until {what}; missing {missing:?}; refused {}, unanswered {}, \
                 connections {connections:?}",
                record.refused, record.unanswered
            );
        }
        sleep(Duration::from_millis(10)).await;
    }
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
        let answer = next(&mut socket).await?;
        let presence = answer["presenceId"].as_str()?.to_owned();
        Some((socket, presence))
    }
}

/// The next frame; `None` at the end.
async fn next(socket: &mut Socket) -> Option<Value> {
    loop {
        match socket.next().await?.ok()? {
            Message::Text(text) => return serde_json::from_str(&text).ok(),
            Message::Close(_) => {
                let _ = socket.flush().await;
                return None;
            }
            _ => {}
        }
    }
}

async fn receive(number: usize, peer: Peer, record: Arc<Mutex<Record>>, ended: CancellationToken) {
    let mut node = number;
    loop {
        let connected = tokio::select! {
            connected = peer.connect(node) => connected,
            () = ended.cancelled() => return,
        };
        let (mut socket, presence) = connected;
        let connection = {
            let heard = &mut record.lock().heard[number];
            heard.connections += 1;
            heard.presences.insert(presence);
            heard.connections
        };
        loop {
            let frame = tokio::select! {
                frame = next(&mut socket) => frame,
                () = ended.cancelled() => return,
            };
            let Some(frame) = frame else { break };
            if frame["event"] == "peer_left" {
                let key = frame["eventData"]["pubkey"].as_str().expect("a key").to_owned();
                record.lock().heard[number].left.push((connection, key));
            }
            if frame["type"] != "push" || frame["subtype"] == "system" {
                continue;
            }
            let text = frame["ciphertext"].as_str().expect("a text");
            let (sender, sequence) = text.split_at(2);
            let message = frame["messageId"].as_str().expect("an id").to_owned();
            let push = (connection, number_of(sender), number_of(sequence), message.clone());
            record.lock().heard[number].pushes.push(push);
            let confirm = json!({ "type": "client_ack", "brokerMessageId": message });
            if socket.send(Message::text(confirm.to_string())).await.is_err() {
                break;
            }
        }
        node += 1;
    }
}

fn number_of(digits: &str) -> usize {
    digits.parse().expect("digits")
}

/// One message after the other, each until it is accepted.
async fn send(
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
                    let (again, presence) = peer.connect(node).await;
                    socket = again;
                    record.lock().sender_presences[number].insert(presence);
                }
            }
        };
        record.lock().sent[number].push(Sent { message, to });
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
        if heard["type"] == "ack" && heard["id"] == frame["id"] {
            return match heard["messageId"].as_str() {
                Some(message) if heard["queued"] == true => Answer::Accepted(message.to_owned()),
                _ => Answer::Refused,
            };
        }
    }
    Answer::None
}
