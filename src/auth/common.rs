//! A member's word for a key that members hold in common, and for what it seals under one.

use sha2::{Digest as _, Sha256};

use super::ProofError;
use super::key::{self, SecretKey};

/// What the maker of a common key signs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CommonKeyProof<'a> {
    /// The mesh.
    pub(crate) mesh: &'a str,
    /// `mesh`, or a topic's id.
    pub(crate) scope: &'a str,
    /// The key's number.
    pub(crate) epoch: i64,
    /// The key's SHA-256, in hex.
    pub(crate) key_hash: &'a str,
}

/// What the writer of a kept text signs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeptProof<'a> {
    /// The mesh.
    pub(crate) mesh: &'a str,
    /// `mesh`, or a topic's id.
    pub(crate) scope: &'a str,
    /// The number of the key that it is sealed under.
    pub(crate) epoch: i64,
    /// Where it is kept: under which name of which kind.
    pub(crate) place: &'a str,
    /// Its bytes: nonce and ciphertext.
    pub(crate) sealed: &'a [u8],
}

impl CommonKeyProof<'_> {
    fn text(&self) -> Option<String> {
        let Self { mesh, scope, epoch, key_hash } = self;
        let is_plain = [mesh, scope, key_hash].iter().all(|field| !field.contains('|'));
        is_plain.then(|| format!("claudemesh-common-key-v1|{mesh}|{scope}|{epoch}|{key_hash}"))
    }

    /// Signs with the maker's member key. `None` where a field has a `|`.
    pub(crate) fn sign(&self, maker: &SecretKey) -> Option<String> {
        Some(maker.sign(&self.text()?))
    }

    /// Whether that is the maker's word for exactly this key.
    pub(crate) fn verify(&self, maker: &str, signature: &str) -> Result<(), ProofError> {
        key::verify(maker, &self.text().ok_or(ProofError::Malformed)?, signature)
    }
}

impl KeptProof<'_> {
    /// The place goes in by its hash: it may have any letters.
    fn text(&self) -> Option<String> {
        let Self { mesh, scope, epoch, place, sealed } = self;
        let is_plain = [mesh, scope].iter().all(|field| !field.contains('|'));
        let [place, sealed] =
            [place.as_bytes(), sealed].map(|bytes| hex::encode(Sha256::digest(bytes)));
        is_plain.then(|| format!("claudemesh-kept-v1|{mesh}|{scope}|{epoch}|{place}|{sealed}"))
    }

    /// Signs with the writer's member key. `None` where a field has a `|`.
    pub(crate) fn sign(&self, writer: &SecretKey) -> Option<String> {
        Some(writer.sign(&self.text()?))
    }

    /// Whether that is the writer's word for exactly this.
    pub(crate) fn verify(&self, writer: &str, signature: &str) -> Result<(), ProofError> {
        key::verify(writer, &self.text().ok_or(ProofError::Malformed)?, signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_holds_for_nothing_but_what_was_signed() {
        let (ada, eve) = (SecretKey::generate(), SecretKey::generate());
        let key = ada.public_key();
        let made = CommonKeyProof { mesh: "m", scope: "mesh", epoch: 1, key_hash: "ab" };
        let signature = made.sign(&ada).expect("signed");
        assert_eq!(made.verify(key.as_str(), &signature), Ok(()));
        let others = [
            CommonKeyProof { mesh: "n", ..made },
            CommonKeyProof { scope: "topic", ..made },
            CommonKeyProof { epoch: 2, ..made },
            CommonKeyProof { key_hash: "ac", ..made },
        ];
        for other in others {
            assert!(other.verify(key.as_str(), &signature).is_err(), "{other:?}");
        }
        assert!(made.verify(eve.public_key().as_str(), &signature).is_err());
        assert_eq!(CommonKeyProof { scope: "a|b", ..made }.sign(&ada), None);
        let kept =
            KeptProof { mesh: "m", scope: "mesh", epoch: 1, place: "state/a|b", sealed: b"x" };
        let signature = kept.sign(&ada).expect("signed, whatever the place");
        assert_eq!(kept.verify(key.as_str(), &signature), Ok(()));
        let others = [
            KeptProof { mesh: "n", ..kept },
            KeptProof { scope: "topic", ..kept },
            KeptProof { epoch: 2, ..kept },
            KeptProof { place: "state/a", ..kept },
            KeptProof { sealed: b"y", ..kept },
        ];
        for other in others {
            assert!(other.verify(key.as_str(), &signature).is_err(), "{other:?}");
        }
    }
}
