//! Frames on their way out.

use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

use futures_util::Sink as _;
use futures_util::stream::SplitSink;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use super::socket::Socket;

/// What waits to be written to one socket.
#[derive(Default)]
pub(super) struct Outgoing {
    pub(super) frames: VecDeque<Message>,
    unflushed: bool,
}

impl Outgoing {
    pub(super) fn has_work(&self) -> bool {
        self.unflushed || !self.frames.is_empty()
    }

    /// Writes all frames and flushes. A frame leaves the queue only when the
    /// socket takes it, so this may be dropped and begun again.
    pub(super) fn poll_pump(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut SplitSink<Socket, Message>,
    ) -> Poll<Result<(), WsError>> {
        let mut sink = std::pin::Pin::new(sink);
        while !self.frames.is_empty() {
            ready!(sink.as_mut().poll_ready(cx))?;
            let Some(frame) = self.frames.pop_front() else { break };
            sink.as_mut().start_send(frame)?;
            self.unflushed = true;
        }
        ready!(sink.as_mut().poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }
}
