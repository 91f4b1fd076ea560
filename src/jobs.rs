//! What a node does by the clock: the list of its jobs, with the pace of each.
//!
//! Each job is a loop in a task of its own; a tick that takes long delays the next,
//! ticks never pile up. Database work is awaited to its end: a job looks at `stopped`
//! between ticks only. Nothing here is on a message's way, and no job may be what a
//! peer waits for. [`app`](crate::app) starts them all.
//!
//! - [`leases`]: presences stay alive, and end when nobody comes back to them
//! - [`mail`]: mail that nobody confirmed, and mail that nobody told this node of
//! - [`schedules`]: messages whose time has come
//! - [`tasks`]: claims that nobody renewed, and what was done long ago
//! - [`heads`]: where audit chains end, signed
//! - [`upkeep`]: the database's health and size, what other programs change in it
//! - [`sample`]: what operators see
//! - [`sim_clock`]: simulation clocks tick

#[cfg(test)]
mod fixture;
mod heads;
pub(crate) mod leases;
mod mail;
pub(crate) mod sample;
mod schedules;
mod sim_clock;
mod tasks;
mod upkeep;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::task::TaskTracker;

pub(crate) use self::heads::HeadSigner;
use self::sample::Sampler;
use crate::cluster::ClusterHealth;
use crate::events::shared;
use crate::life::Life;
use crate::presence::{self, changes, status, transcript};
use crate::store::Stores;
use crate::vitals;
use crate::webhooks::{self, noted, tell};

const REAP_INTERVAL: Duration = Duration::from_millis(200);
const DECAY_INTERVAL: Duration = Duration::from_millis(500);
const VITALS_INTERVAL: Duration = Duration::from_millis(vitals::SAMPLE_INTERVAL_MS);
const INFER_INTERVAL: Duration = Duration::from_secs(3);
const REDELIVERY_INTERVAL: Duration = Duration::from_millis(500);
/// Between two looks for mail: as long as a claim holds, within these bounds.
const MAIL_INTERVAL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_secs(1);
const STALE_INTERVAL: Duration = Duration::from_secs(60);
const TOUCH_INTERVAL: Duration = Duration::from_secs(30);
/// A presence not heard of for this long is nobody's: its node is dead.
const STALE_MS: i64 = 3 * TOUCH_INTERVAL.as_millis() as i64;
const HEALTH_INTERVAL: Duration = Duration::from_secs(2);
const DEPTH_INTERVAL: Duration = Duration::from_secs(30);
/// Between two looks for claims of tasks that have run out. They have anyway: this only
/// tells of it.
const CLAIMS_INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks whether posts of other programs have to be looked for again.
const ADOPTION_INTERVAL: Duration = Duration::from_secs(1);
const RETENTION_INTERVAL: Duration = Duration::from_secs(600);
const SWEEP_INTERVAL: Duration = Duration::from_secs(15);
/// Between two looks whether the database went back. What arrives under a seq
/// that was passed, and every drain, look at once.
const REWIND_INTERVAL: Duration = Duration::from_secs(10);
/// Between two looks for what webhooks are to be told.
const WEBHOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Between two looks how far messages are.
const STAGES_INTERVAL: Duration = Duration::from_secs(1);
/// Between two questions for ends whose answer was lost.
const SETTLE_INTERVAL: Duration = Duration::from_secs(1);

/// Between two questions how the simulation clocks are.
const CLOCK_INTERVAL: Duration = Duration::from_secs(5);

/// What the jobs work with; each takes its own part of it.
pub(crate) struct Parts {
    pub(crate) stores: Stores,
    /// Through it delivery, the registry, the cluster and the node's life.
    pub(crate) presence: Arc<presence::Parts>,
    pub(crate) sampler: Arc<Sampler>,
    pub(crate) webhooks: Arc<webhooks::Parts>,
    /// Whether a status is inferred from a session's transcript.
    pub(crate) infers_status: bool,
    /// Signs where audit chains end, if it has a key.
    pub(crate) audit: HeadSigner,
}

/// Starts all jobs.
pub(crate) fn start(parts: &Arc<Parts>, tasks: &TaskTracker) {
    let presence = &parts.presence;
    let (life, message) = (&presence.life, &presence.delivery.config);
    let renewal = Duration::from_millis(presence.config.lease_renewal_ms());
    every(life, tasks, renewal, presence, |presence| async move { leases::renew(&presence).await });
    every(
        life,
        tasks,
        REAP_INTERVAL,
        presence,
        |presence| async move { leases::reap(&presence).await },
    );
    every(life, tasks, STALE_INTERVAL, parts, |parts| async move {
        leases::adopt_stale(&*parts.stores.presence_search, &*parts.presence.cluster).await;
    });
    every(life, tasks, TOUCH_INTERVAL, presence, |presence| async move {
        leases::touch(&presence).await
    });
    every(life, tasks, SETTLE_INTERVAL, presence, |presence| async move {
        changes::settle_ends(&presence).await;
    });
    every(life, tasks, DECAY_INTERVAL, presence, |presence| async move {
        status::decay(&presence).await
    });
    if parts.infers_status {
        every(life, tasks, INFER_INTERVAL, presence, |presence| async move {
            transcript::infer(&presence).await
        });
    }
    every(life, tasks, REDELIVERY_INTERVAL, presence, |presence| async move {
        mail::redeliver(&presence.registry, &presence.delivery);
    });
    every(life, tasks, STAGES_INTERVAL, presence, |presence| async move {
        mail::note_pushed(&presence.registry, &presence.delivery).await;
        mail::end_overdue(&presence.registry, &presence.delivery).await;
    });
    let claim = Duration::from_millis(message.claim_ms.unsigned_abs());
    let look = claim.clamp(*MAIL_INTERVAL.start(), *MAIL_INTERVAL.end());
    every(life, tasks, look, presence, |presence| async move {
        mail::look_for_mail(&presence.registry, &presence.delivery).await;
    });
    every(life, tasks, POLL_INTERVAL, presence, |presence| async move {
        // Without the bus the store is the only way between nodes.
        if presence.cluster.health() == ClusterHealth::Degraded {
            mail::look_for_claimed(&presence.registry, &presence.delivery).await;
            mail::look_for_mail(&presence.registry, &presence.delivery).await;
            for room in presence.registry.rooms() {
                shared::catch_up(&presence.shared, &room);
            }
        }
    });
    every(life, tasks, REWIND_INTERVAL, presence, |presence| async move {
        mail::look_for_rewinds(&presence.registry, &presence.delivery).await;
    });
    every(
        life,
        tasks,
        VITALS_INTERVAL,
        &parts.sampler,
        |sampler| async move { sampler.sample().await },
    );
    every(life, tasks, HEALTH_INTERVAL, parts, |parts| async move {
        upkeep::check_store(&parts.stores, &parts.presence).await;
    });
    if let Some(look) = parts.audit.look_interval() {
        every(life, tasks, look, parts, |parts| async move {
            parts.audit.sign_due(&*parts.stores.audit_heads, &parts.presence).await;
            parts.audit.show(&*parts.stores.audit_heads, &parts.presence).await;
        });
    }
    every(life, tasks, DEPTH_INTERVAL, parts, |parts| async move {
        upkeep::measure_queue(&*parts.stores.messages, &parts.presence.metrics).await;
    });
    every(life, tasks, RETENTION_INTERVAL, parts, |parts| async move {
        upkeep::expire(&*parts.stores.messages, &parts.presence).await;
        upkeep::expire_posts(&*parts.stores.topic_mail, &parts.presence).await;
        upkeep::forget_removed(&*parts.stores.states).await;
    });
    every(life, tasks, CLAIMS_INTERVAL, parts, |parts| async move {
        tasks::end_claims(&*parts.stores.tasks, &parts.presence).await;
    });
    every(life, tasks, RETENTION_INTERVAL, parts, |parts| async move {
        tasks::forget_done(&*parts.stores.tasks, &parts.presence).await;
    });
    every(life, tasks, ADOPTION_INTERVAL, presence, |presence| async move {
        upkeep::adopt_again(&presence).await;
    });
    every(life, tasks, SWEEP_INTERVAL, presence, |presence| async move {
        upkeep::sweep(&presence, Instant::now()).await;
    });
    let scheduled = Arc::clone(parts);
    life.supervisor.spawn(tasks, "the sender of scheduled messages", async move {
        schedules::run(&scheduled.stores, &scheduled.presence).await;
    });
    every(life, tasks, CLOCK_INTERVAL, presence, |presence| async move {
        sim_clock::look(&presence).await;
    });
    let ticker = sim_clock::run(Arc::clone(presence));
    life.supervisor.spawn(tasks, "the ticker of simulation clocks", ticker);
    every(life, tasks, WEBHOOK_INTERVAL, &parts.webhooks, |webhooks| async move {
        noted::tick(&webhooks).await;
        tell::tick(&webhooks).await;
    });
    every(life, tasks, RETENTION_INTERVAL, &parts.webhooks, |webhooks| async move {
        upkeep::forget_calls(&*webhooks.store).await;
    });
    let (watching, stopped) = (Arc::clone(parts), life.stopped.clone());
    life.supervisor.spawn(tasks, "the watch for other programs' changes", async move {
        while !stopped.is_cancelled() {
            upkeep::watch_changes(&*watching.stores.database, &watching.presence).await;
        }
    });
}

/// Runs `tick` with its parts at that pace until the node stops. A tick that panics
/// ends the node: a job that silently did no more would let every lease run out.
#[track_caller]
pub(crate) fn every<P, F, T>(
    life: &Arc<Life>,
    tasks: &TaskTracker,
    interval: Duration,
    parts: &Arc<P>,
    tick: F,
) where
    P: Send + Sync + 'static,
    F: Fn(Arc<P>) -> T + Send + 'static,
    T: Future<Output = ()> + Send,
{
    let name = format!("the job at {}", std::panic::Location::caller());
    let (stopped, parts) = (life.stopped.clone(), Arc::clone(parts));
    life.supervisor.spawn(tasks, name, async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = stopped.cancelled() => return,
            }
            tick(Arc::clone(&parts)).await;
        }
    });
}
