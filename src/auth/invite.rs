//! Invites: an owner's signed word that whoever holds it may join.
//!
//! A token is the payload's JSON in base64url without padding. The broker
//! finds an invite by the very text of its token, so the fields keep the order
//! in which every issuer writes them.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};

use super::key::{self, SecretKey};
use crate::clock::Timestamp;

/// The form of payload that this program knows.
const VERSION: u32 = 1;
/// How a link to join by begins; the token follows.
pub(crate) const LINK_PREFIX: &str = "ic://join/";
/// Writes no padding, reads with and without.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What an invite says, and the owner's signature over it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitePayload {
    /// The form of this payload: 1.
    pub v: u32,
    /// The mesh to join.
    pub mesh_id: String,
    /// The mesh's short name.
    pub mesh_slug: String,
    /// Where its broker listens, as a `ws:` or `wss:` URL.
    pub broker_url: String,
    /// Seconds since the epoch.
    pub expires_at: i64,
    /// The mesh's shared key, base64url.
    pub mesh_root_key: String,
    /// What the newcomer becomes: `admin` or `member`.
    pub role: String,
    /// The mesh owner's key: 64 hex digits.
    pub owner_pubkey: String,
    /// By `owner_pubkey` over [`Self::canonical`]: 128 hex digits.
    pub signature: String,
}

/// Why an invite is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// The text is not base64url of a payload.
    #[error("this is no invite; copy the whole link or token, without line breaks")]
    NotAnInvite,
    /// A payload of another form.
    #[error("the invite has version {0}, and this program knows version 1 only; update it")]
    UnknownVersion(u32),
    /// Not signed by the owner that it names.
    #[error("the invite is not signed by the mesh owner that it names; ask for a new one")]
    BadSignature,
}

impl InvitePayload {
    /// The text that the owner signs.
    #[must_use]
    pub fn canonical(&self) -> String {
        let Self { v, mesh_id, mesh_slug, broker_url, expires_at, .. } = self;
        let Self { mesh_root_key, role, owner_pubkey, .. } = self;
        format!(
            "{v}|{mesh_id}|{mesh_slug}|{broker_url}|{expires_at}|{mesh_root_key}|{role}|{owner_pubkey}"
        )
    }

    /// This payload in the name of `owner`, and signed by it; what
    /// `owner_pubkey` and `signature` held before is gone.
    #[must_use]
    pub fn sign(mut self, owner: &SecretKey) -> Self {
        owner.public_key().as_str().clone_into(&mut self.owner_pubkey);
        self.signature = owner.sign(&self.canonical());
        self
    }

    /// Checks the signature against the owner that the payload itself names.
    /// That this is the mesh's owner, only the broker's books can tell; so
    /// also whether the invite is revoked or used up.
    ///
    /// # Errors
    /// [`InviteError::BadSignature`].
    pub fn verify(&self) -> Result<(), InviteError> {
        key::verify(&self.owner_pubkey, &self.canonical(), &self.signature)
            .map_err(|_| InviteError::BadSignature)
    }

    /// Whether the payload's own expiry has passed at `now`.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.saturating_mul(1000) < now.as_ms()
    }

    /// The token that carries this payload.
    #[must_use]
    pub fn to_token(&self) -> String {
        let json = serde_json::to_vec(self).expect("text and numbers always fit JSON");
        BASE64URL.encode(json)
    }

    /// Reads a token or an `ic://join/<token>` link. The signature is
    /// [`Self::verify`]'s part.
    ///
    /// # Errors
    /// [`InviteError::NotAnInvite`] or [`InviteError::UnknownVersion`].
    pub fn from_token(text: &str) -> Result<Self, InviteError> {
        /// Read first: another version may have other fields.
        #[derive(Deserialize)]
        struct Version {
            v: u32,
        }
        let text = text.trim();
        let token = text.strip_prefix(LINK_PREFIX).unwrap_or(text).trim_end_matches('/');
        let json = BASE64URL.decode(token).map_err(|_| InviteError::NotAnInvite)?;
        match serde_json::from_slice(&json).map_err(|_| InviteError::NotAnInvite)? {
            Version { v: VERSION } => {
                serde_json::from_slice(&json).map_err(|_| InviteError::NotAnInvite)
            }
            Version { v } => Err(InviteError::UnknownVersion(v)),
        }
    }
}

/// What an owner signed of an invite with a short code, beside its token.
#[derive(Serialize, Deserialize)]
pub struct InviteCapability {
    canonical: String,
    signature: String,
}

impl InviteCapability {
    /// The owner's word for that text, as JSON.
    #[must_use]
    pub fn sign(canonical: String, owner: &SecretKey) -> String {
        let signature = owner.sign(&canonical);
        let capability = Self { canonical, signature };
        serde_json::to_string(&capability).expect("text always fits JSON")
    }

    /// Checks that it is the owner's word for that very text.
    ///
    /// # Errors
    /// [`InviteError::NotAnInvite`] if it cannot be read, else
    /// [`InviteError::BadSignature`].
    pub fn verify(json: &str, canonical: &str, owner_key: &str) -> Result<(), InviteError> {
        let read: Self = serde_json::from_str(json).map_err(|_| InviteError::NotAnInvite)?;
        if read.canonical != canonical {
            return Err(InviteError::BadSignature);
        }
        key::verify(owner_key, canonical, &read.signature).map_err(|_| InviteError::BadSignature)
    }
}

impl fmt::Debug for InvitePayload {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("InvitePayload")
            .field("mesh_id", &self.mesh_id)
            .field("role", &self.role)
            .field("expires_at", &self.expires_at)
            .field("mesh_root_key", &"[redacted]")
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made with libsodium 1.0.20 from a seed of 32 bytes of 1.
    const OWNER: &str = "01010101010101010101010101010101010101010101010101010101010101018a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";
    const SIGNATURE: &str = "87ddb76f46634228f27533cf374726eec2f63c610eb7c7ed0063ec05d92d6466b7161a7c353c62559592640e87ce0bb1200411e1c653e8e1c85019c0b732bd0c";

    fn invite() -> InvitePayload {
        InvitePayload {
            v: VERSION,
            mesh_id: "mesh-1".to_owned(),
            mesh_slug: "team".to_owned(),
            broker_url: "wss://broker.example/ws".to_owned(),
            expires_at: 1_700_600_000,
            mesh_root_key: "cm9vdA".to_owned(),
            role: "member".to_owned(),
            owner_pubkey: String::new(),
            signature: String::new(),
        }
        .sign(&SecretKey::from_hex128(OWNER).unwrap())
    }

    #[test]
    fn libsodium_and_we_sign_the_same() {
        assert_eq!(invite().owner_pubkey, OWNER[64..]);
        assert_eq!(invite().signature, SIGNATURE);
        assert_eq!(invite().verify(), Ok(()));
    }

    #[test]
    fn every_field_is_signed() {
        let changes: [fn(&mut InvitePayload); 9] = [
            |invite| invite.v = 2,
            |invite| invite.mesh_id.push('x'),
            |invite| invite.mesh_slug.push('x'),
            |invite| invite.broker_url.push('x'),
            |invite| invite.expires_at += 1,
            |invite| invite.mesh_root_key.push('x'),
            |invite| invite.role = "admin".to_owned(),
            |invite| invite.owner_pubkey = SecretKey::generate().public_key().to_string(),
            |invite| invite.signature.clear(),
        ];
        for (at, change) in changes.iter().enumerate() {
            let mut changed = invite();
            change(&mut changed);
            assert_eq!(changed.verify(), Err(InviteError::BadSignature), "change {at}");
        }
    }

    #[test]
    fn a_token_is_the_json_in_the_order_of_the_fields() {
        let token = invite().to_token();
        assert!(!token.contains(['=', '+', '/']), "{token}");
        let json = String::from_utf8(BASE64URL.decode(&token).unwrap()).unwrap();
        let expected = format!(
            r#"{{"v":1,"mesh_id":"mesh-1","mesh_slug":"team","broker_url":"wss://broker.example/ws","expires_at":1700600000,"mesh_root_key":"cm9vdA","role":"member","owner_pubkey":"{}","signature":"{SIGNATURE}"}}"#,
            &OWNER[64..]
        );
        assert_eq!(json, expected);
    }

    #[test]
    fn tokens_links_and_padding_are_read() {
        let mut invite = invite();
        for slug in ["t", "te", "tea"] {
            // Three lengths, so that each amount of padding occurs.
            invite.mesh_slug = slug.to_owned();
            let token = invite.to_token();
            let padded = format!("{token}{}", "=".repeat((4 - token.len() % 4) % 4));
            let link = format!(" {LINK_PREFIX}{token}\n");
            for text in [&token, &padded, &link] {
                assert_eq!(InvitePayload::from_token(text).as_ref(), Ok(&invite), "{text}");
            }
        }
    }

    #[test]
    fn what_is_no_invite_is_said_to_be_none() {
        for text in ["", "ic://join/", "%%%", "aGVsbG8", &BASE64URL.encode(r#"{"v":1}"#)] {
            assert_eq!(InvitePayload::from_token(text), Err(InviteError::NotAnInvite), "{text}");
        }
        let newer = BASE64URL.encode(r#"{"v":2,"code":"x"}"#);
        assert_eq!(InvitePayload::from_token(&newer), Err(InviteError::UnknownVersion(2)));
    }

    #[test]
    fn the_mesh_key_never_prints() {
        assert!(!format!("{:?}", invite()).contains("cm9vdA"));
    }

    #[test]
    fn it_expires_after_its_last_second() {
        let last = Timestamp::from_ms(1_700_600_000_000);
        assert!(!invite().is_expired(last));
        assert!(invite().is_expired(last.plus_ms(1)));
    }
}
