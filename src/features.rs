//! What an active session may ask, one exhaustive match.
//!
//! A request with a `_reqId` gets exactly one frame that carries it, success
//! or error. One without gets what older brokers sent, and no error frame
//! beyond that: a stray error resolves an unrelated request in old clients.

pub mod audit;
pub mod empty;
pub mod messages;
pub mod moderation;
pub mod on_behalf;
mod paging;
pub mod presence;

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::codec::DecodeError;
use crate::delivery;
use crate::limits;
use crate::node::Node;
use crate::protocol::{Ack, ClientMessage, ErrorFrame, RequestId, Said, ServerMessage};
use crate::rates::cost;
use crate::registry::Room;
use crate::session::Session;

/// Everything that a handler may need: the node, the session, the request.
pub struct Context<'a> {
    /// The node.
    pub node: &'a Arc<Node>,
    /// The session's mesh.
    pub room: &'a Arc<Room>,
    /// Who asks.
    pub session: &'a Arc<Session>,
    /// The request's id.
    pub req_id: Option<RequestId>,
    /// Who is answered.
    pub asker: Asker<'a>,
}

/// Who is answered.
#[derive(Clone, Copy, Default)]
pub enum Asker<'a> {
    /// The session itself.
    #[default]
    Itself,
    /// A visitor that speaks for it.
    Visitor(&'a Arc<Session>),
}

impl Context<'_> {
    /// Answers.
    pub fn reply(&self, message: &ServerMessage) {
        let session = match self.asker {
            Asker::Itself => self.session,
            Asker::Visitor(visitor) => visitor,
        };
        session.outbox.say(session.codec.encode(message, self.req_id.as_ref()));
    }

    /// Refuses, whether or not the request had an id: older brokers did too.
    pub fn refuse(&self, code: &'static str, message: impl Into<String>) {
        self.node.metrics.rejected(code);
        self.reply(&ServerMessage::Error(ErrorFrame::new(code, message)));
    }

    /// Refuses where older brokers kept silent: only a request with an id is
    /// told.
    pub fn refuse_if_asked(&self, code: &'static str, message: impl Into<String>) {
        self.node.metrics.rejected(code);
        if self.req_id.is_some() {
            self.reply(&ServerMessage::Error(ErrorFrame::new(code, message)));
        }
    }

    /// The answer to a setter, for those that always had one.
    pub fn done(&self) {
        let id = self.req_id.as_ref().map(|id| id.to_text().into_owned()).unwrap_or_default();
        let ack = Ack { id, message_id: String::new(), queued: false, error: None };
        self.reply(&ServerMessage::Ack(ack));
    }

    /// The answer to a setter that older brokers did not answer.
    pub fn done_if_asked(&self) {
        if self.req_id.is_some() {
            self.done();
        }
    }

    /// The store is away: the sentence that says so. Logged here, once.
    pub fn store_failed(&self, error: &crate::store::StoreError) {
        tracing::warn!(%error, presence = %self.session.presence, "a request failed");
        let mut frame = ErrorFrame::new(
            if error.is_retryable() { "unavailable" } else { "internal" },
            "the broker's database did not answer; try again in a few seconds",
        );
        frame.retry_after_ms = error.is_retryable().then_some(2_000);
        if self.req_id.is_some() {
            self.reply(&ServerMessage::Error(frame));
        }
    }
}

/// What is left to do for a request. In a box of its own: what requests need
/// while they run would else be a part of every socket's task, for as long as
/// that is open.
pub type Work<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Handles one request. What it returns runs to its end, in a task that nobody
/// cancels.
pub fn handle<'a>(
    context: Context<'a>,
    message: ClientMessage<'a>,
    received: Instant,
) -> Option<Work<'a>> {
    match message {
        ClientMessage::ClientAck(ack) => {
            messages::client_ack(&context, &ack);
            None
        }
        ClientMessage::Send(send) => {
            let Context { node, room, session, req_id, .. } = context;
            Some(Box::pin(delivery::send::send(
                &node.delivery,
                room,
                session,
                send,
                req_id,
                received,
            )))
        }
        other => Some(Box::pin(metered(context, other))),
    }
}

/// A request that its session and its member can pay for. One whose sender can be
/// told is refused when they cannot; any other waits, and its socket with it.
async fn metered(context: Context<'_>, message: ClientMessage<'_>) {
    let cost = cost::of(&message, context.room.presences());
    match pay(&context, cost).await {
        Ok(()) if context.session.visitor => on_behalf::handle(&context, message).await,
        Ok(()) => handle_other(&context, message).await,
        Err(wait) => {
            context.node.metrics.rejected("request_rate");
            if context.req_id.is_some() {
                let text = "this session asks faster than it may; wait and ask again";
                let mut error = ErrorFrame::new("rate_limit", text);
                error.retry_after_ms = u64::try_from(wait.as_millis()).ok();
                context.reply(&ServerMessage::Error(error));
            }
        }
    }
}

async fn pay(context: &Context<'_>, cost: u32) -> Result<(), Duration> {
    let Context { node, session, .. } = context;
    let of_member = || node.rates.may_ask(&*node.cluster, &session.member, cost);
    if context.req_id.is_some() {
        session.budget.lock().take(session.age_ms(), cost)?;
        return of_member().await;
    }
    if let Some(owed) = session.charge(cost) {
        tokio::time::sleep(owed).await;
    }
    let mut left = Duration::from_millis(limits::UNTOLD_REQUEST_WAIT_MS);
    while let Err(wait) = of_member().await {
        if left.is_zero() || !session.outbox.is_open() {
            return Err(wait);
        }
        let pause = wait.min(left).min(LOOK_UP);
        tokio::time::sleep(pause).await;
        left -= pause;
    }
    Ok(())
}

/// How long a request waits for its member's budget before it looks whether its
/// socket is still there.
const LOOK_UP: Duration = Duration::from_secs(1);

/// Charges a session for a frame that cannot be refused. What is returned is to be
/// awaited before its next frame is read.
pub fn charge<'a>(session: &Session, cost: u32) -> Option<Work<'a>> {
    session.charge(cost).map(|owed| -> Work<'a> { Box::pin(tokio::time::sleep(owed)) })
}

/// Everything but messages and their confirmations.
async fn handle_other(context: &Context<'_>, message: ClientMessage<'_>) {
    match message {
        ClientMessage::MessageStatus(ask) => messages::message_status(context, ask).await,
        ClientMessage::ListPeers(ask) => presence::list_peers(context, ask).await,
        ClientMessage::SetStatus(status) => presence::say(context, Said::Status { status }).await,
        ClientMessage::SetSummary(summary) => {
            presence::say(context, Said::Summary { summary }).await;
        }
        ClientMessage::SetVisible(visible) => {
            presence::say(context, Said::Visible { visible }).await;
        }
        ClientMessage::SetProfile(profile) => {
            presence::say(context, Said::Profile { profile }).await;
        }
        ClientMessage::SetStats(stats) => presence::set_stats(context, stats).await,
        ClientMessage::JoinGroup(group) => presence::say(context, Said::JoinGroup { group }).await,
        ClientMessage::LeaveGroup(name) => presence::say(context, Said::LeaveGroup { name }).await,
        ClientMessage::Kick(ask) => {
            moderation::kick(context, &ask, moderation::Removal::Kick).await;
        }
        ClientMessage::Disconnect(ask) => {
            moderation::kick(context, &ask, moderation::Removal::Disconnect).await;
        }
        ClientMessage::Ban(ask) => moderation::ban(context, ask).await,
        ClientMessage::Unban(ask) => moderation::unban(context, ask).await,
        ClientMessage::ListBans(ask) => moderation::list_bans(context, ask).await,
        ClientMessage::AuditQuery(ask) => audit::query(context, ask).await,
        ClientMessage::AuditVerify => audit::verify(context),
        ClientMessage::Empty(read) => empty::answer(context, &read),
        ClientMessage::Hello(_) | ClientMessage::SessionHello(_) => {
            context.refuse_if_asked("already_active", "this connection has said hello already");
        }
        ClientMessage::Send(_) | ClientMessage::ClientAck(_) => {
            unreachable!("handled by the caller")
        }
    }
}

/// Answers a frame that is an object and no request this broker knows.
pub fn handle_undecoded(context: &Context<'_>, error: DecodeError) {
    match error {
        DecodeError::Malformed => {
            context.refuse("malformed", "a frame is one JSON object (or one MessagePack map)");
        }
        DecodeError::UnknownType { kind, .. } => {
            tracing::debug!(kind, "unknown type");
            context.refuse_if_asked("unknown_type", "this broker does not know that type");
        }
        DecodeError::Invalid { kind: "send", id, reason, .. } => {
            let req_id = context.req_id.as_ref();
            delivery::send::refuse_invalid(
                &context.node.delivery,
                context.session,
                id,
                req_id,
                &reason,
            );
        }
        DecodeError::Invalid { kind, reason, .. } => {
            context.refuse_if_asked("invalid_argument", format!("{kind}: {reason}"));
        }
    }
}
