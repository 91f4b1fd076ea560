use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::cluster::MockCluster;
use crate::delivery::testing::{frames, session_with};
use crate::protocol::{CloseReason, McpCallForward};
use crate::rates::Budget;
use crate::registry::Registry;
use crate::store::testing::with_its_first_policy;
use crate::store::testing::{member, mesh, record};
use crate::store::{MockMail, MockMembers};

const DEADLINE: Duration = Duration::from_secs(28);

/// A node's relay, its mesh, and what it told the other nodes.
struct Scene {
    relay: Relay,
    room: crate::registry::RoomGuard,
    told: Arc<Mutex<Vec<BusMessage>>>,
}

impl Scene {
    async fn new(mut cluster: MockCluster) -> Self {
        let told: Arc<Mutex<Vec<BusMessage>>> = Arc::default();
        let noted = Arc::clone(&told);
        cluster.expect_publish().returning(move |_, message| noted.lock().push(message.clone()));
        cluster.expect_health().return_const(ClusterHealth::Up);
        cluster.expect_join_mesh().returning(|_| Ok(Vec::new()));
        let (mut members, mut mail) = (MockMembers::new(), MockMail::new());
        with_its_first_policy(&mut members);
        members.expect_active().returning(|_| Ok(vec![member("ada"), member("bob")]));
        mail.expect_newest_seq().returning(|_| Ok(0));
        let cluster = Arc::new(cluster);
        let registry = Arc::new(Registry::default());
        let room = registry.enter(&mesh(), &members, &mail, &*cluster).await.expect("a room");
        Self { relay: Relay::new(NodeId::from("here"), cluster), room, told }
    }

    fn session(&self, name: &str) -> Arc<Session> {
        let record = PresenceRecord {
            id: PresenceId::from(name),
            node: "here".to_owned(),
            ..record(&member(name))
        };
        let session = session_with(&record, Budget::new(0, 0));
        self.room.attach(record, Arc::clone(&session), || {});
        session
    }

    /// A presence of bob's on another node, under an epoch.
    fn elsewhere(&self, epoch: u64) -> Candidate {
        let record = PresenceRecord {
            id: PresenceId::from("bob"),
            node: "elsewhere".to_owned(),
            epoch,
            ..record(&member("bob"))
        };
        self.room.mirror(record);
        self.candidate("bob")
    }

    fn candidate(&self, name: &str) -> Candidate {
        let presence = PresenceId::from(name);
        let record = self.room.record(&presence).expect("a presence");
        Candidate { record, session: self.room.session(&presence) }
    }

    async fn ask(&self, caller: &Session, host: &Candidate) -> Result<Reply, Unanswered> {
        self.relay.ask(&self.room, caller, host, a_call("call"), DEADLINE).await
    }

    fn published(&self) -> Vec<BusMessage> {
        std::mem::take(&mut self.told.lock())
    }
}

fn a_call(id: &str) -> (CallId, Forward) {
    let forward = McpCallForward {
        call_id: id.to_owned(),
        server_name: "srv".to_owned(),
        tool_name: "t".to_owned(),
        args: json!({}),
        caller_name: "ada".to_owned(),
        caller_session: None,
        deadline_ms: 28_000,
    };
    (CallId::from(id), Forward::McpCallForward(forward))
}

fn says(id: &str) -> Said {
    let result = McpCallResult { result: Some(json!("done")), error: None };
    Said::Call(CallId::from(id), result)
}

fn done() -> Reply {
    Reply::Mcp(McpCallResult { result: Some(json!("done")), error: None })
}

#[tokio::test]
async fn a_host_here_answers_what_it_was_asked() {
    let scene = Scene::new(MockCluster::new()).await;
    let (ada, bob) = (scene.session("ada"), scene.session("bob"));
    let host = scene.candidate("bob");
    let (answer, ()) = tokio::join!(scene.ask(&ada, &host), async {
        tokio::task::yield_now().await;
        let asked = frames(&bob);
        assert_eq!(asked[0]["type"], "mcp_call_forward");
        assert!(!scene.relay.said(&ada, says("call")), "nobody asked her");
        assert!(!scene.relay.said(&bob, says("another")));
        assert!(scene.relay.said(&bob, says("call")));
        assert!(!scene.relay.said(&bob, says("call")), "once");
    });
    assert_eq!(answer, Ok(done()));
    assert!(scene.published().is_empty());
}

#[tokio::test]
async fn a_host_elsewhere_is_asked_over_the_bus_and_answers_once() {
    let scene = Scene::new(MockCluster::new()).await;
    let (ada, host) = (scene.session("ada"), scene.elsewhere(7));
    let (answer, ()) = tokio::join!(scene.ask(&ada, &host), async {
        tokio::task::yield_now().await;
        let told = scene.published();
        let [BusMessage::Asked { call, host, epoch: 7, deadline_ms: 28_000, .. }] = &told[..]
        else {
            panic!("{told:?}")
        };
        assert_eq!((call.as_str(), host.as_str()), ("call", "bob"));
        scene.relay.answered(&CallId::from("another"), done());
        scene.relay.answered(call, done());
        scene.relay.answered(call, Reply::Gone);
    });
    assert_eq!(answer, Ok(done()));
}

#[tokio::test]
async fn what_another_node_asks_is_handed_to_the_socket_that_is_meant() {
    let scene = Scene::new(MockCluster::new()).await;
    let bob = scene.session("bob");
    let epoch = bob.lease.epoch;
    let (call, forward) = a_call("call");
    let asked = |call: &CallId, epoch| {
        let host = PresenceId::from("bob");
        scene.relay.asked(&scene.room, (call.clone(), host), epoch, &forward, 28_000);
        scene.published()
    };
    assert!(asked(&call, epoch + 1).is_empty(), "the node of the later one answers");
    let gone = asked(&call, epoch - 1);
    assert!(matches!(&gone[..], [BusMessage::Answered { reply, .. }] if **reply == Reply::Gone));
    assert!(frames(&bob).is_empty());
    assert!(asked(&call, epoch).is_empty());
    assert_eq!(frames(&bob)[0]["callId"], "call");
    assert!(scene.relay.said(&bob, says("call")));
    let told = scene.published();
    assert!(matches!(&told[..], [BusMessage::Answered { reply, .. }] if **reply == done()));
    // What it was asked ends with its socket.
    asked(&CallId::from("other"), epoch);
    scene.relay.ended(&bob);
    let told = scene.published();
    let [BusMessage::Answered { call, reply }] = &told[..] else { panic!("{told:?}") };
    assert_eq!((call.as_str(), &**reply), ("other", &Reply::Gone));
    assert!(!scene.relay.said(&bob, says("other")));
}

#[tokio::test]
async fn a_host_that_is_heard_to_have_gone_answers_at_once() {
    let scene = Scene::new(MockCluster::new()).await;
    let ada = scene.session("ada");
    let told: [fn(&Scene, &PresenceRecord); 3] = [
        |scene, host| scene.relay.heard(&PresenceRecord { online: false, ..host.clone() }),
        |scene, host| scene.relay.heard(&PresenceRecord { epoch: host.epoch + 1, ..host.clone() }),
        |scene, host| scene.relay.over(&host.id),
    ];
    for tell in told {
        let host = scene.elsewhere(7);
        let (answer, ()) = tokio::join!(scene.ask(&ada, &host), async {
            tokio::task::yield_now().await;
            scene.relay.heard(&host.record);
            tell(&scene, &host.record);
        });
        assert_eq!(answer, Err(Unanswered::Gone));
    }
}

#[tokio::test]
async fn a_host_that_left_while_it_was_looked_up_is_not_waited_for() {
    let scene = Scene::new(MockCluster::new()).await;
    let (ada, host) = (scene.session("ada"), scene.elsewhere(7));
    scene.room.end(&host.record.id);
    assert_eq!(scene.ask(&ada, &host).await, Err(Unanswered::Gone));
    let bob = scene.session("bob");
    let host = scene.candidate("bob");
    bob.outbox.close(CloseReason::KICKED);
    assert_eq!(scene.ask(&ada, &host).await, Err(Unanswered::Gone));
}

#[tokio::test]
async fn a_caller_that_goes_away_makes_room() {
    let scene = Scene::new(MockCluster::new()).await;
    let (ada, host) = (scene.session("ada"), scene.elsewhere(7));
    let (answer, ()) = tokio::join!(scene.ask(&ada, &host), async {
        tokio::task::yield_now().await;
        assert_eq!(scene.relay.calls.lock().len(), 1);
        ada.outbox.retire();
    });
    assert_eq!((answer, scene.relay.calls.lock().len()), (Err(Unanswered::Left), 0));
}

#[tokio::test]
async fn a_frame_that_is_lost_ends_at_the_deadline() {
    let scene = Scene::new(MockCluster::new()).await;
    let (ada, host) = (scene.session("ada"), scene.elsewhere(7));
    let deadline = Duration::from_millis(1);
    let answer = scene.relay.ask(&scene.room, &ada, &host, a_call("call"), deadline).await;
    assert_eq!((answer, scene.relay.calls.lock().len()), (Err(Unanswered::TimedOut), 0));
    scene.relay.answered(&CallId::from("call"), done());
}

fn hearing(nodes: &'static [&'static str]) -> MockCluster {
    let mut cluster = MockCluster::new();
    cluster
        .expect_nodes_heard()
        .returning(|| Ok(nodes.iter().map(|id| NodeId::from(*id)).collect()));
    cluster
}

#[tokio::test]
async fn a_host_whose_node_has_gone_silent_only_seems_to_be_there() {
    let silent = |found: BTreeSet<PresenceId>| found.len();
    let scene = Scene::new(hearing(&["here", "third"])).await;
    let host = scene.elsewhere(7).record;
    let fresh = PresenceRecord { last_seen_at: Timestamp::now(), ..PresenceRecord::clone(&host) };
    assert_eq!(silent(scene.relay.silent_among(std::slice::from_ref(&host)).await), 1);
    assert_eq!(silent(scene.relay.silent_among(&[fresh]).await), 0, "its node may be new");
    for heard in [&["here", "elsewhere"][..], &["third"], &[]] {
        let scene = Scene::new(hearing(heard)).await;
        let found = scene.relay.silent_among(std::slice::from_ref(&host)).await;
        assert_eq!(silent(found), 0, "{heard:?}");
    }
}

#[test]
fn an_answer_that_does_not_fit_says_so() {
    let large = "x".repeat(limits::RELAYED_BYTES_MAX);
    let result = McpCallResult { result: Some(json!(large)), error: None };
    let Reply::Mcp(answer) = within_bounds(Reply::Mcp(result)) else { panic!("of another kind") };
    let error = answer.error.expect("a sentence");
    assert!(answer.result.is_none() && error.contains("more than the"), "{error}");
}
