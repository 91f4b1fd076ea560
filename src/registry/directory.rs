//! The presences of one mesh, by id and by key.

use std::collections::HashMap;
use std::sync::Arc;

use crate::id::{Key, PresenceId};
use crate::record::PresenceRecord;
use crate::session::Session;

/// One presence: what the directory says, and its session if its socket is
/// on this node.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) record: Arc<PresenceRecord>,
    pub(super) session: Option<Arc<Session>>,
}

/// Presences by id, and an index from each key that addresses them.
#[derive(Default)]
pub(super) struct Directory {
    entries: HashMap<PresenceId, Entry>,
    by_key: HashMap<Key, Vec<PresenceId>>,
    sessions: usize,
    /// Connections of daemons whose sockets are open, anywhere.
    daemons: usize,
}

fn is_open_daemon(record: &PresenceRecord) -> bool {
    record.online && record.is_daemon()
}

impl Directory {
    pub(super) fn get(&self, presence: &PresenceId) -> Option<&Entry> {
        self.entries.get(presence)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn sessions(&self) -> usize {
        self.sessions
    }

    /// The daemon whose inbox takes this multicast for that presence too, if one
    /// does: it is open, it is named itself, and the multicast came after it did.
    pub(super) fn daemon_of(
        &self,
        record: &PresenceRecord,
        is_named: impl Fn(&PresenceRecord) -> bool,
        seq: i64,
    ) -> Option<&Entry> {
        if self.daemons == 0 || !record.is_session_of_daemon() {
            return None;
        }
        self.addressed_by(record.member_key.as_str()).find(|Entry { record: daemon, .. }| {
            daemon.online
                && record.shares_inbox_of(daemon)
                && daemon.begins_after.is_some_and(|after| seq > after)
                && is_named(daemon)
        })
    }

    /// Every presence that the key addresses.
    pub(super) fn addressed_by<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a Entry> {
        let ids = self.by_key.get(key).map(Vec::as_slice).unwrap_or_default();
        ids.iter().filter_map(|id| self.entries.get(id))
    }

    /// Puts an entry in; returns the session that it replaces, if another.
    pub(super) fn put(
        &mut self,
        record: Arc<PresenceRecord>,
        session: Option<Arc<Session>>,
    ) -> Option<Arc<Session>> {
        let replaced = self.remove(&record.id).and_then(|old| old.session);
        for key in record.keys() {
            self.by_key.entry(key.clone()).or_default().push(record.id.clone());
        }
        self.sessions += usize::from(session.is_some());
        self.daemons += usize::from(is_open_daemon(&record));
        self.entries.insert(record.id.clone(), Entry { record, session });
        self.check_invariants();
        replaced
    }

    pub(super) fn remove(&mut self, presence: &PresenceId) -> Option<Entry> {
        let entry = self.entries.remove(presence)?;
        self.sessions -= usize::from(entry.session.is_some());
        self.daemons -= usize::from(is_open_daemon(&entry.record));
        for key in entry.record.keys() {
            if let Some(ids) = self.by_key.get_mut(key) {
                ids.retain(|id| id != presence);
                if ids.is_empty() {
                    self.by_key.remove(key);
                }
            }
        }
        Some(entry)
    }

    /// The index and the entries agree; checked after every change where
    /// assertions are on.
    fn check_invariants(&self) {
        debug_assert_eq!(
            self.sessions,
            self.entries.values().filter(|entry| entry.session.is_some()).count()
        );
        debug_assert_eq!(
            self.daemons,
            self.entries.values().filter(|entry| is_open_daemon(&entry.record)).count()
        );
        // The whole index is walked only while it is small: checking must not
        // turn a large test mesh quadratic.
        if cfg!(debug_assertions) && self.entries.len() <= 16 {
            let indexed: usize = self.by_key.values().map(Vec::len).sum();
            let expected: usize =
                self.entries.values().map(|entry| entry.record.keys().count()).sum();
            debug_assert_eq!(indexed, expected, "every key of every entry is indexed once");
        }
    }
}
