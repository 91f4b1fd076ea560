//! `/hook/set-status`: a hook on a peer's machine says what the peer does.
//!
//! It changes other people's view of a peer. So it is taken from this machine, from
//! whoever has `HOOK_TOKEN`, and about a session by whoever knows the session's id
//! and calls from where the session's own socket comes from.

mod choice;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use self::choice::{Choice, Found};
use super::{HttpState, bearer, read_body, to_its_end};
use crate::clock::Timestamp;
use crate::cluster::BusMessage;
use crate::config::any_matches;
use crate::limits;
use crate::presence::status;
use crate::protocol::Status;
use crate::protocol::budget::cut;
use crate::socket::address::{SocketPeer, is_told_from_others, shows_proxy};

/// The body as sent: each field may be of any kind.
#[derive(Deserialize)]
struct Call {
    #[serde(default)]
    cwd: Value,
    #[serde(default)]
    pid: Value,
    #[serde(default)]
    status: Value,
    #[serde(default)]
    session_id: Value,
}

/// What a hook says, and of whom.
pub(super) struct Word {
    /// The session's folder, cut as those of hellos are.
    pub(super) cwd: String,
    /// 0: not said.
    pub(super) pid: i32,
    /// Empty: not said.
    pub(super) session_id: String,
    pub(super) status: Status,
}

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    /// Somebody on this machine, or with the token.
    Trusted,
    /// A stranger at that address.
    At(IpAddr),
}

/// `POST /hook/set-status`.
pub(super) async fn set_status(
    State(state): State<Arc<HttpState>>,
    Extension(peer): Extension<SocketPeer>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    state.metrics.hook_requests.inc();
    let caller = match caller(&state, &headers, peer) {
        Ok(caller) => caller,
        Err(refused) => return *refused,
    };
    let body = match read_body(request).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let Ok(call) = serde_json::from_slice::<Call>(&body) else {
        // Not 400: deployed hooks know 500 for a body that is no JSON.
        return failed(StatusCode::INTERNAL_SERVER_ERROR, BAD_BODY);
    };
    let cwd = text_of(&call.cwd, limits::HELLO_CWD_BYTES_MAX);
    let pid = pid_of(&call.pid);
    if !state.rates.may_hook(pid, &cwd) {
        state.metrics.hook_requests_rate_limited.inc();
        return failed(StatusCode::TOO_MANY_REQUESTS, "rate limited");
    }
    if cwd.is_empty() || is_nothing(&call.status) {
        return failed(StatusCode::OK, "cwd and status required");
    }
    let Some(status) = call.status.as_str().and_then(Status::parse) else {
        return failed(StatusCode::INTERNAL_SERVER_ERROR, BAD_BODY);
    };
    let session_id = text_of(&call.session_id, limits::HELLO_TEXT_BYTES_MAX);
    let word = Word { cwd, pid, session_id, status };
    let applied = to_its_end(&state, |state| async move {
        match caller {
            Caller::Trusted => apply(&state, &word).await,
            Caller::At(client) => apply_from(&state, &word, client).await,
        }
    });
    match applied.await {
        Ok(response) | Err(response) => response,
    }
}

const BAD_BODY: &str = "the body is JSON {cwd, pid?, session_id?, status: idle|working|dnd}";

/// Text that is cut as the same one in a hello is, so that the two are found equal.
fn text_of(value: &Value, bytes_max: usize) -> String {
    cut(value.as_str().unwrap_or_default(), bytes_max).to_owned()
}

fn pid_of(pid: &Value) -> i32 {
    pid.as_i64().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0)
}

/// What counts as not given, as older brokers had it.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        _ => false,
    }
}

fn caller(
    state: &HttpState,
    headers: &HeaderMap,
    peer: SocketPeer,
) -> Result<Caller, Box<Response>> {
    let http = &state.http;
    if bearer(headers).is_some_and(|given| any_matches(&http.hook_tokens, given)) {
        return Ok(Caller::Trusted);
    }
    // A page in a browser on this machine is a stranger, too, unless it is one that
    // the operator has named.
    let is_page = match headers.get(header::ORIGIN) {
        Some(origin) => !origin.to_str().is_ok_and(|origin| http.names_origin(origin)),
        None => headers.contains_key("sec-fetch-site"),
    };
    let forwarded = shows_proxy(headers);
    let socket = peer.0.ip().to_canonical();
    let address = state.addresses.client(headers, peer);
    let is_local = socket.is_loopback() && address.is_loopback() && !forwarded;
    if is_local && !is_page && http.hook_tokens.is_empty() {
        return Ok(Caller::Trusted);
    }
    // Behind a proxy that is not trusted to name it, or through it, everybody has one
    // address, and that shows nothing.
    let is_named = !forwarded || http.trusts_proxy(socket) || state.node.on_fly;
    let shows = is_named
        && is_told_from_others(address)
        && !address.is_loopback()
        && !http.trusts_proxy(address);
    let tries_token = headers.contains_key(header::AUTHORIZATION);
    if shows && !is_page && !tries_token {
        return Ok(Caller::At(address));
    }
    Err(Box::new(match http.hook_tokens.is_empty() {
        true => forbidden(),
        false => {
            let text = "this call needs the header Authorization: Bearer <HOOK_TOKEN>";
            failed(StatusCode::UNAUTHORIZED, text)
        }
    }))
}

fn forbidden() -> Response {
    let text = "from elsewhere a status hook needs the session_id of a session that is connected \
                from the same address, or HOOK_TOKEN, set on the broker, as bearer token";
    failed(StatusCode::FORBIDDEN, text)
}

fn failed(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "ok": false, "error": error }))).into_response()
}

fn applied(found: &Found) -> Response {
    Json(json!({ "ok": true, "presence_id": found.record.id })).into_response()
}

fn ambiguous() -> Response {
    failed(StatusCode::OK, "more than one peer fits; say which by session_id")
}

/// By somebody who may speak of every peer.
async fn apply(state: &HttpState, word: &Word) -> Response {
    let found = match choice::find(state, word).await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "a status hook could not be served");
            return failed(StatusCode::SERVICE_UNAVAILABLE, "the database did not answer");
        }
    };
    match choice::choose(found, word) {
        Choice::One(found) => {
            tell(state, &found, word.status).await;
            applied(&found)
        }
        Choice::Several => ambiguous(),
        Choice::Nobody => {
            let kept = state.cluster.put_pending_status(word.pid, &word.cwd, word.status);
            if let Err(error) = kept.await {
                tracing::debug!(%error, "a pending status was lost");
            }
            Json(json!({ "ok": true, "pending": true })).into_response()
        }
    }
}

/// By somebody of whom is known only where it calls from. Whether the session's
/// socket comes from there, only the node that holds it knows: one of another node is
/// asked to look, and what it finds is not told.
async fn apply_from(state: &HttpState, word: &Word, client: IpAddr) -> Response {
    if word.session_id.is_empty() {
        return forbidden();
    }
    let found = match choice::find(state, word).await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "a status hook could not be served");
            return failed(StatusCode::SERVICE_UNAVAILABLE, "the database did not answer");
        }
    };
    let named = found.into_iter().filter(|found| found.record.online && found.is_called(word));
    let Choice::One(found) = choice::choose(named.collect(), word) else { return forbidden() };
    let (presence, status, at) = (found.record.id.clone(), word.status, Timestamp::now());
    let room = state.registry.room(&found.record.mesh);
    match room.as_ref().and_then(|room| Some((room, room.session(&presence)?))) {
        Some((room, session)) if session.is_open_from(client) => {
            status::apply_hook(&state.presence, room, &presence, status, at).await;
            applied(&found)
        }
        Some(_) => forbidden(),
        None => {
            let client = client.to_string();
            let message = BusMessage::HookFrom { presence, status, at, client };
            state.cluster.publish(&found.record.mesh, &message);
            Json(json!({ "ok": true, "forwarded": true })).into_response()
        }
    }
}

/// The node that holds the socket applies it; that of one in grace is written
/// here, for when its session is back. The row's own status may be behind.
async fn tell(state: &HttpState, found: &Found, status: Status) {
    let (now, record) = (Timestamp::now(), &found.record);
    if let Some(room) = state.registry.room(&record.mesh)
        && room.session(&record.id).is_some()
    {
        return status::apply_hook(&state.presence, &room, &record.id, status, now).await;
    }
    if found.is_listed && !record.online {
        let record = record.as_ref().clone();
        return status::apply_hook_in_grace(&state.presence, record, status, now).await;
    }
    let message = BusMessage::HookStatus { presence: record.id.clone(), status, at: now };
    state.cluster.publish(&record.mesh, &message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_as_not_given_is_what_older_brokers_took_for_it() {
        for nothing in [json!(null), json!(false), json!(""), json!(0), json!(0.0)] {
            assert!(is_nothing(&nothing), "{nothing}");
        }
        for something in [json!("idle"), json!(1), json!(true), json!([]), json!({})] {
            assert!(!is_nothing(&something), "{something}");
        }
    }

    #[test]
    fn folders_are_cut_where_those_of_hellos_are() {
        let long = json!("é".repeat(limits::HELLO_TEXT_BYTES_MAX));
        let max = limits::HELLO_TEXT_BYTES_MAX;
        assert_eq!(text_of(&long, max), "é".repeat(max / 2));
        let (folder, number) = (text_of(&json!("/a"), max), text_of(&json!(5), max));
        assert_eq!((folder, number), ("/a".to_owned(), String::new()));
    }
}
