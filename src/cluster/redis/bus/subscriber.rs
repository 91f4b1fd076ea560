//! The connection that hears: supervised, and rebuilt for ever.
//!
//! A frozen server, or one whose name leads elsewhere since a failover, gives
//! no sign. So the node publishes a probe on a channel of its own, by the
//! connection that publishes everything, and takes the bus for deaf when two of
//! them stay unheard. A server that ends a subscription by itself, as one does
//! whose slot moved, has the whole connection rebuilt: what else it ended is not
//! known.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::{PushKind, RedisResult, Value};
use tokio::sync::{Notify, mpsc};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::reader::{Intake, Push};
use super::shared::{Bus, Join};
use crate::cluster::redis::connection::{Connection, Opener};
use crate::cluster::redis::link::{Backoff, STEADY_AFTER};
use crate::id::MeshId;
use crate::limits::{BUS_PROBE_INTERVAL_MS, BUS_PROBES_MISSED_MAX};

/// Channels of one subscription call, and joins answered by one.
const CHANNELS_PER_CALL_MAX: usize = 256;

/// What the connection tells its supervisor.
#[derive(Default)]
struct Signals {
    probe_heard: AtomicU64,
    /// The last probe, and when it was sent.
    probe_sent: Mutex<Option<(u64, Instant)>>,
    /// The first probe was heard.
    hears: Notify,
    disconnected: Notify,
    /// Channels that this node lets go of.
    leaving: Mutex<HashSet<String>>,
    unsubscribed: Notify,
}

/// Hears until `stop`.
pub(super) async fn run(
    bus: Arc<Bus>,
    opener: Arc<Opener>,
    intake: Intake,
    mut joins: mpsc::Receiver<Join>,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::default();
    while !stop.is_cancelled() {
        let (started, seen) = (Instant::now(), bus.moves.now());
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = hear(&bus, &opener, &intake, &mut joins, seen) => ended,
        };
        bus.probe.note_hears(false);
        bus.probe.note_lag(None);
        if bus.is_subscribed.swap(false, Ordering::AcqRel) {
            bus.moves.note(seen);
        }
        if started.elapsed() >= STEADY_AFTER {
            backoff = Backoff::default();
        }
        let Err(error) = ended;
        if backoff.is_fresh() {
            tracing::warn!(%error, "the bus is deaf; it is rebuilt");
        } else {
            tracing::debug!(%error, "the bus is still deaf");
        }
        tokio::time::sleep(backoff.next_pause()).await;
    }
}

/// One connection's life: it ends only by failing.
async fn hear(
    bus: &Arc<Bus>,
    opener: &Opener,
    intake: &Intake,
    joins: &mut mpsc::Receiver<Join>,
    seen: u64,
) -> RedisResult<std::convert::Infallible> {
    let signals = Arc::new(Signals::default());
    let probe_channel = bus.keys.probe_channel(&bus.origin.to_text());
    let on_push = {
        let (signals, intake, bus) = (Arc::clone(&signals), intake.clone(), Arc::clone(bus));
        let probe_channel = probe_channel.clone();
        move |info: redis::PushInfo| {
            take(&bus, &signals, &intake, &probe_channel, info);
            Ok(())
        }
    };
    bus.forget_heard();
    let connection = opener.open_with_pushes(on_push).await?;
    let mut hearing = Hearing {
        bus,
        connection,
        signals,
        probe_channel,
        subscribed: HashSet::new(),
        missing: HashSet::new(),
        first_probe: bus.probe.number() + 1,
    };
    hearing.start().await?;
    hearing.serve(joins, seen).await
}

/// What the connection pushes. It must not wait.
fn take(bus: &Bus, signals: &Signals, intake: &Intake, probe_channel: &str, info: redis::PushInfo) {
    match info.kind {
        PushKind::Disconnection => signals.disconnected.notify_one(),
        PushKind::Unsubscribe | PushKind::SUnsubscribe => {
            let channel = match info.data.into_iter().next() {
                Some(Value::BulkString(channel)) => String::from_utf8(channel).unwrap_or_default(),
                _ => String::new(),
            };
            if !signals.leaving.lock().remove(&channel) {
                signals.unsubscribed.notify_one();
            }
        }
        _ => match Push::from_info(info) {
            Some(push) if push.channel == probe_channel => {
                if let Some(number) = bus.probe_heard(&push.channel, &push.payload) {
                    signals.hear_probe(bus, number);
                }
            }
            Some(push) => intake.offer(push),
            None => {}
        },
    }
}

impl Signals {
    fn hear_probe(&self, bus: &Bus, number: u64) {
        self.probe_heard.fetch_max(number, Ordering::Relaxed);
        if let Some((sent, at)) = *self.probe_sent.lock() {
            self.hears.notify_one();
            if sent == number {
                bus.probe.note_lag(Some(at.elapsed()));
            }
        }
    }
}

struct Hearing<'a> {
    bus: &'a Arc<Bus>,
    connection: Connection,
    signals: Arc<Signals>,
    probe_channel: String,
    subscribed: HashSet<MeshId>,
    /// Joined and not subscribed when last looked at.
    missing: HashSet<MeshId>,
    /// The number of the first probe on this connection.
    first_probe: u64,
}

impl Hearing<'_> {
    async fn start(&mut self) -> RedisResult<()> {
        let own = [self.bus.keys.beats_channel(), self.probe_channel.clone()];
        self.connection.subscribe(&own).await?;
        self.subscribe_to_joined().await?;
        // From here on a joining mesh asks for its subscription; those that
        // joined a moment before it did not.
        self.bus.is_subscribed.store(true, Ordering::Release);
        self.subscribe_to_joined().await?;
        tracing::info!(meshes = self.subscribed.len(), "the bus hears");
        self.bus.note_gap_everywhere();
        self.bus.rejoin.notify_one();
        Ok(())
    }

    async fn serve(
        &mut self,
        joins: &mut mpsc::Receiver<Join>,
        seen: u64,
    ) -> RedisResult<std::convert::Infallible> {
        let mut probe = tokio::time::interval(Duration::from_millis(BUS_PROBE_INTERVAL_MS));
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let signals = Arc::clone(&self.signals);
        let mut asked = Vec::new();
        loop {
            tokio::select! {
                () = signals.disconnected.notified() => return Err(deaf("disconnected")),
                () = signals.unsubscribed.notified() => {
                    return Err(deaf("the server has ended a subscription"));
                }
                () = self.bus.moves.after(seen) => {
                    return Err(deaf("another connection was opened anew"));
                }
                () = signals.hears.notified() => {
                    self.bus.probe.note_hears(true);
                    self.bus.ready.notify_one();
                }
                count = joins.recv_many(&mut asked, CHANNELS_PER_CALL_MAX) => {
                    if count == 0 {
                        return Err(deaf("closed"));
                    }
                    self.answer(&mut asked).await?;
                }
                _ = probe.tick() => {
                    self.probe()?;
                    self.reconcile().await?;
                }
            }
        }
    }

    async fn answer(&mut self, asked: &mut Vec<Join>) -> RedisResult<()> {
        let missing: HashSet<_> = asked
            .iter()
            .map(|(mesh, _)| mesh)
            .filter(|mesh| !self.subscribed.contains(*mesh))
            .cloned()
            .collect();
        self.subscribe(missing.into_iter().collect()).await?;
        for (mesh, done) in asked.drain(..) {
            if done.send(()).is_err() {
                // It went on without waiting any longer.
                self.bus.note_gap(&mesh);
                self.bus.rejoin.notify_one();
            }
        }
        Ok(())
    }

    fn probe(&self) -> RedisResult<()> {
        let heard = self.signals.probe_heard.load(Ordering::Relaxed);
        let sent = self.bus.probe.number();
        // Those of earlier connections do not count.
        let unheard = sent - heard.max(self.first_probe - 1).min(sent);
        if unheard >= BUS_PROBES_MISSED_MAX {
            return Err(deaf("it does not hear its own probes"));
        }
        if unheard > 0 {
            // It is late: how late, nobody knows yet.
            self.bus.probe.note_lag(None);
        }
        *self.signals.probe_sent.lock() = Some((sent + 1, Instant::now()));
        self.bus.probe.send(sent + 1);
        Ok(())
    }

    /// Unsubscribes from what was left, and makes up for a join that was not
    /// heard of.
    async fn reconcile(&mut self) -> RedisResult<()> {
        let joined: HashSet<_> = self.bus.joined().into_iter().collect();
        let left: Vec<_> = self.subscribed.difference(&joined).cloned().collect();
        for meshes in left.chunks(CHANNELS_PER_CALL_MAX) {
            let channels: Vec<_> = meshes.iter().map(|mesh| self.bus.keys.channel(mesh)).collect();
            self.signals.leaving.lock().extend(channels.iter().cloned());
            self.connection.unsubscribe(&channels).await?;
        }
        self.subscribed.retain(|mesh| joined.contains(mesh));
        // What is missing for the first time has asked a moment ago.
        let missing: HashSet<_> = joined.difference(&self.subscribed).cloned().collect();
        let overlooked: Vec<_> = missing.intersection(&self.missing).cloned().collect();
        self.missing = missing;
        if !overlooked.is_empty() {
            self.subscribe(overlooked.clone()).await?;
            overlooked.iter().for_each(|mesh| self.bus.note_gap(mesh));
            self.bus.rejoin.notify_one();
        }
        Ok(())
    }

    async fn subscribe_to_joined(&mut self) -> RedisResult<()> {
        let joined = self.bus.joined();
        let missing = joined.into_iter().filter(|mesh| !self.subscribed.contains(mesh));
        let missing = missing.collect();
        self.subscribe(missing).await
    }

    async fn subscribe(&mut self, meshes: Vec<MeshId>) -> RedisResult<()> {
        for meshes in meshes.chunks(CHANNELS_PER_CALL_MAX) {
            let channels: Vec<_> = meshes.iter().map(|mesh| self.bus.keys.channel(mesh)).collect();
            self.connection.subscribe(&channels).await?;
        }
        self.subscribed.extend(meshes);
        Ok(())
    }
}

fn deaf(why: &'static str) -> redis::RedisError {
    redis::RedisError::from(std::io::Error::new(std::io::ErrorKind::ConnectionAborted, why))
}
