//! Presences by the clock: the leases of those whose sockets are here stay alive, and
//! a presence that nobody came back to ends, once in the cluster.
//!
//! Nothing here opens a presence, and nothing ends one whose lease is held. The clock
//! of [`jobs`](super) calls, and [`app`](crate::app) once before the node serves.

use std::collections::HashMap;
use std::sync::Arc;

use super::STALE_MS;
use crate::clock::Timestamp;
use crate::cluster::{Cluster, ClusterHealth, HeldLease};
use crate::id::MeshId;
use crate::limits;
use crate::presence::{self, changes};
use crate::protocol::CloseReason;
use crate::store::PresenceSearch;

/// Presences that one tick takes out.
const REAP_MAX: usize = 500;

/// Renews the leases of all sockets here, in one call whatever their meshes;
/// those taken over elsewhere close.
pub(super) async fn renew(parts: &presence::Parts) {
    let mut held = Vec::new();
    let mut sessions = HashMap::new();
    for room in parts.registry.rooms() {
        for (session, record) in room.sessions() {
            held.push(HeldLease { lease: session.lease.clone(), record });
            sessions.insert(session.lease.clone(), session);
        }
    }
    if held.is_empty() {
        return;
    }
    match parts.cluster.renew(&held).await {
        Ok(taken_over) => {
            for lease in &taken_over {
                if let Some(session) = sessions.get(lease) {
                    session.outbox.close(CloseReason::SESSION_REPLACED);
                }
            }
        }
        Err(error) => tracing::debug!(%error, "leases wait for their renewal"),
    }
}

/// Ends presences that nobody came back to.
pub(super) async fn reap(parts: &Arc<presence::Parts>) {
    let reaped = match parts.cluster.reap(REAP_MAX).await {
        Ok(reaped) => reaped,
        Err(error) => return tracing::debug!(%error, "nothing could be reaped"),
    };
    parts.metrics.leases_reaped.inc_by(reaped.len() as u64);
    let mut by_mesh: HashMap<MeshId, Vec<changes::Ending>> = HashMap::new();
    for record in reaped {
        let mesh = record.mesh.clone();
        let close = Some(CloseReason::DISCONNECTED);
        by_mesh.entry(mesh).or_default().push(changes::Ending { record, close, audit: Vec::new() });
    }
    for (mesh, endings) in by_mesh {
        if let Err(error) = changes::end(parts, &mesh, &endings).await {
            // Back into grace: they are reaped again when the store answers.
            tracing::warn!(%error, "presences could not be ended yet");
            let records: Vec<_> = endings.into_iter().map(|ending| ending.record).collect();
            if let Err(error) = parts.cluster.adopt(&records).await {
                tracing::debug!(%error, "the sweep for stale rows will find them");
            }
        }
    }
}

/// Presences that the store lists and no lease holds (this node's earlier
/// life, or a shared state that was lost) get their grace now: their sessions
/// may come back to the same presence, and those that do not leave once.
///
/// A cluster that is away does not keep the node from starting: the sweep for
/// stale rows comes back to them.
pub(crate) async fn resume(search: &dyn PresenceSearch, cluster: &dyn Cluster) {
    let now = Timestamp::now();
    // A single node's rows are all its own; in a cluster, others' are fresh.
    let before = match cluster.health() {
        ClusterHealth::Single => now.plus_ms(1),
        ClusterHealth::Up | ClusterHealth::Degraded => now.plus_ms(-STALE_MS),
    };
    if let Err(error) = adopt_unheard(search, cluster, before).await {
        tracing::warn!(%error, "presences of an earlier life wait for the next sweep");
    }
}

async fn adopt_unheard(
    search: &dyn PresenceSearch,
    cluster: &dyn Cluster,
    before: Timestamp,
) -> anyhow::Result<()> {
    let records = search.unheard(before).await?;
    if !records.is_empty() {
        cluster.adopt(&records).await?;
    }
    Ok(())
}

/// Gives their grace to presences whose rows no lease stands behind any more.
pub(super) async fn adopt_stale(search: &dyn PresenceSearch, cluster: &dyn Cluster) {
    let before = Timestamp::now().plus_ms(-STALE_MS);
    if let Err(error) = adopt_unheard(search, cluster, before).await {
        tracing::debug!(%error, "stale presences wait");
    }
}

/// Says in the store that the presences here were heard of; so many at once
/// that nobody else waits for long.
pub(super) async fn touch(parts: &presence::Parts) {
    let mut presences = Vec::new();
    for room in parts.registry.rooms() {
        room.for_each_session(|session, record| {
            // Visitors have no row.
            presences.extend((!record.visitor).then(|| session.presence.clone()));
        });
    }
    for batch in presences.chunks(limits::PRESENCE_BATCH_MAX) {
        if let Err(error) = parts.presences.touch(Timestamp::now(), batch).await {
            return tracing::debug!(%error, "presences are touched later");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::testing::heard;
    use crate::id::PresenceId;
    use crate::jobs::fixture::{Mocks, Scene, cluster_away, record};
    use crate::record::PresenceRecord;
    use crate::store::MockPresenceSearch;
    use crate::store::testing::unavailable;

    fn ids<'a>(ids: impl Iterator<Item = &'a PresenceId>) -> Vec<String> {
        let mut ids: Vec<String> = ids.map(ToString::to_string).collect();
        ids.sort();
        ids
    }

    #[tokio::test]
    async fn leases_of_all_meshes_are_renewed_at_once_and_those_taken_over_close() {
        let mut mocks = Mocks::default();
        mocks.cluster.expect_renew().once().returning(|held| {
            let held: Vec<_> = held.iter().map(|held| held.lease.clone()).collect();
            assert_eq!(ids(held.iter().map(|lease| &lease.presence)), ["lost", "mine", "other"]);
            Ok(held.into_iter().filter(|lease| lease.presence.as_str() == "lost").collect())
        });
        let scene = mocks.scene();
        let room = scene.enter("mesh").await;
        let (mine, lost) = (scene.session(&room, "mine"), scene.session(&room, "lost"));
        let other = scene.session(&scene.enter("another").await, "other");
        renew(&scene.presence).await;
        assert_eq!(heard(&lost.outbox).1, Some(CloseReason::SESSION_REPLACED));
        assert_eq!((heard(&mine.outbox).1, heard(&other.outbox).1), (None, None));
    }

    #[tokio::test]
    async fn without_sockets_nobody_is_asked_and_without_an_answer_nobody_closes() {
        let scene = Mocks::default().scene();
        let room = scene.enter("mesh").await;
        renew(&scene.presence).await;
        touch(&scene.presence).await;
        drop(room);
        let mut mocks = Mocks::default();
        mocks.cluster.expect_renew().once().returning(|_| Err(cluster_away()));
        let scene = mocks.scene();
        let session = scene.session(&scene.enter("mesh").await, "mine");
        renew(&scene.presence).await;
        assert_eq!(heard(&session.outbox).1, None);
    }

    fn reaping(records: [(&'static str, &'static str); 2]) -> Mocks {
        let mut mocks = Mocks::default();
        mocks.cluster.expect_reap().once().returning(move |limit| {
            assert_eq!(limit, REAP_MAX);
            Ok(records.map(|(mesh, id)| record(mesh, id)).into())
        });
        mocks
    }

    #[tokio::test]
    async fn what_is_reaped_ends_in_its_mesh_and_its_peers_hear_of_it() {
        let mut mocks = reaping([("a", "one"), ("b", "two")]);
        mocks.stores.presences.expect_end().times(2).returning(|_, ended| {
            assert_eq!(ended.len(), 1);
            Ok(ended.iter().map(|row| row.id.clone()).collect())
        });
        mocks.cluster.expect_publish().times(2).return_const(());
        let scene = mocks.scene();
        reap(&scene.presence).await;
        assert_eq!(scene.presence.metrics.leases_reaped.get(), 2);
    }

    #[tokio::test]
    async fn what_the_store_could_not_end_goes_back_into_grace_and_nobody_hears_of_it() {
        let mut mocks = reaping([("away", "kept"), ("here", "ended")]);
        mocks.stores.presences.expect_end().times(2).returning(|_, ended| {
            match ended[0].mesh.as_str() {
                "away" => Err(unavailable()),
                _ => Ok(vec![ended[0].id.clone()]),
            }
        });
        mocks
            .cluster
            .expect_publish()
            .once()
            .returning(|mesh, _| assert_eq!(mesh.as_str(), "here"));
        mocks.cluster.expect_adopt().once().returning(|records| {
            assert_eq!(ids(records.iter().map(|record| &record.id)), ["kept"]);
            Ok(())
        });
        reap(&mocks.scene().presence).await;
    }

    /// A store that is asked once for rows not heard of for so long, and finds these.
    fn search(found: fn() -> Vec<PresenceRecord>, age_ms: i64) -> MockPresenceSearch {
        let (mut search, earliest) = (MockPresenceSearch::new(), Timestamp::now());
        search.expect_unheard().once().returning(move |before| {
            let asked_at = before.plus_ms(age_ms);
            assert!((earliest..=Timestamp::now()).contains(&asked_at), "{asked_at:?}");
            Ok(found())
        });
        search
    }

    #[tokio::test]
    async fn a_stale_row_gets_its_grace_as_the_presence_that_it_was() {
        let search = search(|| vec![record("mesh", "one"), record("mesh", "two")], STALE_MS);
        let mut mocks = Mocks::default();
        mocks.cluster.expect_adopt().once().returning(|records| {
            assert_eq!(ids(records.iter().map(|record| &record.id)), ["one", "two"]);
            Ok(())
        });
        adopt_stale(&search, &mocks.cluster).await;
    }

    #[tokio::test]
    async fn where_no_row_is_stale_or_none_can_be_read_nothing_is_adopted() {
        let nothing = Mocks::default();
        adopt_stale(&search(Vec::new, STALE_MS), &nothing.cluster).await;
        let mut away = MockPresenceSearch::new();
        away.expect_unheard().once().returning(|_| Err(unavailable()));
        adopt_stale(&away, &nothing.cluster).await;
    }

    #[tokio::test]
    async fn a_node_alone_takes_all_rows_for_its_own_and_one_of_many_only_stale_ones() {
        for (health, age_ms) in [
            (ClusterHealth::Single, -1),
            (ClusterHealth::Up, STALE_MS),
            (ClusterHealth::Degraded, STALE_MS),
        ] {
            let mut mocks = Mocks::default();
            mocks.cluster.expect_health().return_const(health);
            mocks.cluster.expect_adopt().once().returning(|_| Err(cluster_away()));
            // A cluster that is away does not keep the node from starting.
            resume(&search(|| vec![record("mesh", "one")], age_ms), &mocks.cluster).await;
        }
    }

    async fn crowd(scene: &Scene, sessions: usize) {
        let room = scene.enter("mesh").await;
        for number in 0..sessions {
            scene.session(&room, &format!("session-{number}"));
        }
        scene.attach(&room, PresenceRecord { visitor: true, ..record("mesh", "visitor") });
    }

    #[tokio::test]
    async fn every_session_with_a_row_is_touched_in_batches() {
        let mut mocks = Mocks::default();
        let (first, rest) = (limits::PRESENCE_BATCH_MAX, 3);
        for size in [first, rest] {
            let touch = mocks.stores.presences.expect_touch().once();
            touch.withf(move |_, batch| batch.len() == size).returning(|_, batch| {
                assert!(batch.iter().all(|presence| presence.as_str() != "visitor"));
                Ok(())
            });
        }
        let scene = mocks.scene();
        crowd(&scene, first + rest).await;
        touch(&scene.presence).await;
    }

    #[tokio::test]
    async fn a_store_that_is_away_is_not_asked_for_every_batch() {
        let mut mocks = Mocks::default();
        mocks.stores.presences.expect_touch().once().returning(|_, _| Err(unavailable()));
        let scene = mocks.scene();
        crowd(&scene, limits::PRESENCE_BATCH_MAX + 1).await;
        touch(&scene.presence).await;
    }
}
