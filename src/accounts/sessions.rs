//! Sessions of command lines, and the secrets that people copy.

use rand::Rng as _;

use crate::auth::{ClaimedMesh, Claims, TokenKey, secret_hash};
use crate::clock::Timestamp;
use crate::id;
use crate::limits;
use crate::store::{Account, AccountMesh, Machine, NewCliSession};

/// How a sign-in key begins, so that people know one when they see it.
const SIGN_IN_KEY_PREFIX: &str = "cma_";

/// How somebody came to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionKind {
    /// By a code that was approved in a browser.
    Approved,
    /// By a token that was printed and pasted.
    Pasted,
}

impl SessionKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "cli-session",
            Self::Pasted => "cli-token",
        }
    }
}

/// A token for an account, and the session that makes it good once it is written.
pub(crate) fn begin_session(
    key: &TokenKey,
    now: Timestamp,
    account: &Account,
    kind: SessionKind,
    machine: Machine,
) -> (String, NewCliSession) {
    let mut claims = claims(account, now, limits::CLI_TOKEN_MS);
    claims.kind = Some(kind.as_str().to_owned());
    let token = key.sign(&claims);
    let token_hash = secret_hash(&token);
    let session =
        NewCliSession { id: id::generate(), account: account.id.clone(), token_hash, machine };
    (token, session)
}

/// A token by which a command line may fetch the account's meshes, once. What it names
/// is for people: who takes it asks the store.
pub(crate) fn sync_token(
    key: &TokenKey,
    now: Timestamp,
    account: &Account,
    meshes: &[AccountMesh],
) -> String {
    let named = meshes.iter().map(|found| ClaimedMesh {
        id: found.mesh.id.to_string(),
        slug: found.mesh.slug.clone(),
        role: found.role.as_str().to_owned(),
    });
    let mut claims = claims(account, now, limits::SYNC_TOKEN_MS);
    claims.meshes = Some(named.collect());
    claims.action = Some("sync".to_owned());
    key.sign(&claims)
}

fn claims(account: &Account, now: Timestamp, lifetime_ms: i64) -> Claims {
    let seconds = |at: Timestamp| at.as_ms().div_euclid(1000);
    Claims {
        sub: account.id.to_string(),
        email: account.email.clone().unwrap_or_default(),
        name: Some(account.name.clone()),
        kind: None,
        meshes: None,
        action: None,
        jti: uuid::Uuid::new_v4().to_string(),
        iat: seconds(now),
        exp: seconds(now.plus_ms(lifetime_ms)),
    }
}

/// A sign-in key that nobody had before.
pub(crate) fn generate_sign_in_key() -> String {
    format!("{SIGN_IN_KEY_PREFIX}{}", CodeChars::Long.random(32))
}

/// Which characters a random code is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CodeChars {
    /// No two that people take for each other.
    Short,
    /// Letters of both cases and digits.
    Long,
}

impl CodeChars {
    const fn bytes(self) -> &'static [u8] {
        match self {
            Self::Short => b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789",
            Self::Long => b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
        }
    }

    /// So many of them, at random.
    pub(crate) fn random(self, length: usize) -> String {
        let (mut rng, chars) = (rand::rng(), self.bytes());
        (0..length).map(|_| char::from(chars[rng.random_range(0..chars.len())])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_long_and_their_characters_are_told_apart() {
        let key = generate_sign_in_key();
        assert_eq!((key.len(), key.starts_with(SIGN_IN_KEY_PREFIX)), (36, true));
        assert_ne!(key, generate_sign_in_key());
        let short = CodeChars::Short.random(200);
        assert!(!short.contains(['I', 'O', '0', '1']), "{short}");
    }
}
