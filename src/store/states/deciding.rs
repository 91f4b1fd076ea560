//! What becomes of a batch of writes, decided under the lock from what the rows say.
//! Pure: both databases read, ask here, and write what comes out.

use std::collections::HashMap;

use super::{StateWrite, StateWritten};
use crate::audit::AuditEvent;
use crate::id::MeshId;
use crate::store::{Author, Kind, StoreError, Usage};

/// A key of a mesh.
pub(super) type At<'a> = (&'a MeshId, &'a str);

/// What the row of a key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) version: i64,
    /// What it counts for.
    pub(super) bytes: i64,
}

/// A batch that is decided.
pub(super) struct Decided<'a> {
    batch: &'a [StateWrite],
    fates: Vec<Fate>,
}

enum Fate {
    /// It is written, with that version.
    Takes(i64),
    /// It is not.
    Leaves(StateWritten),
}

/// What is to stand under a key after the batch.
pub(super) struct NewRow<'a> {
    pub(super) write: &'a StateWrite,
    pub(super) version: i64,
    pub(super) seq: i64,
}

impl<'a> Decided<'a> {
    /// Decides the writes one after the other, each on what the one before left.
    pub(super) fn new(
        batch: &'a [StateWrite],
        mut known: HashMap<At<'a>, Known>,
        mut usage: HashMap<&'a MeshId, Usage>,
    ) -> Self {
        let mut fates = Vec::with_capacity(batch.len());
        for write in batch {
            let mesh = &write.author.mesh;
            let at = (mesh, write.key.as_str());
            let kept = usage.entry(mesh).or_default();
            fates.push(decide(write, &mut known, at, kept));
        }
        Self { batch, fates }
    }

    /// The audit rows of what is written, in the order of the batch.
    pub(super) fn events(&self) -> Vec<(&'a Author, AuditEvent)> {
        let taken = self.batch.iter().zip(&self.fates);
        let event = |write: &'a StateWrite| {
            let key = write.key.clone();
            (
                &write.author,
                match write.value {
                    Some(_) => AuditEvent::StateSet { key },
                    None => AuditEvent::StateRemoved { key },
                },
            )
        };
        taken
            .filter(|(_, fate)| matches!(fate, Fate::Takes(_)))
            .map(|(write, _)| event(write))
            .collect()
    }

    /// The last write of each key, with the seqs that the audit rows got.
    pub(super) fn rows(&self, seqs: &[i64]) -> Vec<NewRow<'a>> {
        let mut last: HashMap<At<'a>, NewRow<'a>> = HashMap::new();
        let mut seqs = seqs.iter();
        for (write, fate) in self.batch.iter().zip(&self.fates) {
            if let Fate::Takes(version) = fate {
                let seq = seqs.next().copied().unwrap_or_default();
                let row = NewRow { write, version: *version, seq };
                last.insert((&write.author.mesh, write.key.as_str()), row);
            }
        }
        let mut rows: Vec<NewRow<'a>> = last.into_values().collect();
        rows.sort_by_key(|row| row.seq);
        rows
    }

    /// What became of each.
    pub(super) fn answers(self, seqs: &[i64]) -> Vec<StateWritten> {
        let mut seqs = seqs.iter();
        let answer = |fate| match fate {
            Fate::Leaves(answer) => answer,
            Fate::Takes(version) => {
                let seq = seqs.next().copied().unwrap_or_default();
                StateWritten::Written { seq, version }
            }
        };
        self.fates.into_iter().map(answer).collect()
    }
}

fn decide<'a>(
    write: &StateWrite,
    known: &mut HashMap<At<'a>, Known>,
    at: At<'a>,
    kept: &mut Usage,
) -> Fate {
    let before = known.get(&at).copied();
    let version = before.map_or(0, |before| before.version);
    if write.if_version.is_some_and(|wanted| wanted != version) {
        return Fate::Leaves(StateWritten::Conflict { version });
    }
    let freed = before.map_or(0, |before| before.bytes);
    let Some(value) = &write.value else {
        if before.is_none() {
            return Fate::Leaves(StateWritten::Absent);
        }
        known.remove(&at);
        *kept = Usage { rows: kept.rows - 1, bytes: kept.bytes - freed };
        return Fate::Takes(version);
    };
    let bytes = i64::try_from(write.key.len() + value.len()).unwrap_or(i64::MAX);
    let rows = kept.rows + i64::from(before.is_none());
    let after = Usage { rows, bytes: kept.bytes.saturating_add(bytes - freed) };
    // What makes a full mesh smaller is always taken.
    let grows = after.rows > kept.rows || after.bytes > kept.bytes;
    if let (true, Err(StoreError::Full(full))) = (grows, after.check(Kind::State)) {
        return Fate::Leaves(StateWritten::Full(full));
    }
    *kept = after;
    known.insert(at, Known { version: version + 1, bytes });
    Fate::Takes(version + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    fn write(key: &str, value: Option<&str>, if_version: Option<i64>) -> StateWrite {
        let author = Author {
            mesh: "mesh".into(),
            member: "ada".into(),
            member_name: "ada".to_owned(),
            session_name: "ada".to_owned(),
            presence: "p".into(),
        };
        StateWrite { author, key: key.to_owned(), value: value.map(str::to_owned), if_version }
    }

    fn decided(batch: &[StateWrite], usage: Usage) -> Decided<'_> {
        let usage = HashMap::from([(&batch[0].author.mesh, usage)]);
        Decided::new(batch, HashMap::new(), usage)
    }

    #[test]
    fn writes_of_one_batch_build_on_each_other() {
        let batch = [
            write("k", Some("1"), Some(0)),
            write("k", Some("2"), Some(0)),
            write("k", Some("3"), Some(1)),
            write("k", None, None),
            write("k", None, None),
            write("k", Some("null"), Some(0)),
        ];
        let decided = decided(&batch, Usage::default());
        assert_eq!(decided.events().len(), 4);
        let seqs = [11, 12, 13, 14];
        let rows = decided.rows(&seqs);
        assert_eq!(rows.iter().map(|row| (row.version, row.seq)).collect::<Vec<_>>(), [(1, 14)]);
        use StateWritten::{Absent, Conflict, Written};
        assert_eq!(
            decided.answers(&seqs),
            [
                Written { seq: 11, version: 1 },
                Conflict { version: 1 },
                Written { seq: 12, version: 2 },
                Written { seq: 13, version: 2 },
                Absent,
                Written { seq: 14, version: 1 },
            ]
        );
    }

    #[test]
    fn a_full_mesh_takes_no_new_key_and_what_frees_room_makes_room() {
        let full = Usage { rows: limits::SHARED_ROWS_MAX, bytes: 100 };
        let batch = [write("new", Some("1"), None)];
        let [StateWritten::Full(refused)] = decided(&batch, full).answers(&[])[..] else {
            panic!("it was taken")
        };
        assert_eq!(refused.numbers(), (limits::SHARED_ROWS_MAX, limits::SHARED_ROWS_MAX + 1));
        let batch = [write("old", None, None), write("new", Some("1"), None)];
        let at = (&batch[0].author.mesh, "old");
        let known = HashMap::from([(at, Known { version: 1, bytes: 4 })]);
        let usage = HashMap::from([(at.0, full)]);
        let answers = Decided::new(&batch, known, usage).answers(&[5, 6]);
        assert!(answers.iter().all(|answer| matches!(answer, StateWritten::Written { .. })));
    }
}
