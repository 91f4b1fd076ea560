//! Invites: an owner's signed word that whoever holds it may join.
//!
//! A token is the payload's JSON in base64url without padding. The broker
//! finds an invite by the very text of its token, so the fields keep the order
//! in which every issuer writes them.
//!
//! An invite that certifies (version 3) names a key of its own. The key's secret stands in
//! the link behind the token, after a dot, and goes to no broker: with it the newcomer makes
//! its [`Certificate`].

use std::fmt;

use base64::Engine as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::certificate::{BASE64URL, Certificate, Grant};
use super::key::{self, SecretKey};
use crate::clock::Timestamp;
use crate::id::Key;

/// The form of payload that every program knows.
const VERSION: u32 = 1;
/// The form of payload that certifies members.
const CERTIFYING: u32 = 3;
/// How a link to join by begins; the token follows.
pub(crate) const LINK_PREFIX: &str = "ic://join/";

/// What an invite says, and the owner's signature over it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitePayload {
    /// The form of this payload: 1, or 3 for one that certifies.
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
    /// What an invite of version 3 says besides.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub certifying: Option<Certifying>,
    /// By `owner_pubkey` over [`Self::canonical`]: 128 hex digits.
    pub signature: String,
}

/// What an invite says that certifies those who join by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certifying {
    /// The invite's id.
    pub invite_id: String,
    /// The key whose secret the link carries: 64 hex digits.
    pub invite_pubkey: String,
    /// How many may join by it.
    pub max_uses: i32,
}

/// A link as a newcomer has it.
#[derive(Clone, Debug)]
pub struct InviteLink {
    /// What the broker knows the invite by.
    pub token: String,
    /// What the token holds.
    pub payload: InvitePayload,
    /// With which the newcomer is certified; a link of version 1 has none.
    secret: Option<SecretKey>,
}

/// Why an invite is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// The text is not base64url of a payload.
    #[error("this is no invite; copy the whole link or token, without line breaks")]
    NotAnInvite,
    /// A payload of another form.
    #[error("the invite has version {0}, and this program knows versions 1 and 3; update it")]
    UnknownVersion(u32),
    /// The secret behind the token is not there, or is another's.
    #[error("the link is cut off: what is behind the dot belongs to it; copy the whole link")]
    NoSecret,
    /// Not signed by the owner that it names.
    #[error("the invite is not signed by the mesh owner that it names; ask for a new one")]
    BadSignature,
}

impl InvitePayload {
    /// The text that the owner signs. Of an invite that certifies it has only what a
    /// certificate shows, and the digest of the rest.
    #[must_use]
    pub fn canonical(&self) -> String {
        if let Some(grant) = self.grant() {
            // Where a field could be taken for two, there is nothing to be signed.
            return grant.text().unwrap_or_default();
        }
        let Self { v, mesh_id, mesh_slug, broker_url, expires_at, .. } = self;
        let Self { mesh_root_key, role, owner_pubkey, .. } = self;
        format!(
            "{v}|{mesh_id}|{mesh_slug}|{broker_url}|{expires_at}|{mesh_root_key}|{role}|{owner_pubkey}"
        )
    }

    /// What the owner signs of an invite that certifies.
    fn grant(&self) -> Option<Grant> {
        let Certifying { invite_id, invite_pubkey, max_uses } = self.certifying.as_ref()?;
        let Self { mesh_slug, broker_url, mesh_root_key, .. } = self;
        let digest = |text: &str| hex::encode(Sha256::digest(text));
        let details = [mesh_slug, broker_url, mesh_root_key].map(|field| digest(field));
        Some(Grant {
            mesh: self.mesh_id.clone(),
            invite: invite_id.clone(),
            invite_key: invite_pubkey.clone(),
            role: self.role.clone(),
            max_uses: *max_uses,
            expires_at: self.expires_at,
            owner: self.owner_pubkey.clone(),
            details: digest(&details.join("|")),
        })
    }

    /// The certificate of a member's key, with what the invite's secret has signed of it;
    /// `None` if this invite certifies nobody. It may be worth nothing.
    #[must_use]
    pub fn certificate(&self, member_signature: &str) -> Option<Certificate> {
        Some(Certificate::new(self.grant()?, self.signature.clone(), member_signature.to_owned()))
    }

    /// Makes an invite that certifies of one that does not, before it is signed; returns
    /// the secret for its link.
    pub(crate) fn certify(&mut self, invite_id: &str, max_uses: i32) -> SecretKey {
        let secret = SecretKey::generate();
        self.v = CERTIFYING;
        self.certifying = Some(Certifying {
            invite_id: invite_id.to_owned(),
            invite_pubkey: secret.public_key().to_string(),
            max_uses,
        });
        secret
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
        let canonical = self.canonical();
        if canonical.is_empty() {
            return Err(InviteError::BadSignature);
        }
        key::verify(&self.owner_pubkey, &canonical, &self.signature)
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
        let Version { v } = serde_json::from_slice(&json).map_err(|_| InviteError::NotAnInvite)?;
        if !matches!(v, VERSION | CERTIFYING) {
            return Err(InviteError::UnknownVersion(v));
        }
        let payload: Self = serde_json::from_slice(&json).map_err(|_| InviteError::NotAnInvite)?;
        if payload.has_form() { Ok(payload) } else { Err(InviteError::NotAnInvite) }
    }

    /// Whether it has the fields of its version.
    #[must_use]
    pub fn has_form(&self) -> bool {
        self.certifying.is_some() == (self.v == CERTIFYING)
    }
}

impl InviteLink {
    /// Reads a link or a token. The signature is [`InvitePayload::verify`]'s part.
    ///
    /// # Errors
    /// As [`InvitePayload::from_token`]; [`InviteError::NoSecret`] for a link that has lost
    /// its end.
    pub fn read(text: &str) -> Result<Self, InviteError> {
        let text = text.trim();
        let text = text.strip_prefix(LINK_PREFIX).unwrap_or(text).trim_end_matches('/');
        let (token, secret) = match text.split_once('.') {
            Some((token, secret)) => (token, Some(secret)),
            None => (text, None),
        };
        let payload = InvitePayload::from_token(token)?;
        let secret = match (&payload.certifying, secret) {
            (None, None) => None,
            (None, Some(_)) => return Err(InviteError::NotAnInvite),
            (Some(certifying), secret) => {
                let secret = secret.and_then(secret_of).ok_or(InviteError::NoSecret)?;
                if secret.public_key().as_str() != certifying.invite_pubkey {
                    return Err(InviteError::NoSecret);
                }
                Some(secret)
            }
        };
        Ok(Self { token: token.to_owned(), payload, secret })
    }

    /// The word of the invite's key for a member's: 128 hex digits; none of a link of
    /// version 1.
    #[must_use]
    pub fn vouch(&self, member: &Key) -> Option<String> {
        self.payload.grant()?.vouch(self.secret.as_ref()?, member.as_str())
    }
}

/// The link to an invite, with the secret that certifies.
pub(crate) fn link_to(token: &str, secret: Option<&SecretKey>) -> String {
    let seed = |secret: &SecretKey| hex::decode(secret.to_seed_hex()).unwrap_or_default();
    let secret = secret.map(|secret| format!(".{}", BASE64URL.encode(seed(secret))));
    format!("{LINK_PREFIX}{token}{}", secret.unwrap_or_default())
}

fn secret_of(text: &str) -> Option<SecretKey> {
    let seed = BASE64URL.decode(text).ok()?;
    SecretKey::from_seed_hex(&hex::encode(seed))
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
            certifying: None,
            signature: String::new(),
        }
        .sign(&SecretKey::from_hex128(OWNER).unwrap())
    }

    fn certifying() -> (InvitePayload, SecretKey) {
        let mut payload = invite();
        let secret = payload.certify("i1", 2);
        (payload.sign(&SecretKey::from_hex128(OWNER).unwrap()), secret)
    }

    #[test]
    fn a_link_that_certifies_vouches_for_whoever_has_it_whole() {
        let (payload, secret) = certifying();
        let link = link_to(&payload.to_token(), Some(&secret));
        let read = InviteLink::read(&format!(" {link}/\n")).unwrap();
        assert_eq!((&read.payload, &read.token), (&payload, &payload.to_token()));
        assert!(!format!("{read:?}").contains(&secret.to_seed_hex()));
        let member = SecretKey::generate().public_key();
        let vouched = read.vouch(&member).unwrap();
        let certificate = payload.certificate(&vouched).unwrap();
        assert_eq!(certificate.verify("mesh-1", &OWNER[64..], member.as_str()), Ok(()));
        let other = link_to(&payload.to_token(), Some(&SecretKey::generate()));
        for cut in [&link_to(&payload.to_token(), None), &link[..link.len() - 2], &other] {
            assert_eq!(InviteLink::read(cut).unwrap_err(), InviteError::NoSecret, "{cut}");
        }
        let old = InviteLink::read(&invite().to_token()).unwrap();
        assert_eq!((old.vouch(&member), invite().certificate(&vouched)), (None, None));
        let odd = link_to(&invite().to_token(), Some(&secret));
        assert_eq!(InviteLink::read(&odd).unwrap_err(), InviteError::NotAnInvite);
    }

    #[test]
    fn every_field_of_an_invite_that_certifies_is_signed() {
        let changes: [fn(&mut InvitePayload); 12] = [
            |invite| invite.mesh_id.push('x'),
            |invite| invite.mesh_slug.push('x'),
            |invite| invite.broker_url.push('x'),
            |invite| invite.expires_at += 1,
            |invite| invite.mesh_root_key.push('x'),
            |invite| invite.role = "admin".to_owned(),
            |invite| invite.owner_pubkey = SecretKey::generate().public_key().to_string(),
            |invite| invite.signature.clear(),
            |invite| invite.certifying = None,
            |invite| invite.certifying.as_mut().unwrap().invite_id.push('x'),
            |invite| invite.certifying.as_mut().unwrap().max_uses += 1,
            |invite| invite.certifying.as_mut().unwrap().invite_pubkey = "0".repeat(64),
        ];
        assert_eq!(certifying().0.verify(), Ok(()));
        for (at, change) in changes.iter().enumerate() {
            let mut changed = certifying().0;
            change(&mut changed);
            assert_eq!(changed.verify(), Err(InviteError::BadSignature), "change {at}");
        }
        let (mut odd, _) = certifying();
        odd.certifying.as_mut().unwrap().invite_id.push('|');
        let odd = odd.sign(&SecretKey::from_hex128(OWNER).unwrap());
        assert_eq!(odd.verify(), Err(InviteError::BadSignature), "nothing is signed of it");
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
        for v in [1, 3] {
            let (mut other, _) = certifying();
            other.v = v;
            other.certifying = other.certifying.filter(|_| v == 1);
            let token = other.to_token();
            assert_eq!(InvitePayload::from_token(&token), Err(InviteError::NotAnInvite), "{v}");
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
