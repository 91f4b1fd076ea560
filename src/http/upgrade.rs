//! `/ws`: the upgrade, and who may have one.

use std::sync::Arc;

use axum::extract::ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;

use super::App;
use crate::codec::{Codec, JSON_SUBPROTOCOL, MSGPACK_SUBPROTOCOL};
use crate::limits;
pub use crate::socket::address::{Addresses, client_address, may_call};
use crate::socket::address::{SocketPeer, enter_address, retry_later};
use crate::socket::connection;
use crate::socket::listener::Entering;
use crate::socket::tap::Tap;

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
            // What it would have to be, and in which version: RFC 6455, 4.4.
            let wanted = [
                (header::UPGRADE, "websocket"),
                (header::CONNECTION, "upgrade"),
                (header::SEC_WEBSOCKET_VERSION, "13"),
            ];
            return (StatusCode::UPGRADE_REQUIRED, wanted, text).into_response();
        }
    };
    let node = Arc::clone(&app.node);
    if node.life.draining.is_cancelled() {
        return retry_later(StatusCode::SERVICE_UNAVAILABLE, 1, "this node is shutting down");
    }
    let address = client_address(&node.config, &headers, peer);
    let entered = match enter_address(&node, &app.addresses, address, entering.is_counted()) {
        Ok(entered) => entered,
        Err(refused) => return *refused,
    };
    let (half_open, counted) = entering.take();
    let place = entered.or(counted);
    // A hello may be this large, whatever is allowed later.
    let bytes_max = node.config.message.message_bytes_max.max(limits::HELLO_BYTES_MAX_FLOOR);
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
    let tasks = node.life.tasks.clone();
    upgrade.on_upgrade(move |socket| async move {
        // Its own task, which nobody cancels and the drain waits for.
        let serving = connection::serve(node, socket, codec, address, half_open, tap);
        tasks.spawn(serving.map(|()| drop(place)));
    })
}
