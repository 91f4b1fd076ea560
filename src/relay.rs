//! What one peer asks of another through the broker, and the one answer that comes back.
//!
//! Whoever asks waits on its own node, which keeps the call; the node that holds the
//! asked socket keeps that it was asked, so that nobody else can answer. Between the two
//! go frames that may be lost: a call whose answer is lost ends at its deadline. Nothing
//! is kept, made up for or asked twice, and what is handed on reaches no log. Called by
//! [`features`](crate::features) for both ends, by [`bus`](crate::bus) for other nodes, and
//! by whoever learns that a socket has ended.

mod calls;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

pub(crate) use self::calls::Full;
use self::calls::{Call, Calls, Host};
use crate::clock::Timestamp;
use crate::cluster::{BusMessage, Cluster, ClusterHealth};
use crate::id::{CallId, MeshId, NodeId, PresenceId};
use crate::limits;
use crate::protocol::budget::value_bytes;
use crate::protocol::{Expects, Forward, McpCallResult, Reply, Ticket};
use crate::record::PresenceRecord;
use crate::registry::{Candidate, Room};
use crate::session::Session;
use crate::session::outbox::{Content, Outgoing, PushError};

/// Between two looks whether the node of a host that is waited for is still heard of.
const LOOK_INTERVAL: Duration = Duration::from_millis(1_500);

/// This node's part in what peers ask of each other.
pub(crate) struct Relay {
    node: NodeId,
    cluster: Arc<dyn Cluster>,
    calls: Mutex<Calls<Waiter>>,
    started: Instant,
}

/// Who waits for an answer.
enum Waiter {
    /// A task of this node.
    Here(oneshot::Sender<Reply>),
    /// Another node of that mesh.
    Elsewhere(MeshId),
}

/// Why there is no answer of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// Too many calls are in flight here.
    Full(Full),
    /// The host has more to answer, or to read, than it does.
    Busy,
    /// The host's socket has ended, or its node has.
    Gone,
    /// It is on another node, to which nothing leads now.
    Unreachable,
    /// Nothing came in time.
    TimedOut,
    /// Whoever asked has gone.
    Left,
}

/// What a host's socket has said.
pub(crate) enum Said {
    /// To a call, by its id.
    Call(CallId, McpCallResult),
    /// To a request for a file or a folder, by what it was told.
    About(Expects, Reply),
}

/// A call of a task here, which ends with the task at the latest.
struct Open<'a> {
    relay: &'a Relay,
    call: &'a CallId,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.relay.calls.lock().take(self.call);
    }
}

impl Relay {
    /// That of a node, with nothing in flight.
    pub(crate) fn new(node: NodeId, cluster: Arc<dyn Cluster>) -> Self {
        Self { node, cluster, calls: Mutex::default(), started: Instant::now() }
    }

    /// Asks a host and waits, in a task that nobody cancels and that holds up no socket.
    pub(crate) async fn ask(
        &self,
        room: &Room,
        caller: &Session,
        host: &Candidate,
        (call, forward): (CallId, Forward),
        deadline: Duration,
    ) -> Result<Reply, Unanswered> {
        let (waiter, answer) = oneshot::channel();
        let asked = Call {
            id: call.clone(),
            caller: Some(caller.presence.clone()),
            host: Host { presence: host.record.id.clone(), epoch: host.record.epoch },
            expects: forward.expects(),
            until_ms: self.now_ms() + span_ms(deadline),
        };
        let opened = self.calls.lock().open(self.now_ms(), asked, Waiter::Here(waiter));
        opened.map_err(Unanswered::Full)?;
        let _open = Open { relay: self, call: &call };
        self.hand_over(room, host, &call, forward, deadline)?;
        let reply = tokio::select! {
            biased;
            reply = answer => reply.map_err(|_| Unanswered::Gone)?,
            () = caller.outbox.closed() => return Err(Unanswered::Left),
            () = ended(host) => return Err(Unanswered::Gone),
            () = self.silenced(&host.record) => return Err(Unanswered::Gone),
            () = tokio::time::sleep(deadline) => return Err(Unanswered::TimedOut),
        };
        match reply {
            Reply::Gone => Err(Unanswered::Gone),
            Reply::Busy => Err(Unanswered::Busy),
            reply => Ok(reply),
        }
    }

    fn hand_over(
        &self,
        room: &Room,
        host: &Candidate,
        call: &CallId,
        forward: Forward,
        deadline: Duration,
    ) -> Result<(), Unanswered> {
        if let Some(session) = &host.session {
            return hand_to(session, &forward).map_err(|error| match error {
                PushError::Full => Unanswered::Busy,
                PushError::Closed => Unanswered::Gone,
            });
        }
        if self.cluster.health() == ClusterHealth::Degraded {
            return Err(Unanswered::Unreachable);
        }
        let message = BusMessage::Asked {
            call: call.clone(),
            host: host.record.id.clone(),
            epoch: host.record.epoch,
            forward: Box::new(forward),
            deadline_ms: u64::try_from(span_ms(deadline)).unwrap_or(0),
        };
        self.cluster.publish(room.mesh(), &message);
        // What was heard of the host since it was looked up was heard before the call
        // stood in the book.
        let is_there = room
            .record(&host.record.id)
            .is_some_and(|record| record.online && record.epoch == host.record.epoch);
        is_there.then_some(()).ok_or(Unanswered::Gone)
    }

    /// Another node asks a presence: handed on if the socket that is meant is here.
    pub(crate) fn asked(
        &self,
        room: &Room,
        (call, host): (CallId, PresenceId),
        epoch: u64,
        forward: &Forward,
        deadline_ms: u64,
    ) {
        let Some(session) = room.session(&host) else { return };
        if session.lease.epoch < epoch {
            // The one that is meant came later, elsewhere.
            return;
        }
        let answer = |reply| self.publish_answer(room.mesh(), call.clone(), reply);
        if session.lease.epoch > epoch {
            return answer(Reply::Gone);
        }
        let asked = Call {
            id: call.clone(),
            caller: None,
            host: Host { presence: host, epoch },
            expects: forward.expects(),
            until_ms: self.now_ms() + i64::try_from(deadline_ms).unwrap_or(0),
        };
        let waiter = Waiter::Elsewhere(room.mesh().clone());
        if self.calls.lock().open(self.now_ms(), asked, waiter).is_err() {
            return answer(Reply::Busy);
        }
        if let Err(error) = hand_to(&session, forward) {
            self.calls.lock().take(&call);
            answer(match error {
                PushError::Full => Reply::Busy,
                PushError::Closed => Reply::Gone,
            });
        }
    }

    /// Another node says what a host there has answered.
    pub(crate) fn answered(&self, call: &CallId, reply: Reply) {
        if let Some(waiter @ Waiter::Here(_)) = self.calls.lock().take(call) {
            self.tell(call.clone(), waiter, reply);
        }
    }

    /// A host's socket answers; whether it was asked.
    pub(crate) fn said(&self, host: &Session, said: Said) -> bool {
        let by = Host { presence: host.presence.clone(), epoch: host.lease.epoch };
        let (found, reply) = match said {
            Said::Call(call, result) => {
                let fits =
                    |id: &CallId, expects: &Expects| *id == call && *expects == Expects::Call;
                (self.calls.lock().answered(&by, fits), Reply::Mcp(result))
            }
            Said::About(about, reply) => {
                let fits = |_: &CallId, expects: &Expects| is_about(expects, &about);
                (self.calls.lock().answered(&by, fits), reply)
            }
        };
        let Some((call, waiter)) = found else { return false };
        self.tell(call, waiter, within_bounds(reply));
        true
    }

    /// A socket here has ended: what it was asked has no answer any more.
    pub(crate) fn ended(&self, session: &Session) {
        let epoch = session.lease.epoch;
        self.end(&session.presence, |asked| asked <= epoch);
    }

    /// Another node says how a presence is: sockets that it had before are gone.
    pub(crate) fn heard(&self, record: &PresenceRecord) {
        let (epoch, online) = (record.epoch, record.online);
        self.end(&record.id, |asked| asked < epoch || (asked == epoch && !online));
    }

    /// A presence has ended.
    pub(crate) fn over(&self, presence: &PresenceId) {
        self.end(presence, |_| true);
    }

    fn end(&self, presence: &PresenceId, is_gone: impl Fn(u64) -> bool) {
        let gone = self.calls.lock().gone(presence, is_gone);
        for (call, waiter) in gone {
            self.tell(call, waiter, Reply::Gone);
        }
    }

    fn tell(&self, call: CallId, waiter: Waiter, reply: Reply) {
        match waiter {
            // One that has given up meanwhile is told nothing.
            Waiter::Here(waiter) => drop(waiter.send(reply)),
            Waiter::Elsewhere(mesh) => self.publish_answer(&mesh, call, reply),
        }
    }

    fn publish_answer(&self, mesh: &MeshId, call: CallId, reply: Reply) {
        let message = BusMessage::Answered { call, reply: Box::new(reply) };
        self.cluster.publish(mesh, &message);
    }

    /// Waits until the node of a host has not been heard of in two looks: where the
    /// shared state was lost, all come back to it one after another.
    async fn silenced(&self, host: &PresenceRecord) {
        let mut silent = 0;
        while silent < 2 {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let is_silent = self.silent_among(std::slice::from_ref(&host)).await;
            silent = if is_silent.is_empty() { 0 } else { silent + 1 };
        }
    }

    /// Of the presences that other nodes hold: those whose node has gone silent, so that
    /// they only seem to be there.
    pub(crate) async fn silent_among(
        &self,
        hosts: &[impl std::borrow::Borrow<PresenceRecord>],
    ) -> BTreeSet<PresenceId> {
        let now = Timestamp::now();
        let others = hosts.iter().map(std::borrow::Borrow::borrow).filter(|host| {
            // One that has just begun may not have said how it does.
            host.node != self.node.as_str()
                && now.ms_since(host.last_seen_at) > limits::NODE_WORD_MS
        });
        let others: Vec<&PresenceRecord> = others.collect();
        if others.is_empty() {
            return BTreeSet::new();
        }
        let heard = match self.cluster.nodes_heard().await {
            // A word of its own that is gone says that the shared state has lost all.
            Ok(heard) if heard.contains(&self.node) => heard,
            Ok(_) => return BTreeSet::new(),
            Err(error) => {
                tracing::debug!(%error, "nobody knows which nodes are silent");
                return BTreeSet::new();
            }
        };
        let is_heard = |host: &&PresenceRecord| heard.contains(host.node.as_str());
        others.into_iter().filter(|host| !is_heard(host)).map(|host| host.id.clone()).collect()
    }

    fn now_ms(&self) -> i64 {
        span_ms(self.started.elapsed())
    }
}

/// Waits until the host's socket takes nothing more; for ever where it is elsewhere.
async fn ended(host: &Candidate) {
    match &host.session {
        Some(session) => session.outbox.closed().await,
        None => std::future::pending().await,
    }
}

/// To a socket here, if there is room for it.
fn hand_to(session: &Session, forward: &Forward) -> Result<(), PushError> {
    let bytes = session.codec.write(forward).map(Bytes::from).unwrap_or_default();
    session.outbox.push(Outgoing { bytes, content: Content::Relayed })
}

fn is_about(asked: &Expects, answered: &Expects) -> bool {
    let fits = |asked: &Ticket, answered: &Ticket| asked.fits(answered);
    match (asked, answered) {
        (Expects::File(asked), Expects::File(answered))
        | (Expects::Dir(asked), Expects::Dir(answered)) => fits(asked, answered),
        _ => false,
    }
}

/// What fits into one answer to whoever asked, however its coding writes it.
fn within_bounds(reply: Reply) -> Reply {
    let bytes = value_bytes(&reply);
    if bytes <= limits::RELAYED_BYTES_MAX {
        return reply;
    }
    let error = format!(
        "the answer has {bytes} bytes, more than the {} that are handed on",
        limits::RELAYED_BYTES_MAX
    );
    match reply {
        Reply::File(mut answer) => {
            (answer.content, answer.error) = (None, Some(error));
            Reply::File(answer)
        }
        Reply::Dir(mut answer) => {
            (answer.entries, answer.error) = (None, Some(error));
            Reply::Dir(answer)
        }
        _ => Reply::Mcp(McpCallResult::failed(error)),
    }
}

fn span_ms(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
