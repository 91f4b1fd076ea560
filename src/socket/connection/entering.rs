//! A socket before it is a session: its hello is read and answered, or refused.
//!
//! Everything until the hello may be cancelled; from there on nothing is, since a
//! session is being registered. No request but a hello is served here. The task that
//! owns the socket calls, once.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::ws::{Message, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::time::timeout;

use super::pings::{Pings, pause};
use super::{Malformed, close_message, count_closed, offence, payload, to_message};
use crate::admission::{self, Active, Refusal};
use crate::codec::{ClientMessage, Codec, DecodeError, Request};
use crate::limits;
use crate::metrics::Metrics;
use crate::protocol::{CloseReason, ErrorFrame, Greeting, RequestId, ServerMessage};
use crate::session::outbox::Outbox;
use crate::socket::half_open::HalfOpenGuard;
use crate::socket::tap::Tap;

/// A socket that has become a session.
pub(super) struct Entered {
    pub(super) tap: Tap,
    pub(super) pings: Pings,
    pub(super) sink: SplitSink<WebSocket, Message>,
    pub(super) stream: SplitStream<WebSocket>,
    pub(super) active: Active,
}

/// From the upgrade to an active session; `None` if the socket came to none.
pub(super) async fn enter(
    parts: Arc<admission::Parts>,
    mut socket: WebSocket,
    codec: Codec,
    client: IpAddr,
    half_open: HalfOpenGuard,
    tap: Tap,
) -> Option<Box<Entered>> {
    let (metrics, life) = (&parts.presence.metrics, &parts.presence.life);
    let outbox = Outbox::new();
    let mut pings = Pings::new();
    let evicted = half_open.evicted();
    // The socket takes more, from those who have said who they are.
    let message_bytes_max = parts.presence.delivery.config.message_bytes_max;
    let bytes_max = message_bytes_max.max(limits::HELLO_BYTES_MAX_FLOOR);
    tap.allow(bytes_max);
    let hello = tokio::select! {
        hello = greet(metrics, &mut socket, codec, (bytes_max, &tap), &mut pings) => hello,
        () = evicted.cancelled() => Err(CloseReason::HELLO_TIMEOUT),
        () = life.draining.cancelled() => Err(CloseReason::SHUTTING_DOWN),
        () = tokio::time::sleep(Duration::from_millis(limits::HELLO_DEADLINE_MS)) => {
            Err(CloseReason::HELLO_TIMEOUT)
        }
    };
    let hello = match hello {
        Ok(hello) => hello?,
        Err(close) => {
            close_socket(metrics, socket, &tap, close).await;
            return None;
        }
    };
    // From here on nothing is cancelled: this registers.
    let received = Instant::now();
    let active = match admit(&parts, codec, &outbox, client, hello).await {
        Ok(active) => active,
        Err(refusal) => {
            refuse(metrics, socket, &tap, codec, refusal).await;
            return None;
        }
    };
    metrics.hello_seconds.observe(received.elapsed().as_secs_f64());
    drop(half_open);
    let (sink, stream) = socket.split();
    Some(Box::new(Entered { tap, pings, sink, stream, active }))
}

async fn admit(
    parts: &Arc<admission::Parts>,
    codec: Codec,
    outbox: &Outbox,
    client: IpAddr,
    greeting: Greeting,
) -> Result<Active, Box<Refusal>> {
    match greeting {
        Greeting::Member(hello) => admission::hello(parts, codec, outbox, client, *hello).await,
        Greeting::Session(hello) => {
            admission::session_hello(parts, codec, outbox, client, *hello).await
        }
    }
}

async fn refuse(
    metrics: &Metrics,
    mut socket: WebSocket,
    tap: &Tap,
    codec: Codec,
    refusal: Box<Refusal>,
) {
    let Refusal { error, close } = *refusal;
    metrics.rejected_hello(&error.code);
    tracing::debug!(code = %error.code, "hello refused");
    let bytes = codec.encode(&ServerMessage::Error(error), None);
    if let Some(frame) = to_message(codec, bytes) {
        let send = timeout(Duration::from_millis(limits::CLOSE_DEADLINE_MS), socket.send(frame));
        if !matches!(send.await, Ok(Ok(()))) {
            return;
        }
    }
    close_socket(metrics, socket, tap, close).await;
}

/// Sends the close and waits a moment for the peer's, so that what was
/// written before is not lost to a reset.
async fn close_socket(metrics: &Metrics, mut socket: WebSocket, tap: &Tap, close: CloseReason) {
    count_closed(metrics, close);
    let _ = timeout(Duration::from_millis(limits::CLOSE_DEADLINE_MS), async {
        if socket.send(close_message(close)).await.is_ok() {
            if close.is_offence() {
                // Nothing can be understood after it: it is thrown away.
                tap.end();
                let _ = socket.flush().await;
            } else {
                while let Some(Ok(_)) = socket.recv().await {}
            }
        }
    })
    .await;
}

/// Reads until a hello comes; `Ok(None)` if the peer went away.
async fn greet(
    metrics: &Metrics,
    socket: &mut WebSocket,
    codec: Codec,
    (bytes_max, tap): (usize, &Tap),
    pings: &mut Pings,
) -> Result<Option<Greeting>, CloseReason> {
    let mut malformed = Malformed::default();
    loop {
        let message = match socket.recv().await {
            Some(Ok(message)) => message,
            Some(Err(error)) => return offence(&error).map_or(Ok(None), Err),
            None => return Ok(None),
        };
        tap.allow(bytes_max);
        let Some((spoken, bytes)) = payload(codec, &message) else {
            pause(pings.pause_after(&message)).await;
            continue;
        };
        if bytes.len() > bytes_max {
            return Err(CloseReason::TOO_LARGE);
        }
        let error = match spoken.decode(bytes) {
            Ok(Request { message: ClientMessage::Hello(greeting), .. }) => {
                return Ok(Some(greeting));
            }
            Ok(Request { req_id, .. }) => (no_hello(), req_id),
            Err(DecodeError::Invalid { kind: kind @ ("hello" | "session_hello"), .. }) => {
                let error = ErrorFrame::new("malformed", format!("{kind} rejected: malformed"));
                answer(socket, codec, error, None).await;
                metrics.rejected_hello("malformed");
                return Err(CloseReason::refused("malformed"));
            }
            Err(DecodeError::Invalid { req_id, .. }) => (no_hello(), req_id),
            Err(DecodeError::Malformed) => {
                if malformed.add() {
                    return Err(CloseReason::MALFORMED);
                }
                metrics.rejected("malformed");
                (ErrorFrame::new("malformed", "a frame is one JSON object"), None)
            }
        };
        answer(socket, codec, error.0, error.1.as_ref()).await;
    }
}

fn no_hello() -> ErrorFrame {
    ErrorFrame::new("no_hello", "must send hello first")
}

async fn answer(
    socket: &mut WebSocket,
    codec: Codec,
    error: ErrorFrame,
    req_id: Option<&RequestId>,
) {
    let bytes = codec.encode(&ServerMessage::Error(error), req_id);
    if let Some(frame) = to_message(codec, bytes) {
        // A socket that cannot be written to says so on the next read.
        let _ = socket.send(frame).await;
    }
}
