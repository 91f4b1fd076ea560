//! From a hello to a session.
//!
//! The checks stand in the recorded order; nothing is registered before the
//! signature has been verified and used up.

mod place;
mod proof;
mod record;
mod session_key;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::place::{Place, acquire, let_go};
use self::proof::{admit, check_session_proofs, session_key_of, use_up};
use self::record::{hello_ack, joined, opening};
use self::session_key::check_session_key;
use super::Session;
use super::inbox::Inbox;
use crate::auth::{HelloProof, ProofError, verify_hello};
use crate::clock::Timestamp;
use crate::cluster::{LeaseRef, PresenceRecord, Release};
use crate::codec::Codec;
use crate::id::{Key, MeshId};
use crate::node::Node;
use crate::outbox::Outbox;
use crate::protocol::handshake::About;
use crate::protocol::{
    CloseReason, ErrorFrame, Hello, HelloAck, PeerRole, ServerMessage, SessionHello, Status,
    StatusSource,
};
use crate::redelivery;
use crate::registry::RoomGuard;
use crate::router::bus::refresh_members;
use crate::router::presence;
use crate::router::status;
use crate::store::{AdmittedMember, EndPresence, PeerState, PresenceChange};

/// Channels whose clients confirm every delivery.
const CONFIRMING_CHANNELS: [&str; 2] = ["claudemesh-daemon", "claudemesh-session"];

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
            "this node cannot take new peers right now; try again in a few seconds",
        );
        error.retry_after_ms = Some(2_000);
        Box::new(Self { error, close: CloseReason::TRY_AGAIN_LATER })
    }
}

/// A peer that has proven who it is.
struct Proven {
    /// [`Node::member_changes`] before the member was read.
    changes: u64,
    mesh: MeshId,
    role: PeerRole,
    session_key: Option<Key>,
    about: About,
    admitted: Box<AdmittedMember>,
}

/// `hello`.
///
/// # Errors
///
/// The refusal to send.
pub async fn hello(
    node: &Arc<Node>,
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
    use_up(node, &hello.signature).await?;
    let mesh = MeshId::from(hello.mesh_id);
    let unauthorized = || Refusal::new("unauthorized", "pubkey not found in mesh");
    let changes = node.member_changes.load(Ordering::Acquire);
    let admitted =
        admit(node, &mesh, &hello.pubkey, &hello.member_id).await?.ok_or_else(unauthorized)?;
    if admitted.member.id.as_str() != hello.member_id {
        return Err(unauthorized());
    }
    let role = PeerRole::ControlPlane;
    let about = hello.about;
    enter(node, codec, outbox, Proven { changes, mesh, role, session_key, about, admitted }).await
}

/// `session_hello`.
///
/// # Errors
///
/// The refusal to send.
pub async fn session_hello(
    node: &Arc<Node>,
    codec: Codec,
    outbox: &Outbox,
    hello: SessionHello,
) -> Result<Active, Box<Refusal>> {
    check_session_proofs(&hello)?;
    use_up(node, &hello.signature).await?;
    let mesh = MeshId::from(hello.mesh_id);
    let changes = node.member_changes.load(Ordering::Acquire);
    let admitted = admit(node, &mesh, &hello.parent_member_pubkey, &hello.parent_member_id)
        .await?
        .ok_or_else(|| Refusal::new("unauthorized", "parent pubkey not found in mesh"))?;
    let given = &hello.parent_member_id;
    if !given.is_empty() && admitted.member.id.as_str() != given {
        return Err(Refusal::new(
            "parent_member_id_mismatch",
            "parentMemberId is not the member with parentMemberPubkey",
        ));
    }
    let session_key = Some(Key::from(hello.session_pubkey));
    let role = PeerRole::Session;
    let about = hello.about;
    enter(node, codec, outbox, Proven { changes, mesh, role, session_key, about, admitted }).await
}

/// Subscribes to the mesh, takes a place, opens the presence, and only then
/// drains: a message sent meanwhile is missed by nobody.
async fn enter(
    node: &Arc<Node>,
    codec: Codec,
    outbox: &Outbox,
    proven: Proven,
) -> Result<Active, Box<Refusal>> {
    let room =
        node.registry.enter(&proven.mesh, &*node.store, &*node.cluster).await.map_err(|error| {
            tracing::warn!(%error, mesh = %proven.mesh, "a mesh could not be entered");
            Refusal::unavailable()
        })?;
    room.set_member(proven.admitted.member.clone());
    check_session_key(node, &room, &proven).await?;
    let changes = proven.changes;
    let active = match acquire(node, &room, &proven).await? {
        Place::New { record, lease } => {
            open(node, codec, outbox, room, proven, *record, lease).await?
        }
        Place::Kept { record, lease, position } => {
            reattach(node, codec, outbox, room, proven, *record, lease, position).await
        }
    };
    recheck(node, &active, changes).await;
    Ok(active)
}

/// The member may have been banned between the read of its row and the moment
/// from which others see the session: then nobody has closed it.
async fn recheck(node: &Arc<Node>, active: &Active, changes: u64) {
    if node.member_changes.load(Ordering::Acquire) == changes {
        return;
    }
    let Some(record) = active.room.record(&active.session.presence) else { return };
    match presence::is_admitted(node, &record).await {
        Ok(true) => {}
        Ok(false) => refresh_members(node, &active.room).await,
        Err(error) => {
            tracing::warn!(%error, "a member could not be checked again");
            active.session.outbox.close(CloseReason::TRY_AGAIN_LATER);
        }
    }
}

/// A new presence.
async fn open(
    node: &Arc<Node>,
    codec: Codec,
    outbox: &Outbox,
    room: RoomGuard,
    proven: Proven,
    mut record: PresenceRecord,
    lease: LeaseRef,
) -> Result<Active, Box<Refusal>> {
    apply_pending_status(node, &mut record).await;
    record.epoch = lease.epoch;
    let opened = opening(node, &proven, &record);
    let position = match node.journal.open(opened).await {
        Ok(position) => position,
        Err(error) => {
            tracing::warn!(%error, mesh = %proven.mesh, "a presence could not be opened");
            let_go(node, &lease, Release::Now).await;
            return Err(Refusal::unavailable());
        }
    };
    let ack = hello_ack(node, &proven, &record, false);
    let announcement = joined(&proven, &record);
    if !write_back(node, &lease, &record).await && has_withdrawn(node, &lease, &record).await {
        return Err(Refusal::unavailable());
    }
    let active = activate(node, codec, outbox, room, proven, record, lease, position, &ack);
    let record = active.room.record(&active.session.presence);
    if let Some(record) = record {
        presence::publish(node, &active.room, &record, Some(announcement));
    }
    redelivery::start(node, &active.room, &active.session);
    node.metrics.connections.inc();
    Ok(active)
}

/// The same session comes back: same presence, no event.
#[expect(clippy::too_many_arguments, reason = "the pieces of one session, put together once")]
async fn reattach(
    node: &Arc<Node>,
    codec: Codec,
    outbox: &Outbox,
    room: RoomGuard,
    proven: Proven,
    mut record: PresenceRecord,
    lease: LeaseRef,
    position: i64,
) -> Active {
    if let Some(written) = apply_pending_status(node, &mut record).await {
        let id = record.id.clone();
        node.journal.change(PresenceChange { status: Some(written), ..PresenceChange::of(id) });
    }
    let ack = hello_ack(node, &proven, &record, true);
    write_back(node, &lease, &record).await;
    let active = activate(node, codec, outbox, room, proven, record, lease, position, &ack);
    let claim = Duration::from_millis(u64::try_from(node.config.message.claim_ms).unwrap_or(0));
    active.session.resume(Instant::now() + claim);
    if let Some(record) = active.room.record(&active.session.presence) {
        presence::publish(node, &active.room, &record, None);
    }
    redelivery::start(node, &active.room, &active.session);
    node.metrics.connections.inc();
    active
}

/// Writes the record to the cluster's directory; whether the lease is held, as far
/// as is known.
async fn write_back(node: &Node, lease: &LeaseRef, record: &PresenceRecord) -> bool {
    node.cluster.write_record(lease, record).await.unwrap_or_else(|error| {
        tracing::debug!(%error, "a record waits for its renewal");
        true
    })
}

/// Another hello of the session came while the row of this one's presence was on
/// its way, found none, and took a place of its own: nobody was told of this one,
/// and its row ends. Not if the other went on with this presence.
async fn has_withdrawn(node: &Node, lease: &LeaseRef, record: &PresenceRecord) -> bool {
    let end = EndPresence { node: Some(record.node.clone()), ..presence::ended_row(record, &[]) };
    match node.store.end_presences(Timestamp::now(), &[end]).await {
        Ok(ended) if ended.is_empty() => false,
        Ok(_) => {
            let_go(node, lease, Release::Now).await;
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
    node: &Node,
    record: &mut PresenceRecord,
) -> Option<status::Standing> {
    let pending = node.cluster.take_pending_status(record.pid, &record.cwd).await;
    let word = pending.ok().flatten().filter(|_| record.status != Status::Dnd)?;
    let now = Timestamp::now();
    let current = (record.status, record.status_source, record.status_updated_at);
    let fresh_ms = node.config.presence.hook_fresh_window_ms;
    let written = status::write(current, word, StatusSource::Hook, now, fresh_ms);
    (record.status, record.status_source, record.status_updated_at) = written;
    Some(written)
}

/// From here on others deliver to it: `hello_ack` is queued first, so that
/// nothing precedes it.
#[expect(clippy::too_many_arguments, reason = "the pieces of one session, put together once")]
fn activate(
    node: &Node,
    codec: Codec,
    outbox: &Outbox,
    room: RoomGuard,
    proven: Proven,
    record: PresenceRecord,
    lease: LeaseRef,
    position: i64,
    ack: &HelloAck,
) -> Active {
    let confirms =
        record.channel.as_deref().is_some_and(|channel| CONFIRMING_CHANNELS.contains(&channel));
    let mut inbox = Inbox::new(position, confirms);
    inbox.hold(record.status != Status::Idle);
    let session = Arc::new(Session {
        presence: record.id.clone(),
        mesh: record.mesh.clone(),
        member: record.member.clone(),
        member_key: record.member_key.clone(),
        session_key: record.session_key.clone(),
        role: record.role,
        lease,
        codec,
        outbox: outbox.clone(),
        inbox: Mutex::new(inbox),
        resumption: Mutex::default(),
        in_ledger: AtomicBool::new(false),
        last_heard: AtomicI64::new(Timestamp::now().as_ms()),
        started: Instant::now(),
        heard_ms: AtomicI64::new(0),
        listens: AtomicBool::new(true),
    });
    let ack = ServerMessage::HelloAck(Box::new(ack.clone()));
    outbox.say(codec.encode(&ack, None));
    if let Some(replaced) = room.attach(record, Arc::clone(&session)) {
        replaced.outbox.close(CloseReason::SESSION_REPLACED);
    }
    node.metrics.connections_active.inc();
    Active { session, room, saved: proven.admitted.saved.map(Box::new) }
}
