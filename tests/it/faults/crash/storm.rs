//! Peers that write to each other without a pause, and what each must have
//! heard in the end.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use claudemesh_broker::client::{Client, Inbound, Inbox, Outgoing};
use claudemesh_broker::id::Key;
use claudemesh_broker::protocol::Priority;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::session;
use crate::harness::{BrokerProcess, until};

pub const PEERS: usize = 4;
/// Sends of one peer that wait for their ack.
const IN_FLIGHT: usize = 8;
/// Every so many a peer writes to all.
const BROADCAST_EVERY: usize = 5;

pub struct Storm {
    peers: Vec<Peer>,
    acked: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

struct Peer {
    client: Client,
    heard: Arc<Mutex<Heard>>,
    talk: JoinHandle<usize>,
}

#[derive(Default)]
struct Heard {
    /// Messages, as they were written.
    texts: Vec<String>,
    ids: HashSet<String>,
    closes: Vec<u16>,
    others_events: Vec<String>,
    presences_changed: usize,
}

impl Storm {
    pub async fn begin(broker: &BrokerProcess) -> Self {
        let (acked, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let mut connected = Vec::new();
        for name in 0..PEERS {
            let mut options = session(broker.identity(&name.to_string()).await);
            options.limits.answer_timeout = Duration::from_secs(60);
            connected.push(broker.connect(options).await);
        }
        let keys: Vec<Key> = connected.iter().map(|(client, _)| client.member_pubkey()).collect();
        let peers = connected.into_iter().enumerate().map(|(own, (client, inbox))| {
            let heard = Arc::new(Mutex::new(Heard::default()));
            tokio::spawn(listen(inbox, Arc::clone(&heard)));
            let talk = talk(own, client.clone(), keys.clone(), Arc::clone(&acked), stop.clone());
            Peer { client, heard, talk: tokio::spawn(talk) }
        });
        let peers = peers.collect();
        Self { peers, acked, stop }
    }

    /// Waits until so many more sends were acked.
    pub async fn more_acks(&self, count: usize) {
        let wanted = self.acked.load(Ordering::Relaxed) + count;
        until("sends are acked", async || self.acked.load(Ordering::Relaxed) >= wanted).await;
    }

    /// With which codes each peer's connections were closed.
    pub fn closes(&self) -> Vec<Vec<u16>> {
        self.peers.iter().map(|peer| peer.heard.lock().closes.clone()).collect()
    }

    /// Lets everybody finish, and checks what each of them has heard.
    pub async fn end(self, broker: &BrokerProcess) {
        self.stop.store(true, Ordering::Relaxed);
        let mut written = Vec::new();
        let mut listeners = Vec::new();
        for peer in self.peers {
            written.push(peer.talk.await.expect("every send was acked"));
            listeners.push((peer.client, peer.heard));
        }
        for (own, (client, heard)) in listeners.iter().enumerate() {
            let expected = expected(own, &written);
            let total: usize = expected.values().map(Vec::len).sum();
            until("all has arrived", async || heard.lock().texts.len() >= total).await;
            client.list_peers().await.expect("a list");
            let heard = heard.lock();
            let mut by_sender: HashMap<usize, Vec<String>> = HashMap::new();
            for text in &heard.texts {
                let sender = text.split(' ').next().and_then(|number| number.parse().ok());
                by_sender.entry(sender.expect("a sender")).or_default().push(text.clone());
            }
            for (sender, expected) in &expected {
                let came = by_sender.remove(sender).unwrap_or_default();
                let differ =
                    came.iter().zip(expected).position(|(came, expected)| came != expected);
                let at = differ.unwrap_or(came.len().min(expected.len())).saturating_sub(3);
                assert!(
                    came == *expected,
                    "to {own}, each in order and once: {:?} and not {:?}",
                    came[at..].iter().take(12).collect::<Vec<_>>(),
                    expected[at..].iter().take(12).collect::<Vec<_>>()
                );
            }
            assert_eq!(heard.ids.len(), total, "as many ids");
            assert_eq!(heard.presences_changed, 0, "all came back to their presences");
            let left = heard.others_events.iter().filter(|event| *event == "peer_left");
            assert_eq!(left.count(), 0, "nobody left");
        }
        let written: usize = written.iter().sum();
        assert_eq!(broker.audited("message_sent").await, i64::try_from(written).expect("few"));
        assert_eq!(broker.audited("peer_left").await, 0);
        assert_eq!(broker.audited("peer_joined").await, i64::try_from(PEERS).expect("few"));
        until("the queue is empty", async || {
            broker.store.messages.depth().await.expect("the store answers") == 0
        })
        .await;
    }
}

/// To whom a peer's message of that number goes: everyone, or one other.
fn recipient(own: usize, number: usize) -> Option<usize> {
    (!number.is_multiple_of(BROADCAST_EVERY)).then(|| (own + 1 + number % (PEERS - 1)) % PEERS)
}

fn words(own: usize, number: usize) -> String {
    format!("{own} {number}")
}

/// What a peer must hear, by sender, when each wrote so many.
fn expected(own: usize, written: &[usize]) -> HashMap<usize, Vec<String>> {
    let others = (0..PEERS).filter(|sender| *sender != own);
    let from = |sender: usize| {
        let numbers = (0..written[sender])
            .filter(move |number| recipient(sender, *number).is_none_or(|to| to == own));
        (sender, numbers.map(|number| words(sender, number)).collect())
    };
    others.map(from).collect()
}

/// Writes until told to stop; how many.
async fn talk(
    own: usize,
    client: Client,
    keys: Vec<Key>,
    acked: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
) -> usize {
    let mut flying = VecDeque::new();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) || !flying.is_empty() {
        if flying.len() < IN_FLIGHT && !stop.load(Ordering::Relaxed) {
            let text = words(own, number);
            let target = recipient(own, number).map_or("*", |to| keys[to].as_str());
            let mut message = Outgoing::new(target, Priority::Next, text.as_str());
            message.client_message_id = Some(format!("{own}-{number}"));
            flying.push_back(Box::pin(client.send_nowait(message).await.expect("on its way")));
            number += 1;
        } else if let Some(ack) = flying.pop_front() {
            let ack = ack.await.expect("an ack");
            assert!(ack.queued, "{ack:?}");
            acked.fetch_add(1, Ordering::Relaxed);
        }
    }
    number
}

async fn listen(mut inbox: Inbox, heard: Arc<Mutex<Heard>>) {
    while let Some(inbound) = inbox.recv().await {
        let mut heard = heard.lock();
        match &inbound {
            Inbound::Message { push, .. } => {
                heard.texts.push(inbound.text().expect("a text for this peer").to_owned());
                heard.ids.insert(push.message_id.to_string());
            }
            Inbound::Event { event, .. } => heard.others_events.push(event.clone()),
            Inbound::Disconnected { code, .. } => heard.closes.push(*code),
            Inbound::Reconnected { same_presence: false, .. } => heard.presences_changed += 1,
            _ => {}
        }
    }
}
