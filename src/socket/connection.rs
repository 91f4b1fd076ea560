//! One socket, from its upgrade to its end: before its hello ([`entering`]), then its
//! read and write loops.
//!
//! One task owns the socket and is never cancelled. Its two loops run side by side: a
//! request that waits (for room in the accept queue, for the store) does not stop what
//! goes out. Handlers run to their end. HTTP hands sockets over by [`Sockets`].

mod entering;
mod pings;
mod writing;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use bytes::Bytes;
use futures_util::stream::SplitStream;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::admission::Active;
use crate::admission::teardown::teardown;
use crate::codec::{ClientMessage, Codec, DecodeError, Request};
use crate::features::{self, Context};
use crate::limits;
use crate::metrics::{Metrics, Reason};
use crate::node::Node;
use crate::protocol::CloseReason;
use crate::session::Session;
use crate::socket::half_open::HalfOpenGuard;
use crate::socket::tap::Tap;

use self::entering::{Entered, enter};
use self::pings::{Pings, pause};
use self::writing::write_loop;

/// Serves sockets that have been upgraded, for a room that need not know how.
#[derive(Clone)]
pub(crate) struct Sockets(Arc<Node>);

impl Sockets {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self(node)
    }

    /// Serves a socket from its upgrade to its end.
    ///
    /// Most sockets are idle, and are to cost as little as they can: what a hello
    /// needs is freed once it is answered, what a write or an end needs is made
    /// then. Not an `async fn`, which keeps room for its arguments to its end.
    pub(crate) fn serve(
        self,
        socket: WebSocket,
        codec: Codec,
        client: IpAddr,
        half_open: HalfOpenGuard,
        tap: Tap,
    ) -> impl Future<Output = ()> + Send + 'static {
        let Self(node) = self;
        let admission = Arc::clone(&node.admission);
        let entering = Box::pin(enter(admission, socket, codec, client, half_open, tap));
        async move {
            if let Some(entered) = entering.await {
                entered.active.session.comes_from(client);
                let active = run(&node, entered).await;
                Box::pin(teardown(&node.admission, active)).await;
            }
        }
    }
}

fn count_closed(metrics: &Metrics, close: CloseReason) {
    let reason = Reason { reason: close.reason.to_owned() };
    metrics.connections_closed.get_or_create(&reason).inc();
}

fn close_message(close: CloseReason) -> Message {
    let reason = Utf8Bytes::from_static(close.reason);
    Message::Close(Some(CloseFrame { code: close.code, reason }))
}

fn to_message(codec: Codec, bytes: Bytes) -> Option<Message> {
    Some(match codec {
        Codec::Json => Message::Text(Utf8Bytes::try_from(bytes).ok()?),
        Codec::MsgPack => Message::Binary(bytes),
    })
}

/// How a frame is coded: text is JSON whatever was agreed; binary is what was
/// agreed, and may be JSON too.
fn payload(codec: Codec, message: &Message) -> Option<(Codec, &[u8])> {
    match message {
        Message::Text(text) => Some((Codec::Json, text.as_bytes())),
        Message::Binary(bytes) => Some((codec, bytes)),
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) => None,
    }
}

/// Frames that are no protocol, of the last minute.
#[derive(Default)]
struct Malformed(VecDeque<Instant>);

impl Malformed {
    /// Counts one more; whether it is one too many.
    fn add(&mut self) -> bool {
        let now = Instant::now();
        while self.0.front().is_some_and(|at| now - *at > Duration::from_secs(60)) {
            self.0.pop_front();
        }
        self.0.push_back(now);
        self.0.len() > limits::MALFORMED_FRAMES_PER_MINUTE_MAX
    }
}

/// What the peer did wrong, if a read failed for that and the socket still
/// stands.
fn offence(error: &axum::Error) -> Option<CloseReason> {
    use tokio_tungstenite::tungstenite::Error;
    use tokio_tungstenite::tungstenite::error::ProtocolError;
    match std::error::Error::source(error)?.downcast_ref::<Error>()? {
        Error::Capacity(_) => Some(CloseReason::TOO_LARGE),
        Error::Io(error) if Tap::is_too_much(error) => Some(CloseReason::TOO_LARGE),
        Error::Utf8(_) => Some(CloseReason::NOT_UTF8),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) => Some(CloseReason::PROTOCOL_ERROR),
        _ => None,
    }
}

/// Both loops, until the socket is gone.
async fn run(node: &Arc<Node>, entered: Box<Entered>) -> Active {
    let Entered { tap, pings, sink, stream, active } = *entered;
    let ends = Ends::default();
    if node.life.draining.is_cancelled() {
        // It came in while the others were being closed.
        active.session.outbox.close(CloseReason::SHUTTING_DOWN);
    }
    let loops = async {
        tokio::join!(
            read_loop(node, stream, (pings, tap.clone()), &active, &ends),
            write_loop(node, sink, tap, &active, &ends),
        );
    };
    // A defect in a handler must not cost the session its teardown: a lease
    // that is renewed for nobody would take a place for ever.
    if AssertUnwindSafe(loops).catch_unwind().await.is_err() {
        tracing::error!(presence = %active.session.presence, "a handler panicked; socket dropped");
    }
    tracing::debug!(presence = %active.session.presence, "socket closed");
    active
}

/// How each loop tells the other that it is over.
#[derive(Default)]
struct Ends {
    reader: Notify,
    writer: Notify,
}

// --- in ------------------------------------------------------------------------

async fn read_loop(
    node: &Arc<Node>,
    mut stream: SplitStream<WebSocket>,
    (mut pings, tap): (Pings, Tap),
    active: &Active,
    ends: &Ends,
) {
    let session = &active.session;
    let bytes_max = message_bytes_max(node, session);
    tap.allow(bytes_max);
    let mut malformed = Malformed::default();
    let mut paused = None;
    loop {
        let message = tokio::select! {
            message = async { pause(paused).await; stream.next().await } => message,
            () = ends.writer.notified() => {
                // Our close is on its way: the peer's ends the stream.
                let deadline = Duration::from_millis(limits::CLOSE_DEADLINE_MS);
                let _ = timeout(deadline, async { while let Some(Ok(_)) = stream.next().await {} })
                    .await;
                return;
            }
        };
        match message {
            Some(Ok(message)) => {
                session.heard();
                tap.allow(bytes_max);
                paused = pings.pause_after(&message);
                if session.outbox.is_open()
                    && let Some(work) = take(node, active, &message, &mut malformed)
                {
                    session.listens(false);
                    work.await;
                    session.listens(true);
                }
            }
            Some(Err(error)) => {
                if let Some(close) = offence(&error) {
                    session.outbox.close(close);
                } else {
                    ends.reader.notify_one();
                }
                return;
            }
            None => {
                ends.reader.notify_one();
                return;
            }
        }
    }
}

/// Handles a request when there is room for its answer: a peer that asks and does
/// not read waits for itself.
async fn handle_later<'a>(
    context: Context<'a>,
    message: Result<ClientMessage<'a>, DecodeError>,
    received: Instant,
) {
    if context.session.outbox.room().await
        && let Some(work) = features::handle(context, message, received)
    {
        work.await;
    }
}

/// The largest message that a session may say.
fn message_bytes_max(node: &Node, session: &Session) -> usize {
    let sealed_max = if session.opens_sealed { limits::SEALED_FRAME_BYTES_MAX } else { 0 };
    node.config.message.message_bytes_max.max(sealed_max)
}

/// One frame; what it returns is to be awaited before the next.
fn take<'a>(
    node: &'a Arc<Node>,
    active: &'a Active,
    message: &'a Message,
    malformed: &mut Malformed,
) -> Option<features::Work<'a>> {
    let session = &active.session;
    let (spoken, bytes) = payload(session.codec, message)?;
    // The socket takes as much as a hello needs, or a message that is sealed for many.
    if bytes.len() > message_bytes_max(node, session) {
        session.outbox.close(CloseReason::TOO_LARGE);
        return None;
    }
    let received = Instant::now();
    let (req_id, message) = match spoken.decode(bytes) {
        Ok(Request { req_id, message }) => (req_id, Ok(message)),
        Err(error) => (error.req_id().cloned(), Err(error)),
    };
    if matches!(message, Err(DecodeError::Malformed)) && malformed.add() {
        session.outbox.close(CloseReason::MALFORMED);
        return None;
    }
    // Most confirmations have no answer, and make room.
    let is_answered = req_id.is_some() || !matches!(message, Ok(ClientMessage::ClientAck(_)));
    let context = Context::new(&node.features, &active.room, session, req_id);
    if is_answered && !session.outbox.has_room() {
        return Some(Box::pin(handle_later(context, message, received)));
    }
    features::handle(context, message, received)
}
