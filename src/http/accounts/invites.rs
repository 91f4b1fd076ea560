//! Invites: made for an account, looked up by their code or token, and claimed.

use std::sync::Arc;

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Call, Refused, ok};
use crate::accounts::{InviteTerms, canonical_of, sealed_root_key, signed_invite, with_code};
use crate::auth::{
    InviteCapability, InviteError, InvitePayload, SecretKey, can_sign, is_public_key,
};
use crate::clock::Timestamp;
use crate::id::{Key, MemberId};
use crate::limits;
use crate::presence::members;
use crate::protocol::budget::cut;
use crate::store::{
    Account, Claim, FoundInvite, Join, JoinRefusal, Joined, Mesh, NewInvite, Role, StoreError,
};

/// Tries to find a code and a token that no other invite has.
const TRIES: i64 = 20;

/// What a guest is called that does not say.
const GUEST: &str = "guest";

#[derive(Default, Deserialize)]
struct CreateCall {
    #[serde(default)]
    role: Value,
}

/// `POST /cli/mesh/{slug}/invite`: no mail is sent, so whoever asks passes it on.
pub(super) async fn create(call: Arc<Call>) -> Answer {
    let account = call.account(None).await?;
    let forbidden = "Only the owner can invite (for now)";
    let found = call.own_mesh(&account, call.part("slug"), "Mesh not found", forbidden).await?;
    let body: CreateCall = call.json().unwrap_or_default();
    let terms = InviteTerms {
        role: body.role.as_str().and_then(Role::parse).unwrap_or(Role::Member),
        max_uses: 1,
        lifetime_ms: limits::CLI_INVITE_MS,
        broker_url: call.public_ws_url(),
        certifies: false,
    };
    let invite = make(&call, &account, &found.mesh, terms).await?;
    ok(json!({
        "url": url_of(&call, &invite),
        "code": invite.code.map(|code| code.code),
        "expires_at": invite.expires_at,
        "emailed": false,
    }))
}

/// The link that lets somebody in. It is a secret.
pub(super) fn url_of(call: &Call, invite: &NewInvite) -> String {
    format!("{}/join/{}", call.public_base(), invite.token)
}

/// Makes an invite to a mesh of an account, which is its owner.
pub(super) async fn make(
    call: &Call,
    account: &Account,
    mesh: &Mesh,
    mut terms: InviteTerms,
) -> Result<NewInvite, Refused> {
    let (owner, now) = (kept_owner_key(mesh)?, Timestamp::now());
    for _ in 0..TRIES {
        let by = Some(account.id.to_string());
        let invite = with_code(signed_invite(mesh, &owner, &terms, by, now), &owner).invite;
        match call.state.stores.invites.create(now, &invite).await {
            Ok(()) => return Ok(invite),
            // Of two that are made in the same second, the later one lives longer.
            Err(StoreError::Conflict(_)) => terms.lifetime_ms += 1000,
            Err(error) => return Err(error.into()),
        }
    }
    Err(Refused::new(StatusCode::CONFLICT, "too many invites at once: try again"))
}

/// The key that signs the mesh's invites, where the broker keeps it.
fn kept_owner_key(mesh: &Mesh) -> Result<SecretKey, Refused> {
    let kept = mesh.owner_secret_key.as_deref().and_then(|hex| SecretKey::from_hex128(hex).ok());
    let own = kept.filter(|key| mesh.owner_key.as_ref() == Some(&key.public_key()));
    own.ok_or_else(|| {
        let text = "the broker does not keep the owner's key of this mesh: make the invite where \
                    the mesh was made, by claudemesh-broker invite create";
        Refused::new(StatusCode::CONFLICT, text)
    })
}

/// `GET /api/public/invite-code/{code}`: only one by which somebody can join now, since
/// its token holds the mesh's root key.
pub(super) async fn by_code(call: Arc<Call>) -> Answer {
    if let Err(limited) = call.limit() {
        return Ok(*limited);
    }
    let found = call.state.stores.invites.find(call.part("code")).await?;
    let live = found.filter(|found| found.trouble(Timestamp::now()).is_none());
    match live {
        Some(found) => ok(json!({ "found": true, "token": found.token })),
        None => Err(Refused(StatusCode::NOT_FOUND, json!({ "found": false }))),
    }
}

/// What can be said of an invite to whoever has its token.
pub(super) enum Known {
    Good(Box<FoundInvite>),
    Bad { reason: &'static str, found: Option<Box<FoundInvite>> },
}

/// What an invite's token leads to.
pub(super) async fn know(call: &Call, token: &str) -> Result<Known, Refused> {
    let bad = |reason| Ok(Known::Bad { reason, found: None });
    let Ok(payload) = InvitePayload::from_token(token) else { return bad("malformed") };
    if payload.verify().is_err() {
        return bad("bad_signature");
    }
    let Some(found) = call.state.stores.invites.find(token).await? else {
        return bad("not_found");
    };
    let reason = match found.trouble(Timestamp::now()) {
        None => return Ok(Known::Good(Box::new(found))),
        Some(JoinRefusal::Revoked) => "revoked",
        Some(JoinRefusal::MeshNotFound) => "mesh_archived",
        Some(JoinRefusal::Expired) => "expired",
        Some(_) => "exhausted",
    };
    Ok(Known::Bad { reason, found: Some(Box::new(found)) })
}

/// `GET /api/public/invite/{token}`.
pub(super) async fn by_token(call: Arc<Call>) -> Answer {
    if let Err(limited) = call.limit() {
        return Ok(*limited);
    }
    let found = match know(&call, call.part("token")).await? {
        Known::Good(found) => found,
        Known::Bad { reason, found } => {
            return ok(json!({
                "valid": false,
                "reason": reason,
                "meshName": found.as_ref().map(|found| &found.mesh.name),
                "inviterName": found.as_ref().and_then(|found| found.inviter.as_ref()),
                "expiresAt": found.as_ref().map(|found| found.invite.expires_at),
            }));
        }
    };
    let body = json!({
        "valid": true,
        "meshName": found.mesh.name,
        "meshSlug": found.mesh.slug,
        "inviterName": found.inviter,
        "memberCount": found.members,
        "role": found.invite.role,
        "expiresAt": found.invite.expires_at,
        "maxUses": found.invite.max_uses,
        "usedCount": found.invite.used_count,
        "token": found.token,
    });
    Ok(([(header::CACHE_CONTROL, "public, max-age=30")], Json(body)).into_response())
}

#[derive(Default, Deserialize)]
struct ClaimCall {
    #[serde(default)]
    recipient_x25519_pubkey: String,
    #[serde(default)]
    peer_pubkey: Option<String>,
    #[serde(default)]
    display_name: Option<String>,
}

/// `POST /invites/{code}/claim`: the caller's own key becomes a member; one that brings
/// none gets a place that its first hello fills.
pub(super) async fn claim(call: Arc<Call>) -> Answer {
    if let Err(limited) = call.limit() {
        return Ok(*limited);
    }
    let malformed = || Refused::new(StatusCode::BAD_REQUEST, "malformed");
    let body: ClaimCall = call.json().ok_or_else(malformed)?;
    let key = body.peer_pubkey.as_deref().map(str::to_ascii_lowercase);
    if key.as_deref().is_some_and(|key| !is_public_key(key) || !can_sign(key)) {
        return Err(malformed());
    }
    let stores = &call.state.stores;
    let code = call.part("code");
    let found = stores.invites.find(code).await?.filter(|found| found.token != code);
    let found = found.ok_or_else(|| refused(JoinRefusal::NotFound))?;
    if let Some(trouble) = found.trouble(Timestamp::now()) {
        return Err(refused(trouble));
    }
    let (Some(owner_key), Some(root_key)) = (&found.mesh.owner_key, &found.mesh.root_key) else {
        return Err(malformed());
    };
    let sealed = sealed_root_key(root_key, &body.recipient_x25519_pubkey).ok_or_else(malformed)?;
    let canonical = checked_canonical(&found, owner_key)?;
    let name = body.display_name.as_deref().map(str::trim).filter(|name| !name.is_empty());
    let name = cut(name.unwrap_or(GUEST), limits::DISPLAY_NAME_BYTES_MAX).to_owned();
    let join = Join {
        token: found.token.clone(),
        mesh: found.mesh.id.clone(),
        owner_key: owner_key.to_string(),
        member: MemberId::generate(),
        key: Key::from(key.as_deref().unwrap_or_default()),
        display_name: name,
        certificate: None,
    };
    let now = Timestamp::now();
    let joined = match key {
        Some(_) => stores.invites.join(now, &join).await?,
        None => {
            let claim = Claim { join, until: now.plus_ms(limits::UNBOUND_MEMBER_MS) };
            stores.invites.claim(now, &claim).await?
        }
    };
    let member = match joined {
        Joined::New(member) => {
            members::changed(&call.state.presence, &found.mesh.id).await;
            member
        }
        Joined::Already(member) => member,
        Joined::Refused(refusal) => return Err(refused(refusal)),
    };
    ok(json!({
        "sealed_root_key": sealed,
        "mesh_id": found.mesh.id,
        "member_id": member,
        "owner_pubkey": owner_key,
        "canonical_v2": canonical,
    }))
}

/// The text that the owner signed of the invite; where the signature is kept, it must
/// be the owner's and of this very text.
fn checked_canonical(found: &FoundInvite, owner_key: &Key) -> Result<String, Refused> {
    let invite = &found.invite;
    let canonical = canonical_of(
        &found.mesh.id,
        &invite.id,
        invite.expires_at,
        invite.role,
        owner_key.as_str(),
    );
    let Some(capability) = &found.capability else { return Ok(canonical) };
    match InviteCapability::verify(capability, &canonical, owner_key.as_str()) {
        Ok(()) => Ok(canonical),
        Err(InviteError::BadSignature) => {
            Err(Refused::new(StatusCode::BAD_REQUEST, "bad_signature"))
        }
        Err(_) => Err(Refused::new(StatusCode::BAD_REQUEST, "malformed")),
    }
}

fn refused(refusal: JoinRefusal) -> Refused {
    let (status, code) = match refusal {
        JoinRefusal::NotFound | JoinRefusal::MeshNotFound => (StatusCode::NOT_FOUND, "not_found"),
        JoinRefusal::Revoked => (StatusCode::GONE, "revoked"),
        JoinRefusal::Expired => (StatusCode::GONE, "expired"),
        JoinRefusal::Exhausted => (StatusCode::GONE, "exhausted"),
        JoinRefusal::Banned => (StatusCode::FORBIDDEN, "banned"),
        JoinRefusal::CertificateRequired => (StatusCode::FORBIDDEN, "certificate_required"),
        JoinRefusal::MeshMissingOwnerKey
        | JoinRefusal::OwnerMismatch
        | JoinRefusal::MeshMismatch => (StatusCode::BAD_REQUEST, "malformed"),
    };
    Refused::new(status, code)
}
