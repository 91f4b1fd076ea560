//! From a hello to a session.
//!
//! The checks stand in the recorded order; nothing is registered before the
//! signature has been verified and used up.

mod cost;
mod daemon;
mod place;
mod proof;
mod record;
mod session_key;
pub mod teardown;
mod visit;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use self::cost::charge;
use self::place::{Place, acquire, let_go};
use self::proof::{admit, check_session_proofs, session_key_of, use_up};
use self::record::{hello_ack, joined, opening};
use self::session_key::{anothers_key, check_session_key};
use crate::auth::{HelloProof, ProofError, verify_hello};
use crate::clock::Timestamp;
use crate::cluster::{LeaseRef, PresenceRecord, Release};
use crate::codec::Codec;
use crate::config::NodeConfig;
use crate::delivery::drain;
use crate::id::{Key, MeshId};
use crate::presence::status;
use crate::presence::{self, changes, members};
use crate::protocol::handshake::About;
use crate::protocol::{
    CloseReason, ErrorFrame, Hello, HelloAck, PeerRole, ServerMessage, SessionHello, Status,
    StatusSource,
};
use crate::rates::Rates;
use crate::registry::RoomGuard;
use crate::session::inbox::Inbox;
use crate::session::outbox::Outbox;
use crate::session::{Identity, Session};
use crate::store::{Admission, AdmittedMember, EndPresence, PeerState, PresenceChange, Stores};
use crate::writers::confirmations::Confirmations;

/// What the functions of this room work with.
pub struct Parts {
    /// Who this node is.
    pub node: NodeConfig,
    /// How long a claim on a message holds, in milliseconds.
    pub claim_ms: i64,
    /// The durable side.
    pub stores: Stores,
    /// What peers are told, and through it delivery, the registry and the cluster.
    pub presence: Arc<presence::Parts>,
    /// Deliveries that are done.
    pub confirmations: Arc<Confirmations>,
    /// How much a member may ask.
    pub rates: Arc<Rates>,
}

/// A session and its hold on its mesh.
pub struct Active {
    /// The session.
    pub session: Arc<Session>,
    /// Its mesh; stays while this lives.
    pub room: RoomGuard,
    /// What the member's last session left, to go on from.
    pub saved: Option<Box<PeerState>>,
}

/// A hello that is refused: the error frame, then the close.
#[derive(Debug)]
pub struct Refusal {
    /// What the peer is told.
    pub error: ErrorFrame,
    /// What the socket is closed with.
    pub close: CloseReason,
}

impl Refusal {
    fn new(code: &'static str, message: impl Into<String>) -> Box<Self> {
        let error = ErrorFrame::new(code, message);
        Box::new(Self { error, close: CloseReason::refused(code) })
    }

    fn proof(form: &str, error: ProofError) -> Box<Self> {
        Self::new(error.code(), format!("{form} rejected: {}", error.code()))
    }

    fn unavailable() -> Box<Self> {
        let mut error = ErrorFrame::new(
            "unavailable",
            "this parts cannot take new peers right now; try again in a few seconds",
        );
        error.retry_after_ms = Some(2_000);
        Box::new(Self { error, close: CloseReason::TRY_AGAIN_LATER })
    }
}

/// A peer that has proven who it is. Only this module makes one, and a session's
/// identity is taken from here alone: what the cluster says of a presence is a
/// hint about where somebody is, never about who.
struct Proven {
    /// When the member was read.
    read: MemberRead,
    mesh: MeshId,
    role: PeerRole,
    session_key: Option<Key>,
    visitor: bool,
    about: About,
    admitted: Box<AdmittedMember>,
}

/// What tells whether anything about a member has changed since it was read.
#[derive(Clone, Copy)]
struct MemberRead {
    /// [`Node::member_changes`] before.
    changes: u64,
    /// Which of the node's reads of members it is.
    number: u64,
}

impl MemberRead {
    fn begin(parts: &Parts) -> Self {
        let changes = parts.presence.member_changes.load(Ordering::Acquire);
        Self { changes, number: parts.presence.registry.begin_refresh() }
    }
}

/// `hello`.
///
/// # Errors
///
/// The refusal to send.
pub async fn hello(
    parts: &Arc<Parts>,
    codec: Codec,
    outbox: &Outbox,
    hello: Hello,
) -> Result<Active, Box<Refusal>> {
    let session_key = session_key_of(&hello)?;
    let proof = HelloProof {
        mesh_id: &hello.mesh_id,
        member_id: &hello.member_id,
        pubkey: &hello.pubkey,
        timestamp: hello.timestamp,
        signature: &hello.signature,
    };
    verify_hello(proof, Timestamp::now()).map_err(|error| Refusal::proof("hello", error))?;
    let visitor = hello.is_visit(session_key.is_some());
    let mesh = MeshId::from(hello.mesh_id);
    let unauthorized = || Refusal::new("unauthorized", "pubkey not found in mesh");
    let read = MemberRead::begin(parts);
    let admitted =
        admit(parts, &mesh, &hello.pubkey, &hello.member_id).await?.ok_or_else(unauthorized)?;
    if admitted.member.id.as_str() != hello.member_id {
        return Err(unauthorized());
    }
    use_up(parts, &hello.signature).await?;
    let role = PeerRole::ControlPlane;
    // The member's key is none of its own, under which it could be given mail.
    let session_key = session_key.filter(|key| !visitor || *key != admitted.member.key);
    let about = hello.about;
    let proven = Proven { read, mesh, role, session_key, visitor, about, admitted };
    enter(parts, codec, outbox, proven).await
}

/// `session_hello`.
///
/// # Errors
///
/// The refusal to send.
pub async fn session_hello(
    parts: &Arc<Parts>,
    codec: Codec,
    outbox: &Outbox,
    hello: SessionHello,
) -> Result<Active, Box<Refusal>> {
    check_session_proofs(&hello)?;
    let mesh = MeshId::from(hello.mesh_id);
    let read = MemberRead::begin(parts);
    let admitted = admit(parts, &mesh, &hello.parent_member_pubkey, &hello.parent_member_id)
        .await?
        .ok_or_else(|| Refusal::new("unauthorized", "parent pubkey not found in mesh"))?;
    let given = &hello.parent_member_id;
    if !given.is_empty() && admitted.member.id.as_str() != given {
        return Err(Refusal::new(
            "parent_member_id_mismatch",
            "parentMemberId is not the member with parentMemberPubkey",
        ));
    }
    use_up(parts, &hello.signature).await?;
    let session_key = Some(Key::from(hello.session_pubkey));
    let role = PeerRole::Session;
    let about = hello.about;
    let proven = Proven { read, mesh, role, session_key, visitor: false, about, admitted };
    enter(parts, codec, outbox, proven).await
}

/// Subscribes to the mesh, takes a place, opens the presence, and only then
/// drains: a message sent meanwhile is missed by nobody.
async fn enter(
    parts: &Arc<Parts>,
    codec: Codec,
    outbox: &Outbox,
    proven: Proven,
) -> Result<Active, Box<Refusal>> {
    let room = parts
        .presence
        .registry
        .enter(&proven.mesh, &parts.stores, &*parts.presence.cluster)
        .await
        .map_err(|error| {
            tracing::warn!(%error, mesh = %proven.mesh, "a mesh could not be entered");
            Refusal::unavailable()
        })?;
    room.set_member(proven.read.number, proven.admitted.member.clone());
    check_session_key(parts, &room, &proven).await?;
    charge(parts, &room, &proven).await?;
    let changes = proven.read.changes;
    let active = match acquire(parts, &room, &proven).await? {
        Place::Visit { record, lease } => {
            visit::begin(parts, codec, outbox, room, proven, *record, lease).await?
        }
        Place::New { record, lease } => {
            open(parts, codec, outbox, room, proven, *record, lease).await?
        }
        Place::Kept { record, lease, position } => {
            reattach(parts, codec, outbox, room, proven, *record, lease, position).await?
        }
    };
    recheck(parts, &active, changes).await;
    Ok(active)
}

/// The member may have been banned, or its grants changed, between the read of its
/// row and the moment from which others see the session: then nobody has closed it.
/// So it is read once more where anything about members changed meanwhile, or where
/// a later read did not find it.
async fn recheck(parts: &Arc<Parts>, active: &Active, changes: u64) {
    let Session { mesh, member, member_key, .. } = &*active.session;
    let is_known = active.room.member(member).is_some();
    if is_known && parts.presence.member_changes.load(Ordering::Acquire) == changes {
        return;
    }
    let read = parts.presence.registry.begin_refresh();
    match parts.stores.members.admit(mesh, member_key.as_str(), member.as_str()).await {
        Ok(Admission::Member(admitted)) if admitted.member.id == *member => {
            active.room.set_member(read, admitted.member);
        }
        Ok(_) => members::refresh(&parts.presence, &active.room).await,
        Err(error) => {
            tracing::warn!(%error, "a member could not be checked again");
            active.session.outbox.close(CloseReason::TRY_AGAIN_LATER);
        }
    }
}

/// A session that names a key which is another member's.
struct ClaimsAnothersKey;

/// A new presence.
async fn open(
    parts: &Arc<Parts>,
    codec: Codec,
    outbox: &Outbox,
    room: RoomGuard,
    proven: Proven,
    mut record: PresenceRecord,
    lease: LeaseRef,
) -> Result<Active, Box<Refusal>> {
    if parts.presence.life.disk_low.load(Ordering::Relaxed) {
        // A session that comes back writes little; a new one adds to the chain.
        let_go(parts, &lease, Release::Now).await;
        return Err(Refusal::unavailable());
    }
    apply_pending_status(parts, &mut record).await;
    record.epoch = lease.epoch;
    let opened = opening(parts, &proven, &record);
    let position = match parts.presence.writer.open(opened).await {
        Ok(position) => position,
        Err(error) => {
            tracing::warn!(%error, mesh = %proven.mesh, "a presence could not be opened");
            let_go(parts, &lease, Release::Now).await;
            return Err(Refusal::unavailable());
        }
    };
    let position = daemon::take_over(parts, &room, &record).await.unwrap_or(position);
    record.begins_after = Some(position);
    let ack = hello_ack(parts, &proven, &record, false);
    let announcement = record.visible.then(|| joined(&proven, &record));
    if !write_back(parts, &lease, &record).await && has_withdrawn(parts, &lease, &record).await {
        return Err(Refusal::unavailable());
    }
    let opened = record.clone();
    let entered =
        activate(parts, codec, outbox, room, proven, record, lease.clone(), position, &ack);
    let Ok(active) = entered else {
        // Nobody was told of it.
        has_withdrawn(parts, &lease, &opened).await;
        return Err(anothers_key());
    };
    let record = active.room.record(&active.session.presence);
    if let Some(record) = record {
        changes::publish(&parts.presence, &active.room, &record, announcement);
    }
    drain::start(&parts.presence.delivery, &active.room, &active.session);
    parts.presence.metrics.connections.inc();
    Ok(active)
}

/// The same session comes back: same presence, no event.
#[expect(clippy::too_many_arguments, reason = "the pieces of one session, put together once")]
async fn reattach(
    parts: &Arc<Parts>,
    codec: Codec,
    outbox: &Outbox,
    room: RoomGuard,
    proven: Proven,
    mut record: PresenceRecord,
    lease: LeaseRef,
    position: i64,
) -> Result<Active, Box<Refusal>> {
    if let Some(written) = apply_pending_status(parts, &mut record).await {
        let id = record.id.clone();
        parts
            .presence
            .writer
            .change(PresenceChange { status: Some(written), ..PresenceChange::of(id) });
    }
    // Of an earlier life of the node is known only how far it was.
    record.begins_after.get_or_insert(position);
    let ack = hello_ack(parts, &proven, &record, true);
    write_back(parts, &lease, &record).await;
    let ending = changes::Ending {
        record: record.clone(),
        close: Some(CloseReason::BAD_SESSION_PUBKEY),
        audit: Vec::new(),
    };
    let entered = activate(parts, codec, outbox, room, proven, record, lease, position, &ack);
    let Ok(active) = entered else {
        if let Err(error) =
            changes::remove(&parts.presence, &ending.record.mesh, std::slice::from_ref(&ending))
                .await
        {
            tracing::warn!(%error, "a claim of a proven session key waits for the sweep");
        }
        return Err(anothers_key());
    };
    let claim = Duration::from_millis(u64::try_from(parts.claim_ms).unwrap_or(0));
    active.session.resume(Instant::now() + claim);
    if let Some(record) = active.room.record(&active.session.presence) {
        changes::publish(&parts.presence, &active.room, &record, None);
    }
    drain::start(&parts.presence.delivery, &active.room, &active.session);
    parts.presence.metrics.connections.inc();
    Ok(active)
}

/// Writes the record to the cluster's directory; whether the lease is held, as far
/// as is known.
async fn write_back(parts: &Parts, lease: &LeaseRef, record: &PresenceRecord) -> bool {
    parts.presence.cluster.write_record(lease, record).await.unwrap_or_else(|error| {
        tracing::debug!(%error, "a record waits for its renewal");
        true
    })
}

/// Another hello of the session came while the row of this one's presence was on
/// its way, found none, and took a place of its own: nobody was told of this one,
/// and its row ends. Not if the other went on with this presence.
async fn has_withdrawn(parts: &Parts, lease: &LeaseRef, record: &PresenceRecord) -> bool {
    let end = EndPresence { node: Some(record.node.clone()), ..changes::ended_row(record, &[]) };
    match parts.stores.presences.end(Timestamp::now(), &[end]).await {
        Ok(ended) if ended.is_empty() => false,
        Ok(_) => {
            let_go(parts, lease, Release::Now).await;
            true
        }
        Err(error) => {
            tracing::warn!(%error, "a presence without a lease waits for the sweep");
            true
        }
    }
}

/// A hook may have spoken before the session came; what it made of the status.
/// Never changes `dnd`.
async fn apply_pending_status(
    parts: &Parts,
    record: &mut PresenceRecord,
) -> Option<status::Standing> {
    let pending = parts.presence.cluster.take_pending_status(record.pid, &record.cwd).await;
    let word = pending.ok().flatten().filter(|_| record.status != Status::Dnd)?;
    let now = Timestamp::now();
    let current = (record.status, record.status_source, record.status_updated_at);
    let fresh_ms = parts.presence.config.hook_fresh_window_ms;
    let written = status::write(current, word, StatusSource::Hook, now, fresh_ms);
    (record.status, record.status_source, record.status_updated_at) = written;
    Some(written)
}

/// From here on others deliver to it: `hello_ack` is queued first, so that
/// nothing precedes it. An error: it names a session key that somebody else has
/// proven meanwhile, and does not enter.
#[expect(clippy::too_many_arguments, reason = "the pieces of one session, put together once")]
fn activate(
    parts: &Arc<Parts>,
    codec: Codec,
    outbox: &Outbox,
    room: RoomGuard,
    proven: Proven,
    record: PresenceRecord,
    lease: LeaseRef,
    position: i64,
    ack: &HelloAck,
) -> Result<Active, ClaimsAnothersKey> {
    let mut inbox = Inbox::new(position, record.confirms());
    inbox.hold(record.status != Status::Idle);
    let identity = Identity {
        mesh: proven.mesh,
        member: proven.admitted.member.id,
        member_key: proven.admitted.member.key,
        session_key: proven.session_key,
        role: proven.role,
        visitor: proven.visitor,
    };
    let budget = parts.rates.session_budget();
    let session = Arc::new(Session::new(identity, lease, codec, outbox.clone(), inbox, budget));
    let ack = ServerMessage::HelloAck(Box::new(ack.clone()));
    let greet = || outbox.say(codec.encode(&ack, None));
    let entered = room.attach(record, Arc::clone(&session), greet);
    if entered.is_refused {
        return Err(ClaimsAnothersKey);
    }
    if let Some(replaced) = entered.replaced {
        replaced.outbox.close(CloseReason::SESSION_REPLACED);
    }
    changes::end_claims(&parts.presence, &room, entered.claims);
    parts.presence.metrics.connections_active.inc();
    Ok(Active { session, room, saved: proven.admitted.saved.map(Box::new) })
}

#[cfg(test)]
mod tests;
