//! Whom a hook means.

use std::collections::HashMap;
use std::sync::Arc;

use super::Word;
use crate::http::HttpState;
use crate::id::{MeshId, PresenceId};
use crate::limits::HOOK_CANDIDATES_MAX;
use crate::protocol::PeerRole;
use crate::record::PresenceRecord;
use crate::store::Result;

/// A presence that a hook may mean.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// What the directory says of it, else the tables.
    pub(super) record: Arc<PresenceRecord>,
    /// Whether the directory was asked. What the tables say may be behind, and they do
    /// not know who has a socket open.
    pub(super) is_listed: bool,
}

impl Found {
    pub(super) fn is_called(&self, word: &Word) -> bool {
        !word.session_id.is_empty() && self.record.session_id == word.session_id
    }

    fn fit(&self, word: &Word) -> Fit {
        let in_folder = self.record.cwd == word.cwd;
        if self.is_called(word) {
            Fit::Session
        } else if in_folder && word.pid != 0 && self.record.pid == word.pid {
            Fit::Process
        } else if in_folder {
            Fit::Folder
        } else {
            Fit::Not
        }
    }
}

/// How well a presence fits a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Not,
    Folder,
    Process,
    Session,
}

/// Whom a hook means.
#[derive(Debug)]
pub(super) enum Choice {
    One(Found),
    Nobody,
    /// Presences of several members, of whom none may be guessed.
    Several,
}

/// All that the hook may mean, in any mesh and on any node. By session id what is
/// mirrored here is enough, unless nobody here is called so.
pub(super) async fn find(state: &HttpState, word: &Word) -> Result<Vec<Found>> {
    let search = &state.stores.presence_search;
    let by_id = |record: PresenceRecord| (record.id.clone(), Arc::new(record));
    let in_folder = search.in_folder(&word.cwd, word.pid, HOOK_CANDIDATES_MAX).await?;
    let mut all: HashMap<PresenceId, _> = in_folder.into_iter().map(by_id).collect();
    if !word.session_id.is_empty() {
        let rooms = state.registry.rooms();
        let here = rooms.iter().flat_map(|room| room.called(&word.session_id));
        all.extend(here.map(|record| (record.id.clone(), record)));
        if all.values().all(|record| record.session_id != word.session_id) {
            let elsewhere = search.called(&word.session_id, HOOK_CANDIDATES_MAX).await?;
            all.extend(elsewhere.into_iter().map(by_id));
        }
    }
    Ok(listed(state, all.into_values().collect()).await)
}

/// A row behind which there is no presence any more is passed over.
async fn listed(state: &HttpState, rows: Vec<Arc<PresenceRecord>>) -> Vec<Found> {
    let mut directories: HashMap<MeshId, Option<Vec<PresenceRecord>>> = HashMap::new();
    let mut found = Vec::new();
    for row in rows {
        if let Some(room) = state.registry.room(&row.mesh) {
            let record = room.record(&row.id);
            found.extend(record.map(|record| Found { record, is_listed: true }));
            continue;
        }
        if !directories.contains_key(&row.mesh) {
            let read = state.cluster.directory(&row.mesh).await.inspect_err(|error| {
                tracing::debug!(%error, "a presence could not be looked up");
            });
            directories.insert(row.mesh.clone(), read.ok());
        }
        match directories.get(&row.mesh) {
            Some(Some(records)) => {
                let record = records.iter().find(|record| record.id == row.id);
                let record = record.cloned().map(Arc::new);
                found.extend(record.map(|record| Found { record, is_listed: true }));
            }
            // The node that holds it, if one does, will know.
            _ => found.push(Found { record: row, is_listed: false }),
        }
    }
    found
}

/// The one that fits best: by session id, else by process and folder, else by folder;
/// an open one before one in grace. If that leaves several members, none of them. Of
/// one member a session before a control plane, then the newest.
pub(super) fn choose(found: Vec<Found>, word: &Word) -> Choice {
    let rank = |found: &Found| (found.fit(word), found.record.online);
    let Some(best) = found.iter().map(rank).max().filter(|(fit, _)| *fit > Fit::Not) else {
        return Choice::Nobody;
    };
    // Those that were left out of so long a list may fit as well.
    let is_cut = found.len() >= HOOK_CANDIDATES_MAX as usize
        && best.0 < Fit::Session
        && found
            .iter()
            .filter(|found| found.fit(word) < Fit::Session)
            .all(|found| found.fit(word) >= best.0);
    let best: Vec<Found> = found.into_iter().filter(|found| rank(found) == best).collect();
    let member = |one: &Found| (one.record.mesh.clone(), one.record.member.clone());
    let is_of_one = best.iter().all(|found| member(found) == member(&best[0]));
    if is_cut || !is_of_one {
        return Choice::Several;
    }
    let newest = best.into_iter().max_by_key(|Found { record, .. }| {
        (record.role == PeerRole::Session, record.connected_at, record.id.clone())
    });
    newest.map_or(Choice::Nobody, Choice::One)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::clock::Timestamp;
    use crate::protocol::Status;

    fn found(id: &str, member: &str, session_id: &str, pid: i32, open: bool, role: &str) -> Found {
        let record = json!({
            "id": id, "mesh": "mesh", "member": member, "member_key": "key", "role": role,
            "session_id": session_id, "display_name": id, "cwd": "/p", "pid": pid,
            "connected_at": Timestamp::from_ms(i64::from(pid)), "node": "", "online": open,
        });
        let record: PresenceRecord = serde_json::from_value(record).expect("a record");
        Found { record: Arc::new(record), is_listed: true }
    }

    fn word(session_id: &str, pid: i32) -> Word {
        let (cwd, session_id) = ("/p".to_owned(), session_id.to_owned());
        Word { cwd, pid, session_id, status: Status::Idle }
    }

    fn chosen(all: &[Found], word: &Word) -> Option<String> {
        match choose(all.to_vec(), word) {
            Choice::One(found) => Some(found.record.id.to_string()),
            Choice::Nobody => None,
            Choice::Several => Some("several".to_owned()),
        }
    }

    #[test]
    fn the_session_id_comes_first_then_the_process_then_the_folder() {
        let all = [
            found("named", "m", "uuid", 1, true, "session"),
            found("process", "m", "other", 2, true, "session"),
            found("newest", "m", "third", 3, true, "session"),
        ];
        assert_eq!(chosen(&all, &word("uuid", 2)).as_deref(), Some("named"));
        assert_eq!(chosen(&all, &word("unknown", 2)).as_deref(), Some("process"));
        assert_eq!(chosen(&all, &word("", 99)).as_deref(), Some("newest"));
        assert_eq!(chosen(&all, &word("", 0)).as_deref(), Some("newest"));
        let elsewhere = Word { cwd: "/q".to_owned(), ..word("", 2) };
        assert_eq!(chosen(&all, &elsewhere), None);
        assert_eq!(chosen(&[], &word("uuid", 1)), None);
    }

    #[test]
    fn the_dead_do_not_hide_the_living_nor_control_planes_sessions() {
        let all = [
            found("session", "m", "a", 1, true, "session"),
            found("daemon", "m", "b", 2, true, "control-plane"),
            found("dead", "m", "c", 3, false, "session"),
        ];
        assert_eq!(chosen(&all, &word("", 0)).as_deref(), Some("session"));
        assert_eq!(chosen(&all[1..], &word("", 0)).as_deref(), Some("daemon"));
        assert_eq!(chosen(&all[2..], &word("", 0)).as_deref(), Some("dead"), "it may come back");
    }

    #[test]
    fn of_several_members_none_is_guessed() {
        let victim = found("victim", "m", "uuid", 1, true, "control-plane");
        let stranger = found("stranger", "n", "mine", 2, true, "session");
        let copycat = found("copycat", "n", "uuid", 3, true, "session");
        let all = [victim.clone(), stranger, copycat.clone()];
        assert_eq!(chosen(&all[..2], &word("", 0)).as_deref(), Some("several"));
        assert_eq!(chosen(&all[..2], &word("", 1)).as_deref(), Some("victim"), "its process");
        assert_eq!(chosen(&all[..2], &word("uuid", 0)).as_deref(), Some("victim"));
        assert_eq!(chosen(&all, &word("uuid", 1)).as_deref(), Some("several"));
        let crowd: Vec<Found> = (0..HOOK_CANDIDATES_MAX.cast_signed())
            .map(|pid| found("crowd", "n", "mine", pid, true, "session"))
            .collect();
        assert_eq!(chosen(&crowd, &word("", 99)).as_deref(), Some("several"), "it may be cut");
    }
}
