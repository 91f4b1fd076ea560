//! Which presences of a mesh have ended lately.

use std::collections::{HashMap, VecDeque};

use crate::id::PresenceId;

/// How long an ended presence is remembered.
const TOMBSTONE_MS: u64 = 60 * 60 * 1000;

/// Ended presences of one mesh that are remembered. More: the oldest is
/// forgotten, and a node that slept that long could bring it back.
const TOMBSTONES_MAX: usize = 4096;

/// How a presence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Left,
    Revoked,
}

/// Ended presences, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Tombstones {
    ends: HashMap<PresenceId, (End, u64)>,
    by_age: VecDeque<(u64, PresenceId)>,
}

impl Tombstones {
    pub(super) fn add(&mut self, now_ms: u64, presence: &PresenceId, end: End) {
        let forgotten_ms = now_ms + TOMBSTONE_MS;
        self.ends.insert(presence.clone(), (end, forgotten_ms));
        self.by_age.push_back((forgotten_ms, presence.clone()));
        self.expire(now_ms);
    }

    pub(super) fn get(&self, now_ms: u64, presence: &PresenceId) -> Option<End> {
        let (end, forgotten_ms) = self.ends.get(presence)?;
        (*forgotten_ms > now_ms).then_some(*end)
    }

    pub(super) fn forget(&mut self, presence: &PresenceId) {
        self.ends.remove(presence);
    }

    pub(super) fn expire(&mut self, now_ms: u64) {
        while let Some((forgotten_ms, presence)) = self.by_age.front() {
            if *forgotten_ms > now_ms && self.by_age.len() <= TOMBSTONES_MAX {
                break;
            }
            if self.ends.get(presence).is_some_and(|(_, until_ms)| until_ms == forgotten_ms) {
                self.ends.remove(presence);
            }
            self.by_age.pop_front();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_age.is_empty()
    }

    pub(super) fn check_invariants(&self) {
        assert!(self.ends.len() <= self.by_age.len());
        assert!(self.by_age.len() <= TOMBSTONES_MAX);
    }
}
