//! Heads of a chain that are kept outside the database, and how a chain is checked
//! against them.
//!
//! Whoever writes the database can rewrite a chain from some row to its end, or cut its
//! end off, and what is left verifies. It no longer has the rows that anchors name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ChainRow;
use crate::auth::{AuditHead, ProofError, SecretKey, sign_audit_head, verify_audit_head};
use crate::clock::Timestamp;
use crate::id::{Key, MeshId};
use crate::protocol::SignedHead;

/// Where a chain ended, to be kept in an external place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Anchor {
    /// The mesh.
    pub mesh_id: MeshId,
    /// The number of the chain's last row.
    pub row_id: i64,
    /// That row's hash, as hex.
    pub hash: String,
    /// Its second hash, as hex; none in rows of releases before it.
    pub name_hash: Option<String>,
    /// When that was noted.
    pub taken_at: Timestamp,
    /// Who signed it.
    pub public_key: Option<Key>,
    /// The signature by `public_key`: 128 hex digits.
    pub signature: Option<String>,
}

/// Why an anchor is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnchorError {
    /// Nobody signed it.
    Unsigned,
    /// By another key than those that are trusted.
    OtherKey,
    /// The signature is not one by the key that the anchor names.
    BadSignature,
}

impl Anchor {
    /// The anchor, signed.
    #[must_use]
    pub fn signed(mut self, key: &SecretKey) -> Self {
        self.signature = Some(sign_audit_head(key, self.head()));
        self.public_key = Some(key.public_key());
        self
    }

    /// Whether the signature is by one of the keys in `trusted`; by the key that the anchor
    /// itself names where that is empty. The key that it is by; none where there is no
    /// signature and none is asked for.
    ///
    /// # Errors
    /// Why the anchor is not believed.
    pub fn verify(&self, trusted: &[Key]) -> Result<Option<&Key>, AnchorError> {
        let (Some(key), Some(signature)) = (&self.public_key, &self.signature) else {
            let is_plain = self.public_key.is_none() && self.signature.is_none();
            return if is_plain && trusted.is_empty() {
                Ok(None)
            } else {
                Err(AnchorError::Unsigned)
            };
        };
        if !trusted.is_empty() && !trusted.contains(key) {
            return Err(AnchorError::OtherKey);
        }
        let verified: Result<(), ProofError> =
            verify_audit_head(key.as_str(), self.head(), signature);
        verified.map(|()| Some(key)).map_err(|_| AnchorError::BadSignature)
    }

    /// As a row of the mesh's own chain keeps it: without the mesh.
    pub(super) fn payload(&self) -> Value {
        let Self { mesh_id: _, row_id, hash, name_hash, taken_at, public_key, signature } = self;
        json!({
            "rowId": row_id, "hash": hash, "nameHash": name_hash, "takenAt": taken_at,
            "publicKey": public_key, "signature": signature,
        })
    }

    /// As peers are shown it; none if nobody signed it.
    #[must_use]
    pub fn shown(&self) -> Option<SignedHead> {
        Some(SignedHead {
            row_id: self.row_id,
            hash: self.hash.clone(),
            name_hash: self.name_hash.clone(),
            taken_at: self.taken_at,
            public_key: self.public_key.clone()?,
            signature: self.signature.clone()?,
        })
    }

    fn head(&self) -> AuditHead<'_> {
        AuditHead {
            mesh_id: self.mesh_id.as_str(),
            row_id: self.row_id,
            hash: &self.hash,
            name_hash: self.name_hash.as_deref(),
            taken_at: self.taken_at,
        }
    }
}

/// The hashes that rows of a chain had.
#[derive(Clone, Debug, Default)]
pub struct KnownHeads {
    expected: BTreeMap<i64, Vec<Hashes>>,
}

#[derive(Clone, Debug)]
struct Hashes {
    first: String,
    second: Option<String>,
}

/// What a chain has in the place of a row that was noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// No row of that number.
    Missing(i64),
    /// A row with another hash.
    OtherHash(i64),
    /// A row with another second hash: its session's name, or one before it, was another.
    OtherNames(i64),
}

impl KnownHeads {
    /// Notes that this row had these hashes; a second one that is not known is not compared.
    pub fn note(&mut self, row_id: i64, hash: &str, name_hash: Option<&str>) {
        let hashes = Hashes { first: hash.to_owned(), second: name_hash.map(str::to_owned) };
        self.expected.entry(row_id).or_default().push(hashes);
    }

    /// Compares a row of the chain, which is then done with.
    ///
    /// # Errors
    /// What is different.
    pub fn meet(&mut self, row: &ChainRow<'_>) -> Result<(), Mismatch> {
        let Some(noted) = self.expected.remove(&row.id) else { return Ok(()) };
        for Hashes { first, second } in noted {
            if first != row.hash {
                return Err(Mismatch::OtherHash(row.id));
            }
            let names = row.name_hash.map(hex::encode);
            if second.is_some() && second != names {
                return Err(Mismatch::OtherNames(row.id));
            }
        }
        Ok(())
    }

    /// At the end of the chain: every row that was noted must have been met.
    ///
    /// # Errors
    /// The first that was not.
    pub fn finish(&self) -> Result<(), Mismatch> {
        self.expected.keys().next().map_or(Ok(()), |id| Err(Mismatch::Missing(*id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchor() -> Anchor {
        Anchor {
            mesh_id: MeshId::from("mesh-1"),
            row_id: 42,
            hash: "ab".repeat(32),
            name_hash: Some("cd".repeat(32)),
            taken_at: Timestamp::from_ms(1_700_000_000_120),
            public_key: None,
            signature: None,
        }
    }

    #[test]
    fn an_anchor_is_believed_by_its_signature() {
        let (key, other) = (SecretKey::generate(), SecretKey::generate());
        let (ours, strangers) = (key.public_key(), other.public_key());
        let signed = anchor().signed(&key);
        assert_eq!(signed.verify(&[]), Ok(Some(&ours)), "by the key that it names");
        assert_eq!(signed.verify(&[strangers.clone(), ours.clone()]), Ok(Some(&ours)));
        assert_eq!(signed.verify(std::slice::from_ref(&strangers)), Err(AnchorError::OtherKey));
        let forged = Anchor { row_id: 41, ..signed.clone() };
        assert_eq!(forged.verify(&[]), Err(AnchorError::BadSignature));
        let claimed = Anchor { public_key: Some(strangers.clone()), ..signed.clone() };
        assert_eq!(claimed.verify(&[strangers]), Err(AnchorError::BadSignature));
        assert_eq!(anchor().verify(&[]), Ok(None));
        assert_eq!(anchor().verify(&[ours]), Err(AnchorError::Unsigned));
        let nameless = Anchor { public_key: None, ..signed.clone() };
        assert_eq!(nameless.verify(&[]), Err(AnchorError::Unsigned));
        let stripped = Anchor { signature: None, ..signed };
        assert_eq!(stripped.verify(&[]), Err(AnchorError::Unsigned));
    }

    #[test]
    fn an_anchor_survives_its_file_and_may_have_more_fields() {
        let signed = anchor().signed(&SecretKey::generate());
        let mut object = serde_json::to_value(&signed).expect("JSON");
        assert_eq!(
            (&object["rowId"], &object["takenAt"]),
            (&json!(42), &json!("2023-11-14T22:13:20.120Z"))
        );
        object["slug"] = json!("team");
        let read: Anchor = serde_json::from_value(object).expect("an anchor");
        assert_eq!(read, signed);
        let plain =
            json!({"meshId": "m", "rowId": 1, "hash": "h", "takenAt": "2023-11-14T22:13:20Z"});
        let plain: Anchor = serde_json::from_value(plain).expect("an anchor that nobody signed");
        assert_eq!((plain.name_hash, plain.signature), (None, None));
    }

    #[test]
    fn a_chain_without_the_row_that_was_noted_is_found() {
        let (hash, other, names) = ("ab".repeat(32), "ef".repeat(32), [7; 32]);
        let second = hex::encode(names);
        let payload = Value::Null;
        let row = |id, hash, name_hash| ChainRow {
            id,
            prev_hash: "",
            event_type: "peer_left",
            actor: None,
            payload: &payload,
            created_at: Timestamp::from_ms(0),
            hash,
            actor_name: None,
            name_hash,
        };
        let noted = || {
            let mut heads = KnownHeads::default();
            heads.note(2, &hash, Some(&second));
            heads.note(2, &hash, None);
            heads
        };
        let mut heads = noted();
        assert_eq!(heads.finish(), Err(Mismatch::Missing(2)));
        assert_eq!(heads.meet(&row(1, &other, None)), Ok(()), "nothing is known of it");
        assert_eq!(heads.meet(&row(2, &hash, Some(&names))), Ok(()));
        assert_eq!(heads.finish(), Ok(()));
        assert_eq!(noted().meet(&row(2, &other, Some(&names))), Err(Mismatch::OtherHash(2)));
        assert_eq!(noted().meet(&row(2, &hash, Some(&[8; 32]))), Err(Mismatch::OtherNames(2)));
        assert_eq!(noted().meet(&row(2, &hash, None)), Err(Mismatch::OtherNames(2)));
    }
}
