//! A peer's socket, as light as it can be: the client's dial, hello and frames,
//! driven by whoever holds it instead of by a task with queues.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::{Sink as _, Stream as _};
use tokio_tungstenite::tungstenite::Message;

use crate::client::socket::{self, NO_CLOSE_FRAME, Opened, Socket};
use crate::client::{ClientError, ClientOptions};
use crate::protocol::HelloAck;

/// Frames read before others get their turn.
const BATCH: usize = 64;

/// An active session's socket.
pub(super) struct Wire {
    socket: Socket,
    out: VecDeque<Message>,
    early: Vec<Message>,
    unflushed: bool,
    unwritable: bool,
}

/// How a socket ended.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) code: u16,
    pub(super) reason: String,
}

impl Wire {
    /// Connects and says hello.
    pub(super) async fn open(
        url: &str,
        options: &ClientOptions,
    ) -> Result<(Self, HelloAck), ClientError> {
        let session_key =
            options.identity.session_key.as_ref().unwrap_or(&options.identity.member_key);
        let opened = socket::open(url, options, session_key).await?;
        Ok(Self::of(opened))
    }

    /// Takes over a socket whose hello was answered.
    pub(super) fn of(opened: Opened) -> (Self, HelloAck) {
        let Opened { socket, ack, early } = opened;
        (Self { socket, out: VecDeque::new(), early, unflushed: false, unwritable: false }, ack)
    }

    /// Puts a frame in line; [`Self::turn`] writes it.
    pub(super) fn queue(&mut self, frame: Message) {
        self.out.push_back(frame);
    }

    /// Writes what is in line and adds what has come to `heard`; returns when
    /// something has. Cancel-safe.
    pub(super) async fn turn(&mut self, heard: &mut Vec<Message>) -> Result<(), Ended> {
        std::future::poll_fn(|cx| self.poll_turn(cx, heard)).await
    }

    fn poll_turn(
        &mut self,
        cx: &mut Context<'_>,
        heard: &mut Vec<Message>,
    ) -> Poll<Result<(), Ended>> {
        heard.append(&mut self.early);
        if !self.unwritable {
            // Reading goes on to what the broker said last.
            self.unwritable = matches!(self.poll_write(cx), Poll::Ready(Err(())));
        }
        while heard.len() < BATCH {
            match Pin::new(&mut self.socket).poll_next(cx) {
                Poll::Ready(Some(Ok(Message::Close(close)))) => {
                    let (code, reason) = socket::close_reason(close);
                    return Poll::Ready(Err(Ended { code, reason }));
                }
                Poll::Ready(Some(Ok(frame))) => heard.push(frame),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(lost(error.to_string()))),
                Poll::Ready(None) => return Poll::Ready(Err(lost("the connection broke off"))),
                Poll::Pending => break,
            }
        }
        if heard.is_empty() { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ()>> {
        let mut socket = Pin::new(&mut self.socket);
        while !self.out.is_empty() {
            std::task::ready!(socket.as_mut().poll_ready(cx)).map_err(drop)?;
            let Some(frame) = self.out.pop_front() else { break };
            socket.as_mut().start_send(frame).map_err(drop)?;
            self.unflushed = true;
        }
        if self.unflushed {
            std::task::ready!(socket.poll_flush(cx)).map_err(drop)?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

fn lost(reason: impl Into<String>) -> Ended {
    Ended { code: NO_CLOSE_FRAME, reason: reason.into() }
}
