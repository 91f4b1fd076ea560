//! What other programs change: told by the database, else asked for.
//!
//! Triggers notify the channel `claudemesh_changes` with `<mesh id> <who>`. A
//! task of the store listens on a connection of its own and asks itself every
//! few seconds whether it still hears: behind a pooler that shares sessions, or
//! on a connection that is alive but deaf, it would not. While it does not
//! hear, callers are told [`Changes::Unknown`] every few seconds. Where sessions are
//! known to be shared (`DATABASE_STATEMENT_CACHE=0`) nobody listens.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout_at};
use tracing::{debug, warn};

use super::error::{refused, unavailable};
use super::pool::Pool;
use crate::id::MeshId;
use crate::store::{Changes, Result};

const CHANNEL: &str = "claudemesh_changes";
/// Waiting for something to tell.
const WAIT: Duration = Duration::from_secs(1);
/// From one question whether the listener hears to the next, and the time for
/// its answer. Later: it connects again.
const PROBE_PERIOD: Duration = Duration::from_secs(5);
/// While nobody listens: from one [`Changes::Unknown`] to the next.
const POLL_PERIOD: Duration = Duration::from_secs(5);
/// From a listener that failed to the next one.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// Meshes named at once. More: [`Changes::Unknown`].
const MESHES_MAX: usize = 1000;

/// The listener of one store; it begins with the first question.
pub(in crate::store) struct Watch {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    news: Mutex<News>,
    told: Notify,
    /// Probes heard.
    heard: AtomicU64,
}

/// What nobody has asked for yet.
struct News {
    meshes: BTreeSet<MeshId>,
    unknown: bool,
    listening: bool,
    /// Whether a question was answered before anybody listened.
    answered: bool,
    polled_at: Instant,
}

impl Watch {
    pub(in crate::store) fn new() -> Self {
        let news = News {
            meshes: BTreeSet::new(),
            unknown: false,
            listening: false,
            answered: false,
            polled_at: Instant::now(),
        };
        let shared =
            Shared { news: Mutex::new(news), told: Notify::new(), heard: AtomicU64::new(0) };
        Self { shared: Arc::new(shared), task: Mutex::new(None) }
    }

    /// Waits until there is something to tell, or for about a second.
    pub(in crate::store) async fn changes(&self, pool: &Arc<Pool>, own_name: &str) -> Changes {
        // A session that others share hears for whoever has it at the time, and
        // goes on listening for whoever has it next.
        if !pool.has_shared_sessions() {
            let mut task = self.task.lock();
            // One that panicked would be deaf without saying so.
            if task.as_ref().is_some_and(JoinHandle::is_finished) {
                self.shared.news.lock().stop();
                *task = None;
            }
            if task.is_none() {
                let (shared, pool) = (Arc::clone(&self.shared), Arc::clone(pool));
                *task = Some(tokio::spawn(listen_for_ever(shared, pool, own_name.to_owned())));
            }
        }
        let until = tokio::time::Instant::now() + WAIT;
        loop {
            let told = self.shared.told.notified();
            let changes = self.shared.news.lock().take();
            if changes != Changes::None || timeout_at(until, told).await.is_err() {
                self.shared.news.lock().answered = true;
                return changes;
            }
        }
    }

    pub(in crate::store) fn stop(&self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop();
    }
}

impl News {
    fn take(&mut self) -> Changes {
        if !self.listening && self.polled_at.elapsed() >= POLL_PERIOD {
            self.unknown = true;
            self.polled_at = Instant::now();
        }
        let meshes = std::mem::take(&mut self.meshes);
        if std::mem::take(&mut self.unknown) {
            Changes::Unknown
        } else if meshes.is_empty() {
            Changes::None
        } else {
            Changes::Meshes(meshes.into_iter().collect())
        }
    }

    /// What happened while nobody listened is not known.
    fn begin(&mut self) {
        if !self.listening {
            self.listening = true;
            self.unknown |= self.answered;
        }
    }

    fn stop(&mut self) {
        if self.listening {
            self.listening = false;
            self.answered = true;
            self.polled_at = Instant::now();
        }
    }

    fn add(&mut self, mesh: &str) {
        self.meshes.insert(MeshId::from(mesh));
        if self.meshes.len() > MESHES_MAX {
            self.meshes.clear();
            self.unknown = true;
        }
    }
}

async fn listen_for_ever(shared: Arc<Shared>, pool: Arc<Pool>, own_name: String) {
    let mut warned = false;
    loop {
        let ended = listen(&shared, &pool, &own_name).await;
        let was_listening = {
            let mut news = shared.news.lock();
            let was_listening = news.listening;
            news.stop();
            was_listening
        };
        match ended {
            Err(error) if was_listening || !warned => {
                warned = true;
                warn!(%error, "changes that other programs make are asked for, not told");
            }
            Err(error) => debug!(%error, "still nobody tells of changes"),
            Ok(()) => {}
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// Listens until the connection ends or turns out deaf.
async fn listen(shared: &Shared, pool: &Pool, own_name: &str) -> Result<()> {
    // The listener wants a pool; this one holds its only connection.
    let own = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(PROBE_PERIOD)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(pool.options().clone());
    let mut listener = PgListener::connect_with(&own).await.map_err(refused)?;
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await.map_err(refused)?;
    tokio::select! {
        ended = receive(shared, &mut listener, own_name) => ended,
        deaf = probe(shared, pool, own_name) => deaf,
    }
}

async fn receive(shared: &Shared, listener: &mut PgListener, own_name: &str) -> Result<()> {
    while let Some(notification) = listener.try_recv().await.map_err(refused)? {
        let Some((mesh, who)) = notification.payload().split_once(' ') else { continue };
        if who == own_name {
            // Its own writes are no news. A probe names no mesh.
            if mesh.is_empty() {
                shared.heard.fetch_add(1, Ordering::Relaxed);
                shared.news.lock().begin();
                shared.told.notify_waiters();
            }
        } else if !mesh.is_empty() {
            shared.news.lock().add(mesh);
            shared.told.notify_waiters();
        }
    }
    Err(unavailable("the connection that listens was lost"))
}

async fn probe(shared: &Shared, pool: &Pool, own_name: &str) -> Result<()> {
    loop {
        let heard = shared.heard.load(Ordering::Relaxed);
        pool.execute(sqlx::query("select pg_notify($1, ' ' || $2)").bind(CHANNEL).bind(own_name))
            .await?;
        sleep(PROBE_PERIOD).await;
        if shared.heard.load(Ordering::Relaxed) == heard {
            return Err(unavailable("the connection that listens does not hear"));
        }
    }
}
