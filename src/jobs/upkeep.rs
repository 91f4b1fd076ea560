//! The store by the clock: whether it answers and has room, what is past its time,
//! and what other programs change in it; and what nobody on this node uses.
//!
//! Nothing here takes or delivers a message.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::STALE_MS;
use crate::clock::Timestamp;
use crate::delivery::drain;
use crate::limits;
use crate::metrics::Metrics;
use crate::presence::{self, members};
use crate::store::{Changes, Database, Messages, Retention, Stores};

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
        for (session, _) in room.sessions() {
            drain::request(&parts.delivery, &room, &session);
        }
    }
}

/// Rooms that nobody uses, rate limits that nobody needs.
pub(super) async fn sweep(parts: &presence::Parts) {
    for mesh in parts.registry.take_unused(Instant::now()) {
        parts.cluster.leave_mesh(&mesh).await;
    }
    parts.delivery.rates.sweep();
}
