//! `/i/{code}` and `/join/{token}`: what an invite is, and the command that uses it.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;

use super::{escape, page, sentence};
use crate::clock::Timestamp;
use crate::http::accounts::invites::{Known, know};
use crate::http::accounts::{Answer, Call};
use crate::store::FoundInvite;

/// `GET /i/{code}`.
pub(in crate::http::accounts) async fn by_code(call: Arc<Call>) -> Answer {
    if let Err(limited) = call.limit() {
        return Ok(*limited);
    }
    let code = call.part("code");
    let found = call.state.stores.invites.find(code).await?;
    // A token is no code: this page is for what people type.
    match found.filter(|found| found.token != code && found.trouble(Timestamp::now()).is_none()) {
        Some(found) => Ok(invitation(&call, &found)),
        None => Ok(no_invitation("It is not known, was used, was revoked, or has expired.")),
    }
}

/// `GET /join/{token}`.
pub(in crate::http::accounts) async fn by_token(call: Arc<Call>) -> Answer {
    if let Err(limited) = call.limit() {
        return Ok(*limited);
    }
    Ok(match know(&call, call.part("token")).await? {
        Known::Good(found) => invitation(&call, &found),
        Known::Bad { reason, .. } => no_invitation(match reason {
            "revoked" => "It was revoked.",
            "mesh_archived" => "Its mesh is archived.",
            "expired" => "It has expired.",
            "exhausted" => "It was used already.",
            _ => "It is not known here, or was not copied whole.",
        }),
    })
}

fn invitation(call: &Call, found: &FoundInvite) -> Response {
    let by = found.inviter.as_deref().map_or_else(String::new, |by| format!(", by {by}"));
    let link = format!("{}/join/{}", call.public_base(), found.token);
    let body = format!(
        "<p>You are invited to the mesh <strong>{}</strong>{}, as {}. The invite can be used \
         until {}.</p><p>Type in a terminal:</p><pre class=\"code\">claudemesh join {}</pre>",
        escape(&found.mesh.name),
        escape(&by),
        found.invite.role.as_str(),
        found.invite.expires_at,
        escape(&link),
    );
    page(StatusCode::OK, "An invite", &body)
}

fn no_invitation(why: &str) -> Response {
    let text = format!("This invite lets nobody in. {why} Ask for a new one.");
    sentence(StatusCode::NOT_FOUND, "No invite", &text)
}
