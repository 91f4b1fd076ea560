//! One socket's read and write loops.
//!
//! One task owns the socket. Its two loops run side by side: a request that
//! waits (for room in the accept queue, for the store) does not stop what
//! goes out. Handlers run to their end; the task is never cancelled.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{FutureExt as _, SinkExt, StreamExt};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::codec::{Codec, DecodeError};
use crate::handlers::{self, Asker, Context};
use crate::http::half_open::HalfOpenGuard;
use crate::limits;
use crate::metrics::Reason;
use crate::node::Node;
use crate::outbox::{Outbox, Outgoing, Receipt, Taken};
use crate::protocol::{ClientMessage, CloseReason, ErrorFrame, Request, ServerMessage};
use crate::rates::cost;
use crate::session::handshake::{self, Active, Refusal};
use crate::session::teardown::teardown;

/// Bytes handed to the socket between two flushes.
const WRITE_BATCH_BYTES: usize = 64 * 1024;
/// Frames for which a socket keeps room when it has written them.
const KEPT_FRAMES: usize = 8;
/// A peer whose window stays shut this long is gone.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);

/// A socket that has become a session.
struct Entered {
    sink: SplitSink<WebSocket, Message>,
    stream: SplitStream<WebSocket>,
    active: Active,
}

/// Serves a socket from its upgrade to its end.
///
/// Most sockets are idle, and are to cost as little as they can: what a hello
/// needs is freed once it is answered, what a write or an end needs is made
/// then. Not an `async fn`, which keeps room for its arguments to its end.
pub fn serve(
    node: Arc<Node>,
    socket: WebSocket,
    codec: Codec,
    client: IpAddr,
    half_open: HalfOpenGuard,
) -> impl Future<Output = ()> + Send + 'static {
    let entering = Box::pin(enter(Arc::clone(&node), socket, codec, half_open));
    async move {
        if let Some(entered) = entering.await {
            entered.active.session.comes_from(client);
            let active = run(&node, entered).await;
            Box::pin(teardown(&node, active)).await;
        }
    }
}

/// From the upgrade to an active session; `None` if it came to none.
async fn enter(
    node: Arc<Node>,
    mut socket: WebSocket,
    codec: Codec,
    half_open: HalfOpenGuard,
) -> Option<Box<Entered>> {
    let node = &node;
    let outbox = Outbox::new();
    let evicted = half_open.evicted();
    let hello = tokio::select! {
        hello = greet(node, &mut socket, codec, &outbox) => hello,
        () = evicted.cancelled() => Err(CloseReason::HELLO_TIMEOUT),
        () = node.draining.cancelled() => Err(CloseReason::SHUTTING_DOWN),
        () = tokio::time::sleep(Duration::from_millis(limits::HELLO_DEADLINE_MS)) => {
            Err(CloseReason::HELLO_TIMEOUT)
        }
    };
    let hello = match hello {
        Ok(hello) => hello?,
        Err(close) => {
            close_socket(node, socket, close).await;
            return None;
        }
    };
    // From here on nothing is cancelled: this registers.
    let received = Instant::now();
    let active = match admit(node, codec, &outbox, hello).await {
        Ok(active) => active,
        Err(refusal) => {
            refuse(node, socket, codec, refusal).await;
            return None;
        }
    };
    node.metrics.hello_seconds.observe(received.elapsed().as_secs_f64());
    drop(half_open);
    let (sink, stream) = socket.split();
    Some(Box::new(Entered { sink, stream, active }))
}

async fn admit(
    node: &Arc<Node>,
    codec: Codec,
    outbox: &Outbox,
    hello: ClientMessage<'static>,
) -> Result<Active, Box<Refusal>> {
    match hello {
        ClientMessage::Hello(hello) => handshake::hello(node, codec, outbox, *hello).await,
        ClientMessage::SessionHello(hello) => {
            handshake::session_hello(node, codec, outbox, *hello).await
        }
        _ => unreachable!("greet returns hellos only"),
    }
}

async fn refuse(node: &Node, mut socket: WebSocket, codec: Codec, refusal: Box<Refusal>) {
    let Refusal { error, close } = *refusal;
    node.metrics.rejected_hello(&error.code);
    tracing::debug!(code = %error.code, "hello refused");
    let bytes = codec.encode(&ServerMessage::Error(error), None);
    if let Some(frame) = to_message(codec, bytes) {
        let send = timeout(Duration::from_millis(limits::CLOSE_DEADLINE_MS), socket.send(frame));
        if !matches!(send.await, Ok(Ok(()))) {
            return;
        }
    }
    close_socket(node, socket, close).await;
}

/// Sends the close and waits a moment for the peer's, so that what was
/// written before is not lost to a reset.
async fn close_socket(node: &Node, mut socket: WebSocket, close: CloseReason) {
    count_closed(node, close);
    let _ = timeout(Duration::from_millis(limits::CLOSE_DEADLINE_MS), async {
        if socket.send(close_message(close)).await.is_ok() {
            while let Some(Ok(_)) = socket.recv().await {}
            if close.is_offence() {
                // Nothing can be read after it; the peer has the time to read.
                std::future::pending::<()>().await;
            }
        }
    })
    .await;
}

fn count_closed(node: &Node, close: CloseReason) {
    let reason = Reason { reason: close.reason.to_owned() };
    node.metrics.connections_closed.get_or_create(&reason).inc();
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
    /// One more; whether it is one too many.
    fn add(&mut self) -> bool {
        let now = Instant::now();
        while self.0.front().is_some_and(|at| now - *at > Duration::from_secs(60)) {
            self.0.pop_front();
        }
        self.0.push_back(now);
        self.0.len() > limits::MALFORMED_FRAMES_PER_MINUTE_MAX
    }
}

/// Reads until a hello comes. `Ok(None)`: the peer went away.
async fn greet(
    node: &Node,
    socket: &mut WebSocket,
    codec: Codec,
    outbox: &Outbox,
) -> Result<Option<ClientMessage<'static>>, CloseReason> {
    debug_assert!(outbox.is_open());
    let mut malformed = Malformed::default();
    loop {
        let message = match socket.recv().await {
            Some(Ok(message)) => message,
            Some(Err(error)) => return offence(&error).map_or(Ok(None), Err),
            None => return Ok(None),
        };
        let Some((spoken, bytes)) = payload(codec, &message) else { continue };
        let error = match spoken.decode(bytes) {
            Ok(Request { message: ClientMessage::Hello(hello), .. }) => {
                return Ok(Some(ClientMessage::Hello(hello)));
            }
            Ok(Request { message: ClientMessage::SessionHello(hello), .. }) => {
                return Ok(Some(ClientMessage::SessionHello(hello)));
            }
            Ok(Request { req_id, .. }) => (no_hello(), req_id),
            Err(DecodeError::UnknownType { req_id, .. }) => (no_hello(), req_id),
            Err(DecodeError::Invalid { kind: kind @ ("hello" | "session_hello"), .. }) => {
                let error = ErrorFrame::new("malformed", format!("{kind} rejected: malformed"));
                answer(socket, codec, error, None).await;
                node.metrics.rejected_hello("malformed");
                return Err(CloseReason::refused("malformed"));
            }
            Err(DecodeError::Invalid { req_id, .. }) => (no_hello(), req_id),
            Err(DecodeError::Malformed) => {
                if malformed.add() {
                    return Err(CloseReason::MALFORMED);
                }
                node.metrics.rejected("malformed");
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
    req_id: Option<&crate::protocol::RequestId>,
) {
    let bytes = codec.encode(&ServerMessage::Error(error), req_id);
    if let Some(frame) = to_message(codec, bytes) {
        // A socket that cannot be written to says so on the next read.
        let _ = socket.send(frame).await;
    }
}

/// What the peer did wrong, if a read failed for that and the socket still
/// stands.
fn offence(error: &axum::Error) -> Option<CloseReason> {
    use tokio_tungstenite::tungstenite::Error;
    use tokio_tungstenite::tungstenite::error::ProtocolError;
    match std::error::Error::source(error)?.downcast_ref::<Error>()? {
        Error::Capacity(_) => Some(CloseReason::TOO_LARGE),
        Error::Utf8(_) => Some(CloseReason::NOT_UTF8),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) => Some(CloseReason::PROTOCOL_ERROR),
        _ => None,
    }
}

/// Both loops, until the socket is gone.
async fn run(node: &Arc<Node>, entered: Box<Entered>) -> Active {
    let Entered { sink, stream, active } = *entered;
    let ends = Ends::default();
    if node.draining.is_cancelled() {
        // It came in while the others were being closed.
        active.session.outbox.close(CloseReason::SHUTTING_DOWN);
    }
    let loops = async {
        tokio::join!(
            read_loop(node, stream, &active, &ends),
            write_loop(node, sink, &active, &ends),
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
    active: &Active,
    ends: &Ends,
) {
    let mut malformed = Malformed::default();
    loop {
        let message = tokio::select! {
            message = stream.next() => message,
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
                active.session.heard();
                if active.session.outbox.is_open()
                    && let Some(work) = take(node, active, &message, &mut malformed)
                {
                    work.await;
                }
            }
            Some(Err(error)) => {
                if let Some(close) = offence(&error) {
                    active.session.outbox.close(close);
                    ends.writer.notified().await;
                    linger(node, stream);
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

/// One frame; what it returns is to be awaited before the next.
fn take<'a>(
    node: &'a Arc<Node>,
    active: &'a Active,
    message: &'a Message,
    malformed: &mut Malformed,
) -> Option<handlers::Work<'a>> {
    let session = &active.session;
    let (spoken, bytes) = payload(session.codec, message)?;
    // The socket takes as much as a hello needs.
    if bytes.len() > node.config.message.message_bytes_max {
        session.outbox.close(CloseReason::TOO_LARGE);
        return None;
    }
    let received = Instant::now();
    match spoken.decode(bytes) {
        Ok(Request { req_id, message }) => {
            let context =
                Context { node, room: &active.room, session, req_id, asker: Asker::Itself };
            handlers::handle(context, message, received)
        }
        Err(error) => {
            if error == DecodeError::Malformed && malformed.add() {
                session.outbox.close(CloseReason::MALFORMED);
                return None;
            }
            let req_id = match &error {
                DecodeError::UnknownType { req_id, .. } | DecodeError::Invalid { req_id, .. } => {
                    req_id.clone()
                }
                DecodeError::Malformed => None,
            };
            let context =
                Context { node, room: &active.room, session, req_id, asker: Asker::Itself };
            handlers::handle_undecoded(&context, error);
            handlers::charge(session, cost::OF_NOISE)
        }
    }
}

/// A peer that offended is not read from any more. Closing on top of what it
/// still sends would reset the connection, and our close would be lost: so the
/// socket stays for as long as a peer has to answer a close.
fn linger<T: Send + 'static>(node: &Node, socket: T) {
    node.tasks.spawn(async move {
        tokio::time::sleep(Duration::from_millis(limits::CLOSE_DEADLINE_MS)).await;
        drop(socket);
    });
}

// --- out -----------------------------------------------------------------------

/// Why the write loop ends.
enum End {
    /// Say this, then close.
    Close(CloseReason),
    /// The socket is gone.
    Gone,
}

async fn write_loop(
    node: &Arc<Node>,
    mut sink: SplitSink<WebSocket, Message>,
    active: &Active,
    ends: &Ends,
) {
    let end = write_until_end(node, &mut sink, active, ends).await;
    if let End::Close(close) = end {
        count_closed(node, close);
        let deadline = Duration::from_millis(limits::CLOSE_DEADLINE_MS);
        let _ = timeout(deadline, sink.send(close_message(close))).await;
    }
    active.session.outbox.retire();
    ends.writer.notify_one();
}

async fn write_until_end(
    node: &Arc<Node>,
    sink: &mut SplitSink<WebSocket, Message>,
    active: &Active,
    ends: &Ends,
) -> End {
    let session = &active.session;
    let liveness = &node.config.liveness;
    let mut ping = tokio::time::interval(Duration::from_millis(liveness.ping_interval_ms));
    ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ping.reset();
    let mut out = VecDeque::new();
    loop {
        let taken = tokio::select! {
            taken = session.outbox.take(&mut out, WRITE_BATCH_BYTES) => taken,
            () = ends.reader.notified() => return End::Gone,
            _ = ping.tick() => {
                if session.silent_ms() > i64::try_from(liveness.pong_deadline_ms()).unwrap_or(i64::MAX) {
                    return End::Gone;
                }
                let write = sink.send(Message::Ping(Bytes::new()));
                if Box::pin(guarded(session, write)).await.is_err() {
                    return End::Gone;
                }
                continue;
            }
        };
        if !out.is_empty() {
            let written = Box::pin(guarded(session, write(sink, session.codec, &out))).await;
            match written {
                Ok(()) => {
                    settle(node, active, &mut out);
                    if out.capacity() > KEPT_FRAMES {
                        out = VecDeque::new();
                    }
                }
                Err(Unwritten::Aborted(close)) => return End::Close(close),
                Err(Unwritten::Gone) => return End::Gone,
            }
        }
        if let Taken::Close(close) = taken {
            return End::Close(close);
        }
    }
}

enum Unwritten {
    Aborted(CloseReason),
    Gone,
}

/// A write may not outlast its deadline, nor the order to give up.
async fn guarded(
    session: &crate::session::Session,
    write: impl Future<Output = Result<(), axum::Error>>,
) -> Result<(), Unwritten> {
    tokio::select! {
        // First: it is nearly always ready, and then nothing else is set up.
        biased;
        written = write => written.map_err(|_| Unwritten::Gone),
        close = session.outbox.aborted() => Err(Unwritten::Aborted(close)),
        () = tokio::time::sleep(WRITE_DEADLINE) => Err(Unwritten::Gone),
    }
}

async fn write(
    sink: &mut SplitSink<WebSocket, Message>,
    codec: Codec,
    out: &VecDeque<Outgoing>,
) -> Result<(), axum::Error> {
    for frame in out {
        if let Some(message) = to_message(codec, frame.bytes.clone()) {
            sink.feed(message).await?;
        }
    }
    sink.flush().await
}

/// What was written is over for peers that never confirm.
fn settle(node: &Node, active: &Active, out: &mut VecDeque<Outgoing>) {
    let session = &active.session;
    let frames = out.len();
    let mut bytes = 0;
    let mut done = false;
    let mut deliveries = 0;
    {
        let mut inbox = session.inbox.lock();
        for frame in out.drain(..) {
            bytes += frame.bytes.len();
            deliveries += u64::from(frame.receipt.is_some());
            done |= match frame.receipt {
                Some(Receipt::Direct(id)) => inbox.wrote_direct(&id),
                Some(Receipt::Multicast(seq)) => inbox.wrote_multicast(seq),
                None => false,
            };
        }
    }
    session.outbox.written(frames, bytes);
    node.metrics.messages_delivered.inc_by(deliveries);
    active.room.note_delivered(deliveries);
    if done {
        node.ledger.report(session);
    }
}
