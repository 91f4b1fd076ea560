//! The last hop under faults: the session's own server, the hooks of its host and a broker
//! that is killed, moved or away. Whatever happens, each message is shown once and in
//! order, and what its sender is told of it is true at each step.

mod broker;
mod rebound;
mod session;
mod silent;

use std::collections::BTreeSet;

use claudemesh_broker::client::{Client, ClientOptions, Inbox as Arrivals};
use claudemesh_broker::protocol::Priority;
use serde_json::json;

use super::hooks::host::User;
use crate::harness::Node;
use broker::{Broker, Fault, eventually};
use session::{Session, State};

const PRIORITIES: [Priority; 3] = [Priority::Now, Priority::Next, Priority::Low];

/// Of 200 messages, half come before the fault and half while it lasts.
const HALF_OF_MANY: usize = 100;

/// Turns that a user may have to begin until all has been shown.
const TURNS_MAX: usize = 24;

/// A peer that writes to the session, and what it wrote.
struct Sender {
    client: Client,
    _arrivals: Arrivals,
    to: String,
    sent: Vec<(Priority, String)>,
}

impl Sender {
    fn new((client, _arrivals): (Client, Arrivals), to: &str) -> Self {
        Self { client, _arrivals, to: to.to_owned(), sent: Vec::new() }
    }

    /// Sends so many, of each priority in turn; their ids.
    async fn sends(&mut self, priorities: &[Priority], count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        for number in 0..count {
            let priority = priorities[number % priorities.len()];
            let text = format!("message {}", self.sent.len());
            let ack = self.client.send(&self.to, priority, text.as_str()).await.expect("accepted");
            self.sent.push((priority, ack.message_id.clone()));
            ids.push(ack.message_id);
        }
        ids
    }

    /// How far a message is; `None` while no broker answers.
    async fn stage(&self, id: &str) -> Option<String> {
        let asked = json!({ "messageId": id });
        let status = self.client.request("message_status", &asked).await.ok()?;
        Some(status["recipients"][0]["stage"].as_str().expect("a stage").to_owned())
    }

    /// The stages of all of them, once.
    async fn stages(&self, ids: &[String]) -> BTreeSet<String> {
        let mut stages = BTreeSet::new();
        for id in ids {
            stages.insert(self.stage(id).await.expect("an answer"));
        }
        stages
    }

    /// Waits until all of them are at that stage; on their way there they are at none but
    /// those named in `before`.
    async fn until_all(&self, ids: &[String], stage: &str, before: &[&str]) {
        for id in ids {
            eventually(stage, async || {
                let Some(told) = self.stage(id).await else { return false };
                assert!(told == stage || before.contains(&&*told), "{told} instead of {stage}");
                told == stage
            })
            .await;
        }
    }

    /// Asserts that these are all that was sent from there on: each once, and those of one
    /// priority in the order in which they were sent.
    fn assert_once_in_order(&self, from: usize, shown: &[String], case: &str) {
        let sent = &self.sent[from..];
        let times = |id: &String| shown.iter().filter(|shown| *shown == id).count();
        let not_once: Vec<_> = sent.iter().filter(|(_, id)| times(id) != 1).collect();
        assert!(not_once.is_empty(), "{case}: each once: {not_once:?}");
        assert_eq!(shown.len(), sent.len(), "{case}: and nothing else");
        for priority in PRIORITIES {
            let of_this: Vec<_> =
                sent.iter().filter(|(of, _)| *of == priority).map(|(_, id)| id).collect();
            let shown: Vec<_> = shown.iter().filter(|id| of_this.contains(id)).collect();
            assert_eq!(shown, of_this, "{case}: in order");
        }
    }
}

/// A user whose sessions are the member ada, on a node of its own, and a peer that writes to
/// them.
struct Scene {
    node: Node,
    user: User,
    bob: Sender,
}

impl Scene {
    async fn new() -> Self {
        let node = Node::start().await;
        let ada = node.member("ada").await;
        let user = User::new(&[]);
        user.joins(&node.url(), &node.mesh, &ada);
        let bob = node.connect(ClientOptions::session(node.identity("bob").await)).await;
        Self { node, user, bob: Sender::new(bob, ada.pubkey().as_str()) }
    }
}

/// The state, with each fault, one message of each priority, and 200 of all of them.
async fn each_is_shown_once(state: State) {
    for fault in [Fault::Killed, Fault::Moved, Fault::Away] {
        let user = User::new(&[]);
        let mut broker = Broker::start(fault).await;
        let ada = broker.member("ada").await;
        user.joins(&broker.url(), broker.mesh(), &ada);
        let mut session = Session::start(&user, state).await;
        let bob = broker.member("bob").await.identity(broker.mesh());
        let client = broker.connect(ClientOptions::session(bob)).await;
        let mut sender = Sender::new(client, ada.pubkey().as_str());
        broker.until_here(&sender.client).await;
        for priority in PRIORITIES {
            round(&mut broker, &mut session, &mut sender, &[priority], 1).await;
        }
        round(&mut broker, &mut session, &mut sender, &PRIORITIES, HALF_OF_MANY).await;
        assert_eq!(user.log(), "", "{state:?} {fault:?}");
    }
}

async fn round(
    broker: &mut Broker,
    session: &mut Session<'_>,
    sender: &mut Sender,
    priorities: &[Priority],
    count: usize,
) {
    let case = format!("{:?} {:?} {priorities:?} {count}", session.state, broker.fault);
    let from = sender.sent.len();
    session.settles();
    let early = sender.sends(priorities, count).await;
    sender.until_all(&early, "confirmed", &["kept", "pushed"]).await;
    broker.breaks(&sender.client).await;
    let mut late = Vec::new();
    if broker.serves_others() {
        late = sender.sends(priorities, count).await;
        assert_eq!(sender.stages(&early).await, ["confirmed".to_owned()].into(), "{case}");
    }
    // What is in the spool is shown without any broker.
    let mut shown = session.acts(&early).await;
    if broker.serves_others() {
        assert_eq!(sender.stages(&early).await, ["confirmed".to_owned()].into(), "{case}");
        assert_eq!(sender.stages(&late).await, ["kept".to_owned()].into(), "{case}");
    }
    broker.heals().await;
    if !broker.serves_others() {
        eventually("the sender is back", async || sender.client.list_peers().await.is_ok()).await;
        late = sender.sends(priorities, count).await;
    }
    sender.until_all(&shown, "surfaced", &["confirmed"]).await;
    sender.until_all(&late, "confirmed", &["kept", "pushed"]).await;
    let mut waiting: Vec<String> = early.into_iter().filter(|id| !shown.contains(id)).collect();
    waiting.extend(late);
    for id in &waiting {
        assert_eq!(sender.stage(id).await.as_deref(), Some("confirmed"), "{case}: not shown yet");
    }
    shown.extend(session.acts(&waiting).await);
    shown.extend(session.goes_on());
    sender.assert_once_in_order(from, &shown, &case);
    sender.until_all(&shown, "surfaced", &["confirmed"]).await;
    let again = session.goes_on();
    assert!(again.is_empty(), "{case}: nothing comes again: {again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_session_is_shown_each_message_once_whatever_happens_to_its_broker() {
    each_is_shown_once(State::Busy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_turn_shows_each_message_once_whatever_happens_to_the_broker() {
    each_is_shown_once(State::TurnEnds).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_channel_shows_each_message_once_whatever_happens_to_the_broker() {
    each_is_shown_once(State::IdleWithChannel).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bell_brings_each_message_once_whatever_happens_to_the_broker() {
    each_is_shown_once(State::IdleWithoutChannel).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_types_is_shown_each_message_once_whatever_happens_to_the_broker() {
    each_is_shown_once(State::Typing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_session_is_shown_each_message_once_whatever_happens_to_its_broker() {
    each_is_shown_once(State::Compacted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_session_is_shown_each_message_once_whatever_happens_to_its_broker() {
    each_is_shown_once(State::Resumed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crashed_and_restarted_host_shows_each_message_once_whatever_happens_to_its_broker() {
    each_is_shown_once(State::Restarted).await;
}
