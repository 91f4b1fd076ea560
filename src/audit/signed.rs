//! Heads that nodes sign by the clock: rows of the chain, each of which signs the row
//! before it. Whoever writes a chain anew without the key can only leave them out.

use serde_json::Value;

use super::{Anchor, AnchorError, ChainRow};
use crate::clock::Timestamp;
use crate::id::{Key, MeshId};

/// The type of a row that carries a signed head: where the chain ended before it.
pub const HEAD_EVENT: &str = "audit_head";

/// Why a row that carries a signed head is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// It lacks a field, or has one of another shape.
    Unreadable,
    /// What it signs is not the row before it.
    OtherRow,
    /// Its signature, as that of an anchor.
    Signature(AnchorError),
}

/// The newest head in a chain that is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewestHead {
    /// The row that it signs.
    pub row_id: i64,
    /// When.
    pub taken_at: Timestamp,
    /// How many rows have come after the one that carries it.
    pub rows_since: u64,
}

/// Checks the signed heads of a mesh's chain, row by row.
#[derive(Clone, Debug)]
pub struct SignedHeads {
    mesh: MeshId,
    trusted: Vec<Key>,
    /// The last row: its number and its hashes.
    last: Option<(i64, String, Option<String>)>,
    count: u64,
    newest: Option<NewestHead>,
    signed_by: Vec<Key>,
}

impl SignedHeads {
    /// Starts before the mesh's first row; without keys that are trusted each head is
    /// checked by the key that it names.
    #[must_use]
    pub fn new(mesh: &MeshId, trusted: Vec<Key>) -> Self {
        let (mesh, signed_by) = (mesh.clone(), Vec::new());
        Self { mesh, trusted, last: None, count: 0, newest: None, signed_by }
    }

    /// Takes the next row by id.
    ///
    /// # Errors
    /// Why it is not believed, if it carries a head that is not.
    pub fn meet(&mut self, row: &ChainRow<'_>) -> Result<(), HeadError> {
        let before =
            self.last.replace((row.id, row.hash.to_owned(), row.name_hash.map(hex::encode)));
        if row.event_type != HEAD_EVENT {
            if let Some(newest) = &mut self.newest {
                newest.rows_since += 1;
            }
            return Ok(());
        }
        let anchor = self.read(row.payload).ok_or(HeadError::Unreadable)?;
        if before.as_ref() != Some(&(anchor.row_id, anchor.hash.clone(), anchor.name_hash.clone()))
        {
            return Err(HeadError::OtherRow);
        }
        let key = anchor.verify(&self.trusted).map_err(HeadError::Signature)?;
        let key = key.ok_or(HeadError::Signature(AnchorError::Unsigned))?;
        if !self.signed_by.contains(key) {
            self.signed_by.push(key.clone());
        }
        let Anchor { row_id, taken_at, .. } = anchor;
        self.newest = Some(NewestHead { row_id, taken_at, rows_since: 0 });
        self.count += 1;
        Ok(())
    }

    fn read(&self, payload: &Value) -> Option<Anchor> {
        let mut anchor = payload.as_object()?.clone();
        anchor.insert("meshId".to_owned(), self.mesh.as_str().into());
        serde_json::from_value(Value::Object(anchor)).ok()
    }

    /// How many heads were believed.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The newest of them.
    #[must_use]
    pub const fn newest(&self) -> Option<NewestHead> {
        self.newest
    }

    /// By whom they were signed.
    #[must_use]
    pub fn signed_by(&self) -> &[Key] {
        &self.signed_by
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::SecretKey;

    const HASH: &str = "abababababababababababababababababababababababababababababababab";
    const NAMES: [u8; 32] = [7; 32];

    fn mesh() -> MeshId {
        MeshId::from("mesh-1")
    }

    fn anchor(key: &SecretKey) -> Anchor {
        let anchor = Anchor {
            mesh_id: mesh(),
            row_id: 4,
            hash: HASH.to_owned(),
            name_hash: Some(hex::encode(NAMES)),
            taken_at: Timestamp::from_ms(1_700_000_000_120),
            public_key: None,
            signature: None,
        };
        anchor.signed(key)
    }

    fn row<'a>(id: i64, event_type: &'a str, payload: &'a Value) -> ChainRow<'a> {
        ChainRow {
            id,
            prev_hash: "",
            event_type,
            actor: None,
            payload,
            created_at: Timestamp::from_ms(0),
            hash: HASH,
            actor_name: None,
            name_hash: Some(&NAMES),
        }
    }

    /// What is found of a head behind row `before`.
    fn found(trusted: &[Key], before: i64, head: &Value) -> Result<(), HeadError> {
        let mut heads = SignedHeads::new(&mesh(), trusted.to_vec());
        heads.meet(&row(before, "peer_left", &Value::Null)).expect("no head");
        heads.meet(&row(9, HEAD_EVENT, head))
    }

    #[test]
    fn a_head_is_believed_by_its_signature_and_signs_the_row_before_it() {
        let (key, stranger) = (SecretKey::generate(), SecretKey::generate());
        let (ours, head) = (key.public_key(), anchor(&key).payload());
        assert_eq!(found(&[], 4, &head), Ok(()), "by the key that it names");
        assert_eq!(found(&[stranger.public_key(), ours.clone()], 4, &head), Ok(()));
        let other = Err(HeadError::Signature(AnchorError::OtherKey));
        assert_eq!(found(&[stranger.public_key()], 4, &head), other);
        assert_eq!(found(&[ours], 3, &head), Err(HeadError::OtherRow));
        let altered = |field: &str, value: Value| {
            let mut altered = head.clone();
            altered[field] = value;
            found(&[], 4, &altered)
        };
        let forged = Err(HeadError::Signature(AnchorError::BadSignature));
        assert_eq!(altered("takenAt", "2001-01-01T00:00:00.000Z".into()), forged);
        assert_eq!(altered("publicKey", stranger.public_key().as_str().into()), forged);
        assert_eq!(altered("hash", "cd".repeat(32).into()), Err(HeadError::OtherRow));
        assert_eq!(altered("nameHash", Value::Null), Err(HeadError::OtherRow));
        assert_eq!(altered("rowId", "4".into()), Err(HeadError::Unreadable));
        let unsigned = Err(HeadError::Signature(AnchorError::Unsigned));
        assert_eq!(altered("signature", Value::Null), unsigned);
        assert_eq!(found(&[], 4, &Value::Null), Err(HeadError::Unreadable));
        let alone = SignedHeads::new(&mesh(), Vec::new()).meet(&row(9, HEAD_EVENT, &head));
        assert_eq!(alone, Err(HeadError::OtherRow), "there is no row before it");
    }

    #[test]
    fn a_head_of_another_mesh_is_not_believed() {
        let key = SecretKey::generate();
        let mut heads = SignedHeads::new(&MeshId::from("mesh-2"), Vec::new());
        heads.meet(&row(4, "peer_left", &Value::Null)).expect("no head");
        let head = anchor(&key).payload();
        let forged = Err(HeadError::Signature(AnchorError::BadSignature));
        assert_eq!(heads.meet(&row(9, HEAD_EVENT, &head)), forged);
    }

    #[test]
    fn how_much_came_after_the_newest_head_is_known() {
        let key = SecretKey::generate();
        let mut heads = SignedHeads::new(&mesh(), Vec::new());
        assert_eq!((heads.count(), heads.newest()), (0, None));
        for id in [4, 9, 10, 11] {
            let (event, payload) = match id {
                9 => (HEAD_EVENT, anchor(&key).payload()),
                _ => ("peer_left", Value::Null),
            };
            heads.meet(&row(id, event, &payload)).expect("believed");
        }
        let taken_at = Timestamp::from_ms(1_700_000_000_120);
        assert_eq!(heads.newest(), Some(NewestHead { row_id: 4, taken_at, rows_since: 2 }));
        assert_eq!((heads.count(), heads.signed_by()), (1, [key.public_key()].as_slice()));
    }
}
