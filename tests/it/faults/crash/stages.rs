//! How far a message is, when the node that said so is killed at once: what was answered
//! is so on the node that comes after it, on SQLite with one node and on Postgres with three.

use claudemesh_broker::client::{Client, ClientOptions, Inbound, Inbox, Outgoing};
use claudemesh_broker::protocol::{Priority, Push};
use serde_json::json;
use tokio::time::timeout;

use super::session;
use crate::harness::{BrokerProcess, Cluster, PATIENCE, Setup};

const ONE_AND_THREE: [usize; 2] = [1, 3];

/// A broker of so many nodes, and two members who come back as themselves.
struct Scene {
    processes: Vec<BrokerProcess>,
    /// The node that serves.
    at: usize,
    alice: ClientOptions,
    bob: ClientOptions,
    _cluster: Option<Cluster>,
}

impl Scene {
    async fn of(nodes: usize) -> Self {
        let (processes, cluster) = if nodes == 1 {
            (vec![BrokerProcess::start(&[]).await], None)
        } else {
            let mut cluster = Setup::new(nodes).start_processes().await;
            (std::mem::take(&mut cluster.processes), Some(cluster))
        };
        let mut options = Vec::new();
        for name in ["alice", "bob"] {
            let mut session = session(processes[0].identity(name).await);
            session.about.capabilities = vec!["stages".to_owned()];
            (session.confirm, session.reconnect) = (false, false);
            session.limits.remembered_max = 0;
            options.push(session);
        }
        let (bob, alice) = (options.pop().expect("two"), options.pop().expect("two"));
        Self { processes, at: 0, alice, bob, _cluster: cluster }
    }

    async fn alice(&self) -> (Client, Inbox) {
        self.processes[self.at].connect(self.alice.clone()).await
    }

    async fn bob(&self) -> (Client, Inbox) {
        self.processes[self.at].connect(self.bob.clone()).await
    }

    fn to_bob(&self) -> String {
        self.bob.identity.member_pubkey().to_string()
    }

    /// SIGKILL; another node serves then, or the same one anew.
    async fn the_node_dies(&mut self) {
        self.processes[self.at].kill9().await;
        let killed = self.at;
        self.at = (killed + 1) % self.processes.len();
        self.processes[killed].start_again().await;
    }
}

async fn sent(from: &Client, to: &str, text: &str) -> String {
    from.send(to, Priority::Next, text).await.expect("accepted").message_id
}

/// Says it, and has the answer: it is written.
async fn reached(client: &Client, push: &Push, stage: &str) {
    let ack = json!({ "brokerMessageId": push.message_id, "stage": stage });
    client.request("client_ack", &ack).await.expect("an answer");
}

async fn withdrawn(client: &Client, id: &str) {
    let asked = json!({ "messageId": id });
    let result = client.request("withdraw", &asked).await.expect("an answer");
    assert_eq!(result["withdrawn"], true, "{result}");
}

async fn stage(client: &Client, id: &str) -> String {
    let asked = json!({ "messageId": id });
    let status = client.request("message_status", &asked).await.expect("known");
    status["recipients"][0]["stage"].as_str().expect("a stage").to_owned()
}

/// The next message or notice.
async fn push(inbox: &mut Inbox) -> Box<Push> {
    let next = async {
        loop {
            let inbound = inbox.recv().await.expect("the connection stays");
            if let Inbound::Message { push, .. } = inbound {
                return push;
            }
        }
    };
    timeout(PATIENCE, next).await.expect("a message")
}

/// What comes up to a message that is sent now, without it; all of it is confirmed.
async fn until_marker(
    from: &Client,
    to: &str,
    (taker, inbox): (&Client, &mut Inbox),
) -> Vec<Box<Push>> {
    let marker = sent(from, to, "marker").await;
    let mut before = Vec::new();
    loop {
        let push = push(inbox).await;
        reached(taker, &push, "confirmed").await;
        if push.message_id.as_str() == marker {
            return before;
        }
        before.push(push);
    }
}

/// After the node's death: the stage is what was told, and bob gets nothing of it again.
async fn stays(scene: &mut Scene, id: &str, stages: &[&str], case: &str) {
    scene.the_node_dies().await;
    let ((alice, _inbox), (bob, mut inbox)) = (scene.alice().await, scene.bob().await);
    let told = stage(&alice, id).await;
    assert!(stages.contains(&&*told), "{case}: {told}");
    let again = until_marker(&alice, &scene.to_bob(), (&bob, &mut inbox)).await;
    assert!(again.is_empty(), "{case}: {again:?}");
    alice.close().await;
    bob.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_as_surfaced_or_confirmed_stays_so_when_the_node_dies() {
    for nodes in ONE_AND_THREE {
        let mut scene = Scene::of(nodes).await;
        let to_bob = scene.to_bob();
        for said in ["surfaced", "confirmed"] {
            for target in [&*to_bob, "*"] {
                let ((alice, _inbox), (bob, mut inbox)) = (scene.alice().await, scene.bob().await);
                let id = sent(&alice, target, said).await;
                let push = push(&mut inbox).await;
                assert_eq!(push.message_id.as_str(), id);
                reached(&bob, &push, said).await;
                stays(&mut scene, &id, &[said], &format!("{nodes} {said} {target}")).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawal_that_was_answered_stays_one_when_the_node_dies() {
    for nodes in ONE_AND_THREE {
        let mut scene = Scene::of(nodes).await;
        let to_bob = scene.to_bob();
        for superseding in [false, true] {
            let (alice, _inbox) = scene.alice().await;
            let mut first = Outgoing::new(&to_bob, Priority::Next, "never mind");
            first.client_message_id = Some(format!("first {superseding}"));
            let id = alice.send_with(first).await.expect("accepted").message_id;
            if superseding {
                let mut second = Outgoing::new(&to_bob, Priority::Next, "instead");
                second.supersedes = Some("first true".to_owned());
                let second = alice.send_with(second).await.expect("accepted").message_id;
                scene.the_node_dies().await;
                let ((alice, _inbox), (bob, mut inbox)) = (scene.alice().await, scene.bob().await);
                let instead = push(&mut inbox).await;
                assert_eq!(instead.message_id.as_str(), second);
                reached(&bob, &instead, "confirmed").await;
                assert_eq!(stage(&alice, &id).await, "withdrawn");
                assert!(until_marker(&alice, &to_bob, (&bob, &mut inbox)).await.is_empty());
            } else {
                withdrawn(&alice, &id).await;
                stays(&mut scene, &id, &["withdrawn"], &format!("{nodes}")).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_notice_of_an_expiry_is_told_once_whenever_the_node_dies() {
    for nodes in ONE_AND_THREE {
        let mut scene = Scene::of(nodes).await;
        let to_bob = scene.to_bob();
        let brief = || {
            let mut brief = Outgoing::new(&to_bob, Priority::Next, "soon too late");
            brief.ttl_ms = Some(1_000);
            brief
        };
        // It ends, and its notice was taken: neither comes again.
        let (alice, mut notices) = scene.alice().await;
        let id = alice.send_with(brief()).await.expect("accepted").message_id;
        let notice = push(&mut notices).await;
        assert_eq!(notice.event.as_deref(), Some("message_expired"));
        assert_eq!(notice.event_data.as_ref().expect("data")["messageId"], *id);
        reached(&alice, &notice, "confirmed").await;
        scene.the_node_dies().await;
        let (alice, mut notices) = scene.alice().await;
        assert_eq!(stage(&alice, &id).await, "expired", "{nodes}");
        // It was told and not taken, and the node dies: it is told again, as the same notice.
        let second = alice.send_with(brief()).await.expect("accepted").message_id;
        let told = push(&mut notices).await;
        assert_eq!(told.event_data.as_ref().expect("data")["messageId"], *second, "{nodes}: once");
        scene.the_node_dies().await;
        let (alice, mut notices) = scene.alice().await;
        let again = push(&mut notices).await;
        assert_eq!((&again.message_id, again.redelivered), (&told.message_id, true));
        reached(&alice, &again, "confirmed").await;
        // It ends while its node is dead.
        let third = alice.send_with(brief()).await.expect("accepted").message_id;
        scene.the_node_dies().await;
        let (alice, mut notices) = scene.alice().await;
        let notice = push(&mut notices).await;
        assert_eq!(notice.event_data.as_ref().expect("data")["messageId"], *third, "{nodes}: once");
        reached(&alice, &notice, "confirmed").await;
        let ((bob, _inbox), to_alice) = (scene.bob().await, alice.member_pubkey().to_string());
        assert!(until_marker(&bob, &to_alice, (&alice, &mut notices)).await.is_empty(), "{nodes}");
        for id in [&id, &second, &third] {
            assert_eq!(stage(&alice, id).await, "expired", "{nodes}");
        }
        assert_eq!(scene.processes[0].audited("expired").await, 3, "{nodes}: one row for each");
    }
}
