//! `/hook/<mesh>/<secret>`: another program tells a mesh something.
//!
//! Who calls shows the secret of the address and, where the webhook asks for that, a
//! signature. Neither is logged, nor is what was posted.

mod kept;

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;

use super::{HttpState, read_body, to_its_end};
use crate::clock::Timestamp;
use crate::cluster::{BusMessage, Draw};
use crate::events;
use crate::id::{MemberId, MeshId, PresenceId};
use crate::limits;
use crate::protocol::{WebhookSigning, webhooks};
use crate::record::PresenceRecord;
use crate::store::{Author, Call, StoreError, Webhook};
use crate::webhooks::signing;

/// `POST /hook/<mesh>/<secret>`.
pub(super) async fn receive(
    State(state): State<Arc<HttpState>>,
    Path((mesh, secret)): Path<(String, String)>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let body = match read_body(request).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let Ok(data) = serde_json::from_slice::<Value>(&body) else {
        return failed(StatusCode::BAD_REQUEST, "invalid JSON");
    };
    let posted = Posted { mesh: MeshId::from(mesh), secret, headers, body, data };
    match to_its_end(&state, |state| async move { take(&state, posted).await }).await {
        Ok(response) | Err(response) => response,
    }
}

/// A call, before it is known who makes it.
struct Posted {
    mesh: MeshId,
    secret: String,
    headers: HeaderMap,
    body: Bytes,
    data: Value,
}

impl Posted {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn is_signed_for(&self, hook: &Webhook, now: Timestamp) -> bool {
        let secret = hook.signing_secret.as_deref().unwrap_or_default();
        match hook.signing {
            None => true,
            Some(_) if secret.is_empty() => false,
            Some(WebhookSigning::Github) => {
                signing::is_github(secret, self.header("x-hub-signature-256"), &self.body)
            }
            Some(WebhookSigning::Standard) => {
                let [id, at, signatures] = ["webhook-id", "webhook-timestamp", "webhook-signature"]
                    .map(|name| self.header(name));
                signing::is_standard(secret, (id, at, signatures), &self.body, now.as_ms() / 1000)
            }
        }
    }

    /// What the caller calls this call: a second one of the same name is the same.
    fn key(&self, hook: &Webhook) -> Option<String> {
        let names: &[&str] = match hook.signing {
            // Only this one is signed.
            Some(WebhookSigning::Standard) => &["webhook-id"],
            _ => &["idempotency-key", "x-github-delivery"],
        };
        let mut given = names.iter().map(|name| self.header(name)).filter(|key| !key.is_empty());
        given.next().map(str::to_owned)
    }
}

async fn take(state: &HttpState, posted: Posted) -> Response {
    let now = Timestamp::now();
    let hook = match find(state, &posted).await {
        Ok(hook) => hook.filter(|hook| posted.is_signed_for(hook, now)),
        Err(error) => return away(&error),
    };
    let Some(hook) = hook else { return failed(StatusCode::UNAUTHORIZED, "unauthorized") };
    if !(posted.data.is_object() || posted.data.is_array()) {
        return failed(StatusCode::BAD_REQUEST, "invalid JSON body");
    }
    if let Err(refused) = is_in_time(state, &hook).await {
        return refused;
    }
    let key = posted.key(&hook);
    if key.as_ref().is_some_and(|key| key.len() > limits::WEBHOOK_KEY_BYTES_MAX) {
        return failed(StatusCode::BAD_REQUEST, "the key of a call has at most 256 bytes");
    }
    let since = now.plus_ms(-limits::WEBHOOK_REPEAT_MS);
    if let Some(key) = &key {
        match state.webhooks.store.answered(&hook.id, key, since).await {
            Ok(Some(before)) => return taken(before),
            Ok(None) => {}
            Err(error) => return away(&error),
        }
    }
    let Posted { mesh, body, data, .. } = posted;
    let open = match connections(state, &mesh).await {
        Ok(open) => open,
        Err(refused) => return refused,
    };
    let delivered = i64::try_from(open.len()).unwrap_or(i64::MAX);
    // Before the call is answered as one that was taken: what breaks off is made again.
    if hook.durable {
        let kept = kept::keep(state, &hook, &mesh, (key.as_deref(), &body), &open).await;
        match kept {
            Ok(true) => {}
            Ok(false) => {
                let text = "as much mail waits as may: for this webhook's maker, or in the mesh";
                return failed(StatusCode::INSUFFICIENT_STORAGE, text);
            }
            Err(error) => return away(&error),
        }
    }
    let called = format!("webhook:{}", hook.name);
    let author = Author {
        mesh: mesh.clone(),
        member: hook.created_by.clone(),
        member_name: called.clone(),
        session_name: called,
        presence: PresenceId::from(hook.id.as_str()),
    };
    let call = Call {
        webhook: hook.id.clone(),
        author,
        name: hook.name.clone(),
        bytes: body.len(),
        key,
        since,
        delivered,
    };
    match state.webhooks.store.receive(now, &call).await {
        Ok(None) => {}
        Ok(Some(before)) => return taken(before),
        Err(error) => return away(&error),
    }
    let push = webhooks::posted(&hook.name, data, mesh.clone(), now);
    let message = BusMessage::Posted(Box::new(push));
    state.cluster.publish(&mesh, &message);
    if let (Some(room), BusMessage::Posted(push)) = (state.registry.room(&mesh), message) {
        events::post(&room, *push);
    }
    taken(delivered)
}

/// The webhook of that secret, which is compared in constant time.
async fn find(state: &HttpState, posted: &Posted) -> Result<Option<Webhook>, StoreError> {
    let given = posted.secret.as_bytes();
    let found = state.webhooks.store.by_secret(&posted.mesh, &posted.secret).await?;
    Ok(found.into_iter().find(|hook| {
        let known = hook.secret.as_bytes();
        !known.is_empty() && bool::from(known.ct_eq(given))
    }))
}

/// Whether the webhook may be called once more now, on all nodes together.
async fn is_in_time(state: &HttpState, hook: &Webhook) -> Result<(), Response> {
    let rate = limits::WEBHOOK_CALLS_PER_MINUTE;
    let draw = Draw { bucket: "webhook".to_owned(), want: 1, per_minute: rate, burst: rate };
    match state.cluster.take_tokens(&hook.id, &[draw]).await {
        Ok(drawn) if drawn.iter().all(|drawn| drawn.got == 0) => {
            let seconds = 60_u32.div_ceil(rate).to_string();
            let body = Json(json!({ "ok": false, "error": "rate limited" }));
            let head = [(header::RETRY_AFTER, seconds)];
            Err((StatusCode::TOO_MANY_REQUESTS, head, body).into_response())
        }
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::debug!(%error, "calls of a webhook are not counted");
            Ok(())
        }
    }
}

/// The members of the connections that a post goes to, on all nodes; one for each.
async fn connections(state: &HttpState, mesh: &MeshId) -> Result<Vec<MemberId>, Response> {
    match state.registry.room(mesh) {
        Some(room) => Ok(reached(room.records().iter().map(|record| &**record))),
        None => match state.cluster.directory(mesh).await {
            Ok(records) => Ok(reached(records.iter())),
            Err(error) => {
                tracing::warn!(%error, %mesh, "a webhook could not be served");
                Err(failed(StatusCode::INTERNAL_SERVER_ERROR, "internal error"))
            }
        },
    }
}

/// The members of those among these that a post goes to: not of sessions whose daemon has
/// it for them.
fn reached<'a>(records: impl Iterator<Item = &'a PresenceRecord> + Clone) -> Vec<MemberId> {
    let open = records.filter(|record| record.online && !record.visitor);
    let daemons: HashSet<_> =
        open.clone().filter(|record| record.is_daemon()).map(host_of).collect();
    let is_itself = |record: &&PresenceRecord| {
        !(record.is_session_of_daemon() && daemons.contains(&host_of(record)))
    };
    let reached = open.filter(is_itself);
    reached.map(|record| record.member.clone()).collect()
}

fn host_of(record: &PresenceRecord) -> (&MemberId, Option<&str>) {
    (&record.member, record.hostname.as_deref())
}

fn taken(delivered: i64) -> Response {
    Json(json!({ "ok": true, "delivered": delivered })).into_response()
}

fn away(error: &StoreError) -> Response {
    tracing::warn!(%error, "a webhook could not be served");
    failed(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
}

fn failed(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "ok": false, "error": error }))).into_response()
}
