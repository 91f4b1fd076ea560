//! The task that owns a client's socket.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::backoff::Backoff;
use super::error::{ClientError, is_terminal};
use super::heard::Heard;
use super::inbound::{Inbound, Remembered};
use super::outgoing::Outgoing;
use super::pending::{AnswerSlot, Pending, PendingSend};
use super::socket::{self, NO_CLOSE_FRAME, Opened, Socket};
use crate::codec::Frame;
use crate::id::MessageId;
use crate::protocol::{ClientAck, Push};

/// Frames taken at once before the socket is flushed, or before other work
/// gets its turn.
const BATCH: usize = 64;
/// Between the client's close frame and the broker's.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// What the handles ask of the task.
#[derive(Debug)]
pub(super) enum Command {
    Send { number: u64, send: PendingSend },
    Request { number: u64, frame: Message, done: AnswerSlot },
    Frame(Message),
}

/// How a connection ended.
struct End {
    code: u16,
    reason: String,
}

impl End {
    fn lost(reason: impl Into<String>) -> Self {
        Self { code: NO_CLOSE_FRAME, reason: reason.into() }
    }

    fn is_terminal(&self) -> bool {
        is_terminal(self.code, &self.reason)
    }
}

pub(super) struct Task {
    pub(super) shared: Arc<Shared>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) inbox: mpsc::Sender<Inbound>,
    pub(super) closing: CancellationToken,
    pub(super) pending: Pending,
    pub(super) remembered: Remembered,
    /// What was sealed for many, by the signed part of each.
    pub(super) sealed: Remembered,
    /// What waits for a place in the inbox; nothing is read meanwhile.
    pub(super) parked: VecDeque<Inbound>,
    /// The program has dropped its inbox: messages are left to the broker.
    pub(super) deaf: bool,
}

impl Task {
    pub(super) async fn run(mut self, opened: Opened) {
        let mut opened = opened;
        let end = loop {
            let end = self.serve(opened).await;
            let comes_back =
                self.shared.options.reconnect && !end.is_terminal() && !self.closing.is_cancelled();
            if !comes_back {
                break end;
            }
            self.pending.lost(true, &ClientError::Lost);
            tracing::debug!(code = end.code, reason = end.reason, "connection lost");
            self.parked.push_back(Inbound::Disconnected { code: end.code, reason: end.reason });
            match self.come_back().await {
                Ok(again) => opened = again,
                Err(end) => break end,
            }
        };
        self.finish(end).await;
    }

    /// Serves one connection to its end.
    async fn serve(&mut self, opened: Opened) -> End {
        let (mut sink, mut stream) = opened.socket.split();
        let mut out = Outgoing::default();
        for frame in &opened.early {
            self.take(frame, &mut out);
        }
        out.frames.extend(self.pending.sends.values().map(|send| send.frame.clone()));
        let every = self.shared.options.limits.ping_interval;
        let mut ticks = interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let (closing, inbox) = (self.closing.clone(), self.inbox.clone());
        loop {
            let room = out.frames.len() < BATCH;
            tokio::select! {
                pumped = poll_fn(|cx| out.poll_pump(cx, &mut sink)), if out.has_work() => {
                    if let Err(error) = pumped {
                        // What the broker said last may still be unread.
                        return last_words(&mut stream, error.to_string()).await;
                    }
                }
                open = has_place(&inbox), if !self.parked.is_empty() => {
                    heard = Instant::now();
                    if open {
                        self.hand_over(&mut out);
                    } else {
                        self.deaf = true;
                        self.parked.clear();
                    }
                }
                frame = stream.next(), if self.parked.is_empty() => {
                    heard = Instant::now();
                    if let Some(end) = self.take_all(frame, &mut stream, &mut out) {
                        return end;
                    }
                    self.hand_over(&mut out);
                }
                command = self.commands.recv(), if room => match command {
                    Some(command) => self.begin_all(command, &mut out),
                    None => self.closing.cancel(),
                },
                _ = ticks.tick() => {
                    self.pending.prune();
                    // While the program does not read, neither does this task.
                    if self.parked.is_empty() && heard.elapsed() > every * 5 / 2 {
                        return End::lost("no sign of life");
                    }
                    out.frames.push_back(Message::Ping(bytes::Bytes::new()));
                }
                () = closing.cancelled() => {
                    self.part(out, &mut sink, &mut stream).await;
                    return End { code: 1000, reason: "closed here".to_owned() };
                }
            }
        }
    }

    /// Takes a frame and those that have come behind it already.
    fn take_all(
        &mut self,
        first: Option<Result<Message, WsError>>,
        stream: &mut SplitStream<Socket>,
        out: &mut Outgoing,
    ) -> Option<End> {
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(frame) = next {
            match frame {
                Some(Ok(Message::Close(close))) => {
                    // The next read sends the reply.
                    let _ = stream.next().now_or_never();
                    let (code, reason) = socket::close_reason(close);
                    return Some(End { code, reason });
                }
                Some(Ok(frame)) => self.take(&frame, out),
                Some(Err(error)) => return Some(End::lost(error.to_string())),
                None => return Some(End::lost("the connection broke off")),
            }
            taken += 1;
            next = if taken < BATCH { stream.next().now_or_never() } else { None };
        }
        None
    }

    fn take(&mut self, frame: &Message, out: &mut Outgoing) {
        let heard = Heard::of(self.shared.options.codec, frame);
        let taken = heard.map(|heard| heard.and_then(|heard| self.dispatch(heard, out)));
        if let Some(Err(reason)) = taken {
            tracing::debug!(reason, "a frame that cannot be read");
        }
    }

    fn dispatch(&mut self, heard: Heard, out: &mut Outgoing) -> Result<(), String> {
        let Some(heard) = self.pending.answered(heard) else { return Ok(()) };
        match heard.kind.as_str() {
            "push" | "inbound" => self.pushed(heard.read()?, out),
            "ack" => _ = self.pending.acked(heard.read()?),
            "error" => {
                let error = heard.read()?;
                if !self.pending.refused(&error) {
                    self.parked.push_back(Inbound::Error(error));
                }
            }
            kind if kind == "hello_ack" || heard.req_id.is_some() => {
                tracing::debug!(kind, "an answer that nobody waits for");
            }
            _ => {
                // Null, if it has no form as JSON.
                let body = heard.read().unwrap_or_default();
                self.parked.push_back(Inbound::Other { kind: heard.kind, body });
            }
        }
        Ok(())
    }

    fn pushed(&mut self, push: Box<Push>, out: &mut Outgoing) {
        if self.deaf {
            return;
        }
        if push.subtype.as_deref() == Some("system") && !is_kept(&push) {
            let event = push.event.as_deref().unwrap_or_default().to_owned();
            let data = push.event_data.unwrap_or_default();
            self.parked.push_back(Inbound::Event { event, data });
        } else if self.remembered.is_new(&push.message_id) {
            let opened = self.shared.seals.open(&push);
            if opened.is_some() && !self.is_new_of_many(&push) {
                tracing::warn!("a sealed message came again as another one, and is dropped");
                return;
            }
            let is_sealed = opened.as_ref().is_none_or(|opened| opened.is_sealed);
            let plaintext = opened.map(|opened| opened.text);
            self.parked.push_back(Inbound::Message { push, plaintext, is_sealed });
        } else if self.shared.options.confirm && !self.is_parked(&push.message_id) {
            // The first confirmation was lost.
            out.frames.extend(self.shared.confirmation(&push.message_id));
        }
    }

    /// Whether what is sealed for many did not come before under another id of the broker's:
    /// its sender's own id for it is signed, the broker's is not.
    fn is_new_of_many(&mut self, push: &Push) -> bool {
        let (Some(_), Some(own)) = (&push.signature, &push.client_message_id) else { return true };
        self.sealed.is_new(&MessageId::from(format!("{} {own}", push.sender_pubkey)))
    }

    fn is_parked(&self, id: &MessageId) -> bool {
        self.parked.iter().any(
            |inbound| matches!(inbound, Inbound::Message { push, .. } if push.message_id == *id),
        )
    }

    /// Moves what is parked into the inbox, as far as it has places.
    fn hand_over(&mut self, out: &mut Outgoing) {
        while !self.parked.is_empty() {
            match self.inbox.try_reserve() {
                Ok(place) => {
                    let Some(inbound) = self.parked.pop_front() else { return };
                    confirm(&self.shared, &inbound, out);
                    place.send(inbound);
                }
                Err(_) => return,
            }
        }
    }

    fn begin_all(&mut self, command: Command, out: &mut Outgoing) {
        self.begin(command, out);
        while out.frames.len() < BATCH
            && let Ok(command) = self.commands.try_recv()
        {
            self.begin(command, out);
        }
    }

    fn begin(&mut self, command: Command, out: &mut Outgoing) {
        match command {
            Command::Send { number, send } => {
                // Given up while it waited.
                if !send.done.is_closed() {
                    out.frames.push_back(send.frame.clone());
                    self.pending.sends.insert(number, send);
                }
            }
            Command::Request { number, frame, done } => {
                if !done.is_closed() {
                    out.frames.push_back(frame);
                    self.pending.requests.insert(number, done);
                }
            }
            Command::Frame(frame) => out.frames.push_back(frame),
        }
    }

    /// Says goodbye: everything asked before goes out first, and acks are
    /// taken until the broker closes too.
    async fn part(
        &mut self,
        mut out: Outgoing,
        sink: &mut SplitSink<Socket, Message>,
        stream: &mut SplitStream<Socket>,
    ) {
        while let Ok(command) = self.commands.try_recv() {
            self.begin(command, &mut out);
        }
        self.deaf = true;
        let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        out.frames.push_back(Message::Close(Some(close)));
        let parting = async {
            if poll_fn(|cx| out.poll_pump(cx, sink)).await.is_err() {
                return;
            }
            while let Some(Ok(frame)) = stream.next().await {
                self.take(&frame, &mut Outgoing::default());
            }
        };
        let _ = tokio::time::timeout(CLOSE_DEADLINE, parting).await;
        let _ = sink.close().now_or_never();
    }

    /// Tries until the session is active again, or until that cannot be.
    async fn come_back(&mut self) -> Result<Opened, End> {
        let mut backoff = Backoff::default();
        let before = self.shared.presence_id();
        let shared = Arc::clone(&self.shared);
        let closing = self.closing.clone();
        loop {
            self.hand_over(&mut Outgoing::default());
            let attempt = async {
                tokio::time::sleep(backoff.pause()).await;
                socket::open(&shared.url, &shared.options, &shared.session_key).await
            };
            let opened = tokio::select! {
                opened = attempt => opened,
                () = closing.cancelled() => {
                    return Err(End { code: 1000, reason: "closed here".to_owned() });
                }
            };
            match opened {
                Ok(opened) => {
                    let presence_id = opened.ack.presence_id.clone();
                    let same_presence = presence_id == before;
                    shared.set_ack(opened.ack.clone());
                    self.parked.push_back(Inbound::Reconnected { presence_id, same_presence });
                    return Ok(opened);
                }
                Err(error) if error.is_terminal() => return Err(end_of(&error)),
                Err(error) => tracing::debug!(%error, "not back yet"),
            }
        }
    }

    async fn finish(mut self, end: End) {
        let gone = ClientError::Closed { code: end.code, reason: end.reason.clone() };
        self.pending.lost(false, &gone);
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Send { send, .. } => drop(send.done.send(Err(gone.clone()))),
                Command::Request { done, .. } => drop(done.send(Err(gone.clone()))),
                Command::Frame(_) => {}
            }
        }
        self.shared.closed.cancel();
        // Messages that were not handed over were not confirmed either: the
        // broker has them still.
        self.parked.retain(|inbound| !matches!(inbound, Inbound::Message { .. }));
        self.parked.push_back(Inbound::Closed { code: end.code, reason: end.reason });
        for inbound in self.parked {
            if self.inbox.send(inbound).await.is_err() {
                return;
            }
        }
    }
}

/// Whether a system event is kept like mail, so that it comes again until it is confirmed.
/// Only a client that asked for the stages of what it sent gets such.
fn is_kept(push: &Push) -> bool {
    matches!(push.event.as_deref(), Some("message_expired" | "message_blocked"))
}

/// What the broker said before the connection could not be written any more.
async fn last_words(stream: &mut SplitStream<Socket>, error: String) -> End {
    let words = async {
        while let Some(Ok(frame)) = stream.next().await {
            if let Message::Close(close) = frame {
                let (code, reason) = socket::close_reason(close);
                return Some(End { code, reason });
            }
        }
        None
    };
    let said = tokio::time::timeout(Duration::from_millis(200), words).await;
    said.ok().flatten().unwrap_or_else(|| End::lost(error))
}

/// Waits for a place in the inbox; `false` if nobody reads it any more. Only
/// this task fills it, so the place stays.
async fn has_place(inbox: &mpsc::Sender<Inbound>) -> bool {
    inbox.reserve().await.is_ok()
}

fn confirm(shared: &Shared, inbound: &Inbound, out: &mut Outgoing) {
    if let Inbound::Message { push, .. } = inbound
        && shared.options.confirm
    {
        out.frames.extend(shared.confirmation(&push.message_id));
    }
}

fn end_of(error: &ClientError) -> End {
    match error {
        ClientError::Closed { code, reason } => End { code: *code, reason: reason.clone() },
        ClientError::Refused(frame) => {
            let code = if frame.code == "revoked" { 4002 } else { 1008 };
            End { code, reason: frame.code.to_string() }
        }
        other => End::lost(other.to_string()),
    }
}

impl Shared {
    /// The frame that says a delivery is done.
    pub(super) fn confirmation(&self, id: &MessageId) -> Option<Message> {
        let broker_message_id = Some(id.to_string());
        let ack = ClientAck { broker_message_id, ..ClientAck::default() };
        let frame = Frame { kind: "client_ack", fields: &ack, req_id: None::<()> };
        socket::encode(self.options.codec, &frame).ok()
    }
}
