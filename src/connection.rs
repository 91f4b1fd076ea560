//! One socket's read and write loops.
//!
//! One task owns the socket. Its two loops run side by side: a request that
//! waits (for room in the accept queue, for the store) does not stop what
//! goes out. Handlers run to their end; the task is never cancelled.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{FutureExt as _, Sink, SinkExt, StreamExt};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::codec::{Codec, DecodeError};
use crate::handlers::{self, Context};
use crate::http::half_open::HalfOpenGuard;
use crate::http::tap::{Progress, Tap};
use crate::limits;
use crate::metrics::Reason;
use crate::node::Node;
use crate::outbox::{Outbox, Outgoing, Taken};
use crate::protocol::{ClientMessage, CloseReason, ErrorFrame, Request, ServerMessage};
use crate::redelivery;
use crate::session::handshake::{self, Active, Refusal};
use crate::session::teardown::teardown;

/// Bytes handed to the socket between two flushes.
const WRITE_BATCH_BYTES: usize = 64 * 1024;
/// Frames for which a socket keeps room when it has written them.
const KEPT_FRAMES: usize = 8;

/// A socket that has become a session.
struct Entered {
    tap: Tap,
    pings: Pings,
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
    half_open: HalfOpenGuard,
    tap: Tap,
) -> impl Future<Output = ()> + Send + 'static {
    let entering = Box::pin(enter(Arc::clone(&node), socket, codec, half_open, tap));
    async move {
        if let Some(entered) = entering.await {
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
    tap: Tap,
) -> Option<Box<Entered>> {
    let node = &node;
    let outbox = Outbox::new();
    let mut pings = Pings::new();
    let evicted = half_open.evicted();
    let hello = tokio::select! {
        hello = greet(node, &mut socket, codec, &outbox, &mut pings) => hello,
        () = evicted.cancelled() => Err(CloseReason::HELLO_TIMEOUT),
        () = node.draining.cancelled() => Err(CloseReason::SHUTTING_DOWN),
        () = tokio::time::sleep(Duration::from_millis(limits::HELLO_DEADLINE_MS)) => {
            Err(CloseReason::HELLO_TIMEOUT)
        }
    };
    let hello = match hello {
        Ok(hello) => hello?,
        Err(close) => {
            close_socket(node, socket, &tap, close).await;
            return None;
        }
    };
    // From here on nothing is cancelled: this registers.
    let received = Instant::now();
    let active = match admit(node, codec, &outbox, hello).await {
        Ok(active) => active,
        Err(refusal) => {
            refuse(node, socket, &tap, codec, refusal).await;
            return None;
        }
    };
    node.metrics.hello_seconds.observe(received.elapsed().as_secs_f64());
    drop(half_open);
    let (sink, stream) = socket.split();
    Some(Box::new(Entered { tap, pings, sink, stream, active }))
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

async fn refuse(
    node: &Node,
    mut socket: WebSocket,
    tap: &Tap,
    codec: Codec,
    refusal: Box<Refusal>,
) {
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
    close_socket(node, socket, tap, close).await;
}

/// Sends the close and waits a moment for the peer's, so that what was
/// written before is not lost to a reset.
async fn close_socket(node: &Node, mut socket: WebSocket, tap: &Tap, close: CloseReason) {
    count_closed(node, close);
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

/// The pings and pongs of one socket. Each ping is answered by the library as it
/// is read, and none of them is a request with a cost: so a socket on which more
/// come than the bound is read at that bound's pace.
struct Pings {
    left: u32,
    since: Instant,
}

impl Pings {
    fn new() -> Self {
        Self { left: limits::PINGS_PER_SECOND_MAX, since: Instant::now() }
    }

    /// One more, now; until when nothing more is to be read.
    fn add(&mut self, now: Instant) -> Option<Instant> {
        const SECOND: Duration = Duration::from_secs(1);
        if now.saturating_duration_since(self.since) >= SECOND {
            *self = Self { left: limits::PINGS_PER_SECOND_MAX, since: now };
        }
        self.left = self.left.saturating_sub(1);
        (self.left == 0).then_some(self.since + SECOND)
    }

    fn pause_after(&mut self, message: &Message) -> Option<Instant> {
        match message {
            Message::Ping(_) | Message::Pong(_) => self.add(Instant::now()),
            _ => None,
        }
    }
}

/// Waits for that moment, if there is one.
async fn pause(until: Option<Instant>) {
    if let Some(until) = until {
        // In a box of its own: nearly no socket ever needs one.
        Box::pin(tokio::time::sleep_until(until.into())).await;
    }
}

/// Reads until a hello comes. `Ok(None)`: the peer went away.
async fn greet(
    node: &Node,
    socket: &mut WebSocket,
    codec: Codec,
    outbox: &Outbox,
    pings: &mut Pings,
) -> Result<Option<ClientMessage<'static>>, CloseReason> {
    debug_assert!(outbox.is_open());
    let mut malformed = Malformed::default();
    loop {
        let message = match socket.recv().await {
            Some(Ok(message)) => message,
            Some(Err(error)) => return offence(&error).map_or(Ok(None), Err),
            None => return Ok(None),
        };
        let Some((spoken, bytes)) = payload(codec, &message) else {
            pause(pings.pause_after(&message)).await;
            continue;
        };
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
    let Entered { tap, pings, sink, stream, active } = *entered;
    let ends = Ends::default();
    if node.draining.is_cancelled() {
        // It came in while the others were being closed.
        active.session.outbox.close(CloseReason::SHUTTING_DOWN);
    }
    let loops = async {
        tokio::join!(
            read_loop(node, stream, pings, &active, &ends),
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
    mut pings: Pings,
    active: &Active,
    ends: &Ends,
) {
    let session = &active.session;
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
async fn handle_later<'a>(context: Context<'a>, message: ClientMessage<'a>, received: Instant) {
    if context.session.outbox.room().await
        && let Some(work) = handlers::handle(context, message, received)
    {
        work.await;
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
    let received = Instant::now();
    match spoken.decode(bytes) {
        Ok(Request { req_id, message }) => {
            let context = Context { node, room: &active.room, session, req_id };
            // Most confirmations have no answer, and make room.
            let is_answered =
                context.req_id.is_some() || !matches!(message, ClientMessage::ClientAck(_));
            if is_answered && !session.outbox.has_room() {
                return Some(Box::pin(handle_later(context, message, received)));
            }
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
            let context = Context { node, room: &active.room, session, req_id };
            if session.outbox.has_room() {
                handlers::handle_undecoded(&context, error);
                return None;
            }
            Some(Box::pin(async move {
                if context.session.outbox.room().await {
                    handlers::handle_undecoded(&context, error);
                }
            }))
        }
    }
}

/// What a peer that offended still sends cannot be understood. The socket is ended
/// on our side, so that the peer hears of its close at once, and what comes is
/// thrown away for as long as a peer has to answer a close.
fn linger(node: &Node, tap: &Tap, mut sink: SplitSink<WebSocket, Message>) {
    tap.end();
    node.tasks.spawn(async move {
        let _ = timeout(Duration::from_millis(limits::CLOSE_DEADLINE_MS), sink.flush()).await;
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
    tap: Tap,
    active: &Active,
    ends: &Ends,
) {
    let end = write_until_end(node, &mut sink, &tap, active, ends).await;
    if let End::Close(close) = end {
        count_closed(node, close);
        let deadline = Duration::from_millis(limits::CLOSE_DEADLINE_MS);
        let sent = timeout(deadline, sink.send(close_message(close))).await;
        if close.is_offence() && matches!(sent, Ok(Ok(()))) {
            linger(node, &tap, sink);
        }
    }
    active.session.outbox.retire();
    ends.writer.notify_one();
}

async fn write_until_end(
    node: &Arc<Node>,
    sink: &mut SplitSink<WebSocket, Message>,
    tap: &Tap,
    active: &Active,
    ends: &Ends,
) -> End {
    let session = &active.session;
    let liveness = &node.config.liveness;
    let mut ping = tokio::time::interval(Duration::from_millis(liveness.ping_interval_ms));
    ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ping.reset();
    let mut out = VecDeque::new();
    let mut progress = tap.taken();
    loop {
        let taken = tokio::select! {
            taken = session.outbox.take(&mut out, WRITE_BATCH_BYTES) => taken,
            () = ends.reader.notified() => return End::Gone,
            _ = ping.tick() => {
                if std::mem::replace(&mut progress, tap.taken()) != progress {
                    session.took();
                }
                if session.silent_ms() > i64::try_from(liveness.pong_deadline_ms()).unwrap_or(i64::MAX) {
                    return End::Gone;
                }
                let write = async { sink.send(Message::Ping(Bytes::new())).await.map_err(Unwritten::of) };
                match Box::pin(guarded(node, active, tap, write)).await {
                    Ok(()) => continue,
                    Err(unwritten) => return unwritten.end(),
                }
            }
        };
        if !out.is_empty() {
            let write = write(sink, session.codec, &out);
            if let Err(unwritten) = Box::pin(guarded(node, active, tap, write)).await {
                return unwritten.end();
            }
            settle(node, active, &out);
            out.clear();
            if out.capacity() > KEPT_FRAMES {
                out = VecDeque::new();
            }
        }
        if let Taken::Close(close) = taken {
            return End::Close(close);
        }
    }
}

/// Why a write did not come to its end.
#[derive(Debug, PartialEq, Eq)]
enum Unwritten {
    /// The socket stands; it is to be closed with this.
    Aborted(CloseReason),
    /// A frame of so many bytes is larger than a socket's buffer.
    TooLarge(usize),
    Gone,
}

impl Unwritten {
    fn of(error: axum::Error) -> Self {
        use tokio_tungstenite::tungstenite::Error;
        let source = std::error::Error::source(&error).and_then(|it| it.downcast_ref::<Error>());
        match source {
            Some(Error::WriteBufferFull(message)) => Self::TooLarge(message.len()),
            _ => Self::Gone,
        }
    }

    fn end(self) -> End {
        match self {
            Self::Aborted(close) => End::Close(close),
            Self::TooLarge(bytes) => {
                tracing::warn!(bytes, "a frame was larger than a socket's buffer: closed");
                End::Close(CloseReason::ANSWER_TOO_LARGE)
            }
            Self::Gone => End::Gone,
        }
    }
}

/// A write goes on for as long as the peer takes any of it, and nobody orders to
/// give up.
async fn guarded(
    node: &Node,
    active: &Active,
    tap: &Tap,
    write: impl Future<Output = Result<(), Unwritten>>,
) -> Result<(), Unwritten> {
    tokio::select! {
        // First: it is nearly always ready, and then nothing else is set up.
        biased;
        written = write => written,
        close = active.session.outbox.aborted() => Err(Unwritten::Aborted(close)),
        () = stands_still(node, tap) => Err(Unwritten::Aborted(CloseReason::SLOW_READER)),
    }
}

/// Waits until the peer has taken nothing for the write deadline.
async fn stands_still(node: &Node, tap: &Tap) {
    let deadline = Duration::from_millis(node.config.liveness.write_deadline_ms());
    let mut progress = Progress::after(tap.taken());
    loop {
        tokio::time::sleep(deadline / Progress::LOOKS).await;
        if progress.is_over(tap.taken()) {
            return;
        }
    }
}

async fn write(
    sink: &mut (impl Sink<Message, Error = axum::Error> + Unpin),
    codec: Codec,
    out: &VecDeque<Outgoing>,
) -> Result<(), Unwritten> {
    for frame in out {
        if let Some(message) = to_message(codec, frame.bytes.clone()) {
            sink.feed(message).await.map_err(Unwritten::of)?;
        }
    }
    sink.flush().await.map_err(Unwritten::of)
}

/// What was written is over for peers that never confirm, and makes room for what
/// a stalled session has missed.
fn settle(node: &Arc<Node>, active: &Active, out: &VecDeque<Outgoing>) {
    let session = &active.session;
    let written = session.written(out);
    node.metrics.messages_delivered.inc_by(written.deliveries);
    active.room.note_delivered(written.deliveries);
    if written.is_done {
        node.ledger.report(session);
    }
    if written.wants_drain {
        redelivery::request(node, &active.room, session);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context as Poller, Poll};

    use tokio_tungstenite::tungstenite::{self, Error};

    use super::*;
    use crate::outbox::Content;

    /// A socket whose buffer holds no frame of more than so many bytes.
    struct Narrow(usize);

    impl Sink<Message> for Narrow {
        type Error = axum::Error;

        fn poll_ready(self: Pin<&mut Self>, _: &mut Poller<'_>) -> Poll<Result<(), axum::Error>> {
            Poll::Ready(Ok(()))
        }

        fn start_send(self: Pin<&mut Self>, message: Message) -> Result<(), axum::Error> {
            let Message::Text(text) = message else { panic!("JSON goes as text") };
            if text.len() > self.0 {
                let whole = tungstenite::Message::text(text.as_str());
                return Err(axum::Error::new(Error::WriteBufferFull(Box::new(whole))));
            }
            Ok(())
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Poller<'_>) -> Poll<Result<(), axum::Error>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Poller<'_>) -> Poll<Result<(), axum::Error>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_frame_that_no_buffer_holds_closes_with_a_reason() {
        let frame = |bytes: usize| Outgoing {
            bytes: Bytes::from(vec![b'x'; bytes]),
            content: Content::Answer,
        };
        let mut socket = Narrow(100);
        let fits = VecDeque::from([frame(100), frame(1)]);
        assert_eq!(write(&mut socket, Codec::Json, &fits).await, Ok(()));
        let written = write(&mut socket, Codec::Json, &VecDeque::from([frame(101)])).await;
        assert_eq!(written, Err(Unwritten::TooLarge(101)));
        let end = written.expect_err("too large").end();
        assert!(matches!(end, End::Close(CloseReason::ANSWER_TOO_LARGE)));
    }

    #[test]
    fn more_pings_than_the_bound_are_read_at_its_pace() {
        let start = Instant::now();
        let mut pings = Pings::new();
        let mut now = start;
        let mut read = 0;
        while now < start + Duration::from_secs(60) {
            read += 1;
            now = pings.add(now).unwrap_or(now);
        }
        assert!(read <= 61 * limits::PINGS_PER_SECOND_MAX, "{read} in a minute");
        let mut pings = Pings::new();
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            assert_eq!(pings.add(now), None, "one a second is no flood");
        }
    }
}
