//! `/ws`: the upgrade, and who may have one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use parking_lot::Mutex;

use super::listener::Entering;
use super::tap::Tap;
use super::{App, SocketPeer};
use crate::codec::{Codec, JSON_SUBPROTOCOL, MSGPACK_SUBPROTOCOL};
use crate::config::Config;
use crate::connection;
use crate::limits;
use crate::node::Node;
use crate::rates::Client;

/// Open sockets per address.
#[derive(Clone, Default)]
pub struct Addresses(Arc<Mutex<HashMap<Client, u32>>>);

/// One of an address's sockets.
pub struct AddressGuard {
    addresses: Addresses,
    client: Client,
}

impl Addresses {
    /// One more, unless that is more than `max`.
    fn enter(&self, address: IpAddr, max: u32) -> Option<AddressGuard> {
        let client = Client::from(address);
        let mut counts = self.0.lock();
        let count = counts.entry(client).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(AddressGuard { addresses: self.clone(), client })
    }
}

impl Drop for AddressGuard {
    fn drop(&mut self) {
        let mut counts = self.addresses.0.lock();
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

/// The client's address: the socket's, or a header's where the socket is a
/// proxy that is trusted to set it.
#[must_use]
pub fn client_address(config: &Config, headers: &HeaderMap, peer: SocketPeer) -> IpAddr {
    let socket = peer.0.ip().to_canonical();
    let named = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if config.node.on_fly
        && let Some(address) = named("fly-client-ip").and_then(|text| text.trim().parse().ok())
    {
        return address;
    }
    if !config.http.trusts_proxy(socket) {
        return socket;
    }
    // From the right: the nearest address that is no trusted proxy.
    // Proxies append, to the last line or as a new one: read from the end.
    let lines: Vec<&str> =
        headers.get_all("x-forwarded-for").iter().filter_map(|line| line.to_str().ok()).collect();
    lines
        .iter()
        .rev()
        .flat_map(|list| list.rsplit(','))
        .map_while(|text| text.trim().parse::<IpAddr>().ok())
        .find(|address| !config.http.trusts_proxy(*address))
        .unwrap_or(socket)
}

/// `GET /ws`.
pub async fn upgrade(
    State(app): State<App>,
    Extension(peer): Extension<SocketPeer>,
    Extension(entering): Extension<Entering>,
    Extension(tap): Extension<Tap>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(_) => {
            let text = "this is a WebSocket endpoint: connect with ws:// or wss://\n";
            return (StatusCode::UPGRADE_REQUIRED, text).into_response();
        }
    };
    let node = Arc::clone(&app.node);
    if node.draining.is_cancelled() {
        return retry_later(StatusCode::SERVICE_UNAVAILABLE, 1, "this node is shutting down");
    }
    let address = client_address(&node.config, &headers, peer);
    let guard = match enter_address(&app, address) {
        Ok(guard) => guard,
        Err(refused) => return *refused,
    };
    let Some(half_open) = entering.0.lock().take() else {
        return (StatusCode::BAD_REQUEST, "one upgrade per connection\n").into_response();
    };
    let bytes_max = node.config.message.message_bytes_max;
    let upgrade = upgrade
        .protocols([MSGPACK_SUBPROTOCOL, JSON_SUBPROTOCOL])
        .max_message_size(bytes_max)
        .max_frame_size(bytes_max)
        .read_buffer_size(limits::READ_BUFFER_BYTES)
        .write_buffer_size(limits::WRITE_BUFFER_BYTES)
        .max_write_buffer_size(limits::SOCKET_WRITE_BYTES_MAX);
    let agreed = upgrade.selected_protocol().and_then(|name| name.to_str().ok());
    let codec = match agreed {
        Some(MSGPACK_SUBPROTOCOL) => Codec::MsgPack,
        _ => Codec::Json,
    };
    let tasks = node.tasks.clone();
    upgrade.on_upgrade(move |socket| async move {
        // Its own task, which nobody cancels and the drain waits for.
        tasks.spawn(connection::serve(node, socket, codec, half_open, tap).map(|()| drop(guard)));
    })
}

/// Loopback is exempt: there, everybody has the same address.
fn enter_address(app: &App, address: IpAddr) -> Result<Option<AddressGuard>, Box<Response>> {
    if address.is_loopback() {
        return Ok(None);
    }
    may_call(&app.node, address)?;
    let max = app.node.config.http.connections_per_ip_max;
    if max == 0 {
        return Ok(None);
    }
    app.addresses.enter(address, max).map(Some).ok_or_else(|| {
        let text = "too many open connections from this address";
        Box::new(retry_later(StatusCode::TOO_MANY_REQUESTS, 10, text))
    })
}

/// Whether a stranger at that address may ask for something that costs.
///
/// # Errors
///
/// The answer to send instead: 429.
pub fn may_call(node: &Node, address: IpAddr) -> Result<(), Box<Response>> {
    if address.is_loopback() {
        return Ok(());
    }
    node.rates.may_hello(address).map_err(|seconds| {
        let text = "too many calls from this address in the last minute";
        Box::new(retry_later(StatusCode::TOO_MANY_REQUESTS, seconds, text))
    })
}

fn retry_later(status: StatusCode, seconds: u64, text: &str) -> Response {
    (status, [(header::RETRY_AFTER, seconds.to_string())], format!("{text}\n")).into_response()
}
