//! Sockets that have not said who they are yet.
//!
//! They cost memory and a file each, and a stranger can open any number. So
//! they have deadlines, and there is a most: over it the *oldest* goes. A
//! flood pushes out itself; a peer that says hello at once is never among the
//! oldest.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use rustix::process::{Resource, getrlimit};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Deployment, StoreConfig};
use crate::limits;

#[derive(Default)]
struct Socket {
    /// The socket said hello, is gone, or was told to go.
    done: AtomicBool,
    evicted: CancellationToken,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<VecDeque<Arc<Socket>>>,
    open: AtomicUsize,
    max: usize,
}

impl Shared {
    /// Takes the socket out; whether it was half open until now.
    fn leave(&self, socket: &Socket) -> bool {
        let was_one = !socket.done.swap(true, Ordering::AcqRel);
        if was_one {
            self.open.fetch_sub(1, Ordering::AcqRel);
        }
        was_one
    }
}

/// All of them, oldest first.
#[derive(Clone)]
pub(crate) struct HalfOpen(Arc<Shared>);

/// A half-open socket. Dropped when it is half open no more.
pub(crate) struct HalfOpenGuard {
    socket: Arc<Socket>,
    shared: Arc<Shared>,
}

/// Files that the broker needs beside its sockets: the database, Redis, logs.
pub(crate) fn reserved_files(config: &Config) -> u64 {
    let database = match &config.deployment {
        Deployment::Single { store: StoreConfig::Sqlite { .. } } => 0,
        Deployment::Single { store: StoreConfig::Postgres(postgres) }
        | Deployment::Clustered { postgres, .. } => u64::from(postgres.pool_max),
    };
    limits::RESERVED_FILES + database
}

/// How many sockets may be half open where that many files may be open, `None`
/// without a limit: half of what is left, so that peers always find room.
pub(crate) fn affordable(open_files: Option<u64>, reserved: u64) -> usize {
    let most = limits::HALF_OPEN_SOCKETS_MAX;
    let half = open_files.map_or(u64::MAX, |files| files.saturating_sub(reserved) / 2);
    usize::try_from(half).unwrap_or(most).clamp(limits::HALF_OPEN_SOCKETS_MIN, most)
}

impl HalfOpen {
    /// Bounds for what this process can afford.
    pub(crate) fn for_process(config: &Config) -> Self {
        let open_files = getrlimit(Resource::Nofile).current;
        let max = affordable(open_files, reserved_files(config));
        tracing::info!(max, open_files, "room for sockets that have not said who they are");
        Self::new(max)
    }

    /// At most `max`.
    pub(crate) fn new(max: usize) -> Self {
        Self(Arc::new(Shared { max, ..Shared::default() }))
    }

    /// Counts one more socket; over the most, the oldest is told to go.
    pub(crate) fn enter(&self) -> HalfOpenGuard {
        let socket = Arc::new(Socket::default());
        let open = self.0.open.fetch_add(1, Ordering::AcqRel) + 1;
        let mut queue = self.0.queue.lock();
        while queue.front().is_some_and(|front| front.done.load(Ordering::Acquire)) {
            queue.pop_front();
        }
        queue.push_back(Arc::clone(&socket));
        // One told to go counts no more, though its task may take a while to
        // hear it: else a burst would push out everybody, itself included.
        let mut over = open.saturating_sub(self.0.max);
        while over > 0 {
            let Some(oldest) = queue.pop_front() else { break };
            if self.0.leave(&oldest) {
                oldest.evicted.cancel();
                over -= 1;
            }
        }
        // Done ones in the middle are dropped before they outnumber the rest.
        if queue.len() > 2 * self.0.max {
            queue.retain(|socket| !socket.done.load(Ordering::Acquire));
        }
        drop(queue);
        HalfOpenGuard { socket, shared: Arc::clone(&self.0) }
    }

    /// The oldest of them go, a sixteenth of what may be there.
    pub(crate) fn make_room(&self) {
        let mut queue = self.0.queue.lock();
        let mut wanted = (self.0.max / 16).max(1);
        while wanted > 0 {
            let Some(oldest) = queue.pop_front() else { break };
            if self.0.leave(&oldest) {
                oldest.evicted.cancel();
                wanted -= 1;
            }
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.0.open.load(Ordering::Acquire)
    }
}

impl HalfOpenGuard {
    /// Cancelled when it is told to go.
    pub(crate) fn evicted(&self) -> CancellationToken {
        self.socket.evicted.clone()
    }
}

impl Drop for HalfOpenGuard {
    fn drop(&mut self) {
        self.shared.leave(&self.socket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_files_that_are_left_may_be_half_open() {
        assert_eq!(affordable(None, 64), limits::HALF_OPEN_SOCKETS_MAX);
        assert_eq!(affordable(Some(1_048_576), 64), limits::HALF_OPEN_SOCKETS_MAX);
        assert_eq!(affordable(Some(1024), 64), 480);
        assert_eq!(affordable(Some(512), 74), 219);
        assert_eq!(affordable(Some(20), 64), limits::HALF_OPEN_SOCKETS_MIN);
    }

    #[test]
    fn where_files_are_short_the_oldest_make_room() {
        let half_open = HalfOpen::new(32);
        let guards: Vec<_> = (0..5).map(|_| half_open.enter()).collect();
        half_open.make_room();
        let evicted: Vec<_> = guards.iter().map(|guard| guard.evicted().is_cancelled()).collect();
        assert_eq!(evicted, [true, true, false, false, false]);
        assert_eq!(half_open.count(), 3);
    }

    #[test]
    fn over_the_most_the_oldest_goes() {
        let half_open = HalfOpen::new(2);
        let first = half_open.enter();
        let second = half_open.enter();
        drop(first);
        let third = half_open.enter();
        assert_eq!(half_open.count(), 2);
        let fourth = half_open.enter();
        assert!(second.evicted().is_cancelled());
        assert!(!third.evicted().is_cancelled());
        assert!(!fourth.evicted().is_cancelled());
        drop((second, third, fourth));
        assert_eq!(half_open.count(), 0);
    }

    #[test]
    fn a_burst_pushes_out_only_as_many_as_are_too_many() {
        let half_open = HalfOpen::new(3);
        // None of them is dropped meanwhile.
        let guards: Vec<_> = (0..10).map(|_| half_open.enter()).collect();
        let evicted = guards.iter().map(|guard| guard.evicted().is_cancelled());
        assert_eq!(evicted.collect::<Vec<_>>(), [[true; 7].as_slice(), &[false; 3]].concat());
        assert_eq!(half_open.count(), 3);
        drop(guards);
        assert_eq!(half_open.count(), 0);
    }
}
