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

/// The second hash of a row: over the one of the row before ([`NameHead`]), the row's
/// first hash and the name that its actor's session had.
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
}

/// Checks a mesh's chain row by row, holding none of it.
#[derive(Clone, Debug)]
pub struct ChainVerifier {
    mesh_id: String,
    head: String,
    name_head: NameHead,
    entries: u64,
    named: u64,
    broken_at: Option<i64>,
}

impl ChainVerifier {
    /// Starts before the first row of the mesh.
    #[must_use]
    pub fn new(mesh_id: &str) -> Self {
        let mesh_id = mesh_id.to_owned();
        let name_head = NameHead::after(GENESIS, None);
        Self { mesh_id, head: GENESIS.to_owned(), name_head, entries: 0, named: 0, broken_at: None }
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
        let names = name_hash(&self.name_head, &hash, row.actor_name);
        let is_named = row.name_hash.is_none_or(|written| written == names);
        if prev_hash == self.head && row.hash == hash && is_named {
            self.name_head = NameHead::after(&hash, row.name_hash);
            self.named += u64::from(row.name_hash.is_some());
            self.head = hash;
        } else {
            self.broken_at = Some(row.id);
        }
        self.broken_at.is_none()
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

    /// What was found.
    #[must_use]
    pub fn finish(self) -> Verdict {
        let Self { entries, named, broken_at, .. } = self;
        Verdict { valid: broken_at.is_none(), entries, named, broken_at }
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
        name_hash: Option<[u8; 32]>,
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
                name_hash: self.name_hash.as_ref().map(<[u8; 32]>::as_slice),
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
            let before = rows.last().and_then(|row| row.name_hash);
            let before = NameHead::after(&prev, before.as_ref().map(<[u8; 32]>::as_slice));
            let name = actor.map(|actor| format!("{actor}'s session"));
            let name_hash = Some(name_hash(&before, &hash, name.as_deref()));
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

    /// Two releases write one chain during an upgrade.
    #[test]
    fn rows_without_a_second_hash_break_nothing() {
        let events = ["a", "b", "c", "d"].map(|target| (sent(target), Some("member-1")));
        let mut rows = chain(&events);
        rows[1].name_hash = None;
        rows[3].name_hash = None;
        let after = NameHead::after(&rows[1].hash, None);
        rows[2].name_hash = Some(name_hash(&after, &rows[2].hash, rows[2].name.as_deref()));
        let found = verify(&rows);
        assert_eq!((found.valid, found.entries, found.named), (true, 4, 2));
        rows[2].name = Some("somebody else".to_owned());
        assert_eq!(verify(&rows).broken_at, Some(rows[2].id));
    }

    #[test]
    fn an_empty_chain_is_valid() {
        assert_eq!(verify(&[]), Verdict { valid: true, entries: 0, named: 0, broken_at: None });
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
            change in 0..12,
        ) {
            let events: Vec<_> = targets.iter().map(|t| (sent(t), Some("member-1"))).collect();
            let mut rows = chain(&events);
            let (at, entries) = (at.index(rows.len() - 1), rows.len() as u64);
            prop_assert_eq!(verify(&rows), Verdict { valid: true, entries, named: entries, broken_at: None });
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
                // Without its second hash the next one's does not follow.
                9 => row.name_hash = None,
                10 => drop(rows.remove(at)),
                _ => rows.swap(at, at + 1),
            }
            let broken_at = Some(if change < 9 { id } else { next_id });
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
