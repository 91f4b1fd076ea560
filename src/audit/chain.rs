//! The chain of a mesh's rows: their hashes, and how a chain is checked.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::canonical_json;
use crate::clock::Timestamp;

/// The previous hash of a mesh's first row.
pub const GENESIS: &str = "genesis";

/// The hash of a row, in hex: what the next row's `prev` must be.
///
/// `created_at` must be the instant that is stored, to the millisecond.
#[must_use]
pub fn entry_hash(
    prev: &str,
    mesh: &str,
    event_type: &str,
    actor: Option<&str>,
    canonical_payload: &str,
    created_at: Timestamp,
) -> String {
    entry_hash_at(prev, mesh, event_type, actor, canonical_payload, &created_at.to_string())
}

/// As [`entry_hash`], for many rows of one instant: its text is made once.
#[must_use]
pub fn entry_hash_at(
    prev: &str,
    mesh: &str,
    event_type: &str,
    actor: Option<&str>,
    canonical_payload: &str,
    created_at: &str,
) -> String {
    let mut hash = Sha256::new();
    for field in [prev, mesh, event_type, actor.unwrap_or("null"), canonical_payload] {
        hash.update(field);
        hash.update("|");
    }
    hash.update(created_at);
    hex::encode(hash.finalize())
}

/// The type of the row that begins the chain of a mesh that this broker made.
pub const GENESIS_EVENT: &str = "genesis";

/// What a second hash of the second kind begins with.
const SECOND_KIND: u8 = 2;

/// The bytes of a second hash of the second kind.
pub const ROW_HASH_BYTES: usize = 33;

/// How long after the first row of the second kind in a chain that is older than it rows of
/// the first may come: appended by statements that had begun before the database changed
/// over. The server ends them after 8 s; clocks of nodes differ.
const CHANGE_OVER_MS: i64 = 60_000;

/// The second hash of a row, of the second kind: over the one of the row before
/// ([`NameHead`]), the row's number, its first hash and the name that its actor's session
/// had. Its first byte says which kind it is.
#[must_use]
pub fn row_hash(prev: &NameHead, id: i64, hash: &str, name: Option<&str>) -> [u8; ROW_HASH_BYTES] {
    let mut out = Sha256::new().chain_update(&prev.0).chain_update(format!("|2|{id}|{hash}"));
    if let Some(name) = name {
        out.update("|");
        out.update(name);
    }
    let mut bytes = [SECOND_KIND; ROW_HASH_BYTES];
    bytes[1..].copy_from_slice(&out.finalize());
    bytes
}

/// The second hash of a row, of the first kind, which earlier releases wrote: the row's
/// number is not in it.
#[must_use]
pub fn name_hash(prev: &NameHead, hash: &str, name: Option<&str>) -> [u8; 32] {
    let mut out = Sha256::new().chain_update(&prev.0).chain_update(hash);
    if let Some(name) = name {
        out.update("|");
        out.update(name);
    }
    out.finalize().into()
}

/// What the next row's second hash is made over: the last row's second hash or,
/// where it has none, its first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameHead(Vec<u8>);

impl NameHead {
    /// After a row with these two hashes; [`GENESIS`] alone before the first.
    #[must_use]
    pub fn after(hash: &str, name_hash: Option<&[u8]>) -> Self {
        Self(name_hash.unwrap_or(hash.as_bytes()).to_vec())
    }
}

/// The Postgres advisory lock that every writer of a mesh's chain takes, so
/// that no two rows follow the same one.
#[must_use]
pub fn chain_lock_key(mesh_id: &str) -> i64 {
    let [a, b, c, d, e, f, g, h, ..] =
        <[u8; 32]>::from(Sha256::new().chain_update("audit:").chain_update(mesh_id).finalize());
    i64::from_be_bytes([a & 0x7f, b, c, d, e, f, g, h])
}

/// A row of a chain, as the store reads it back.
#[derive(Clone, Copy, Debug)]
pub struct ChainRow<'a> {
    /// The row's number; rows are pushed in its order.
    pub id: i64,
    /// The previous row's hash.
    pub prev_hash: &'a str,
    /// What happened.
    pub event_type: &'a str,
    /// The member that did it; none for the broker itself.
    pub actor: Option<&'a str>,
    /// The details.
    pub payload: &'a Value,
    /// When the event happened.
    pub created_at: Timestamp,
    /// This row's hash.
    pub hash: &'a str,
    /// The name that the actor's session had.
    pub actor_name: Option<&'a str>,
    /// The second hash, if the row has one.
    pub name_hash: Option<&'a [u8]>,
}

/// What a look at a whole chain found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether every row was what it should be.
    pub valid: bool,
    /// How many rows were pushed.
    pub entries: u64,
    /// How many of them have a second hash: the names of the others prove nothing.
    pub named: u64,
    /// The first row that was not.
    pub broken_at: Option<i64>,
    /// The first row without a second hash of the second kind where all before it, or those
    /// for a while, had one. What follows it was checked all the same.
    pub downgraded_at: Option<i64>,
}

impl Verdict {
    /// The first row that is not as it should be, in whichever way.
    #[must_use]
    pub fn first_bad(&self) -> Option<i64> {
        self.broken_at.into_iter().chain(self.downgraded_at).min()
    }
}

/// Checks a mesh's chain row by row, holding none of it.
#[derive(Clone, Debug)]
pub struct ChainVerifier {
    mesh_id: String,
    head: String,
    name_head: NameHead,
    entries: u64,
    named: u64,
    /// From when on every row has to be of the second kind.
    bound_from: Option<Timestamp>,
    broken_at: Option<i64>,
    downgraded_at: Option<i64>,
}

impl ChainVerifier {
    /// Starts before the first row of the mesh.
    #[must_use]
    pub fn new(mesh_id: &str) -> Self {
        let mesh_id = mesh_id.to_owned();
        let name_head = NameHead::after(GENESIS, None);
        Self {
            mesh_id,
            head: GENESIS.to_owned(),
            name_head,
            entries: 0,
            named: 0,
            bound_from: None,
            broken_at: None,
            downgraded_at: None,
        }
    }

    /// Takes the next row by id; false from the first broken one on, after
    /// which rows are only counted.
    pub fn push(&mut self, row: ChainRow<'_>) -> bool {
        self.entries += 1;
        if self.broken_at.is_some() {
            return false;
        }
        let payload = canonical_json(row.payload);
        let ChainRow { prev_hash, event_type, actor, created_at, .. } = row;
        let hash = entry_hash(&self.head, &self.mesh_id, event_type, actor, &payload, created_at);
        let is_second = row.name_hash.is_some_and(|written| written.len() == ROW_HASH_BYTES);
        let is_named = row.name_hash.is_none_or(|written| match is_second {
            true => written == row_hash(&self.name_head, row.id, &hash, row.actor_name),
            false => written == name_hash(&self.name_head, &hash, row.actor_name),
        });
        let is_in_place = event_type != GENESIS_EVENT || self.entries == 1;
        if prev_hash == self.head && row.hash == hash && is_named && is_in_place {
            self.look_at_kind(&row, is_second);
            self.name_head = NameHead::after(&hash, row.name_hash);
            self.named += u64::from(row.name_hash.is_some());
            self.head = hash;
        } else {
            self.broken_at = Some(row.id);
        }
        self.broken_at.is_none()
    }

    fn look_at_kind(&mut self, row: &ChainRow<'_>, is_second: bool) {
        if self.bound_from.is_none() && (is_second || row.event_type == GENESIS_EVENT) {
            let change_over_ms = if self.entries == 1 { 0 } else { CHANGE_OVER_MS };
            self.bound_from = Some(row.created_at.plus_ms(change_over_ms));
        }
        if !is_second && self.bound_from.is_some_and(|from| row.created_at.ms_since(from) >= 0) {
            self.downgraded_at.get_or_insert(row.id);
        }
    }

    /// The hash of the last good row: kept elsewhere, it shows later whether
    /// the end of the chain was cut off.
    #[must_use]
    pub fn head(&self) -> &str {
        &self.head
    }

    /// As [`Self::head`] for the names, as hex: the second hash of the last good row;
    /// none if that has none.
    #[must_use]
    pub fn name_head(&self) -> Option<String> {
        (self.name_head.0 != self.head.as_bytes()).then(|| hex::encode(&self.name_head.0))
    }

    /// As in [`Verdict::downgraded_at`], so far.
    #[must_use]
    pub const fn downgraded_at(&self) -> Option<i64> {
        self.downgraded_at
    }

    /// What was found.
    #[must_use]
    pub fn finish(self) -> Verdict {
        let Self { entries, named, broken_at, downgraded_at, .. } = self;
        let valid = broken_at.is_none() && downgraded_at.is_none();
        Verdict { valid, entries, named, broken_at, downgraded_at }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::audit::AuditEvent;
    use crate::id::Key;
    use crate::protocol::{Group, Priority};

    const MESH: &str = "mesh-1";
    const START: Timestamp = Timestamp::from_ms(1_700_000_000_120);

    #[derive(Clone)]
    struct Row {
        id: i64,
        prev: String,
        event_type: String,
        actor: Option<String>,
        payload: Value,
        created_at: Timestamp,
        hash: String,
        name: Option<String>,
        name_hash: Option<Vec<u8>>,
    }

    impl Row {
        fn read(&self) -> ChainRow<'_> {
            ChainRow {
                id: self.id,
                prev_hash: &self.prev,
                event_type: &self.event_type,
                actor: self.actor.as_deref(),
                payload: &self.payload,
                created_at: self.created_at,
                hash: &self.hash,
                actor_name: self.name.as_deref(),
                name_hash: self.name_hash.as_deref(),
            }
        }
    }

    fn chain(events: &[(AuditEvent, Option<&str>)]) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for (event, actor) in events {
            // Numbers with gaps, as an identity column leaves them.
            let id = 10 * rows.len() as i64 + 7;
            let prev = rows.last().map_or(GENESIS, |row| &row.hash).to_owned();
            let (event_type, payload) = (event.event_type(), event.canonical_payload());
            let created_at = START.plus_ms(rows.len() as i64);
            let hash = entry_hash(&prev, MESH, event_type, *actor, &payload, created_at);
            let before =
                NameHead::after(&prev, rows.last().and_then(|row| row.name_hash.as_deref()));
            let name = actor.map(|actor| format!("{actor}'s session"));
            let name_hash = Some(row_hash(&before, id, &hash, name.as_deref()).to_vec());
            let actor = actor.map(str::to_owned);
            let (event_type, payload) = (event_type.to_owned(), event.payload());
            let row =
                Row { id, prev, event_type, actor, payload, created_at, hash, name, name_hash };
            rows.push(row);
        }
        rows
    }

    fn verify(rows: &[Row]) -> Verdict {
        let mut verifier = ChainVerifier::new(MESH);
        for row in rows {
            verifier.push(row.read());
        }
        verifier.finish()
    }

    fn sent(target: &str) -> AuditEvent {
        AuditEvent::MessageSent { target: target.to_owned(), priority: Priority::Now }
    }

    fn joined() -> AuditEvent {
        let groups = vec![Group { name: "a/b".to_owned(), role: None }];
        AuditEvent::PeerJoined { pubkey: Key::from("ab"), groups, restored: false }
    }

    /// The hashes that node 20 computes from the recorded recipe.
    #[test]
    fn hashes_and_locks_are_those_of_existing_verifiers() {
        let rows = chain(&[(joined(), Some("member-1")), (sent("@größe"), None)]);
        assert_eq!(
            rows[0].hash,
            "d0edd8594228b9b90634a2a6c63e70ed3a50d84908b15363bf2a02fdb383c29f"
        );
        assert_eq!(
            rows[1].hash,
            "d428d1e28f9d113d8464bbbf2c4e86c0991280f70b87b4b3de24fbc690652e54"
        );
        assert_eq!(chain_lock_key("mesh-4"), 5_050_716_679_820_961_772);
        assert_eq!(chain_lock_key("mesh-1"), 1_905_781_368_516_597_125, "the sign bit is cut off");
    }

    /// As [`chain`], with second hashes of these kinds: 0 for none.
    fn chain_of_kinds(kinds: &[u8], step_ms: i64) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for (at, (kind, mut row)) in
            kinds.iter().zip(chain(&vec![(sent("a"), Some("m")); kinds.len()])).enumerate()
        {
            row.prev = rows.last().map_or(GENESIS, |row| &row.hash).to_owned();
            row.created_at = START.plus_ms(at as i64 * step_ms);
            let payload = canonical_json(&row.payload);
            row.hash =
                entry_hash(&row.prev, MESH, &row.event_type, Some("m"), &payload, row.created_at);
            let before = rows.last().and_then(|row| row.name_hash.as_deref());
            let before = NameHead::after(&row.prev, before);
            row.name_hash = match kind {
                0 => None,
                1 => Some(name_hash(&before, &row.hash, row.name.as_deref()).to_vec()),
                _ => Some(row_hash(&before, row.id, &row.hash, row.name.as_deref()).to_vec()),
            };
            rows.push(row);
        }
        rows
    }

    /// What earlier releases and other programs wrote stays as good as it was.
    #[test]
    fn rows_of_the_first_kind_and_without_one_hold_until_the_second_begins() {
        for (kinds, step_ms, downgraded) in [
            (&[1, 0, 1, 2, 2][..], 1, None),
            (&[0, 0, 0], 1, None),
            (&[1, 2, 1, 0, 2], 100_000, Some(2)),
            (&[1, 2, 0], 100_000, Some(2)),
            // Statements that had begun when the database changed over.
            (&[1, 2, 1, 0, 2], 1_000, None),
            (&[1, 2, 2, 2, 1], 20_000, Some(4)),
            // A chain that began with the second kind has no change-over.
            (&[2, 2, 1, 2], 1, Some(2)),
            (&[2, 0, 2], 1, Some(1)),
        ] {
            let rows = chain_of_kinds(kinds, step_ms);
            let found = verify(&rows);
            assert_eq!(found.broken_at, None, "{kinds:?}");
            assert_eq!(found.downgraded_at, downgraded.map(|at: usize| rows[at].id), "{kinds:?}");
            assert_eq!(
                (found.valid, found.first_bad()),
                (downgraded.is_none(), found.downgraded_at)
            );
            assert_eq!(found.entries, rows.len() as u64, "the rest is looked at all the same");
        }
        // And so is a break behind it found.
        let mut rows = chain_of_kinds(&[2, 0, 2, 2], 1);
        rows[2].name = Some("somebody else".to_owned());
        let (found, bad) = (verify(&rows), rows[1].id);
        assert_eq!((found.broken_at, found.first_bad()), (Some(rows[2].id), Some(bad)));
    }

    #[test]
    fn a_row_under_another_number_is_found() {
        let mut rows = chain(&[(sent("a"), None), (sent("b"), None)]);
        rows[1].id += 1;
        assert_eq!(verify(&rows).broken_at, Some(rows[1].id));
    }

    #[test]
    fn a_chain_begins_once() {
        let begin = || (AuditEvent::Genesis { owner: Key::from("ab") }, None);
        assert!(verify(&chain(&[begin(), (sent("a"), None)])).valid);
        let twice = chain(&[begin(), begin()]);
        assert_eq!(verify(&twice).broken_at, Some(twice[1].id));
    }

    #[test]
    fn rows_without_a_second_hash_break_nothing() {
        let mut rows = chain_of_kinds(&[1, 0, 1, 0], 1);
        let found = verify(&rows);
        assert_eq!((found.valid, found.entries, found.named), (true, 4, 2));
        rows[2].name = Some("somebody else".to_owned());
        assert_eq!(verify(&rows).broken_at, Some(rows[2].id));
    }

    #[test]
    fn an_empty_chain_is_valid() {
        assert_eq!(
            verify(&[]),
            Verdict { valid: true, entries: 0, named: 0, broken_at: None, downgraded_at: None }
        );
    }

    #[test]
    fn the_head_is_the_last_hash() {
        let rows = chain(&[(AuditEvent::PeerLeft, None)]);
        let mut verifier = ChainVerifier::new(MESH);
        assert_eq!(verifier.head(), GENESIS);
        assert!(verifier.push(rows[0].read()));
        assert_eq!(verifier.head(), rows[0].hash);
    }

    proptest! {
        #[test]
        fn any_change_is_found_where_it_is(
            targets in prop::collection::vec(".{0,8}", 2..8),
            at: prop::sample::Index,
            change in 0..13,
        ) {
            let events: Vec<_> = targets.iter().map(|t| (sent(t), Some("member-1"))).collect();
            let mut rows = chain(&events);
            let (at, entries) = (at.index(rows.len() - 1), rows.len() as u64);
            prop_assert_eq!(verify(&rows), Verdict { valid: true, entries, named: entries, broken_at: None, downgraded_at: None });
            let (id, next_id) = (rows[at].id, rows[at + 1].id);
            let row = &mut rows[at];
            match change {
                0 => row.prev.push('0'),
                1 => row.event_type.push('0'),
                2 => row.actor = None,
                3 => row.payload["priority"] = json!("low"),
                4 => row.payload["extra"] = json!(null),
                5 => row.created_at = row.created_at.plus_ms(1),
                6 => row.hash = row.hash.to_uppercase(),
                7 => row.name = Some("somebody else".to_owned()),
                8 => row.name = None,
                9 => row.id += 1,
                // Without its second hash the next one's does not follow.
                10 => row.name_hash = None,
                11 => drop(rows.remove(at)),
                _ => rows.swap(at, at + 1),
            }
            let broken_at = Some(if change < 9 { id } else if change == 9 { id + 1 } else { next_id });
            let found = verify(&rows);
            prop_assert_eq!((found.valid, found.broken_at), (false, broken_at));
        }

        #[test]
        fn an_inserted_row_is_found(targets in prop::collection::vec(".{0,8}", 1..8)) {
            let events: Vec<_> = targets.iter().map(|t| (sent(t), None)).collect();
            let mut rows = chain(&events);
            // A copy in front of the last row: rightly linked, and one too many.
            let copy = rows[rows.len() - 1].clone();
            let id = copy.id;
            rows.insert(rows.len() - 1, copy);
            prop_assert_eq!(verify(&rows).broken_at, Some(id));
        }
    }
}
