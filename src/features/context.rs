//! What a handler is given, and what it gives back when it refuses.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::cluster::Cluster;
use crate::life::Life;
use crate::metrics::Metrics;
use crate::paging::UnknownCursor;
use crate::presence;
use crate::protocol::{Ack, Answer, ErrorFrame, RequestId, ServerMessage, Unasked};
use crate::rates::Rates;
use crate::registry::Room;
use crate::session::Session;
use crate::store::{Author, Full, StoreError, Stores};
use crate::webhooks;
use crate::writers::confirmations::Confirmations;
use crate::writers::states::StateWriter;

/// What is left to do for a request. In a box of its own: what requests need
/// while they run would else be a part of every socket's task, for as long as
/// that is open.
pub(crate) type Work<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// What the handlers of this room work with.
pub(crate) struct Parts {
    pub stores: Stores,
    pub presence: Arc<presence::Parts>,
    pub cluster: Arc<dyn Cluster>,
    pub confirmations: Arc<Confirmations>,
    /// The way of shared state to the disk.
    pub states: StateWriter,
    /// Webhooks, with where others find the broker.
    pub webhooks: Arc<webhooks::Parts>,
    pub rates: Arc<Rates>,
    pub metrics: Arc<Metrics>,
    /// The turn to walk an audit chain, of which there is one.
    pub verifying: Arc<Semaphore>,
    pub life: Arc<Life>,
}

/// A request's surroundings: the parts, the mesh, the session that asks.
pub(crate) struct Context<'a> {
    /// What handlers work with.
    pub parts: &'a Arc<Parts>,
    pub room: &'a Arc<Room>,
    pub session: &'a Arc<Session>,
    pub req_id: Option<RequestId>,
    afterwards: Mutex<Option<Work<'static>>>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(
        parts: &'a Arc<Parts>,
        room: &'a Arc<Room>,
        session: &'a Arc<Session>,
        req_id: Option<RequestId>,
    ) -> Self {
        Self { parts, room, session, req_id, afterwards: Mutex::default() }
    }

    /// Whether a daemon asks: some of its answers have names of their own. What merely
    /// visits under a daemon's channel is none.
    pub(super) fn is_of_daemon(&self) -> bool {
        let record = self.room.record(&self.session.presence);
        !self.session.visitor && record.is_some_and(|record| record.is_daemon())
    }

    /// Who asks, as what is written names it.
    pub(super) fn author(&self) -> Author {
        let Self { room, session, .. } = self;
        let member = room.member(&session.member);
        let record = room.record(&session.presence);
        let enrolled = member.map(|member| member.display_name.clone());
        let called = record.map(|record| record.display_name.clone());
        let member_name = enrolled.unwrap_or_else(|| "unknown".to_owned());
        Author {
            mesh: session.mesh.clone(),
            member: session.member.clone(),
            session_name: called.unwrap_or_else(|| member_name.clone()),
            member_name,
            presence: session.presence.clone(),
        }
    }

    /// The answer that says no more than that it is done.
    pub(super) fn done(&self) -> Ack {
        let id = self.req_id.as_ref().map(|id| id.to_text().into_owned()).unwrap_or_default();
        Ack { id, ..Ack::default() }
    }

    /// What is to follow the answer: it ends the socket that the answer goes to.
    pub(super) fn afterwards(&self, work: impl Future<Output = ()> + Send + 'static) {
        *self.afterwards.lock() = Some(Box::pin(work));
    }

    pub(super) fn take_afterwards(&self) -> Option<Work<'static>> {
        self.afterwards.lock().take()
    }

    /// Tells what came of a request, if it is to be told.
    pub(super) fn settle<T: Answer>(&self, unasked: Unasked, result: Result<T, Refusal>) {
        match result {
            Ok(answer) if self.req_id.is_some() || unasked >= Unasked::Answered => {
                self.say(self.session.codec.encode_answer(&answer, self.req_id.as_ref()));
            }
            Ok(_) => {}
            Err(refusal) => self.refuse(unasked, refusal),
        }
    }

    /// Refuses, and tells so if it is to be told. What failed is logged here, once.
    pub(super) fn refuse(&self, unasked: Unasked, refusal: Refusal) {
        let presence = &self.session.presence;
        if let Some(error) = &refusal.cause {
            tracing::warn!(%error, %presence, code = refusal.code, "a request failed");
        }
        self.parts.metrics.rejected(refusal.code);
        let is_told = unasked == Unasked::Refused && !refusal.is_only_for_asked;
        if is_told || self.req_id.is_some() {
            self.say_error(refusal);
        }
    }

    pub(super) fn say_error(&self, refusal: Refusal) {
        let Refusal { code, message, retry_after_ms, numbers, present, .. } = refusal;
        let (limit, current) = numbers.unzip();
        let mut error = ErrorFrame::new(code, message);
        (error.retry_after_ms, error.limit, error.current) = (retry_after_ms, limit, current);
        error.present = present;
        let error = ServerMessage::Error(error);
        self.say(self.session.codec.encode(&error, self.req_id.as_ref()));
    }

    pub(super) fn say(&self, frame: Bytes) {
        self.session.outbox.say(frame);
    }
}

/// Why a request is not answered.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub code: &'static str,
    pub message: String,
    /// When a retry may help.
    pub retry_after_ms: Option<u64>,
    /// The bound that is passed, and by what.
    numbers: Option<(u32, u32)>,
    /// What stands where something else was expected.
    present: Option<Box<serde_json::Value>>,
    is_only_for_asked: bool,
    cause: Option<StoreError>,
}

impl Refusal {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            code,
            message,
            retry_after_ms: None,
            numbers: None,
            present: None,
            is_only_for_asked: false,
            cause: None,
        }
    }

    /// The argument is none.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new("invalid_argument", message)
    }

    /// A bound of what a mesh may keep is passed.
    pub(crate) fn full(full: &Full) -> Self {
        let in_unit = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
        let (limit, current) = full.numbers();
        let numbers = Some((in_unit(limit), in_unit(current)));
        Self { numbers, ..Self::new("quota", full.to_string()) }
    }

    /// Something else stands there than was expected: this.
    pub(crate) fn conflict<T: Serialize>(message: impl Into<String>, present: &T) -> Self {
        let present = serde_json::to_value(present).ok().map(Box::new);
        Self { present, ..Self::new("conflict", message) }
    }

    /// Older brokers did not refuse so: only a request with an id is told, whatever
    /// its kind.
    pub(crate) fn only_for_asked(self) -> Self {
        Self { is_only_for_asked: true, ..self }
    }

    /// A retry may help after so long.
    pub(crate) fn after_ms(self, retry_after_ms: u64) -> Self {
        Self { retry_after_ms: Some(retry_after_ms), ..self }
    }

    /// What the store said, for the log.
    pub(crate) fn because(self, error: StoreError) -> Self {
        Self { cause: Some(error), ..self }
    }
}

impl From<UnknownCursor> for Refusal {
    fn from(_: UnknownCursor) -> Self {
        let text = "that cursor is of no such list: leave it out to begin at its start";
        Self::invalid(text).only_for_asked()
    }
}

/// The store is away: the sentence that says so.
impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        if let StoreError::Full(full) = &error {
            return Self::full(full);
        }
        let is_retryable = error.is_retryable();
        let code = if is_retryable { "unavailable" } else { "internal" };
        let text = "the broker's database did not answer; try again in a few seconds";
        let retry_after_ms = is_retryable.then_some(2_000);
        Self { retry_after_ms, ..Self::new(code, text).only_for_asked().because(error) }
    }
}
