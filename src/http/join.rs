//! `/join`: enrolment by invite.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::{HttpState, read_body, to_its_end};
use crate::auth::{InvitePayload, can_sign, is_public_key};
use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId};
use crate::limits;
use crate::presence::members;
use crate::socket::address::{SocketPeer, may_call};
use crate::store::{Join, JoinRefusal, Joined, StoreError};

#[derive(Deserialize)]
struct Call {
    #[serde(default)]
    invite_token: String,
    #[serde(default)]
    invite_payload: Option<InvitePayload>,
    #[serde(default)]
    peer_pubkey: String,
    #[serde(default)]
    display_name: String,
    /// Of the invite's key over the peer's, with an invite that certifies.
    #[serde(default)]
    member_signature: String,
}

/// `POST /join`.
pub(super) async fn join(
    State(state): State<Arc<HttpState>>,
    Extension(peer): Extension<SocketPeer>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let address = state.addresses.client(&headers, peer);
    if let Err(limited) = may_call(&state.rates, address) {
        return *limited;
    }
    let body = match read_body(request).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let Ok(call) = serde_json::from_slice::<Call>(&body) else {
        return refused(
            "the body is JSON {invite_token, invite_payload, peer_pubkey, display_name}",
        );
    };
    let join = match check(call) {
        Ok(join) => join,
        Err(error) => return refused(error),
    };
    match to_its_end(&state, |state| async move { enrol(&state, join).await }).await {
        Ok(response) | Err(response) => response,
    }
}

fn refused(error: &str) -> Response {
    let body = Json(json!({ "ok": false, "error": error }));
    (StatusCode::BAD_REQUEST, body).into_response()
}

fn check(call: Call) -> Result<Join, &'static str> {
    let Call { invite_token, invite_payload, peer_pubkey, display_name, member_signature } = call;
    let given = !(invite_token.is_empty() || peer_pubkey.is_empty() || display_name.is_empty());
    let Some(payload) = invite_payload.filter(|_| given) else {
        return Err("invite_token, invite_payload, peer_pubkey, display_name required");
    };
    let key = peer_pubkey.to_ascii_lowercase();
    if !is_public_key(&key) {
        return Err("peer_pubkey must be 64 hex chars (32 bytes)");
    }
    // Nobody could ever say hello by it, and it would use up the invite.
    if !can_sign(&key) {
        return Err("peer_pubkey is not an ed25519 key");
    }
    let cut = display_name.floor_char_boundary(limits::DISPLAY_NAME_BYTES_MAX);
    payload.verify().map_err(|_| "invite_bad_signature")?;
    // The token says what the invite is, and its row what it gives. A payload of
    // another invite, though the owner signed that too, is not this one's.
    if InvitePayload::from_token(&invite_token).is_ok_and(|own| own != payload)
        || !payload.has_form()
    {
        return Err("invite_bad_signature");
    }
    let certificate = payload.certificate(&member_signature);
    if let Some(certificate) = &certificate {
        certificate
            .verify(&payload.mesh_id, &payload.owner_pubkey, &key)
            .map_err(|_| "invite_bad_certificate")?;
    }
    Ok(Join {
        token: invite_token,
        mesh: MeshId::from(payload.mesh_id),
        owner_key: payload.owner_pubkey,
        member: MemberId::generate(),
        key: Key::from(key),
        display_name: display_name[..cut].to_owned(),
        certificate: certificate.map(|certificate| certificate.to_text()),
    })
}

async fn enrol(state: &HttpState, join: Join) -> Response {
    // Anybody can sign a payload with a key of their own: those are sorted out
    // by a read, before the write that the rest takes.
    match state.stores.meshes.get(&join.mesh).await {
        Ok(None) => return refused(JoinRefusal::MeshNotFound.code()),
        Ok(Some(mesh)) => match mesh.owner_key {
            Some(key) if key.as_str() == join.owner_key => {}
            _ if mesh.archived_at.is_some() => {
                return refused(JoinRefusal::MeshNotFound.code());
            }
            Some(_) => return refused(JoinRefusal::OwnerMismatch.code()),
            None => return refused(JoinRefusal::MeshMissingOwnerKey.code()),
        },
        Err(error) => return failed(&error),
    }
    match state.stores.invites.join(Timestamp::now(), &join).await {
        Ok(Joined::New(member)) => {
            // Peers that are here may write to the new member at once.
            members::changed(&state.presence, &join.mesh).await;
            Json(json!({ "ok": true, "memberId": member })).into_response()
        }
        Ok(Joined::Already(member)) => {
            Json(json!({ "ok": true, "memberId": member, "alreadyMember": true })).into_response()
        }
        Ok(Joined::Refused(refusal)) => refused(refusal.code()),
        Err(error) => failed(&error),
    }
}

/// 500 and this word also where only the database is away: deployed clients show
/// the word, and take no other status for a failure that may pass.
fn failed(error: &StoreError) -> Response {
    tracing::warn!(%error, "an enrolment failed");
    let body = Json(json!({ "ok": false, "error": "member_insert_failed" }));
    (StatusCode::INTERNAL_SERVER_ERROR, body).into_response()
}
