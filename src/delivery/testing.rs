//! The parts of this room over fakes, and a mesh with peers in it, for unit tests.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::send::PendingSend;
use super::{Parts, push};
use crate::clock::Timestamp;
use crate::cluster::{BusMessage, Cluster, ClusterHealth, Drawn, LeaseRef, MockCluster};
use crate::codec::Codec;
use crate::config::{Config, MessageConfig};
use crate::id::{Key, MemberId, MessageId, PresenceId};
use crate::life::Life;
use crate::limits;
use crate::metrics::Metrics;
use crate::protocol::{CloseReason, Priority, SealingPolicy};
use crate::rates::{Budget, Rates};
use crate::record::PresenceRecord;
use crate::registry::Room;
use crate::session::inbox::{Delivery, Inbox, Route};
use crate::session::outbox::{Outbox, Outgoing, Taken};
use crate::session::{Identity, Session};
use crate::store::testing::{self, mesh, record};
use crate::store::{
    Admission, ClaimRequest, Envelope, Mail, Member, Members, MockMail, MockMembers, MockStages,
    MockTopicMail, StoredEnvelope, TopicMail, TopicPost,
};
use crate::webhooks::noted::Noted;
use crate::writers::group_commit::{self, CommitLane};

/// What the stores and the cluster answer. What a test expects of a mock comes first;
/// all else is answered by what lies in the lists here.
pub(crate) struct Fakes {
    pub(crate) config: MessageConfig,
    pub(crate) members: MockMembers,
    pub(crate) mail: MockMail,
    pub(crate) stages: MockStages,
    pub(crate) topics: MockTopicMail,
    pub(crate) cluster: MockCluster,
    pub(crate) directs: Vec<StoredEnvelope>,
    pub(crate) multicasts: Vec<StoredEnvelope>,
    pub(crate) posts: Vec<TopicPost>,
    pub(crate) newest: i64,
    pub(crate) noted: Noted,
}

impl Default for Fakes {
    fn default() -> Self {
        Self {
            config: Config::for_tests(Path::new("unused")).message,
            members: MockMembers::new(),
            mail: MockMail::new(),
            stages: MockStages::new(),
            topics: MockTopicMail::new(),
            cluster: MockCluster::new(),
            directs: Vec::new(),
            multicasts: Vec::new(),
            posts: Vec::new(),
            newest: 0,
            noted: Noted::default(),
        }
    }
}

/// What the stores and the cluster were told.
#[derive(Default)]
struct Told {
    claims: Vec<ClaimRequest>,
    unclaimed: Vec<(PresenceId, Vec<MessageId>)>,
    blocked: Vec<MessageId>,
    published: Vec<BusMessage>,
}

/// The parts over those stores, and where sends go.
pub(crate) fn parts(
    config: MessageConfig,
    members: Arc<dyn Members>,
    mail: Arc<dyn Mail>,
    topics: Arc<dyn TopicMail>,
    cluster: Arc<dyn Cluster>,
) -> (Parts, CommitLane<PendingSend>) {
    let (group_commit, mut lanes) = group_commit::lanes(1);
    let parts = Parts {
        rates: Arc::new(Rates::new(&config, 1_000, 1_000)),
        config,
        members,
        mail,
        stages: Arc::new(MockStages::new()),
        topics,
        cluster,
        group_commit,
        noted: Arc::default(),
        drains: Semaphore::new(limits::DRAINS_READING_MAX),
        metrics: Arc::new(Metrics::new()),
        life: Arc::new(Life::default()),
    };
    (parts, lanes.pop().expect("a lane"))
}

/// A mesh on this node.
pub(crate) struct World {
    pub(crate) parts: Arc<Parts>,
    pub(crate) room: Arc<Room>,
    /// Where sends go; without it the writer is gone.
    pub(crate) lane: Option<CommitLane<PendingSend>>,
    told: Arc<Mutex<Told>>,
}

impl Fakes {
    pub(crate) fn world(mut self) -> World {
        let told = Arc::new(Mutex::new(Told::default()));
        self.answer_members();
        self.answer_mail(&told);
        self.answer_cluster(&told);
        self.answer_topics();
        let noted = Arc::clone(&told);
        self.stages.expect_block().returning(move |_, _, messages| {
            noted.lock().blocked.extend(messages.iter().cloned());
            Ok(Vec::new())
        });
        let (members, mail) = (Arc::new(self.members), Arc::new(self.mail));
        let topics = Arc::new(self.topics);
        let (parts, lane) = parts(self.config, members, mail, topics, Arc::new(self.cluster));
        let (noted, stages) = (Arc::new(self.noted), Arc::new(self.stages));
        let parts = Parts { noted, stages, ..parts };
        let room = Arc::new(Room::new(mesh(), Arc::default()));
        World { parts: Arc::new(parts), room, lane: Some(lane), told }
    }

    fn answer_members(&mut self) {
        self.members.expect_admit().returning(|_, _, _| Ok(Admission::Unknown));
        self.members.expect_of_session_key().returning(|_, _, _| Ok(None));
        self.members.expect_addressee_of_session_key().returning(|_, _, _| Ok(None));
    }

    fn answer_mail(&mut self, told: &Arc<Mutex<Told>>) {
        let (newest, noted) = (self.newest, Arc::clone(told));
        self.mail.expect_newest_seq().returning(move |_| Ok(newest));
        let rows = std::mem::take(&mut self.directs);
        self.mail.expect_claim().returning(move |_, ask| {
            noted.lock().claims.push(ask.clone());
            let is_asked = |row: &&StoredEnvelope| {
                let mut keys = ask.member_key.iter().chain(&ask.session_key);
                keys.any(|key| key.as_str() == row.target_spec) && !ask.in_flight.contains(&row.id)
            };
            Ok(rows.iter().filter(is_asked).take(ask.limit as usize).cloned().collect())
        });
        let rows = std::mem::take(&mut self.multicasts);
        self.mail.expect_multicasts_after().returning(move |_, after, limit| {
            let later = rows.iter().filter(|row| row.seq > after);
            Ok(later.take(limit as usize).cloned().collect())
        });
        let noted = Arc::clone(told);
        self.mail.expect_unclaim().returning(move |presence, messages| {
            noted.lock().unclaimed.push((presence.clone(), messages.to_vec()));
            Ok(())
        });
    }

    fn answer_topics(&mut self) {
        let rows = std::mem::take(&mut self.posts);
        self.topics.expect_posts_after().returning(move |_, _, after, limit| {
            let later = rows.iter().filter(|row| row.envelope.seq > after);
            Ok(later.take(limit as usize).cloned().collect())
        });
        self.topics.expect_addressed().returning(|_, _, _| Ok(None));
        self.topics.expect_roster().returning(|_, _| Ok(None));
    }

    fn answer_cluster(&mut self, told: &Arc<Mutex<Told>>) {
        let noted = Arc::clone(told);
        self.cluster
            .expect_take_tokens()
            .returning(|_, draws| Ok(Drawn::all_for_tests(draws, true)));
        self.cluster.expect_health().return_const(ClusterHealth::Single);
        self.cluster.expect_publish().returning(move |_, message| {
            noted.lock().published.push(message.clone());
        });
    }
}

impl World {
    /// Enrols these members, and nobody else.
    pub(crate) fn enrol(&self, members: &[&str]) {
        self.enrol_as(members.iter().map(|id| testing::member(id)).collect());
    }

    pub(crate) fn enrol_as(&self, members: Vec<Member>) {
        assert!(self.room.set_members(
            self.room.begin_refresh(),
            members,
            SealingPolicy::Preferred
        ));
    }

    /// A live session of that member, whose socket is here.
    pub(crate) fn enter(
        &self,
        member: &str,
        change: impl FnOnce(&mut PresenceRecord),
    ) -> Arc<Session> {
        let mut record = record(&testing::member(member));
        change(&mut record);
        let session = session(&record);
        assert!(!self.room.attach(record, Arc::clone(&session), || {}).is_refused);
        session
    }

    /// A presence of that member, whose socket is on another node.
    pub(crate) fn elsewhere(
        &self,
        member: &str,
        change: impl FnOnce(&mut PresenceRecord),
    ) -> PresenceId {
        let mut record = record(&testing::member(member));
        change(&mut record);
        let id = record.id.clone();
        assert!(!self.room.mirror(record).is_refused);
        id
    }

    /// Waits for every task that was begun.
    pub(crate) async fn settle(&self) {
        self.parts.life.settled().await;
    }

    /// What was claimed since the last call.
    pub(crate) fn claims(&self) -> Vec<ClaimRequest> {
        std::mem::take(&mut self.told.lock().claims)
    }

    /// The claims that were taken back since the last call.
    pub(crate) fn unclaimed(&self) -> Vec<(PresenceId, Vec<MessageId>)> {
        std::mem::take(&mut self.told.lock().unclaimed)
    }

    /// What grants kept away since the last call.
    pub(crate) fn blocked(&self) -> Vec<MessageId> {
        std::mem::take(&mut self.told.lock().blocked)
    }

    /// What other nodes were told since the last call.
    pub(crate) fn published(&self) -> Vec<BusMessage> {
        std::mem::take(&mut self.told.lock().published)
    }
}

/// A member who allows that sender nothing.
pub(crate) fn blocks(id: &str, sender: &str) -> Member {
    let grants = HashMap::from([(format!("{sender}-key"), Vec::new())]);
    Member { grants, ..testing::member(id) }
}

/// A live session with that record, whose first drain is over.
pub(crate) fn session(record: &PresenceRecord) -> Arc<Session> {
    session_with(record, Budget::new(0, 0))
}

/// As [`session`], and may send as much as that.
pub(crate) fn session_with(record: &PresenceRecord, budget: Budget) -> Arc<Session> {
    let identity = Identity {
        mesh: record.mesh.clone(),
        member: record.member.clone(),
        member_key: record.member_key.clone(),
        session_key: record.session_key.clone(),
        role: record.role,
        visitor: record.visitor,
        opens_sealed: record.opens_sealed,
    };
    let lease =
        LeaseRef { mesh: record.mesh.clone(), presence: record.id.clone(), epoch: record.epoch };
    let inbox = Inbox::new(0, record.confirms());
    let session = Session::new(identity, lease, Codec::Json, Outbox::new(), inbox, budget);
    assert!(session.plan_drain().is_some() && session.end_drain(true), "its first drain is over");
    Arc::new(session)
}

/// An envelope as the store has it.
pub(crate) fn stored(id: &str, seq: i64, sender: &str, target: &str) -> StoredEnvelope {
    StoredEnvelope {
        envelope: Envelope {
            id: MessageId::from(id),
            mesh: mesh(),
            sender_member: MemberId::from(sender),
            sender_name: sender.to_owned(),
            sender_session_key: None,
            target_spec: target.to_owned(),
            priority: Priority::Next,
            nonce: String::new(),
            ciphertext: "c2VhbGVk".to_owned(),
            client_message_id: Some(format!("client-{id}")),
            request_fingerprint: None,
            reply_to_id: Some("earlier".to_owned()),
            scheduled: None,
            properties: None,
        },
        seq,
        sender_key: Key::from(format!("{sender}-key")),
        created_at: Timestamp::default(),
        was_claimed: false,
    }
}

/// A direct message from `ada`, on its way to a session.
pub(crate) fn delivery(id: &str, seq: i64) -> Delivery {
    let push = push::direct(stored(id, seq, "ada", "bob-key"), &MemberId::from("bob"));
    push::delivery(push, Route::Direct)
}

/// What waits for the peer, and how its socket closes after that, if it does.
pub(crate) fn heard(outbox: &Outbox) -> (Vec<Value>, Option<CloseReason>) {
    let (mut frames, mut heard) = (VecDeque::new(), Vec::new());
    loop {
        let taken = outbox.take(&mut frames, usize::MAX).now_or_never();
        outbox.written(&frames);
        let read = |frame: Outgoing| Codec::Json.read::<Value>(&frame.bytes).expect("JSON");
        heard.extend(frames.drain(..).map(read));
        match taken {
            Some(Taken::Frames) => {}
            Some(Taken::Close(reason)) => return (heard, Some(reason)),
            None => return (heard, None),
        }
    }
}

/// The frames that wait for the peer.
pub(crate) fn frames(session: &Session) -> Vec<Value> {
    heard(&session.outbox).0
}

/// The ids of the messages that wait for the peer, in their order.
pub(crate) fn received(session: &Session) -> Vec<String> {
    let id = |frame: &Value| frame["messageId"].as_str().map(str::to_owned);
    frames(session).iter().filter_map(id).collect()
}
