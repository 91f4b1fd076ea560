//! Signatures under the cluster's key over everything that nodes tell each
//! other by way of Redis: whoever writes Redis and does not know the key cannot
//! put words into a node's mouth.
//!
//! HMAC-SHA256 over what kind of thing it is, where it stands, and its bytes.
//! What is not signed, or signed otherwise, is ignored, counted, and logged once
//! a minute at most. Several keys verify, so that one can follow another; the
//! first signs.
//!
//! A signature does not say that something is new: who can write Redis can put
//! back what once stood at the same place. Frames have numbers against that.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 32;

/// What signed bytes begin with. No MessagePack map does, which is what they
/// once were.
const SEALED: u8 = 1;

/// Between two log lines about what is not signed.
const TOLD_INTERVAL: Duration = Duration::from_secs(60);

/// What the nodes of one cluster share.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey {
    /// Part of every name in Redis: no secret.
    pub id: String,
    /// Signs and verifies.
    pub secret: Vec<u8>,
    /// Verify besides, while one follows another.
    pub others: Vec<Vec<u8>>,
}

/// Without the secrets.
impl fmt::Debug for ClusterKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ClusterKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What of a bus frame is signed: all that it says.
#[derive(Clone, Copy, Debug)]
pub struct FrameWords<'a> {
    /// Where it was published.
    pub channel: &'a str,
    /// The node that published.
    pub node: &'a str,
    /// The process of that node.
    pub incarnation: u64,
    /// The frame's number.
    pub seq: u64,
    /// Whether the channel is new to its origin.
    pub first: bool,
    /// The part for the mesh's nodes.
    pub body: Option<&'a [u8]>,
    /// The part for the buses.
    pub control: Option<&'a [u8]>,
}

/// Signs and verifies.
pub struct Seals {
    signing: Signer,
    others: Vec<Signer>,
    refused: AtomicU64,
    told_at: Mutex<Option<Instant>>,
}

/// Has taken the key in already.
#[derive(Clone)]
struct Signer(Hmac<Sha256>);

impl Signer {
    fn new(secret: &[u8]) -> Self {
        let mut block = [0; 64];
        block[..SIGNATURE_BYTES].copy_from_slice(&Sha256::digest(secret));
        Self(Hmac::new(&block.into()))
    }

    /// Each part with its length: no two lists of parts are the same bytes.
    fn over(&self, kind: &str, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        for part in std::iter::once(&kind.as_bytes()).chain(parts) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }
}

impl Seals {
    /// Seals under that key.
    #[must_use]
    pub fn new(key: &ClusterKey) -> Self {
        Self {
            signing: Signer::new(&key.secret),
            others: key.others.iter().map(|secret| Signer::new(secret)).collect(),
            refused: AtomicU64::new(0),
            told_at: Mutex::new(None),
        }
    }

    /// The signature of a frame.
    #[must_use]
    pub fn sign_frame(&self, frame: &FrameWords<'_>) -> [u8; SIGNATURE_BYTES] {
        with_parts(frame, |parts| self.sign("frame", parts))
    }

    /// Whether a frame is signed by a node of this cluster.
    #[must_use]
    pub fn is_signed_frame(&self, frame: &FrameWords<'_>, signature: &[u8]) -> bool {
        with_parts(frame, |parts| self.is_signed("frame", parts, signature))
    }

    /// Bytes with their signature; `place` is where they will stand.
    #[must_use]
    pub fn seal(&self, kind: &str, place: &[&str], bytes: &[u8]) -> Vec<u8> {
        let signature = self.sign(kind, &parts_of(place, bytes));
        let mut sealed = Vec::with_capacity(1 + SIGNATURE_BYTES + bytes.len());
        sealed.push(SEALED);
        sealed.extend_from_slice(&signature);
        sealed.extend_from_slice(bytes);
        sealed
    }

    /// The bytes again; `None`, and counted, if nobody of this cluster has
    /// sealed them for that place.
    #[must_use]
    pub fn open<'a>(&self, kind: &str, place: &[&str], sealed: &'a [u8]) -> Option<&'a [u8]> {
        let opened = sealed
            .strip_prefix(&[SEALED])
            .and_then(|rest| rest.split_at_checked(SIGNATURE_BYTES))
            .filter(|(mac, bytes)| self.is_signed(kind, &parts_of(place, bytes), mac));
        if opened.is_none() {
            self.refuse(kind);
        }
        opened.map(|(_, bytes)| bytes)
    }

    /// A signature as text, for what Redis keeps as members of a set.
    #[must_use]
    pub(super) fn sign_text(&self, kind: &str, parts: &[&str]) -> String {
        hex::encode(self.sign(kind, &parts_of(parts, &[])))
    }

    pub(super) fn is_signed_text(&self, kind: &str, parts: &[&str], signature: &str) -> bool {
        hex::decode(signature)
            .is_ok_and(|signature| self.is_signed(kind, &parts_of(parts, &[]), &signature))
    }

    /// How much was found that nobody of this cluster has signed.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Something was found that nobody of this cluster has signed.
    pub(super) fn refuse(&self, kind: &str) {
        let refused = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
        let mut told_at = self.told_at.lock();
        if told_at.is_none_or(|at| at.elapsed() >= TOLD_INTERVAL) {
            *told_at = Some(Instant::now());
            tracing::warn!(
                kind,
                refused,
                "Redis has what no node of this cluster has signed; it is ignored. Either a node \
                 has another CLUSTER_SECRET, or somebody else writes this Redis"
            );
        }
    }

    fn sign(&self, kind: &str, parts: &[&[u8]]) -> [u8; SIGNATURE_BYTES] {
        self.signing.over(kind, parts).finalize().into_bytes().into()
    }

    /// Whether the signature fits, compared in constant time.
    fn is_signed(&self, kind: &str, parts: &[&[u8]], signature: &[u8]) -> bool {
        std::iter::once(&self.signing)
            .chain(&self.others)
            .any(|signer| signer.over(kind, parts).verify_slice(signature).is_ok())
    }
}

fn parts_of<'a>(place: &[&'a str], bytes: &'a [u8]) -> Vec<&'a [u8]> {
    place.iter().map(|part| part.as_bytes()).chain(std::iter::once(bytes)).collect()
}

fn with_parts<T>(frame: &FrameWords<'_>, call: impl FnOnce(&[&[u8]]) -> T) -> T {
    let FrameWords { channel, node, incarnation, seq, first, body, control } = *frame;
    let flags = u8::from(first) | u8::from(body.is_some()) << 1 | u8::from(control.is_some()) << 2;
    call(&[
        channel.as_bytes(),
        node.as_bytes(),
        &incarnation.to_be_bytes(),
        &seq.to_be_bytes(),
        &[flags],
        body.unwrap_or_default(),
        control.unwrap_or_default(),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(secret: &str, others: &[&str]) -> ClusterKey {
        let others = others.iter().map(|other| other.as_bytes().to_vec()).collect();
        ClusterKey { id: "c".to_owned(), secret: secret.as_bytes().to_vec(), others }
    }

    fn frame() -> FrameWords<'static> {
        FrameWords {
            channel: "c:{m}:bus",
            node: "n",
            incarnation: 7,
            seq: 9,
            first: true,
            body: Some(b"body"),
            control: None,
        }
    }

    #[test]
    fn a_changed_word_of_a_frame_is_noticed() {
        let seals = Seals::new(&key("one", &[]));
        let signature = seals.sign_frame(&frame());
        assert!(seals.is_signed_frame(&frame(), &signature));
        let changed = [
            FrameWords { channel: "c:{n}:bus", ..frame() },
            FrameWords { node: "evil", ..frame() },
            FrameWords { incarnation: 8, ..frame() },
            FrameWords { seq: 10, ..frame() },
            FrameWords { first: false, ..frame() },
            FrameWords { body: Some(b"bodi"), ..frame() },
            FrameWords { body: None, control: Some(b"body"), ..frame() },
            FrameWords { body: None, ..frame() },
        ];
        for changed in changed {
            assert!(!seals.is_signed_frame(&changed, &signature), "{changed:?}");
        }
        for wrong in [&signature[..31], &[0; 32], &[]] {
            assert!(!seals.is_signed_frame(&frame(), wrong));
        }
    }

    #[test]
    fn sealed_bytes_open_at_their_place_alone() {
        let seals = Seals::new(&key("one", &[]));
        let sealed = seals.seal("record", &["mesh", "presence"], b"bytes");
        assert_eq!(seals.open("record", &["mesh", "presence"], &sealed), Some(&b"bytes"[..]));
        assert_eq!(seals.refused(), 0);
        let elsewhere = [("record", ["mesh", "other"]), ("node", ["mesh", "presence"])];
        for (kind, place) in elsewhere {
            assert_eq!(seals.open(kind, &place, &sealed), None, "{kind} {place:?}");
        }
        // The same letters, cut elsewhere.
        assert_eq!(seals.open("record", &["meshp", "resence"], &sealed), None);
        for wrong in [&b""[..], b"\x81\xa1a\x01", &sealed[..20], b"\x01"] {
            assert_eq!(seals.open("record", &["mesh", "presence"], wrong), None);
        }
        assert_eq!(seals.refused(), 7);
    }

    #[test]
    fn one_key_follows_another_without_a_gap() {
        let [old, both, turned, new] = [
            Seals::new(&key("old", &[])),
            Seals::new(&key("old", &["new"])),
            Seals::new(&key("new", &["old"])),
            Seals::new(&key("new", &[])),
        ];
        // Each state understands the one before it and the one after it.
        for (from, to) in [(&old, &both), (&both, &turned), (&turned, &new)] {
            for (from, to) in [(from, to), (to, from)] {
                let sealed = from.seal("record", &["m"], b"x");
                assert_eq!(to.open("record", &["m"], &sealed), Some(&b"x"[..]));
            }
        }
        assert_eq!(new.open("record", &["m"], &old.seal("record", &["m"], b"x")), None);
    }

    #[test]
    fn a_key_does_not_print_its_secret() {
        assert_eq!(format!("{:?}", key("hunter2", &[])), r#"ClusterKey { id: "c", .. }"#);
    }
}
