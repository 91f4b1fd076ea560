//! What hooks said of sessions that have not connected yet.

use std::collections::{HashMap, VecDeque};

use sha2::{Digest, Sha256};

use crate::limits::{PENDING_HOOK_MS, PENDING_HOOKS_MAX};
use crate::protocol::Status;

/// How long such a word waits for its session.
const PENDING_MS: u64 = PENDING_HOOK_MS.unsigned_abs();

/// A hash of a process and its folder: a folder may be long.
type Process = [u8; 16];

fn process(pid: i32, cwd: &str) -> Process {
    let digest = Sha256::new().chain_update(pid.to_be_bytes()).chain_update(cwd).finalize();
    let mut half = [0; 16];
    half.copy_from_slice(&digest[..16]);
    half
}

/// The newest word for each process and folder, for ten seconds.
#[derive(Clone, Debug, Default)]
pub(in crate::cluster) struct PendingStatuses {
    newest: HashMap<Process, (Status, u64)>,
    by_age: VecDeque<(u64, Process)>,
}

impl PendingStatuses {
    pub(in crate::cluster) fn put(&mut self, now_ms: u64, pid: i32, cwd: &str, status: Status) {
        let expires_ms = now_ms + PENDING_MS;
        let process = process(pid, cwd);
        self.newest.insert(process, (status, expires_ms));
        self.by_age.push_back((expires_ms, process));
        self.expire(now_ms);
    }

    pub(in crate::cluster) fn take(&mut self, now_ms: u64, pid: i32, cwd: &str) -> Option<Status> {
        self.expire(now_ms);
        self.newest.remove(&process(pid, cwd)).map(|(status, _)| status)
    }

    fn expire(&mut self, now_ms: u64) {
        while let Some((expires_ms, process)) = self.by_age.front() {
            if *expires_ms > now_ms && self.by_age.len() <= PENDING_HOOKS_MAX {
                break;
            }
            if self.newest.get(process).is_some_and(|(_, newest_ms)| newest_ms == expires_ms) {
                self.newest.remove(process);
            }
            self.by_age.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_word_is_given_once_and_not_after_ten_seconds() {
        let mut pending = PendingStatuses::default();
        pending.put(0, 7, "/a", Status::Working);
        pending.put(5, 7, "/a", Status::Dnd);
        assert_eq!(pending.take(PENDING_MS, 7, "/b"), None);
        assert_eq!(pending.take(PENDING_MS, 7, "/a"), Some(Status::Dnd));
        assert_eq!(pending.take(PENDING_MS, 7, "/a"), None);
        pending.put(20, 7, "/a", Status::Working);
        assert_eq!(pending.take(20 + PENDING_MS, 7, "/a"), None);
        assert!(pending.by_age.is_empty());
    }
}
