//! Mail by the clock: deliveries that nobody confirmed in time, and mail that nobody
//! told this node of.
//!
//! Nothing here sends a message: a session is only asked to read its mail from the
//! store, so that what it has confirmed cannot come again.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::cluster::BusMessage;
use crate::delivery::{self, drain};
use crate::id::{Key, MeshId};
use crate::limits;
use crate::registry::Registry;

/// Missed multicasts looked at in one go.
const MISSED_MAX: u32 = 64;

/// Deliveries that nobody confirmed in time, and sessions that have room
/// again after they stalled.
pub(super) fn redeliver(registry: &Registry, delivery: &Arc<delivery::Parts>) {
    let claim_ms = delivery.config.claim_ms;
    for room in registry.rooms() {
        let mut due = Vec::new();
        room.for_each_session(|session, _| {
            let expired = {
                let mut inbox = session.inbox.lock();
                !inbox.is_settled() && inbox.expire(session.age_ms() - claim_ms)
            };
            if expired {
                delivery.metrics.messages_redelivered.inc();
            }
            if expired || session.wants_drain() {
                due.push(Arc::clone(session));
            }
        });
        for session in due {
            drain::request(delivery, &room, &session);
        }
    }
}

/// Tells the store of deliveries that were written a moment ago and that nobody has
/// confirmed: whoever asks how far they are is told that they are on a socket.
pub(super) async fn note_pushed(registry: &Registry, delivery: &Arc<delivery::Parts>) {
    let mut pushed = Vec::new();
    for room in registry.rooms() {
        room.for_each_session(|session, _| {
            let before_ms = session.age_ms() - limits::PUSHED_NOTED_AFTER_MS;
            pushed.extend(session.inbox.lock().pushed(before_ms));
        });
    }
    if pushed.is_empty() {
        return;
    }
    if let Err(error) = delivery.stages.pushed(Timestamp::now(), &pushed).await {
        tracing::debug!(%error, "that deliveries were written is not noted");
    }
}

/// Ends messages that are too old to be delivered, and tells senders that want to know.
pub(super) async fn end_overdue(registry: &Registry, delivery: &Arc<delivery::Parts>) {
    let now = Timestamp::now();
    let accepted_before = now.plus_ms(-limits::UNDELIVERED_RETENTION_MS);
    let limit = limits::OVERDUE_AT_ONCE;
    match delivery.stages.end_overdue(now, accepted_before, limit).await {
        Ok(mailboxes) => {
            for (mesh, key) in mailboxes {
                match registry.room(&mesh) {
                    Some(room) => drain::mail_for(delivery, &room, key),
                    None => {
                        let message = BusMessage::MailFor { keys: vec![key], many: false };
                        delivery.cluster.publish(&mesh, &message);
                    }
                }
            }
        }
        Err(error) => tracing::debug!(%error, "overdue messages wait for the next look"),
    }
}

/// Mail that nobody told this node of: rows that another program wrote, and
/// claims that ran out with their node.
pub(super) async fn look_for_mail(registry: &Registry, delivery: &Arc<delivery::Parts>) {
    let mut mailboxes: Vec<(MeshId, Key)> = Vec::new();
    for room in registry.rooms() {
        room.for_each_session(|session, record| {
            for key in record.keys() {
                mailboxes.push((session.mesh.clone(), key.clone()));
            }
        });
    }
    mailboxes.sort();
    mailboxes.dedup();
    if mailboxes.is_empty() {
        return;
    }
    look_for_multicasts(registry, delivery).await;
    match delivery.mail.waiting(Timestamp::now(), &mailboxes).await {
        Ok(waiting) => {
            for (mesh, key) in waiting {
                if let Some(room) = registry.room(&mesh) {
                    drain::request_addressed(delivery, &room, &key);
                }
            }
        }
        Err(error) => tracing::debug!(%error, "mail could not be looked for"),
    }
}

/// Mail that another node claimed for a session here and cannot tell it of.
pub(super) async fn look_for_claimed(registry: &Registry, delivery: &Arc<delivery::Parts>) {
    let rooms = registry.rooms();
    let mut mailboxes = Vec::new();
    for room in &rooms {
        room.for_each_session(|session, record| {
            for key in record.keys() {
                mailboxes.push((session.mesh.clone(), key.clone(), session.presence.clone()));
            }
        });
    }
    let claimed = match delivery.mail.claimed(&mailboxes).await {
        Ok(claimed) => claimed,
        Err(error) => return tracing::debug!(%error, "claimed mail could not be looked for"),
    };
    for room in &rooms {
        for session in claimed.iter().filter_map(|presence| room.session(presence)) {
            drain::request(delivery, room, &session);
        }
    }
}

/// Multicasts that this node was not told of.
async fn look_for_multicasts(registry: &Registry, delivery: &Arc<delivery::Parts>) {
    for room in registry.rooms() {
        let after = room.last_multicast();
        match delivery.mail.multicasts_after(room.mesh(), after, MISSED_MAX).await {
            Ok(missed) => {
                if let Some(newest) = missed.last() {
                    room.skip_to(newest.seq, || drain::request_all(delivery, &room));
                }
            }
            Err(error) => return tracing::debug!(%error, "multicasts could not be looked for"),
        }
    }
}

/// Rooms whose database went back, in a failover or a restore.
pub(super) async fn look_for_rewinds(registry: &Registry, delivery: &Arc<delivery::Parts>) {
    for room in registry.rooms() {
        drain::rewind::check(delivery, &room).await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashSet, VecDeque};

    use super::*;
    use crate::codec::SharedFrame;
    use crate::delivery::testing::stored;
    use crate::id::{MessageId, PresenceId};
    use crate::jobs::fixture::{Mocks, Scene, record};
    use crate::protocol::{ErrorFrame, Priority, ServerMessage};
    use crate::record::PresenceRecord;
    use crate::session::Session;
    use crate::session::inbox::{Delivery, Route};
    use crate::session::outbox::Taken;
    use crate::store::StoredEnvelope;
    use crate::store::testing::unavailable;

    /// Mocks whose store is away for every drain: a session that was asked to drain is
    /// then one that wants to.
    fn mocks() -> Mocks {
        let mut mocks = Mocks::default();
        mocks.stores.mail.expect_newest_seq().returning(|_| Err(unavailable()));
        mocks
    }

    /// Writes a message to a session's socket, which does not confirm it.
    async fn deliver(session: &Session, id: &str) {
        let frame = Arc::new(SharedFrame::new(ServerMessage::Error(ErrorFrame::new("test", id))));
        let (id, priority) = (MessageId::from(id), Priority::Next);
        let route = Route::Direct;
        assert!(session.offer(&Delivery {
            id,
            route,
            priority,
            client_message_id: None,
            report_to: None,
            frame,
        }));
        let mut out = VecDeque::new();
        assert!(matches!(session.outbox.take(&mut out, usize::MAX).await, Taken::Frames));
        session.written(&out);
    }

    fn envelope(seq: i64) -> StoredEnvelope {
        stored(&format!("m{seq}"), seq, "ada", "*")
    }

    fn redeliver_in(scene: &Scene) {
        redeliver(scene.registry(), &scene.presence.delivery);
    }

    #[tokio::test]
    async fn what_nobody_confirmed_in_time_is_read_again_and_counted_once() {
        let scene = mocks().scene_with(|config| config.message.claim_ms = 0);
        let room = scene.enter("mesh").await;
        let (late, idle) = (scene.session(&room, "late"), scene.session(&room, "idle"));
        deliver(&late, "unconfirmed").await;
        redeliver_in(&scene);
        assert_eq!(scene.drains().await, 1);
        assert!(late.wants_drain() && !idle.wants_drain());
        // The store was away: the session is asked again, the message not counted again.
        redeliver_in(&scene);
        assert_eq!(scene.drains().await, 2);
        assert_eq!(scene.presence.metrics.messages_redelivered.get(), 1);
    }

    #[tokio::test]
    async fn what_may_still_be_confirmed_waits() {
        let scene = Mocks::default().scene_with(|config| config.message.claim_ms = 60_000);
        let session = scene.session(&scene.enter("mesh").await, "mine");
        deliver(&session, "fresh").await;
        redeliver_in(&scene);
        assert_eq!(scene.drains().await, 0);
    }

    async fn look_in(scene: &Scene) {
        look_for_mail(scene.registry(), &scene.presence.delivery).await;
    }

    #[tokio::test]
    async fn mail_is_looked_for_once_per_key_and_drains_those_whom_it_is_for() {
        let mut mocks = mocks();
        mocks.stores.mail.expect_multicasts_after().once().returning(|_, after, limit| {
            assert_eq!((after, limit), (0, MISSED_MAX));
            Ok(Vec::new())
        });
        mocks.stores.mail.expect_waiting().once().returning(|_, mailboxes| {
            let keys: Vec<&str> = mailboxes.iter().map(|(_, key)| key.as_str()).collect();
            assert_eq!(keys, ["a-key", "b-key", "shared"], "sorted, each once");
            Ok(vec![mailboxes[1].clone(), (MeshId::from("left meanwhile"), Key::from("b-key"))])
        });
        let scene = mocks.scene();
        let room = scene.enter("mesh").await;
        let attach = |id| {
            let record = record("mesh", id);
            let (member, member_key) = ("member".into(), Key::from("shared"));
            scene.attach(&room, PresenceRecord { member, member_key, ..record })
        };
        let (a, b) = (attach("a"), attach("b"));
        look_in(&scene).await;
        assert_eq!(scene.drains().await, 1);
        assert!(b.wants_drain() && !a.wants_drain());
    }

    #[tokio::test]
    async fn a_multicast_that_was_missed_drains_everybody_once() {
        let mut mocks = mocks();
        mocks.stores.mail.expect_multicasts_after().times(2).returning(|_, after, _| {
            Ok(if after < 7 { vec![envelope(5), envelope(7)] } else { Vec::new() })
        });
        mocks.stores.mail.expect_waiting().times(2).returning(|_, _| Ok(Vec::new()));
        let scene = mocks.scene();
        let room = scene.enter("mesh").await;
        let sessions = [scene.session(&room, "a"), scene.session(&room, "b")];
        look_in(&scene).await;
        assert_eq!((room.last_multicast(), scene.drains().await), (7, 2));
        assert!(sessions.iter().all(|session| session.wants_drain()));
        look_in(&scene).await;
        assert_eq!(scene.drains().await, 2, "nothing new");
    }

    #[tokio::test]
    async fn where_nobody_is_here_the_store_is_not_asked() {
        let scene = Mocks::default().scene();
        let _room = scene.enter("mesh").await;
        look_in(&scene).await;
    }

    #[tokio::test]
    async fn mail_that_was_claimed_elsewhere_drains_the_session_that_it_was_claimed_for() {
        let mut mocks = mocks();
        mocks.stores.mail.expect_claimed().once().returning(|mailboxes| {
            let asked: HashSet<&str> = mailboxes.iter().map(|(_, _, id)| id.as_str()).collect();
            assert_eq!(asked, HashSet::from(["mine", "other"]));
            assert_eq!(mailboxes.len(), 4, "a session's own key, and its member's");
            Ok([PresenceId::from("mine"), PresenceId::from("left meanwhile")].into())
        });
        let scene = mocks.scene();
        let (room, another) = (scene.enter("mesh").await, scene.enter("another").await);
        let (mine, other) = (scene.session(&room, "mine"), scene.session(&another, "other"));
        look_for_claimed(scene.registry(), &scene.presence.delivery).await;
        assert_eq!(scene.drains().await, 1);
        assert!(mine.wants_drain() && !other.wants_drain());
    }

    #[tokio::test]
    async fn a_store_that_is_away_drains_nobody() {
        let mut mocks = mocks();
        mocks.stores.mail.expect_multicasts_after().once().returning(|_, _, _| Err(unavailable()));
        mocks.stores.mail.expect_waiting().once().returning(|_, _| Err(unavailable()));
        mocks.stores.mail.expect_claimed().once().returning(|_| Err(unavailable()));
        let scene = mocks.scene();
        let _session = scene.session(&scene.enter("mesh").await, "mine");
        look_in(&scene).await;
        look_for_claimed(scene.registry(), &scene.presence.delivery).await;
        look_for_rewinds(scene.registry(), &scene.presence.delivery).await;
        assert_eq!(scene.drains().await, 0);
    }
}
