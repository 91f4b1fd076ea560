//! API keys: the secret that its holder is shown once, and what the broker keeps of it.
//!
//! The secret has 256 random bits, so a plain hash of it tells nothing. Two hashes are
//! compared in constant time. Nothing prints a secret.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// What every secret begins with.
const MARK: &str = "cm_";

/// As much of a secret as is kept to find it by, and to tell keys apart.
const PREFIX_CHARS: usize = 11;

/// What is no longer than a secret, with room for other programs' longer ones.
const SECRET_BYTES_MAX: usize = 256;

/// The secret of an API key.
#[derive(Clone)]
pub(crate) struct ApiKeySecret(String);

impl ApiKeySecret {
    /// A new one: `cm_` and 32 random bytes in base64url.
    pub(crate) fn generate() -> Self {
        Self(format!("{MARK}{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())))
    }

    /// What somebody offers as one, if it may be one.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let fits = text.starts_with(MARK)
            && text.is_ascii()
            && (PREFIX_CHARS..=SECRET_BYTES_MAX).contains(&text.len());
        fits.then(|| Self(text.to_owned()))
    }

    /// The secret itself, for the one answer that shows it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// The secret's beginning.
    pub(crate) fn prefix(&self) -> &str {
        self.0.get(..PREFIX_CHARS).unwrap_or(&self.0)
    }

    /// What is kept of the secret: its SHA-256 in hex.
    pub(crate) fn hash(&self) -> String {
        hex::encode(Sha256::digest(self.0.as_bytes()))
    }

    /// Whether that hash is of this secret. How long it takes does not depend on where
    /// they differ.
    pub(crate) fn is_of(&self, hash: &str) -> bool {
        self.hash().as_bytes().ct_eq(hash.as_bytes()).into()
    }
}

impl fmt::Debug for ApiKeySecret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_the_shape_that_clients_know() {
        let secret = ApiKeySecret::generate();
        assert_eq!((secret.expose().len(), secret.prefix().len()), (46, 11));
        assert!(secret.expose().starts_with("cm_") && secret.expose().starts_with(secret.prefix()));
        assert_eq!(secret.hash().len(), 64);
        assert_ne!(secret.expose(), ApiKeySecret::generate().expose());
    }

    #[test]
    fn a_secret_is_known_by_its_hash_and_never_prints() {
        let secret = ApiKeySecret::generate();
        let again = ApiKeySecret::read(secret.expose()).expect("one");
        assert!(again.is_of(&secret.hash()));
        assert!(!again.is_of(&ApiKeySecret::generate().hash()) && !again.is_of(""));
        assert_eq!(format!("{secret:?}"), "[redacted]");
    }

    #[test]
    fn what_cannot_be_a_secret_is_none() {
        for text in ["", "cm_", "cm_short", "sk_0123456789", "cm_01234567ü89"] {
            assert!(ApiKeySecret::read(text).is_none(), "{text}");
        }
        assert!(ApiKeySecret::read(&format!("cm_{}", "x".repeat(SECRET_BYTES_MAX))).is_none());
    }
}
