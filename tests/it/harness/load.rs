//! A steady stream of messages between peers that reconnect as clients do,
//! and the check that nothing of it was lost, doubled or out of order.

mod peers;
mod record;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use claudemesh_broker::auth::SecretKey;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::peers::{Peer, receive, send};
use self::record::Record;
pub use self::record::Report;
use super::{Cluster, Raw, until};

const SENDERS: usize = 3;
const RECEIVERS: usize = 4;
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// For all to have arrived once the load ends and nothing is broken any more.
const SETTLE: Duration = Duration::from_secs(20);

/// The group of all receivers.
const GROUP: &str = "load";

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
                let from: HashSet<_> = heard.pushes.iter().map(|push| push.sender).collect();
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
        assert_eq!(record.connections(), [1; RECEIVERS], "connections of the receivers");
    }

    /// What it has done up to now.
    pub fn so_far(&self) -> Report {
        self.record.lock().report()
    }

    /// Waits until every sender has had so many more messages accepted.
    pub async fn until_accepted(&self, more: usize) {
        let before = self.record.lock().sent.each_ref().map(Vec::len);
        until_record(&self.record, "messages are accepted", |record| {
            record.sent.iter().zip(before).all(|(sent, before)| sent.len() >= before + more)
        })
        .await;
    }

    /// Waits until all that was accepted before now has arrived.
    pub async fn until_heard(&self) {
        let before = self.record.lock().sent.each_ref().map(Vec::len);
        until_record(&self.record, "what was accepted arrives", |record| {
            (0..RECEIVERS).all(|receiver| {
                record.missing(receiver).iter().all(|(sender, number)| *number >= before[*sender])
            })
        })
        .await;
    }

    /// Ends the load, checks all of it, and says what it was in numbers.
    pub async fn finish(mut self, cluster: &Cluster) -> Report {
        self.one_leaves().await;
        self.stop_sending.cancel();
        for sender in self.senders.drain(..) {
            let ended = timeout(SETTLE, sender).await.expect("its last message is accepted");
            ended.expect("no panic");
        }
        until_record(&self.record, "all that was accepted has arrived", Record::has_all).await;
        self.check_audit(cluster).await;
        self.check_leases(cluster).await;
        // Events are not queued: only those that were there all the time.
        until_record(&self.record, "all are told who left", |record| {
            record
                .heard
                .iter()
                .all(|heard| heard.connections > 1 || heard.left.contains(&self.leaver_key))
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
        let report = record.report();
        let plan = std::thread::current().name().unwrap_or("a load").to_owned();
        println!("{plan}: {report}");
        report
    }

    /// One row per accepted message, and one for the one that left.
    async fn check_audit(&self, cluster: &Cluster) {
        let node = &cluster.nodes[0];
        // The test's own connections may have been cut as well.
        until("the store answers the test", async || {
            node.store.audit.page(&node.mesh, None, 0, 0).await.is_ok()
        })
        .await;
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
        let deadline = Instant::now() + SETTLE;
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

async fn until_record(record: &Mutex<Record>, what: &str, holds: impl Fn(&Record) -> bool) {
    let deadline = Instant::now() + SETTLE;
    while !holds(&record.lock()) {
        if Instant::now() > deadline {
            let record = record.lock();
            let missing: Vec<_> = (0..RECEIVERS).map(|receiver| record.missing(receiver)).collect();
            let connections = record.connections();
            panic!(
                "waited in vain until {what}; missing {missing:?}; refused {}, unanswered {}, \
                 connections {connections:?}",
                record.refused, record.unanswered
            );
        }
        sleep(Duration::from_millis(10)).await;
    }
}
