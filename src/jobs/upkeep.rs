//! The store by the clock: whether it answers and has room, what is past its time,
//! and what other programs change in it; and what nobody on this node uses.
//!
//! Nothing here takes or delivers a message.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::STALE_MS;
use crate::clock::Timestamp;
use crate::delivery::{adopt, drain};
use crate::limits;
use crate::metrics::Metrics;
use crate::presence::{self, members};
use crate::store::{Changes, Database, Messages, Retention, States, Stores, TopicMail, Webhooks};

/// Rows of each kind that one call deletes.
const RETENTION_ROWS: i64 = 1000;
/// After the store refused to tell of changes.
const CHANGES_PAUSE: Duration = Duration::from_secs(2);

/// Deletes what is past its time.
pub(super) async fn expire(messages: &dyn Messages, parts: &presence::Parts) {
    let now = Timestamp::now();
    // Multicasts are written as delivered: those in grace must still find them.
    let grace_ms = parts.config.lease_grace_ms + parts.config.lease_ttl_ms;
    let kept_ms = match parts.life.disk_low.load(Ordering::Relaxed) {
        true => 0,
        false => parts.delivery.config.delivered_retention_ms(),
    };
    let delivered_ms = kept_ms.max(2 * grace_ms + STALE_MS);
    let retention = Retention {
        delivered_before: now.plus_ms(-delivered_ms),
        undelivered_before: now.plus_ms(-limits::UNDELIVERED_RETENTION_MS),
        keys_before: now.plus_ms(-limits::IDEMPOTENCE_MS),
        limit: RETENTION_ROWS,
    };
    loop {
        match messages.expire(now, &retention).await {
            Ok(expired) => {
                let most = expired.delivered.max(expired.undelivered).max(expired.keys);
                if most < RETENTION_ROWS.unsigned_abs() || parts.life.stopped.is_cancelled() {
                    return;
                }
            }
            Err(error) => return tracing::warn!(%error, "old rows stay for now"),
        }
    }
}

/// Deletes what was said in topics too long ago.
pub(super) async fn expire_posts(topics: &dyn TopicMail, parts: &presence::Parts) {
    let days = i64::from(parts.delivery.config.topic_retention_days);
    if days == 0 {
        return;
    }
    let before = Timestamp::now().plus_ms(-days * limits::DAY_MS);
    loop {
        match topics.expire_posts(before, RETENTION_ROWS).await {
            Ok(gone) if gone < RETENTION_ROWS.unsigned_abs() => return,
            Ok(_) if parts.life.stopped.is_cancelled() => return,
            Ok(_) => {}
            Err(error) => return tracing::warn!(%error, "old posts stay for now"),
        }
    }
}

/// Forgets calls of webhooks that nobody makes again.
pub(super) async fn forget_calls(webhooks: &dyn Webhooks) {
    let before = Timestamp::now().plus_ms(-limits::WEBHOOK_REPEAT_MS);
    if let Err(error) = webhooks.forget_calls(before).await {
        tracing::warn!(%error, "old calls of webhooks stay for now");
    }
}

/// Forgets what was removed from what meshes share, once every node has read of it.
pub(super) async fn forget_removed(states: &dyn States) {
    let before = Timestamp::now().plus_ms(-limits::SHARED_REMOVED_KEPT_MS);
    if let Err(error) = states.forget_removed(before).await {
        tracing::warn!(%error, "what was removed stays remembered for now");
    }
}

/// Whether the database answers, and whether it has room to write.
pub(super) async fn check_store(stores: &Stores, parts: &presence::Parts) {
    let up = stores.database.ping().await;
    let was_up = parts.life.store_up.swap(up.is_ok(), Ordering::Relaxed);
    parts.metrics.db_healthy.set(i64::from(up.is_ok()));
    match up {
        Ok(()) if !was_up => tracing::info!("the database answers again"),
        Err(error) if was_up => tracing::error!(%error, "the database does not answer"),
        _ => {}
    }
    check_disk(stores, parts).await;
}

/// Below the floor nothing new is taken, while what is under way can still be
/// written down; and what was delivered goes before its time.
async fn check_disk(stores: &Stores, parts: &presence::Parts) {
    let floor = parts.delivery.config.disk_free_min_bytes;
    let room = match stores.database.room().await {
        Ok(room) => room.unwrap_or(u64::MAX),
        Err(error) => return tracing::debug!(%error, "the room on the disk is not known"),
    };
    let is_low = room < floor;
    let free_mib = room >> 20;
    match (parts.life.disk_low.swap(is_low, Ordering::Relaxed), is_low) {
        (false, true) => {
            tracing::error!(free_mib, "the disk is nearly full: nothing new is taken; make room");
            expire(&*stores.messages, parts).await;
        }
        (true, false) => tracing::info!(free_mib, "the disk has room again"),
        _ => {}
    }
}

/// How much mail waits in all.
pub(super) async fn measure_queue(messages: &dyn Messages, metrics: &Metrics) {
    match messages.depth().await {
        Ok(depth) => {
            metrics.queue_depth.set(depth);
        }
        Err(error) => tracing::debug!(%error, "the queue could not be measured"),
    }
}

/// Waits for what another program changes about members, grants or meshes, and reads
/// that again.
pub(super) async fn watch_changes(database: &dyn Database, parts: &Arc<presence::Parts>) {
    let rooms = match database.changes().await {
        Ok(Changes::None) => return,
        Ok(Changes::Meshes(meshes)) => {
            // Also where there is no room yet: a hello may be about to make it, by
            // what it has read before this.
            parts.member_changes.fetch_add(1, Ordering::AcqRel);
            meshes.iter().filter_map(|mesh| parts.registry.room(mesh)).collect()
        }
        Ok(Changes::Unknown) => {
            parts.member_changes.fetch_add(1, Ordering::AcqRel);
            parts.registry.rooms()
        }
        Err(error) => {
            tracing::debug!(%error, "changes could not be watched");
            return tokio::time::sleep(CHANGES_PAUSE).await;
        }
    };
    for room in rooms {
        members::refresh(parts, &room).await;
        adopt::posts(&parts.delivery, &room).await;
        for (session, _) in room.sessions() {
            drain::request(&parts.delivery, &room, &session);
        }
    }
}

/// Looks again for posts of other programs where that failed.
pub(super) async fn adopt_again(parts: &presence::Parts) {
    adopt::again(&parts.delivery, parts.registry.rooms(), Timestamp::now()).await;
}

/// Forgets rooms that nobody uses by now, and rate limits that nobody needs.
pub(super) async fn sweep(parts: &presence::Parts, now: Instant) {
    for mesh in parts.registry.take_unused(now) {
        parts.cluster.leave_mesh(&mesh).await;
    }
    parts.delivery.rates.sweep();
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use futures_util::FutureExt as _;
    use parking_lot::Mutex;

    use super::*;
    use crate::id::MeshId;
    use crate::jobs::fixture::{Mocks, Scene, member};
    use crate::store::testing::unavailable;
    use crate::store::{Expired, MockMessages, MockTopicMail};

    const PAGE: u64 = RETENTION_ROWS.unsigned_abs();

    fn expired(delivered: u64, undelivered: u64, keys: u64) -> Expired {
        Expired { delivered, undelivered, keys }
    }

    #[tokio::test]
    async fn old_posts_are_deleted_until_a_page_is_not_full_and_never_where_they_are_kept() {
        let mut topics = MockTopicMail::new();
        let mut pages = vec![3, PAGE, PAGE];
        topics.expect_expire_posts().times(3).returning(move |before, limit| {
            assert!(Timestamp::now().ms_since(before) >= 365 * limits::DAY_MS);
            assert_eq!(limit, RETENTION_ROWS);
            Ok(pages.pop().expect("no page after one that is not full"))
        });
        expire_posts(&topics, &Mocks::default().scene().presence).await;
        let kept = Mocks::default().scene_with(|config| config.message.topic_retention_days = 0);
        expire_posts(&topics, &kept.presence).await;
    }

    #[tokio::test]
    async fn old_rows_are_deleted_until_a_page_is_not_full() {
        let mut messages = MockMessages::new();
        let mut pages = vec![expired(PAGE - 1, 1, 0), expired(0, 0, PAGE), expired(3, PAGE, 0)];
        pages.push(expired(PAGE, 0, 0));
        messages.expect_expire().times(4).returning(move |_, retention| {
            assert_eq!(retention.limit, RETENTION_ROWS);
            Ok(pages.pop().expect("no page after one that is not full"))
        });
        expire(&messages, &Mocks::default().scene().presence).await;
    }

    #[tokio::test]
    async fn a_node_that_stops_and_a_store_that_is_away_end_the_deleting() {
        let mut messages = MockMessages::new();
        messages.expect_expire().once().returning(|_, _| Ok(expired(PAGE, PAGE, PAGE)));
        messages.expect_expire().once().returning(|_, _| Err(unavailable()));
        let scene = Mocks::default().scene();
        scene.presence.life.stopped.cancel();
        expire(&messages, &scene.presence).await;
        expire(&messages, &Mocks::default().scene().presence).await;
    }

    /// How long delivered rows are kept, in milliseconds.
    async fn kept_ms(scene: &Scene) -> i64 {
        let kept = Arc::new(Mutex::new(0));
        let mut messages = MockMessages::new();
        let noted = Arc::clone(&kept);
        messages.expect_expire().once().returning(move |now, retention| {
            *noted.lock() = now.as_ms() - retention.delivered_before.as_ms();
            Ok(expired(0, 0, 0))
        });
        expire(&messages, &scene.presence).await;
        *kept.lock()
    }

    #[tokio::test]
    async fn a_full_disk_shortens_how_long_delivered_mail_is_kept_but_not_for_those_in_grace() {
        let scene = Mocks::default().scene();
        let parts = &scene.presence;
        assert_eq!(kept_ms(&scene).await, parts.delivery.config.delivered_retention_ms());
        parts.life.disk_low.store(true, Ordering::Relaxed);
        let in_grace_ms = parts.config.lease_grace_ms + parts.config.lease_ttl_ms;
        assert_eq!(kept_ms(&scene).await, 2 * in_grace_ms + STALE_MS);
    }

    #[tokio::test]
    async fn a_database_that_does_not_answer_is_down_until_it_does() {
        let mut mocks = Mocks::default();
        mocks.stores.database.expect_ping().times(2).returning(|| Err(unavailable()));
        mocks.stores.database.expect_ping().once().returning(|| Ok(()));
        mocks.stores.database.expect_room().times(3).returning(|| Err(unavailable()));
        let scene = mocks.scene();
        let (life, metrics) = (&scene.presence.life, &scene.presence.metrics);
        for up in [false, false, true] {
            check_store(&scene.stores, &scene.presence).await;
            assert_eq!(life.store_up.load(Ordering::Relaxed), up);
            assert_eq!((life.is_ready(), metrics.db_healthy.get()), (up, i64::from(up)));
            assert!(!life.disk_low.load(Ordering::Relaxed), "nobody knows of the disk");
        }
    }

    #[tokio::test]
    async fn a_disk_is_low_below_its_floor_and_makes_room_once() {
        let mut mocks = Mocks::default();
        let floor = 1 << 20;
        // Of another machine's disk nothing is known; an unknown answer changes nothing.
        let looks = [
            (Ok(None), false),
            (Ok(Some(floor)), false),
            (Ok(Some(floor - 1)), true),
            (Ok(Some(0)), true),
            (Err(()), true),
            (Ok(Some(floor)), false),
            (Ok(Some(0)), true),
        ];
        let mut rooms = looks.map(|(room, _)| room).into_iter();
        mocks.stores.database.expect_ping().returning(|| Ok(()));
        mocks
            .stores
            .database
            .expect_room()
            .returning(move || rooms.next().expect("a look").map_err(|()| unavailable()));
        mocks.stores.messages.expect_expire().times(2).returning(|_, _| Ok(expired(0, 0, 0)));
        let scene = mocks.scene_with(|config| config.message.disk_free_min_bytes = floor);
        for (at, (_, is_low)) in looks.into_iter().enumerate() {
            check_store(&scene.stores, &scene.presence).await;
            assert_eq!(scene.presence.life.disk_low.load(Ordering::Relaxed), is_low, "look {at}");
        }
    }

    #[tokio::test]
    async fn a_queue_that_cannot_be_measured_keeps_its_last_depth() {
        let mut messages = MockMessages::new();
        messages.expect_depth().once().returning(|| Ok(7));
        messages.expect_depth().once().returning(|| Err(unavailable()));
        let metrics = Metrics::new();
        for _ in 0..2 {
            measure_queue(&messages, &metrics).await;
            assert_eq!(metrics.queue_depth.get(), 7);
        }
    }

    /// Looks once at what the database tells, in a node with two rooms and a session in
    /// each: which meshes' members were read, and how many sessions drained.
    async fn watched(changes: Changes) -> (HashSet<String>, u64, u64) {
        let mut mocks = Mocks::default();
        let read = Arc::new(Mutex::new(HashSet::new()));
        let noted = Arc::clone(&read);
        mocks.stores.members.expect_active().returning(move |mesh| {
            assert!(noted.lock().insert(mesh.to_string()), "each once");
            Ok(vec![member(mesh.as_str())])
        });
        mocks.stores.mail.expect_newest_seq().returning(|_| Err(unavailable()));
        mocks.stores.database.expect_changes().once().return_once(|| Ok(changes));
        let scene = mocks.scene();
        let rooms = [scene.enter("one").await, scene.enter("two").await];
        for room in &rooms {
            scene.session(room, room.mesh().as_str());
        }
        watch_changes(&*scene.stores.database, &scene.presence).await;
        let drains = scene.drains().await;
        let changes = scene.presence.member_changes.load(Ordering::Acquire);
        let read = read.lock().clone();
        (read, drains, changes)
    }

    fn meshes(names: &[&str]) -> HashSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn a_mesh_that_another_program_changed_is_read_again_and_drained() {
        let changed = Changes::Meshes(vec![MeshId::from("two"), MeshId::from("not here")]);
        let (read, drains, changes) = watched(changed).await;
        assert_eq!((read, drains), (meshes(&["two"]), 1));
        assert!(changes > 0, "a hello that is under way looks again");
    }

    #[tokio::test]
    async fn a_change_in_a_mesh_without_a_room_is_counted_for_the_hello_that_makes_it() {
        let changed = Changes::Meshes(vec![MeshId::from("not here")]);
        let (read, drains, changes) = watched(changed).await;
        assert_eq!((read, drains, changes), (meshes(&[]), 0, 1));
    }

    #[tokio::test]
    async fn a_change_of_which_nobody_knows_where_reads_every_mesh_and_none_reads_nothing() {
        let (read, drains, changes) = watched(Changes::Unknown).await;
        assert_eq!((read, drains), (meshes(&["one", "two"]), 2));
        assert!(changes > 0);
        assert_eq!(watched(Changes::None).await, (meshes(&[]), 0, 0));
    }

    #[tokio::test]
    async fn a_database_that_does_not_tell_of_changes_is_not_asked_at_once_again() {
        let mut mocks = Mocks::default();
        mocks.stores.database.expect_changes().once().returning(|| Err(unavailable()));
        let scene = mocks.scene();
        let watching = watch_changes(&*scene.stores.database, &scene.presence);
        assert!(watching.now_or_never().is_none(), "it pauses");
    }

    #[tokio::test]
    async fn a_room_is_left_when_nobody_has_used_it_for_a_while() {
        let mut mocks = Mocks::default();
        mocks.cluster.expect_leave_mesh().once().returning(|mesh| {
            assert_eq!(mesh.as_str(), "left");
        });
        let scene = mocks.scene();
        let _used = scene.enter("used").await;
        drop(scene.enter("left").await);
        sweep(&scene.presence, Instant::now()).await;
        assert_eq!(scene.registry().rooms().len(), 2, "its peer may come back");
        sweep(&scene.presence, Instant::now() + Duration::from_secs(3600)).await;
        let rooms = scene.registry().rooms();
        assert_eq!(rooms.iter().map(|room| room.mesh().as_str()).collect::<Vec<_>>(), ["used"]);
    }
}
