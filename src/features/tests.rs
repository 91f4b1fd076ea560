//! Requests against stores that answer as told: one mesh, four members, no socket.

mod dispatching;
mod handling;
mod secrets;
mod streams;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::dispatch::Entry;
use super::{Context, Parts, REQUESTS, asked_for, handle};
use crate::clock::Timestamp;
use crate::cluster::books::LeaseTimes;
use crate::cluster::single::SingleCluster;
use crate::codec::{ClientMessage, Codec, Request};
use crate::config::Config;
use crate::delivery::testing::heard;
use crate::id::{Key, MemberId};
use crate::presence::fakes::entered;
use crate::protocol::CloseReason;
use crate::rates::Budget;
use crate::registry::RoomGuard;
use crate::session::Session;
use crate::store::MockStores;
use crate::store::testing;
use crate::store::{Member, Role};
use crate::{app, delivery};

struct Scene {
    parts: Arc<Parts>,
    room: RoomGuard,
}

/// The member with that name, whose key is of sixteen digits that begin alike.
fn member(name: &str, digits: &str, role: Role) -> Member {
    let (key, is_owner) = (Key::from(digits.repeat(8)), name == "olga");
    Member { key, role, is_owner, ..testing::member(name) }
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
    /// What is not expected of the stores is a failure.
    async fn new(mut stores: MockStores) -> Self {
        stores.members.expect_active().returning(|_| Ok(members()));
        stores.mail.expect_newest_seq().returning(|_| Ok(0));
        let config = Config::for_tests(Path::new("/nowhere"));
        let times = LeaseTimes { grace_ms: 60_000, ttl_ms: 60_000 };
        let (cluster, _events) = SingleCluster::new(times);
        let (node, _writers) = app::assemble(config, stores.stores(), cluster);
        let parts = Arc::clone(&node.features);
        Self { room: entered(&parts.presence).await, parts }
    }

    /// An open session of that member, called as the member is.
    fn session(&self, name: &str) -> Arc<Session> {
        self.session_with(name, Budget::new(0, 0))
    }

    fn session_with(&self, name: &str, budget: Budget) -> Arc<Session> {
        let member = self.room.member(&MemberId::from(name)).expect("a member");
        let record = testing::record(&member);
        let session = delivery::testing::session_with(&record, budget);
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
        self.parts.life.settled().await;
        heard(&session.outbox).0
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

/// Notes what a fake was asked.
type Noted<T> = Arc<Mutex<Vec<T>>>;
