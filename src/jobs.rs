//! What a node does by the clock.
//!
//! Each job is a loop in a task of its own; a tick that takes long delays the
//! next, it does not pile up. Database work is awaited to its end: a job looks
//! at `stopped` between ticks only.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_util::task::TaskTracker;

use crate::clock::Timestamp;
use crate::cluster::{ClusterHealth, HeldLease, PresenceRecord};
use crate::delivery::deliver;
use crate::delivery::drain;
use crate::id::{Key, MeshId};
use crate::limits;
use crate::node::Node;
use crate::presence::{changes, members, status, transcript};
use crate::protocol::CloseReason;
use crate::store::{Changes, OpenPresenceState, Retention, StoredPresence};
use crate::vitals;

const REAP_INTERVAL: Duration = Duration::from_millis(200);
const REAP_MAX: usize = 500;
const DECAY_INTERVAL: Duration = Duration::from_millis(500);
const VITALS_INTERVAL: Duration = Duration::from_millis(vitals::SAMPLE_INTERVAL_MS);
const INFER_INTERVAL: Duration = Duration::from_secs(3);
const REDELIVERY_INTERVAL: Duration = Duration::from_millis(500);
/// Between two looks for mail: as long as a claim holds, within these bounds.
const MAIL_INTERVAL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_secs(1);
const STALE_INTERVAL: Duration = Duration::from_secs(60);
/// A presence not heard of for this long is nobody's: its node is dead.
const STALE_MS: i64 = 3 * TOUCH_INTERVAL.as_millis() as i64;
const TOUCH_INTERVAL: Duration = Duration::from_secs(30);
const HEALTH_INTERVAL: Duration = Duration::from_secs(2);
const DEPTH_INTERVAL: Duration = Duration::from_secs(30);
const RETENTION_INTERVAL: Duration = Duration::from_secs(600);
const SWEEP_INTERVAL: Duration = Duration::from_secs(15);
/// Between two looks whether the database went back. What arrives under a place
/// that was passed, and every drain, look at once.
const PLACES_INTERVAL: Duration = Duration::from_secs(10);
/// Between two questions for ends whose answer was lost.
const SETTLE_INTERVAL: Duration = Duration::from_secs(1);
/// Missed multicasts looked at in one go.
const MISSED_MAX: u32 = 64;
const RETENTION_ROWS: i64 = 1000;
/// After the store refused to tell of changes.
const CHANGES_PAUSE: Duration = Duration::from_secs(2);

/// Starts them all.
pub fn start(node: &Arc<Node>, tasks: &TaskTracker) {
    let renewal = Duration::from_millis(node.config.presence.lease_renewal_ms());
    every(node, tasks, renewal, |node| async move { renew(&node).await });
    every(node, tasks, REAP_INTERVAL, |node| async move { reap(&node).await });
    every(node, tasks, DECAY_INTERVAL, |node| async move { status::decay(&node.presence).await });
    if node.config.infers_status() {
        every(node, tasks, INFER_INTERVAL, |node| async move {
            transcript::infer(&node.presence).await
        });
    }
    every(node, tasks, REDELIVERY_INTERVAL, |node| async move { redeliver(&node) });
    every(node, tasks, VITALS_INTERVAL, |node| async move { vitals::sample(&node).await });
    let claim = Duration::from_millis(node.config.message.claim_ms.unsigned_abs());
    let look = claim.clamp(*MAIL_INTERVAL.start(), *MAIL_INTERVAL.end());
    every(node, tasks, look, |node| async move { look_for_mail(&node).await });
    every(node, tasks, POLL_INTERVAL, |node| async move {
        // Without the bus the store is the only way between nodes.
        if node.cluster.health() == ClusterHealth::Degraded {
            look_for_claimed(&node).await;
            look_for_mail(&node).await;
        }
    });
    every(node, tasks, PLACES_INTERVAL, |node| async move {
        for room in node.registry.rooms() {
            drain::places::check(&node.delivery, &room).await;
        }
    });
    every(node, tasks, SETTLE_INTERVAL, |node| async move {
        changes::settle_ends(&node.presence).await
    });
    every(node, tasks, STALE_INTERVAL, |node| async move { adopt_stale(&node).await });
    every(node, tasks, TOUCH_INTERVAL, |node| async move { touch(&node).await });
    every(node, tasks, HEALTH_INTERVAL, |node| async move { check_store(&node).await });
    every(node, tasks, DEPTH_INTERVAL, |node| async move { measure_queue(&node).await });
    every(node, tasks, RETENTION_INTERVAL, |node| async move { expire(&node).await });
    every(node, tasks, SWEEP_INTERVAL, |node| async move { sweep(&node).await });
    let (watcher, stopped) = (Arc::clone(node), node.life.stopped.clone());
    node.life.supervisor.spawn(tasks, "the watch for other programs' changes", async move {
        while !stopped.is_cancelled() {
            watch_changes(&watcher).await;
        }
    });
}

/// Runs `tick` at that pace until the node stops. A tick that panics ends the
/// node: a job that silently did no more would let every lease run out.
#[track_caller]
pub(crate) fn every<F, T>(node: &Arc<Node>, tasks: &TaskTracker, interval: Duration, tick: F)
where
    F: Fn(Arc<Node>) -> T + Send + 'static,
    T: Future<Output = ()> + Send,
{
    let name = format!("the job at {}", std::panic::Location::caller());
    let (supervisor, node) = (node.life.supervisor.clone(), Arc::clone(node));
    supervisor.spawn(tasks, name, async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = node.life.stopped.cancelled() => return,
            }
            tick(Arc::clone(&node)).await;
        }
    });
}

// --- leases ----------------------------------------------------------------------

/// Renews the leases of all sockets here, in one call whatever their meshes;
/// those taken over elsewhere close.
async fn renew(node: &Arc<Node>) {
    let mut held = Vec::new();
    let mut sessions = HashMap::new();
    for room in node.registry.rooms() {
        for (session, record) in room.sessions() {
            held.push(HeldLease { lease: session.lease.clone(), record });
            sessions.insert(session.lease.clone(), session);
        }
    }
    if held.is_empty() {
        return;
    }
    match node.cluster.renew(&held).await {
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
async fn reap(node: &Arc<Node>) {
    let reaped = match node.cluster.reap(REAP_MAX).await {
        Ok(reaped) => reaped,
        Err(error) => return tracing::debug!(%error, "nothing could be reaped"),
    };
    node.metrics.leases_reaped.inc_by(reaped.len() as u64);
    let mut by_mesh: HashMap<MeshId, Vec<changes::Ending>> = HashMap::new();
    for record in reaped {
        let mesh = record.mesh.clone();
        let close = Some(CloseReason::DISCONNECTED);
        by_mesh.entry(mesh).or_default().push(changes::Ending { record, close, audit: Vec::new() });
    }
    for (mesh, endings) in by_mesh {
        if let Err(error) = changes::end(&node.presence, &mesh, &endings).await {
            // Back into grace: they are reaped again when the store answers.
            tracing::warn!(%error, "presences could not be ended yet");
            let records: Vec<_> = endings.into_iter().map(|ending| ending.record).collect();
            if let Err(error) = node.cluster.adopt(&records).await {
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
pub async fn resume_presences(node: &Arc<Node>) {
    let now = Timestamp::now();
    // A single node's rows are all its own; in a cluster, others' are fresh.
    let before = match node.cluster.health() {
        ClusterHealth::Single => now.plus_ms(1),
        ClusterHealth::Up | ClusterHealth::Degraded => now.plus_ms(-STALE_MS),
    };
    if let Err(error) = adopt_unheard(node, before).await {
        tracing::warn!(%error, "presences of an earlier life wait for the next sweep");
    }
}

async fn adopt_unheard(node: &Node, before: Timestamp) -> anyhow::Result<()> {
    let stored = node.stores.presence_search.unheard(before).await?;
    let records: Vec<PresenceRecord> = stored.into_iter().map(record_of).collect();
    if !records.is_empty() {
        node.cluster.adopt(&records).await?;
    }
    Ok(())
}

/// Rows that no lease stands behind any more.
async fn adopt_stale(node: &Arc<Node>) {
    let before = Timestamp::now().plus_ms(-STALE_MS);
    if let Err(error) = adopt_unheard(node, before).await {
        tracing::debug!(%error, "stale presences wait");
    }
}

fn record_of(stored: StoredPresence) -> PresenceRecord {
    let StoredPresence { opened, member_key, member_name, connected_at, last_ping_at } = stored;
    let OpenPresenceState { about, status: (status, status_source, status_updated_at), .. } =
        opened;
    PresenceRecord {
        id: opened.id,
        mesh: opened.mesh,
        member: opened.member,
        member_key,
        session_key: opened.session_key,
        role: opened.role,
        session_id: about.session_id,
        display_name: about.display_name.unwrap_or(member_name),
        status,
        status_source,
        status_updated_at,
        summary: opened.summary,
        groups: opened.groups,
        connected_at,
        last_seen_at: last_ping_at,
        cwd: about.cwd,
        pid: about.pid,
        hostname: about.hostname,
        peer_type: about.peer_type,
        channel: about.channel,
        model: about.model,
        stats: opened.stats,
        visible: opened.visible,
        profile: opened.profile,
        node: opened.node.unwrap_or_default(),
        epoch: 0,
        online: false,
        visitor: false,
        has_confirmed: false,
        begins_after: None,
    }
}

/// Says in the store that the presences here were heard of; so many at once
/// that nobody else waits for long.
async fn touch(node: &Arc<Node>) {
    let mut presences = Vec::new();
    for room in node.registry.rooms() {
        room.for_each_session(|session, record| {
            // Visitors have no row.
            presences.extend((!record.visitor).then(|| session.presence.clone()));
        });
    }
    for some in presences.chunks(limits::PRESENCE_BATCH_MAX) {
        if let Err(error) = node.stores.presences.touch(Timestamp::now(), some).await {
            return tracing::debug!(%error, "presences are touched later");
        }
    }
}

// --- mail --------------------------------------------------------------------------

/// Deliveries that nobody confirmed in time, and sessions that have room
/// again after they stalled.
fn redeliver(node: &Arc<Node>) {
    let claim_ms = node.config.message.claim_ms;
    for room in node.registry.rooms() {
        let mut due = Vec::new();
        room.for_each_session(|session, _| {
            let expired = {
                let mut inbox = session.inbox.lock();
                !inbox.is_settled() && inbox.expire(session.age_ms() - claim_ms)
            };
            if expired {
                node.metrics.messages_redelivered.inc();
            }
            if expired || session.wants_drain() {
                due.push(Arc::clone(session));
            }
        });
        for session in due {
            drain::request(&node.delivery, &room, &session);
        }
    }
}

/// Mail that nobody told this node of: rows that another program wrote, and
/// claims that ran out with their node.
async fn look_for_mail(node: &Arc<Node>) {
    let mut mailboxes: Vec<(MeshId, Key)> = Vec::new();
    for room in node.registry.rooms() {
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
    look_for_multicasts(node).await;
    match node.stores.mail.waiting(Timestamp::now(), &mailboxes).await {
        Ok(waiting) => {
            for (mesh, key) in waiting {
                if let Some(room) = node.registry.room(&mesh) {
                    deliver::drain_addressed(&node.delivery, &room, &key);
                }
            }
        }
        Err(error) => tracing::debug!(%error, "mail could not be looked for"),
    }
}

/// Mail that another node claimed for a session here and cannot tell it of.
async fn look_for_claimed(node: &Arc<Node>) {
    let rooms = node.registry.rooms();
    let mut mailboxes = Vec::new();
    for room in &rooms {
        room.for_each_session(|session, record| {
            for key in record.keys() {
                mailboxes.push((session.mesh.clone(), key.clone(), session.presence.clone()));
            }
        });
    }
    let claimed = match node.stores.mail.claimed(&mailboxes).await {
        Ok(claimed) => claimed,
        Err(error) => return tracing::debug!(%error, "claimed mail could not be looked for"),
    };
    for room in &rooms {
        for session in claimed.iter().filter_map(|presence| room.session(presence)) {
            drain::request(&node.delivery, room, &session);
        }
    }
}

/// Multicasts that this node was not told of.
async fn look_for_multicasts(node: &Arc<Node>) {
    for room in node.registry.rooms() {
        let after = room.last_multicast();
        match node.stores.mail.multicasts_after(room.mesh(), after, MISSED_MAX).await {
            Ok(missed) => {
                if let Some(newest) = missed.last() {
                    room.skip_to(newest.seq, || drain::request_all(&node.delivery, &room));
                }
            }
            Err(error) => return tracing::debug!(%error, "multicasts could not be looked for"),
        }
    }
}

/// Deletes what is past its time.
async fn expire(node: &Arc<Node>) {
    let now = Timestamp::now();
    // Multicasts are written as delivered: those in grace must still find them.
    let grace_ms = node.config.presence.lease_grace_ms + node.config.presence.lease_ttl_ms;
    let kept_ms = match node.life.disk_low.load(Ordering::Relaxed) {
        true => 0,
        false => node.config.message.delivered_retention_ms(),
    };
    let delivered_ms = kept_ms.max(2 * grace_ms + STALE_MS);
    let retention = Retention {
        delivered_before: now.plus_ms(-delivered_ms),
        undelivered_before: now.plus_ms(-limits::UNDELIVERED_RETENTION_MS),
        keys_before: now.plus_ms(-limits::IDEMPOTENCE_MS),
        limit: RETENTION_ROWS,
    };
    loop {
        match node.stores.messages.expire(now, &retention).await {
            Ok(expired) => {
                let most = expired.delivered.max(expired.undelivered).max(expired.keys);
                if most < RETENTION_ROWS.unsigned_abs() || node.life.stopped.is_cancelled() {
                    return;
                }
            }
            Err(error) => return tracing::warn!(%error, "old rows stay for now"),
        }
    }
}

// --- the store -----------------------------------------------------------------------

async fn check_store(node: &Arc<Node>) {
    let up = node.stores.database.ping().await;
    let was_up = node.life.store_up.swap(up.is_ok(), Ordering::Relaxed);
    node.metrics.db_healthy.set(i64::from(up.is_ok()));
    match up {
        Ok(()) if !was_up => tracing::info!("the database answers again"),
        Err(error) if was_up => tracing::error!(%error, "the database does not answer"),
        _ => {}
    }
    check_disk(node).await;
}

/// Below the floor nothing new is taken, while what is under way can still be
/// written down; and what was delivered goes before its time.
async fn check_disk(node: &Arc<Node>) {
    let floor = node.config.message.disk_free_min_bytes;
    let room = match node.stores.database.room().await {
        Ok(room) => room.unwrap_or(u64::MAX),
        Err(error) => return tracing::debug!(%error, "the room on the disk is not known"),
    };
    let is_low = room < floor;
    let free_mib = room >> 20;
    match (node.life.disk_low.swap(is_low, Ordering::Relaxed), is_low) {
        (false, true) => {
            tracing::error!(free_mib, "the disk is nearly full: nothing new is taken; make room");
            expire(node).await;
        }
        (true, false) => tracing::info!(free_mib, "the disk has room again"),
        _ => {}
    }
}

async fn measure_queue(node: &Arc<Node>) {
    match node.stores.messages.depth().await {
        Ok(depth) => {
            node.metrics.queue_depth.set(depth);
        }
        Err(error) => tracing::debug!(%error, "the queue could not be measured"),
    }
}

/// Another program changed members, grants or meshes.
async fn watch_changes(node: &Arc<Node>) {
    let rooms = match node.stores.database.changes().await {
        Ok(Changes::None) => return,
        Ok(Changes::Meshes(meshes)) => {
            // Also where there is no room yet: a hello may be about to make it, by
            // what it has read before this.
            node.presence.member_changes.fetch_add(1, Ordering::AcqRel);
            meshes.iter().filter_map(|mesh| node.registry.room(mesh)).collect()
        }
        Ok(Changes::Unknown) => {
            node.presence.member_changes.fetch_add(1, Ordering::AcqRel);
            node.registry.rooms()
        }
        Err(error) => {
            tracing::debug!(%error, "changes could not be watched");
            return tokio::time::sleep(CHANGES_PAUSE).await;
        }
    };
    for room in rooms {
        members::refresh(&node.presence, &room).await;
        for (session, _) in room.sessions() {
            drain::request(&node.delivery, &room, &session);
        }
    }
}

/// Rooms that nobody uses, rate limits that nobody needs.
async fn sweep(node: &Arc<Node>) {
    for mesh in node.registry.take_unused(Instant::now()) {
        node.cluster.leave_mesh(&mesh).await;
    }
    node.rates.sweep();
}
