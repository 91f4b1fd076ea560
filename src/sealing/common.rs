//! What is kept for all members, under a key that they hold in common: shared values,
//! memories, tasks, posts to topics, messages to many that are sent later.
//!
//! A text is libsodium's `crypto_secretbox_easy`; a copy of the key is `crypto_box_easy` from
//! a member that has it. The key of an epoch brings those before it along, sealed under it:
//! who has the newest reads everything.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use crypto_secretbox::aead::Aead as _;
use crypto_secretbox::{KeyInit as _, XSalsa20Poly1305};
use sha2::{Digest as _, Sha256};

use super::{BASE64, BoxKey, NONCE_LEN};
use crate::auth::{KeptProof, SecretKey};
use crate::id::Key;

/// How a kept text begins that is sealed.
const MARK: &str = "sealed:1:";
/// Length of a key in bytes.
const KEY_LEN: usize = 32;
/// Length of a signature in bytes.
const SIGNATURE_LEN: usize = 64;
/// Earlier keys that a newer one brings along; those before are lost.
const EARLIER_MAX: usize = 256;

/// A key that members hold in common.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct CommonKey([u8; KEY_LEN]);

impl fmt::Debug for CommonKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("CommonKey([redacted])")
    }
}

impl CommonKey {
    /// A fresh one.
    pub(crate) fn generate() -> Self {
        Self(rand::random())
    }

    /// What everybody may know of it: its SHA-256, in hex.
    pub(crate) fn hash_hex(&self) -> String {
        hex::encode(Sha256::digest(self.0))
    }

    /// A copy of it for another member, in base64: the box's nonce, then the box.
    pub(crate) fn copy_for(&self, shared: &BoxKey) -> Option<String> {
        let nonce: [u8; NONCE_LEN] = rand::random();
        let sealed = BASE64.decode(shared.seal_under(nonce, &self.0)?).ok()?;
        Some(BASE64.encode([&nonce[..], &sealed].concat()))
    }

    /// The key of a copy; `None` if it is for somebody else, altered, or none at all.
    pub(crate) fn of_copy(shared: &BoxKey, copy: &str) -> Option<Self> {
        let bytes = BASE64.decode(copy).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN)?;
        let key = shared.open(&BASE64.encode(nonce), &BASE64.encode(sealed))?;
        Some(Self(key.try_into().ok()?))
    }

    fn encrypt(&self, text: &[u8]) -> Option<Vec<u8>> {
        let nonce: [u8; NONCE_LEN] = rand::random();
        let sealed = XSalsa20Poly1305::new(&self.0.into()).encrypt(&nonce.into(), text).ok()?;
        Some([&nonce[..], &sealed].concat())
    }

    fn decrypt(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN)?;
        let nonce: [u8; NONCE_LEN] = nonce.try_into().ok()?;
        XSalsa20Poly1305::new(&self.0.into()).decrypt(&nonce.into(), sealed).ok()
    }

    /// The keys before it, sealed under it, in base64; of very many the newest.
    pub(crate) fn with_earlier(&self, earlier: &BTreeMap<i64, Self>) -> Option<String> {
        let newest = earlier.iter().rev().take(EARLIER_MAX);
        let pairs: Vec<u8> =
            newest.flat_map(|(epoch, key)| [&epoch.to_be_bytes()[..], &key.0].concat()).collect();
        self.encrypt(&pairs).map(|bytes| BASE64.encode(bytes))
    }

    /// The keys before it; none if that was not sealed under it.
    pub(crate) fn earlier(&self, sealed: &str) -> BTreeMap<i64, Self> {
        let pairs = BASE64.decode(sealed).ok().and_then(|bytes| self.decrypt(&bytes));
        let pairs = pairs.unwrap_or_default();
        let (pairs, _) = pairs.as_chunks::<{ 8 + KEY_LEN }>();
        let read = |pair: &[u8; 8 + KEY_LEN]| {
            let (epoch, key) = pair.split_at(8);
            let epoch = i64::from_be_bytes(epoch.try_into().ok()?);
            Some((epoch, Self(key.try_into().ok()?)))
        };
        pairs.iter().filter_map(read).collect()
    }
}

/// Where a text is kept: what its writer signs beside it, so that it stands for nothing
/// elsewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) mesh: &'a str,
    /// Under which name of which kind.
    pub(crate) named: &'a str,
}

/// Seals a text to keep, as its writer's.
pub(crate) fn seal(
    (key, epoch, scope): (&CommonKey, i64, &str),
    place: Place<'_>,
    writer: &SecretKey,
    text: &[u8],
) -> Option<String> {
    let sealed = key.encrypt(text)?;
    let proof = KeptProof { mesh: place.mesh, scope, epoch, place: place.named, sealed: &sealed };
    let signature = hex::decode(proof.sign(writer)?).ok()?;
    let by = hex::decode(writer.public_key().as_str()).ok()?;
    let bytes = [&by[..], &signature, &sealed].concat();
    Some(format!("{MARK}{scope}:{epoch}:{}", BASE64.encode(bytes)))
}

/// A kept text that is sealed, before it is opened.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct KeptSealed {
    /// `mesh`, or a topic's id.
    pub(crate) scope: String,
    /// The number of the key that it is sealed under.
    pub(crate) epoch: i64,
    /// The member that wrote it, by its key.
    pub(crate) writer: Key,
    signature: String,
    sealed: Vec<u8>,
}

impl fmt::Debug for KeptSealed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "[a text sealed under key {} of {}]", self.epoch, self.scope)
    }
}

/// Whether a text is, or says it is, sealed.
pub(crate) fn is_marked(text: &str) -> bool {
    text.starts_with(MARK)
}

impl KeptSealed {
    /// Reads a text that is marked; `None` if it is not whole.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut fields = text.strip_prefix(MARK)?.split(':');
        let (scope, epoch, bytes) = (fields.next()?, fields.next()?, fields.next()?);
        let epoch = epoch.parse().ok().filter(|epoch| *epoch > 0 && fields.next().is_none())?;
        let bytes = BASE64.decode(bytes).ok()?;
        let (writer, rest) = bytes.split_at_checked(KEY_LEN)?;
        let (signature, sealed) = rest.split_at_checked(SIGNATURE_LEN)?;
        Some(Self {
            scope: scope.to_owned(),
            epoch,
            writer: Key::from(hex::encode(writer)),
            signature: hex::encode(signature),
            sealed: sealed.to_vec(),
        })
    }

    /// The text, if its writer wrote it for that place.
    pub(crate) fn open(&self, key: &CommonKey, place: Place<'_>) -> Option<Vec<u8>> {
        let Self { scope, epoch, writer, signature, sealed } = self;
        let Place { mesh, named } = place;
        let proof = KeptProof { mesh, scope, epoch: *epoch, place: named, sealed };
        proof.verify(writer.as_str(), signature).ok()?;
        key.decrypt(sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'_> = Place { mesh: "m", named: "state/build" };

    #[test]
    fn a_text_opens_with_its_key_at_its_place_alone() {
        let (ada, key) = (SecretKey::generate(), CommonKey::generate());
        let text = seal((&key, 3, "mesh"), PLACE, &ada, b"green").expect("sealed");
        assert!(is_marked(&text) && !text.contains("green"), "{text}");
        let kept = KeptSealed::read(&text).expect("whole");
        assert_eq!((&*kept.scope, kept.epoch, &kept.writer), ("mesh", 3, &ada.public_key()));
        assert_eq!(kept.open(&key, PLACE).as_deref(), Some(&b"green"[..]));
        assert_eq!(kept.open(&CommonKey::generate(), PLACE), None, "under another key");
        for place in [Place { mesh: "n", ..PLACE }, Place { named: "state/deploy", ..PLACE }] {
            assert_eq!(kept.open(&key, place), None, "{place:?}");
        }
        for epoch in ["2", "4"] {
            let moved = text.replace(":3:", &format!(":{epoch}:"));
            let moved = KeptSealed::read(&moved).expect("whole");
            assert_eq!(moved.open(&key, PLACE), None, "of another epoch");
        }
        // Who has the key, too, cannot write as her.
        let eve = SecretKey::generate();
        let forged = seal((&key, 3, "mesh"), PLACE, &eve, b"red").expect("sealed");
        let mut forged = KeptSealed::read(&forged).expect("whole");
        assert_eq!(forged.open(&key, PLACE).as_deref(), Some(&b"red"[..]));
        forged.writer = ada.public_key();
        assert_eq!(forged.open(&key, PLACE), None);
    }

    #[test]
    fn a_copy_opens_for_the_member_it_is_for_and_brings_the_earlier_keys_along() {
        let [ada, bob, eve]: [SecretKey; 3] = std::array::from_fn(|_| SecretKey::generate());
        let between = |mine: &SecretKey, theirs: &SecretKey| {
            BoxKey::between(mine, &theirs.public_key()).expect("a key")
        };
        let keys: [CommonKey; 3] = std::array::from_fn(|_| CommonKey::generate());
        let copy = keys[2].copy_for(&between(&ada, &bob)).expect("sealed");
        assert_eq!(copy.len(), 96);
        let opened = CommonKey::of_copy(&between(&bob, &ada), &copy);
        assert_eq!(opened.as_ref(), Some(&keys[2]));
        assert_eq!(CommonKey::of_copy(&between(&eve, &ada), &copy), None);
        assert_eq!(CommonKey::of_copy(&between(&bob, &eve), &copy), None);
        let earlier = BTreeMap::from([(1, keys[0].clone()), (2, keys[1].clone())]);
        let sealed = keys[2].with_earlier(&earlier).expect("sealed");
        assert_eq!(keys[2].earlier(&sealed), earlier);
        assert_eq!(keys[1].earlier(&sealed), BTreeMap::new(), "under another");
        assert_eq!(format!("{:?}", keys[0]), "CommonKey([redacted])");
    }

    #[test]
    fn very_many_earlier_keys_fit_into_what_a_broker_takes() {
        let earlier = (1..=1_000).map(|epoch| (epoch, CommonKey::generate())).collect();
        let key = CommonKey::generate();
        let sealed = key.with_earlier(&earlier).expect("sealed");
        assert!(sealed.len() <= crate::limits::EARLIER_KEYS_CHARS_MAX, "{}", sealed.len());
        let kept = key.earlier(&sealed);
        assert_eq!((kept.len(), kept.first_key_value().map(|(epoch, _)| *epoch)), (256, Some(745)));
    }

    #[derive(serde::Deserialize)]
    struct Vector {
        sender: String,
        recipient: String,
        common_key: String,
        earlier_key: String,
        mesh: String,
        scope: String,
        epoch: i64,
        place: String,
        text: String,
        key_hash: String,
        key_signature: String,
        copy: String,
        earlier: String,
        kept: String,
    }

    #[derive(serde::Deserialize)]
    struct Vectors {
        kept: Vec<Vector>,
    }

    #[test]
    fn what_another_implementation_has_sealed_opens() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/sealing-vectors.json");
        let text = std::fs::read_to_string(path).expect("the vectors");
        let Vectors { kept } = serde_json::from_str(&text).expect("vectors");
        assert_eq!(kept.len(), 3);
        for vector in kept {
            let sender = SecretKey::from_hex128(&vector.sender).expect("a key");
            let recipient = SecretKey::from_hex128(&vector.recipient).expect("a key");
            let shared = BoxKey::between(&recipient, &sender.public_key()).expect("a key");
            let key = CommonKey::of_copy(&shared, &vector.copy).expect("a copy");
            assert_eq!(hex::encode(key.0), vector.common_key);
            assert_eq!(key.hash_hex(), vector.key_hash);
            let (mesh, scope) = (&*vector.mesh, &*vector.scope);
            let proof = crate::auth::CommonKeyProof {
                mesh,
                scope,
                epoch: vector.epoch,
                key_hash: &vector.key_hash,
            };
            assert_eq!(proof.sign(&sender), Some(vector.key_signature));
            let earlier = key.earlier(&vector.earlier);
            let earlier: Vec<_> =
                earlier.iter().map(|(epoch, key)| (*epoch, hex::encode(key.0))).collect();
            assert_eq!(earlier, [(1, vector.earlier_key)]);
            let kept = KeptSealed::read(&vector.kept).expect("whole");
            assert_eq!((&*kept.scope, kept.epoch), (scope, vector.epoch));
            let opened = kept.open(&key, Place { mesh, named: &vector.place });
            assert_eq!(opened.as_deref(), Some(vector.text.as_bytes()));
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_kept_is_read_or_is_nothing(text in ".{0,200}", bytes in proptest::collection::vec(0u8.., 0..300)) {
            let key = CommonKey::generate();
            let marked = format!("{MARK}mesh:1:{}", BASE64.encode(&bytes));
            for text in [text.clone(), format!("{MARK}{text}"), marked] {
                if let Some(kept) = KeptSealed::read(&text) {
                    proptest::prop_assert_eq!(kept.open(&key, PLACE), None);
                }
            }
            proptest::prop_assert!(key.earlier(&text).is_empty());
            let shared = BoxKey::between(&SecretKey::generate(), &SecretKey::generate().public_key());
            let copy = BASE64.encode(&bytes);
            proptest::prop_assert_eq!(CommonKey::of_copy(&shared.expect("a key"), &copy), None);
        }
    }
}
