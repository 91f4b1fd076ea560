//! Whom a hook means.

use std::collections::HashMap;
use std::sync::Arc;

use super::Word;
use crate::cluster::PresenceRecord;
use crate::http::HttpState;
use crate::id::{MeshId, PresenceId};
use crate::limits::HOOK_CANDIDATES_MAX;
use crate::protocol::PeerRole;
use crate::store::{PresenceAt, Result};

/// A presence that a hook may mean.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// What the tables, or the directory, say of it.
    pub(super) at: PresenceAt,
    /// What the directory says of it; `None` if it cannot be asked.
    pub(super) record: Option<Arc<PresenceRecord>>,
}

impl Found {
    pub(super) fn is_open(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.online)
    }

    pub(super) fn is_called(&self, word: &Word) -> bool {
        !word.session_id.is_empty() && self.at.session_id == word.session_id
    }

    fn is_session(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.role == PeerRole::Session)
    }

    fn fit(&self, word: &Word) -> Fit {
        let in_folder = self.at.cwd == word.cwd;
        if self.is_called(word) {
            Fit::Session
        } else if in_folder && word.pid != 0 && self.at.pid == word.pid {
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
    /// This one.
    One(Found),
    /// Nobody that is here.
    Nobody,
    /// Presences of several members, of whom none may be guessed.
    Several,
}

/// All that the hook may mean, in any mesh and on any node. By session id what is
/// mirrored here is enough, unless nobody here is called so.
pub(super) async fn find(state: &HttpState, word: &Word) -> Result<Vec<Found>> {
    let mut all: HashMap<PresenceId, PresenceAt> = HashMap::new();
    let in_folder =
        state.stores.presence_search.in_folder(&word.cwd, word.pid, HOOK_CANDIDATES_MAX).await?;
    all.extend(in_folder.into_iter().map(|at| (at.id.clone(), at)));
    if !word.session_id.is_empty() {
        let rooms = state.registry.rooms();
        let here = rooms.iter().flat_map(|room| room.called(&word.session_id));
        all.extend(here.map(|record| (record.id.clone(), at_of(&record))));
        if all.values().all(|at| at.session_id != word.session_id) {
            let elsewhere =
                state.stores.presence_search.called(&word.session_id, HOOK_CANDIDATES_MAX);
            all.extend(elsewhere.await?.into_iter().map(|at| (at.id.clone(), at)));
        }
    }
    Ok(with_records(state, all.into_values().collect()).await)
}

fn at_of(record: &PresenceRecord) -> PresenceAt {
    PresenceAt {
        id: record.id.clone(),
        mesh: record.mesh.clone(),
        member: record.member.clone(),
        session_id: record.session_id.clone(),
        cwd: record.cwd.clone(),
        pid: record.pid,
        connected_at: record.connected_at,
    }
}

/// A row behind which there is no presence any more is passed over.
async fn with_records(state: &HttpState, rows: Vec<PresenceAt>) -> Vec<Found> {
    let mut directories: HashMap<MeshId, Option<Vec<PresenceRecord>>> = HashMap::new();
    let mut found = Vec::new();
    for at in rows {
        if let Some(room) = state.registry.room(&at.mesh) {
            if let Some(record) = room.record(&at.id) {
                found.push(Found { at, record: Some(record) });
            }
            continue;
        }
        if !directories.contains_key(&at.mesh) {
            let read = state.cluster.directory(&at.mesh).await.inspect_err(|error| {
                tracing::debug!(%error, "a presence could not be looked up");
            });
            directories.insert(at.mesh.clone(), read.ok());
        }
        match directories.get(&at.mesh) {
            Some(Some(records)) => {
                let record = records.iter().find(|record| record.id == at.id);
                let record = record.cloned().map(Arc::new);
                found.extend(record.map(|record| Found { at, record: Some(record) }));
            }
            // The node that holds it, if one does, will know.
            _ => found.push(Found { at, record: None }),
        }
    }
    found
}

/// The one that fits best: by session id, else by process and folder, else by folder;
/// an open one before one in grace. If that leaves several members, none of them. Of
/// one member a session before a control plane, then the newest.
pub(super) fn choose(found: Vec<Found>, word: &Word) -> Choice {
    let rank = |found: &Found| (found.fit(word), found.is_open());
    let Some(best) = found.iter().map(rank).max().filter(|(fit, _)| *fit > Fit::Not) else {
        return Choice::Nobody;
    };
    // Those that were left out of so long a list may fit as well.
    let is_cut = found.len() >= HOOK_CANDIDATES_MAX as usize
        && best.0 < Fit::Session
        && found
            .iter()
            .filter(|one| one.fit(word) < Fit::Session)
            .all(|one| one.fit(word) >= best.0);
    let best: Vec<Found> = found.into_iter().filter(|one| rank(one) == best).collect();
    let is_of_one = best
        .iter()
        .all(|one| (&one.at.mesh, &one.at.member) == (&best[0].at.mesh, &best[0].at.member));
    if is_cut || !is_of_one {
        return Choice::Several;
    }
    let newest = best.into_iter().max_by(|a, b| {
        let order = |one: &Found| (one.is_session(), one.at.connected_at);
        (order(a), &a.at.id).cmp(&(order(b), &b.at.id))
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
            "connected_at": "2026-01-01T00:00:00.000Z", "node": "", "online": open,
        });
        let record: PresenceRecord = serde_json::from_value(record).expect("a record");
        let at = PresenceAt { connected_at: Timestamp::from_ms(i64::from(pid)), ..at_of(&record) };
        Found { at, record: Some(Arc::new(record)) }
    }

    fn word(session_id: &str, pid: i32) -> Word {
        let (cwd, session_id) = ("/p".to_owned(), session_id.to_owned());
        Word { cwd, pid, session_id, status: Status::Idle }
    }

    fn chosen(all: &[Found], word: &Word) -> Option<String> {
        match choose(all.to_vec(), word) {
            Choice::One(found) => Some(found.at.id.to_string()),
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
