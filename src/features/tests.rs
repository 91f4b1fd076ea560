//! Requests against stores that answer as told: one mesh, four members, no socket.

mod dispatching;
mod handling;

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::dispatch::Entry;
use super::{Context, Parts, REQUESTS, asked_for, handle};
use crate::app;
use crate::clock::Timestamp;
use crate::cluster::LeaseRef;
use crate::cluster::books::LeaseTimes;
use crate::cluster::single::SingleCluster;
use crate::codec::{ClientMessage, Codec, Request};
use crate::config::Config;
use crate::id::{Key, MemberId, MeshId};
use crate::protocol::{CloseReason, PeerRole};
use crate::rates::Budget;
use crate::record::PresenceRecord;
use crate::registry::RoomGuard;
use crate::session::inbox::Inbox;
use crate::session::outbox::{Outbox, Outgoing, Taken};
use crate::session::{Identity, Session};
use crate::store::{
    Member, MockAuditTrail, MockBans, MockDatabase, MockEnvelopes, MockInvites, MockMail,
    MockMembers, MockMeshes, MockMessages, MockPresenceSearch, MockPresences, Role, Stores,
};

/// The stores that requests ask; what is not expected of them is a failure.
#[derive(Default)]
struct Fakes {
    members: MockMembers,
    bans: MockBans,
    presences: MockPresences,
    messages: MockMessages,
    audit: MockAuditTrail,
}

struct Scene {
    parts: Arc<Parts>,
    room: RoomGuard,
}

/// The member with that name, whose key is of sixteen digits that begin alike.
fn member(name: &str, digits: &str, role: Role) -> Member {
    Member {
        id: MemberId::from(name),
        key: Key::from(digits.repeat(8)),
        display_name: name.to_owned(),
        role,
        is_owner: name == "olga",
        role_tag: None,
        default_groups: Vec::new(),
        message_mode: "push".to_owned(),
        grants: HashMap::new(),
        joined_at: Timestamp::default(),
        revoked_at: None,
    }
}

fn members() -> Vec<Member> {
    vec![
        member("olga", "00", Role::Admin),
        member("ada", "aa", Role::Admin),
        member("bob", "bb", Role::Member),
        member("eve", "ee", Role::Member),
    ]
}

impl Scene {
    async fn new(mut fakes: Fakes) -> Self {
        fakes.members.expect_active().returning(|_| Ok(members()));
        let mut mail = MockMail::new();
        mail.expect_newest_seq().returning(|_| Ok(0));
        let stores = Stores {
            database: Arc::new(MockDatabase::new()),
            members: Arc::new(fakes.members),
            bans: Arc::new(fakes.bans),
            presences: Arc::new(fakes.presences),
            presence_search: Arc::new(MockPresenceSearch::new()),
            envelopes: Arc::new(MockEnvelopes::new()),
            mail: Arc::new(mail),
            messages: Arc::new(fakes.messages),
            audit: Arc::new(fakes.audit),
            meshes: Arc::new(MockMeshes::new()),
            invites: Arc::new(MockInvites::new()),
        };
        let config = Config::for_tests(Path::new("/nowhere"));
        let times = LeaseTimes { grace_ms: 60_000, ttl_ms: 60_000 };
        let (cluster, _events) = SingleCluster::new(times);
        let (node, _writers) = app::assemble(config, stores, cluster);
        let parts = Arc::clone(&node.features);
        let registry = &parts.presence.registry;
        let (mesh, stores) = (MeshId::from("mesh"), &parts.stores);
        let room = registry.enter(&mesh, &*stores.members, &*stores.mail, &*parts.cluster).await;
        Self { room: room.expect("a room"), parts }
    }

    /// An open session of that member, called as the member is.
    fn session(&self, name: &str) -> Arc<Session> {
        self.session_with(name, Budget::new(0, 0))
    }

    fn session_with(&self, name: &str, budget: Budget) -> Arc<Session> {
        let member = self.room.member(&MemberId::from(name)).expect("a member");
        let (mesh, now) = (self.room.mesh().clone(), Timestamp::now());
        let mut record =
            PresenceRecord::new(mesh.clone(), member.id.clone(), member.key.clone(), now);
        record.display_name = name.to_owned();
        let lease = LeaseRef { mesh: mesh.clone(), presence: record.id.clone(), epoch: 1 };
        let identity = Identity {
            mesh,
            member: member.id.clone(),
            member_key: member.key.clone(),
            session_key: None,
            role: PeerRole::Session,
            visitor: false,
        };
        let (outbox, inbox) = (Outbox::new(), Inbox::new(0, true));
        let session = Session::new(identity, lease, Codec::Json, outbox, inbox, budget);
        let session = Arc::new(session);
        self.room.attach(record, Arc::clone(&session), || {});
        session
    }

    /// Has a session ask, and hears all that it is told until then.
    async fn says(&self, session: &Arc<Session>, frame: Value) -> Vec<Value> {
        self.says_of(REQUESTS, session, frame).await
    }

    async fn says_of(&self, known: &[Entry], session: &Arc<Session>, frame: Value) -> Vec<Value> {
        let frame = frame.to_string();
        let decoded = Codec::Json.decode(frame.as_bytes());
        let (req_id, message) = match decoded {
            Ok(Request { req_id, message }) => (req_id, Ok(message)),
            Err(error) => (error.req_id().cloned(), Err(error)),
        };
        let context = Context::new(&self.parts, &self.room, session, req_id);
        let work = match message {
            Ok(ClientMessage::Asked(asked)) => asked_for(context, &asked, known),
            other => handle(context, other, Instant::now()),
        };
        if let Some(work) = work {
            work.await;
        }
        // What has a task of its own.
        self.parts.life.tasks.close();
        self.parts.life.tasks.wait().await;
        self.parts.life.tasks.reopen();
        heard(session).0
    }

    /// Has a session ask under an id; there is one answer, which carries it.
    async fn asks(&self, session: &Arc<Session>, mut frame: Value) -> Value {
        frame["_reqId"] = json!("r");
        let mut told = self.says(session, frame).await;
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0]["_reqId"], "r");
        told.remove(0)
    }
}

/// What waits for a session, and how it ends, if it does.
fn heard(session: &Session) -> (Vec<Value>, Option<CloseReason>) {
    let (mut frames, mut told) = (VecDeque::new(), Vec::new());
    loop {
        let taken = session.outbox.take(&mut frames, usize::MAX).now_or_never();
        session.outbox.written(&frames);
        let read = |frame: Outgoing| Codec::Json.read::<Value>(&frame.bytes).expect("JSON");
        told.extend(frames.drain(..).map(read));
        match taken {
            Some(Taken::Frames) => {}
            Some(Taken::Close(reason)) => return (told, Some(reason)),
            None => return (told, None),
        }
    }
}

/// Notes what a fake was asked.
type Noted<T> = Arc<Mutex<Vec<T>>>;
