//! `/ws`: the upgrade, and who may have one.

use std::sync::Arc;

use axum::extract::ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;

use super::HttpState;
use crate::codec::{Codec, JSON_SUBPROTOCOL, MSGPACK_SUBPROTOCOL};
use crate::limits;
use crate::socket::address::{SocketPeer, retry_later};
use crate::socket::listener::Entering;
use crate::socket::tap::Tap;

/// `GET /ws`.
pub(super) async fn upgrade(
    State(state): State<Arc<HttpState>>,
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
    if state.life.draining.is_cancelled() {
        return retry_later(StatusCode::SERVICE_UNAVAILABLE, 1, "this node is shutting down");
    }
    let address = state.addresses.client(&headers, peer);
    let is_counted = entering.is_counted();
    let entered = match state.addresses.enter_upgrade(&state.rates, address, is_counted) {
        Ok(entered) => entered,
        Err(refused) => return *refused,
    };
    let (half_open, counted) = entering.take();
    let guard = entered.or(counted);
    // A message that is sealed for many may be this large; what others may is looked at
    // when it is known who they are.
    let bytes_max = state.body_bytes_max.max(limits::SEALED_FRAME_BYTES_MAX);
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
    let (sockets, tasks) = (state.sockets.clone(), state.life.tasks.clone());
    upgrade.on_upgrade(move |socket| async move {
        // A task of its own, which nobody cancels and the drain waits for.
        let serving = sockets.serve(socket, codec, address, half_open, tap);
        tasks.spawn(serving.map(|()| drop(guard)));
    })
}
