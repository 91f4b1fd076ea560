//! Invites, signed in the name of a mesh's owner.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crypto_box::PublicKey;
use crypto_box::aead::OsRng;

use super::CodeChars;
use crate::auth::{InviteCapability, InvitePayload, SecretKey};
use crate::clock::Timestamp;
use crate::id::{self, MeshId};
use crate::store::{InviteCode, Mesh, NewInvite, Role};

/// Characters of a short code.
const CODE_CHARS: usize = 8;

/// What an invite gives, to how many, for how long.
#[derive(Clone, Debug)]
pub struct InviteTerms {
    /// The role that newcomers get.
    pub role: Role,
    /// How many may use it.
    pub max_uses: i32,
    /// How long it can be used, in milliseconds.
    pub lifetime_ms: i64,
    /// Where newcomers find the broker: `ws://` or `wss://`.
    pub broker_url: String,
    /// Whether it certifies them: of use only where the broker does not have the owner's
    /// key, and for programs that know such links.
    pub certifies: bool,
}

/// An invite that is signed and not written yet.
#[derive(Clone, Debug)]
pub(crate) struct SignedInvite {
    /// The row.
    pub(crate) invite: NewInvite,
    /// What the token holds.
    pub(crate) payload: InvitePayload,
    /// What the link carries beside the token, where the invite certifies.
    pub(crate) secret: Option<SecretKey>,
}

/// An invite on these terms, made by somebody. The payload has whole seconds, and the
/// row follows it.
pub(crate) fn signed_invite(
    mesh: &Mesh,
    owner: &SecretKey,
    terms: &InviteTerms,
    created_by: Option<String>,
    now: Timestamp,
) -> SignedInvite {
    let expires_at_s = now.plus_ms(terms.lifetime_ms).as_ms().div_euclid(1000);
    let id = id::generate();
    let mut payload = InvitePayload {
        v: 1,
        mesh_id: mesh.id.to_string(),
        mesh_slug: mesh.slug.clone(),
        broker_url: terms.broker_url.clone(),
        expires_at: expires_at_s,
        // Clients want a root key; meshes of old dashboards may have none.
        mesh_root_key: mesh.root_key.clone().unwrap_or_else(random_root_key),
        role: terms.role.as_str().to_owned(),
        owner_pubkey: String::new(),
        certifying: None,
        signature: String::new(),
    };
    let secret = terms.certifies.then(|| payload.certify(&id, terms.max_uses));
    let payload = payload.sign(owner);
    let invite = NewInvite {
        id,
        mesh: mesh.id.clone(),
        token: payload.to_token(),
        code: None,
        role: terms.role,
        max_uses: terms.max_uses,
        expires_at: Timestamp::from_ms(expires_at_s * 1000),
        created_by: created_by.unwrap_or_else(|| payload.owner_pubkey.clone()),
    };
    SignedInvite { invite, payload, secret }
}

/// The invite with a short code, and the owner's word for what that gives.
pub(crate) fn with_code(mut signed: SignedInvite, owner: &SecretKey) -> SignedInvite {
    let NewInvite { id, mesh, role, expires_at, .. } = &signed.invite;
    let canonical = canonical_of(mesh, id, *expires_at, *role, &signed.payload.owner_pubkey);
    let capability = InviteCapability::sign(canonical.clone(), owner);
    let code = CodeChars::Short.random(CODE_CHARS);
    signed.invite.code = Some(InviteCode { code, canonical, capability });
    signed
}

/// The text that an owner signs of an invite with a code.
pub(crate) fn canonical_of(
    mesh: &MeshId,
    invite: &str,
    expires_at: Timestamp,
    role: Role,
    owner_key: &str,
) -> String {
    let expires_at_s = expires_at.as_ms().div_euclid(1000);
    format!("v=2|{mesh}|{invite}|{expires_at_s}|{}|{owner_key}", role.as_str())
}

/// A shared secret that invites carry.
pub(crate) fn random_root_key() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

/// A mesh's root key in a box that only the recipient opens; `None` if either is no key.
pub(crate) fn sealed_root_key(root_key: &str, recipient: &str) -> Option<String> {
    let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok();
    let recipient: [u8; 32] = bytes(recipient)?.try_into().ok()?;
    let root_key = bytes(root_key)?;
    let sealed = PublicKey::from(recipient).seal(&mut OsRng, &root_key).ok()?;
    Some(URL_SAFE_NO_PAD.encode(sealed))
}

#[cfg(test)]
mod tests {
    use crypto_box::SecretKey as BoxKey;

    use super::*;

    #[test]
    fn a_root_key_is_for_its_recipient_alone() {
        let (mine, root) = (BoxKey::generate(&mut OsRng), random_root_key());
        let recipient = URL_SAFE_NO_PAD.encode(mine.public_key().as_bytes());
        let sealed = sealed_root_key(&root, &recipient).expect("two keys");
        let sealed = URL_SAFE_NO_PAD.decode(sealed).expect("base64url");
        let opened = mine.unseal(&sealed).expect("it is for this one");
        assert_eq!(URL_SAFE_NO_PAD.encode(opened), root);
        assert!(BoxKey::generate(&mut OsRng).unseal(&sealed).is_err());
        assert_eq!(sealed_root_key(&root, "short"), None);
    }
}
