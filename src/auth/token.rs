//! Tokens of accounts: JSON Web Tokens (RFC 7519) signed with HMAC-SHA256, and with
//! nothing else.
//!
//! The header is a constant, and one that is spelled otherwise is refused before
//! anything of it is believed: a token cannot choose how it is checked.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::clock::Timestamp;

/// The only header that is signed or read.
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// How far the clock that made a token may be ahead, in seconds.
const AHEAD_S_MAX: i64 = 30;

/// The longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The account.
    #[serde(default)]
    pub sub: String,
    /// The account's address; empty if it has none.
    #[serde(default)]
    pub email: String,
    /// What its owner is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the token is for; `None` for one to fetch meshes by.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The meshes that its maker knew of; who reads the token finds out himself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meshes: Option<Vec<ClaimedMesh>>,
    /// `sync`, with the meshes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Tells the token from every other one.
    #[serde(default)]
    pub jti: String,
    /// When it was made, in seconds.
    pub iat: i64,
    /// Until when it is good, in seconds.
    pub exp: i64,
}

/// A mesh that a token names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimedMesh {
    /// Its id.
    pub id: String,
    /// Its slug.
    pub slug: String,
    /// What its maker believed the account to be there.
    pub role: String,
}

/// Why a token is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not three parts of base64url, or claims that are none.
    #[error("malformed JWT")]
    Malformed,
    /// A header other than ours.
    #[error("unsupported algorithm")]
    UnsupportedAlgorithm,
    /// Signed by somebody else, or changed.
    #[error("invalid signature")]
    InvalidSignature,
    /// The token's time is over.
    #[error("token expired")]
    Expired,
    /// The token's time has not come.
    #[error("token issued in the future")]
    FromTheFuture,
}

/// What tokens are signed by, and other words that only this broker can say.
#[derive(Clone)]
pub struct TokenKey(Vec<u8>);

impl TokenKey {
    /// Over the secret that the nodes share.
    #[must_use]
    pub const fn new(secret: Vec<u8>) -> Self {
        Self(secret)
    }

    /// The token that says that.
    #[must_use]
    pub fn sign(&self, claims: &Claims) -> String {
        let claims = serde_json::to_vec(claims).expect("text and numbers always fit JSON");
        let signed = format!("{}.{}", encode(HEADER), encode(claims));
        let signature = self.mac("token", &signed).finalize().into_bytes();
        format!("{signed}.{}", encode(signature))
    }

    /// What a token says at `now`.
    ///
    /// # Errors
    /// The first reason not to believe it.
    pub fn read(&self, token: &str, now: Timestamp) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let signature = decode(signature)?;
        if decode(header)? != HEADER.as_bytes() {
            return Err(TokenError::UnsupportedAlgorithm);
        }
        let is_ours = self.mac("token", signed).verify_slice(&signature).is_ok();
        if !is_ours {
            return Err(TokenError::InvalidSignature);
        }
        let claims: Claims =
            serde_json::from_slice(&decode(claims)?).map_err(|_| TokenError::Malformed)?;
        let now_s = now.as_ms().div_euclid(1000);
        if claims.exp < now_s {
            return Err(TokenError::Expired);
        }
        if claims.iat > now_s + AHEAD_S_MAX {
            return Err(TokenError::FromTheFuture);
        }
        Ok(claims)
    }

    /// A word for a form of a page, which nobody else can make for that subject.
    #[must_use]
    pub fn word(&self, subject: &str) -> String {
        encode(self.mac("form", subject).finalize().into_bytes())
    }

    /// Whether a word is that of the subject; takes the same time wherever they differ.
    #[must_use]
    pub fn is_word(&self, subject: &str, word: &str) -> bool {
        decode(word).is_ok_and(|word| self.mac("form", subject).verify_slice(&word).is_ok())
    }

    /// What stands for a client's address where the address itself is nobody's
    /// business.
    #[must_use]
    pub fn mark(&self, client: IpAddr) -> String {
        let mac = self.mac("client", &client.to_canonical().to_string());
        encode(&mac.finalize().into_bytes()[..16])
    }

    /// Tokens, words and marks have a key each.
    fn mac(&self, purpose: &str, text: &str) -> Hmac<Sha256> {
        let of = |key: &[u8], text: &str| {
            let mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
            mac.chain_update(text)
        };
        of(&of(&self.0, purpose).finalize().into_bytes(), text)
    }
}

/// What stands for a key or a token where it must not be kept: its SHA-256 in hex.
#[must_use]
pub fn secret_hash(secret: &str) -> String {
    hex::encode(Sha256::digest(secret))
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(text: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Malformed)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: Timestamp = Timestamp::from_ms(1_800_000_000_000);

    fn key() -> TokenKey {
        TokenKey::new(vec![7; 32])
    }

    fn claims() -> Claims {
        Claims {
            sub: "a1".to_owned(),
            email: "ada@example.org".to_owned(),
            name: Some("Ada".to_owned()),
            kind: Some("cli-session".to_owned()),
            meshes: None,
            action: None,
            jti: "j1".to_owned(),
            iat: 1_800_000_000,
            exp: 1_800_000_060,
        }
    }

    #[test]
    fn a_token_has_the_shape_that_clients_read_without_the_key() {
        let token = key().sign(&claims());
        let parts: Vec<&str> = token.split('.').collect();
        assert_eq!(decode(parts[0]).expect("base64url"), HEADER.as_bytes());
        let read: Value =
            serde_json::from_slice(&decode(parts[1]).expect("base64url")).expect("JSON");
        let said = json!({
            "sub": "a1", "email": "ada@example.org", "name": "Ada", "type": "cli-session",
            "jti": "j1", "iat": 1_800_000_000, "exp": 1_800_000_060,
        });
        assert_eq!((read, parts.len()), (said, 3));
        assert_eq!(key().read(&token, NOW), Ok(claims()));
    }

    #[test]
    fn a_token_of_another_key_time_or_algorithm_is_refused() {
        let token = key().sign(&claims());
        let read = |token: &str, now| key().read(token, now).expect_err("refused");
        let late = NOW.plus_ms(61_000);
        assert_eq!(read(&token, late), TokenError::Expired);
        assert_eq!(read(&token, NOW.plus_ms(-31_000)), TokenError::FromTheFuture);
        let other = TokenKey::new(vec![8; 32]).sign(&claims());
        assert_eq!(read(&other, NOW), TokenError::InvalidSignature);
        let (head, rest) = token.split_once('.').expect("a token");
        let none = encode(r#"{"alg":"none","typ":"JWT"}"#);
        assert_eq!(read(&format!("{none}.{rest}"), NOW), TokenError::UnsupportedAlgorithm);
        let (_, signature) = rest.split_once('.').expect("a token");
        let more = Claims { exp: i64::MAX, ..claims() };
        let more = encode(serde_json::to_vec(&more).expect("JSON"));
        assert_eq!(read(&format!("{head}.{more}.{signature}"), NOW), TokenError::InvalidSignature);
        for junk in ["", "a", "a.b", "..", "a.b.c.d", &"x".repeat(TOKEN_BYTES_MAX + 1)] {
            let error = read(junk, NOW);
            assert!(
                matches!(error, TokenError::Malformed | TokenError::UnsupportedAlgorithm),
                "{junk:?}: {error}"
            );
        }
    }

    #[test]
    fn a_word_or_a_mark_is_none_of_another_subject_and_no_token() {
        let word = key().word("a");
        assert!(key().is_word("a", &word));
        assert!(!key().is_word("b", &word) && !key().is_word("a", "") && !key().is_word("a", "?"));
        let mark = |text: &str| key().mark(text.parse().expect("an address"));
        assert_eq!(mark("192.0.2.1"), mark("::ffff:192.0.2.1"));
        assert_ne!(mark("192.0.2.1"), mark("192.0.2.2"));
        assert_ne!(key().word("192.0.2.1"), mark("192.0.2.1"));
    }
}
