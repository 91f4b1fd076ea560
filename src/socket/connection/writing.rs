//! A socket's way out: its write loop, which alone knows whether the peer reads.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures_util::stream::SplitSink;
use futures_util::{Sink, SinkExt};
use tokio::time::timeout;

use super::{Ends, close_message, count_closed, to_message};
use crate::admission::Active;
use crate::codec::Codec;
use crate::delivery::drain;
use crate::limits;
use crate::node::Node;
use crate::protocol::CloseReason;
use crate::session::outbox::{Outgoing, Taken};
use crate::socket::tap::{Progress, Tap};

/// Bytes handed to the socket between two flushes.
const WRITE_BATCH_BYTES: usize = 64 * 1024;

/// Why the write loop ends.
enum End {
    /// Say this, then close.
    Close(CloseReason),
    /// The socket is gone.
    Gone,
}

pub(super) async fn write_loop(
    node: &Arc<Node>,
    mut sink: SplitSink<WebSocket, Message>,
    tap: Tap,
    active: &Active,
    ends: &Ends,
) {
    let end = write_until_end(node, &mut sink, &tap, active, ends).await;
    if let End::Close(close) = end {
        count_closed(&node.metrics, close);
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
            // An idle socket holds nothing of what it wrote last.
            out = VecDeque::new();
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
        let source =
            std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Error>());
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
        node.confirmations.report(session);
    }
    if written.wants_drain {
        drain::request(&node.delivery, &active.room, session);
    }
}

/// What a peer that offended still sends cannot be understood. The socket is ended
/// on our side, so that the peer hears of its close at once, and what comes is
/// thrown away for as long as a peer has to answer a close.
fn linger(node: &Node, tap: &Tap, mut sink: SplitSink<WebSocket, Message>) {
    tap.end();
    node.life.tasks.spawn(async move {
        let _ = timeout(Duration::from_millis(limits::CLOSE_DEADLINE_MS), sink.flush()).await;
    });
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context as Poller, Poll};

    use tokio_tungstenite::tungstenite::{self, Error};

    use super::*;
    use crate::session::outbox::Content;

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
}
