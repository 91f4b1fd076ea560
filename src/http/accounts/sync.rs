//! `/cli-sync`: a command line becomes a member of all meshes of an account.
//!
//! The token proves the account. Which meshes it is in and in which roles, the store says:
//! of those a token may name a few, and then it is good for no others.

use std::sync::Arc;

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Answer, Call, Refused, ok};
use crate::auth::{ClaimedMesh, Claims, can_sign, is_public_key};
use crate::clock::Timestamp;
use crate::id::{AccountId, Key, MemberId};
use crate::limits;
use crate::presence::members;
use crate::protocol::budget::cut;
use crate::store::{AccountEnrolment, Enrolled};

#[derive(Deserialize)]
struct SyncCall {
    #[serde(default)]
    sync_token: String,
    #[serde(default)]
    peer_pubkey: String,
    #[serde(default)]
    display_name: String,
}

/// `POST /cli-sync`.
pub(super) async fn sync(call: Arc<Call>) -> Answer {
    if let Err(limited) = call.limit() {
        return Ok(*limited);
    }
    let bad = |error: &str| Refused::not_ok(StatusCode::BAD_REQUEST, error);
    let body = call.json().filter(|body: &SyncCall| {
        !(body.sync_token.is_empty() || body.peer_pubkey.is_empty() || body.display_name.is_empty())
    });
    let body = body.ok_or_else(|| bad("sync_token, peer_pubkey, display_name required"))?;
    let key = body.peer_pubkey.to_ascii_lowercase();
    if !is_public_key(&key) || !can_sign(&key) {
        return Err(bad("peer_pubkey must be 64 hex chars (32 bytes)"));
    }
    let (account, named) = account_of(&call, &body.sync_token).await?;
    let name = cut(&body.display_name, limits::DISPLAY_NAME_BYTES_MAX);
    let mut synced = Vec::new();
    for found in call.state.stores.ownership.meshes_of(&account).await? {
        let mesh = found.mesh;
        if !named.is_empty() && !named.iter().any(|named| named.id == mesh.id.as_str()) {
            continue;
        }
        let enrolment = AccountEnrolment {
            mesh: mesh.id.clone(),
            member: MemberId::generate(),
            account: account.clone(),
            key: Key::from(key.as_str()),
            display_name: name.to_owned(),
            role: found.role,
        };
        let enrolled = call.state.stores.profiles.enrol(Timestamp::now(), &enrolment).await?;
        let (member, role) = match enrolled {
            Enrolled::New(member) => {
                members::changed(&call.state.presence, &mesh.id).await;
                (member, found.role)
            }
            Enrolled::Already(member, role) => (member, role),
            Enrolled::Refused => continue,
        };
        synced.push(json!({
            "mesh_id": mesh.id,
            "slug": mesh.slug,
            "broker_url": call.public_ws_url(),
            "member_id": member,
            "role": role,
        }));
    }
    if synced.is_empty() {
        return Err(bad("no valid meshes found in sync token"));
    }
    ok(json!({ "ok": true, "account_id": account, "meshes": Value::from(synced) }))
}

/// The account that a token to fetch meshes by proves, once in the cluster, and the
/// meshes that it names.
async fn account_of(call: &Call, token: &str) -> Result<(AccountId, Vec<ClaimedMesh>), Refused> {
    let bad = |reason: &str| {
        let error = format!("sync token invalid: {reason}");
        Refused::not_ok(StatusCode::BAD_REQUEST, error)
    };
    let state = &call.state;
    let read = state.keys.key().await?.read(token, Timestamp::now());
    let Claims { sub, jti, meshes, .. } = read.map_err(|error| bad(&error.to_string()))?;
    if jti.is_empty() {
        return Err(bad("missing jti"));
    }
    if sub.is_empty() {
        return Err(bad("missing sub or email"));
    }
    // Another token of the account, for which this is not meant.
    let named = meshes.ok_or_else(|| bad("missing meshes array"))?;
    let account = AccountId::from(sub);
    let known = state.stores.accounts.get(&account).await?;
    if known.is_none_or(|known| known.revoked_at.is_some()) {
        return Err(bad("the account was revoked"));
    }
    let digest: [u8; 32] = Sha256::digest(format!("sync token {jti}")).into();
    let ttl_ms = u64::try_from(limits::SYNC_TOKEN_MS).unwrap_or(u64::MAX);
    match state.cluster.use_once(&digest, ttl_ms).await {
        Ok(true) => Ok((account, named)),
        Ok(false) => Err(bad("token already used")),
        Err(error) => {
            tracing::warn!(%error, "a token could not be used up");
            let text = "the cluster's shared state does not answer: try again";
            Err(Refused::not_ok(StatusCode::SERVICE_UNAVAILABLE, text))
        }
    }
}
