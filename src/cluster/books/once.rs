//! Digests that were used, each for as long as it must not be used again.

use std::collections::{BTreeSet, HashMap};

/// Digests remembered. More: those that would be forgotten first are, and
/// could be used a second time. That many hellos within their life are far
/// more than one node can check.
const DIGESTS_MAX: usize = 1 << 20;

/// A bounded set of digests with expiry.
#[derive(Clone, Debug, Default)]
pub(in crate::cluster) struct Digests {
    expiries: HashMap<[u8; 32], u64>,
    by_expiry: BTreeSet<(u64, [u8; 32])>,
}

impl Digests {
    /// Whether the digest is used for the first time within `ttl_ms`.
    pub(in crate::cluster) fn use_once(
        &mut self,
        now_ms: u64,
        digest: &[u8; 32],
        ttl_ms: u64,
    ) -> bool {
        self.expire(now_ms);
        if self.expiries.contains_key(digest) {
            return false;
        }
        let expires_ms = now_ms + ttl_ms;
        self.expiries.insert(*digest, expires_ms);
        self.by_expiry.insert((expires_ms, *digest));
        debug_assert_eq!(self.expiries.len(), self.by_expiry.len());
        true
    }

    /// Notes a digest that an earlier life has used.
    pub(in crate::cluster) fn remember(&mut self, now_ms: u64, digest: [u8; 32], expires_ms: u64) {
        if expires_ms > now_ms && self.expiries.insert(digest, expires_ms).is_none() {
            self.by_expiry.insert((expires_ms, digest));
        }
    }

    pub(in crate::cluster) fn len(&self) -> usize {
        self.expiries.len()
    }

    /// Every digest with when it can be used again.
    pub(in crate::cluster) fn iter(&self) -> impl Iterator<Item = (&[u8; 32], &u64)> {
        self.expiries.iter()
    }

    fn expire(&mut self, now_ms: u64) {
        while let Some((expires_ms, digest)) = self.by_expiry.first().copied() {
            if expires_ms > now_ms && self.expiries.len() < DIGESTS_MAX {
                break;
            }
            self.by_expiry.pop_first();
            self.expiries.remove(&digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_good_again_after_its_time() {
        let mut digests = Digests::default();
        assert!(digests.use_once(0, &[1; 32], 100));
        assert!(!digests.use_once(99, &[1; 32], 100));
        assert!(digests.use_once(99, &[2; 32], 100));
        assert!(digests.use_once(100, &[1; 32], 100));
        assert_eq!(digests.expiries.len(), 2);
    }
}
