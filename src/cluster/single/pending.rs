//! What hooks said of sessions that have not connected yet.

use std::collections::{HashMap, VecDeque};

use crate::limits::{PENDING_HOOK_MS, PENDING_HOOKS_MAX};
use crate::protocol::Status;

/// How long such a word waits for its session.
const PENDING_MS: u64 = PENDING_HOOK_MS.unsigned_abs();

type Process = (i32, String);

/// The newest word for each process and folder, for ten seconds.
#[derive(Clone, Debug, Default)]
pub(in crate::cluster) struct PendingStatuses {
    newest: HashMap<Process, (Status, u64)>,
    by_age: VecDeque<(u64, Process)>,
}

impl PendingStatuses {
    pub(in crate::cluster) fn put(&mut self, now_ms: u64, pid: i32, cwd: &str, status: Status) {
        let expires_ms = now_ms + PENDING_MS;
        let process = (pid, cwd.to_owned());
        self.newest.insert(process.clone(), (status, expires_ms));
        self.by_age.push_back((expires_ms, process));
        self.expire(now_ms);
    }

    pub(in crate::cluster) fn take(&mut self, now_ms: u64, pid: i32, cwd: &str) -> Option<Status> {
        self.expire(now_ms);
        self.newest.remove(&(pid, cwd.to_owned())).map(|(status, _)| status)
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
