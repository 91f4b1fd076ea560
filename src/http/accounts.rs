//! The routes of the command line of claudemesh: signing in, meshes, invites, profiles.
//!
//! Who calls is known by a token's session, which is read from the store with each
//! request, or, for profiles, by a socket that is open from the same address. No id in a
//! body, a path or a header proves anything by itself. Tokens, keys and codes reach no
//! log line. `ACCOUNTS=off` leaves the profiles, and answers 404 to the rest.

mod export;
mod invites;
mod login;
mod meshes;
mod my;
mod pages;
mod profiles;
mod service;
mod settings;
mod stats;
mod sync;
mod tokens;
mod who;

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Extension, FromRequest, FromRequestParts as _, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, patch, post};
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(crate) use self::stats::Stats;
use super::{HttpState, Table, read_body, routed, to_its_end};
use crate::socket::address::{SocketPeer, may_call};
use crate::store::StoreError;

/// What is here only with accounts, for programs.
pub(super) fn table() -> Table {
    vec![
        ("post", "/cli/device-code", post(serving(login::create))),
        ("get", "/cli/device-code/{code}", get(serving(login::poll))),
        ("post", "/cli/device-code/{code}/approve", post(serving(service::approve))),
        ("post", "/cli/token", post(serving(service::token))),
        ("get", "/cli/sessions", get(serving(service::sessions))),
        ("post", "/cli/session/revoke", post(serving(login::revoke))),
        ("post", "/api/auth/cli/device-code/new", post(serving(login::create))),
        ("get", "/api/auth/cli/device-code/{code}", get(serving(login::poll))),
        ("post", "/api/auth/cli/device-code/approve-by-user-code", post(serving(login::approve))),
        ("post", "/api/auth/cli/token", post(serving(tokens::cli))),
        ("post", "/api/cli-sync-token", post(serving(tokens::sync))),
        ("get", "/cli/meshes", get(serving(meshes::list))),
        ("post", "/cli/mesh/create", post(serving(meshes::create))),
        ("delete", "/cli/mesh/{slug}", delete(serving(meshes::archive))),
        ("post", "/cli/mesh/{slug}/invite", post(serving(invites::create))),
        ("post", "/cli/mesh/{slug}/grants", post(serving(settings::merge_grants))),
        ("get", "/cli/mesh/{slug}/permissions", get(serving(settings::permissions))),
        ("post", "/cli/mesh/{slug}/permissions", post(serving(settings::set_permissions))),
        ("post", "/cli-sync", post(serving(sync::sync))),
        ("patch", "/api/cli/meshes/{slug}", patch(serving(meshes::rename))),
        ("get", "/api/my/profile", get(serving(meshes::profile))),
        ("get", "/api/my/meshes", get(serving(my::list))),
        ("post", "/api/my/meshes", post(serving(my::create))),
        ("get", "/api/my/meshes/{id}", get(serving(my::show))),
        ("post", "/api/my/meshes/{id}/invites", post(serving(my::invite))),
        ("post", "/api/my/meshes/{id}/archive", post(serving(my::archive))),
        ("post", "/api/my/meshes/{id}/leave", post(serving(my::leave))),
        ("get", "/api/my/invites", get(serving(my::invites))),
        ("get", "/api/my/export", get(serving(export::export))),
        ("get", "/api/public/invite-code/{code}", get(serving(invites::by_code))),
        ("get", "/api/public/invite/{token}", get(serving(invites::by_token))),
        ("post", "/api/public/invites/{code}/claim", post(serving(invites::claim))),
        ("post", "/invites/{code}/claim", post(serving(invites::claim))),
        ("get", "/api/public/stats", get(serving(stats::stats))),
    ]
}

/// Members as they describe themselves: here with accounts and without.
pub(super) fn profile_table() -> Table {
    vec![
        ("get", "/mesh/{mesh}/members", get(serving(profiles::members))),
        ("patch", "/mesh/{mesh}/member/{member}", patch(serving(profiles::edit))),
        ("patch", "/mesh/{mesh}/settings", patch(serving(profiles::set_policy))),
    ]
}

pub(super) fn routes(state: &Arc<HttpState>) -> Router<Arc<HttpState>> {
    routed(table()).route_layer(middleware::from_fn_with_state(Arc::clone(state), only_if_on))
}

/// What is here only with accounts, for people: other pages have no business with it.
pub(super) fn page_routes(state: &Arc<HttpState>) -> Router<Arc<HttpState>> {
    let routes = Router::new()
        .route(
            "/cli-auth",
            get(serving(pages::sign_in::show)).post(serving(pages::sign_in::approve)),
        )
        .route("/cli-auth/style.css", get(pages::style))
        .route("/token", get(serving(pages::token::show)).post(serving(pages::token::make)))
        .route("/i/{code}", get(serving(pages::invite::by_code)))
        .route("/join/{token}", get(serving(pages::invite::by_token)));
    routes.route_layer(middleware::from_fn_with_state(Arc::clone(state), only_if_on))
}

async fn only_if_on(State(state): State<Arc<HttpState>>, request: Request, next: Next) -> Response {
    if state.has_accounts {
        return next.run(request).await;
    }
    let text = "there are no accounts here: the setting ACCOUNTS=on of the broker turns them on";
    (StatusCode::NOT_FOUND, Json(json!({ "error": text }))).into_response()
}

/// A request, read whole.
pub(super) struct Call {
    state: Arc<HttpState>,
    peer: SocketPeer,
    headers: HeaderMap,
    path: HashMap<String, String>,
    query: HashMap<String, String>,
    body: Bytes,
}

/// What a request is answered, or why it is not done.
pub(super) type Answer = Result<Response, Refused>;

/// Why a request is not done: a status and a body.
#[derive(Debug)]
pub(super) struct Refused(StatusCode, Value);

impl Refused {
    /// As most of these routes say it.
    fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self(status, json!({ "error": error.into() }))
    }

    /// As those say it that answer `ok`.
    fn not_ok(status: StatusCode, error: impl Into<String>) -> Self {
        Self(status, json!({ "ok": false, "error": error.into() }))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(sentence) => Self::new(StatusCode::CONFLICT, sentence),
            StoreError::NotFound(sentence) => Self::new(StatusCode::NOT_FOUND, sentence),
            error => {
                tracing::warn!(%error, "a request of the command line could not be served");
                let text = "the database did not answer: try again";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, text)
            }
        }
    }
}

impl FromRequest<Arc<HttpState>> for Call {
    type Rejection = Response;

    async fn from_request(
        request: Request,
        state: &Arc<HttpState>,
    ) -> Result<Self, Self::Rejection> {
        let (mut parts, body) = request.into_parts();
        let peer = Extension::<SocketPeer>::from_request_parts(&mut parts, state)
            .await
            .map_err(IntoResponse::into_response)?;
        let path = Path::<HashMap<String, String>>::from_request_parts(&mut parts, state).await;
        let query = Query::<HashMap<String, String>>::from_request_parts(&mut parts, state).await;
        let headers = parts.headers.clone();
        let body = read_body(Request::from_parts(parts, body)).await?;
        Ok(Self {
            state: Arc::clone(state),
            peer: peer.0,
            headers,
            path: path.map(|path| path.0).unwrap_or_default(),
            query: query.map(|query| query.0).unwrap_or_default(),
            body,
        })
    }
}

impl Call {
    /// A part of the path.
    fn part(&self, name: &str) -> &str {
        self.path.get(name).map_or("", String::as_str)
    }

    /// The body as JSON; `None` if it is none of that shape.
    fn json<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Where the call comes from, as limits count it.
    fn client(&self) -> IpAddr {
        self.state.addresses.client(&self.headers, self.peer)
    }

    /// Refuses an address that asks too often for what costs, or what can be guessed.
    fn limit(&self) -> Result<(), Box<Response>> {
        may_call(&self.state.rates, self.client())
    }

    /// For how many seconds the address may not try codes and keys, since it has tried too
    /// many wrong ones. On this machine everybody has the same address.
    fn guesses_blocked(&self) -> Option<u64> {
        let address = self.client();
        self.state.rates.admin_blocked(address).filter(|_| !address.is_loopback())
    }

    /// Counts a wrong code or key.
    fn note_guess(&self) {
        self.state.rates.note_admin_failure(self.client());
    }
}

type Serving = Pin<Box<dyn Future<Output = Response> + Send>>;

/// A handler that runs to its end, whether or not its client waits, and whose answer
/// nobody keeps.
fn serving<F, W>(work: W) -> impl Fn(Call) -> Serving + Clone + Send + Sync + 'static
where
    W: Fn(Arc<Call>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    move |call| {
        let work = work.clone();
        Box::pin(async move {
            let state = Arc::clone(&call.state);
            let call = Arc::new(call);
            let done = to_its_end(&state, |_| work(call)).await;
            let mut response = match done {
                Ok(Ok(response)) => response,
                Ok(Err(refused)) => refused.into_response(),
                Err(response) => response,
            };
            let headers = response.headers_mut();
            if !headers.contains_key(header::CACHE_CONTROL) {
                headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
            }
            response
        })
    }
}

fn ok(body: Value) -> Answer {
    Ok(Json(body).into_response())
}
