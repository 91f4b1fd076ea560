//! From a hello to a session.
//!
//! The checks stand in the recorded order; nothing is registered before the
//! signature has been verified and used up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::Session;
use super::inbox::Inbox;
use crate::audit::AuditEvent;
use crate::auth::{
    self, HelloProof, ProofError, SessionHelloProof, verify_attestation, verify_hello,
    verify_session_hello,
};
use crate::clock::Timestamp;
use crate::cluster::{Acquired, LeaseRef, PresenceRecord, Release};
use crate::codec::Codec;
use crate::id::{Key, MeshId, PresenceId};
use crate::limits;
use crate::node::Node;
use crate::outbox::Outbox;
use crate::protocol::handshake::About;
use crate::protocol::{
    CloseReason, ErrorFrame, Group, Hello, HelloAck, MemberProfile, MeshPolicy, PROTOCOL_VERSION,
    PeerRole, Profile, ServerMessage, SessionHello, Status, StatusSource,
};
use crate::redelivery;
use crate::registry::{Candidate, RoomGuard};
use crate::router::bus::refresh_members;
use crate::router::presence;
use crate::router::status;
use crate::store::{Admission, AdmittedMember, OpenPresence, PeerState, ReattachPresence};

/// Channels whose clients confirm every delivery.
const CONFIRMING_CHANNELS: [&str; 2] = ["claudemesh-daemon", "claudemesh-session"];

/// A session and its hold on its mesh.
pub struct Active {
    /// The session.
    pub session: Arc<Session>,
    /// Its mesh; stays while this lives.
    pub room: RoomGuard,
    /// What the member's last session left, to go on from.
    pub saved: Option<PeerState>,
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
    let admitted = admit(node, &mesh, &hello.pubkey).await?.ok_or_else(unauthorized)?;
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
    let admitted = admit(node, &mesh, &hello.parent_member_pubkey)
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

// --- proof ---------------------------------------------------------------------

fn session_key_of(hello: &Hello) -> Result<Option<Key>, Box<Refusal>> {
    use serde_json::Value;
    match &hello.session_pubkey {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) if auth::is_public_key(text) => {
            Ok(Some(Key::from(text.as_str())))
        }
        Some(_) => Err(bad_session_key()),
    }
}

fn bad_session_key() -> Box<Refusal> {
    Refusal::new("bad_session_pubkey", "sessionPubkey must be 64 lowercase hex chars")
}

fn check_session_proofs(hello: &SessionHello) -> Result<(), Box<Refusal>> {
    if !auth::is_public_key(&hello.session_pubkey) {
        return Err(bad_session_key());
    }
    if !auth::is_public_key(&hello.parent_member_pubkey) {
        return Err(Refusal::new(
            "bad_parent_pubkey",
            "parentMemberPubkey must be 64 lowercase hex chars",
        ));
    }
    let attestation = hello
        .parent_attestation
        .as_ref()
        .filter(|attestation| {
            attestation.session_pubkey == hello.session_pubkey
                && attestation.parent_member_pubkey == hello.parent_member_pubkey
        })
        .ok_or_else(|| {
            Refusal::new("attestation_mismatch", "parentAttestation is not for these two keys")
        })?;
    let now = Timestamp::now();
    let claim = auth::Attestation {
        session_pubkey: &attestation.session_pubkey,
        parent_pubkey: &attestation.parent_member_pubkey,
        expires_at: attestation.expires_at,
        signature: &attestation.signature,
    };
    verify_attestation(claim, now).map_err(|error| Refusal::proof("attestation", error))?;
    let proof = SessionHelloProof {
        mesh_id: &hello.mesh_id,
        parent_pubkey: &hello.parent_member_pubkey,
        session_pubkey: &hello.session_pubkey,
        timestamp: hello.timestamp,
        signature: &hello.signature,
    };
    verify_session_hello(proof, now).map_err(|error| Refusal::proof("session_hello", error))
}

/// A signature is good once in the cluster. Its hex may be spelled in two
/// ways, so its bytes are what counts.
async fn use_up(node: &Node, signature: &str) -> Result<(), Box<Refusal>> {
    let digest: [u8; 32] = Sha256::digest(signature.to_ascii_lowercase()).into();
    let ttl_ms = u64::try_from(limits::REPLAY_GUARD_MS).unwrap_or(u64::MAX);
    match node.cluster.use_once(&digest, ttl_ms).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Refusal::new("replayed", "this hello was used before; sign a new one")),
        Err(error) => {
            tracing::warn!(%error, "a hello could not be checked for replay");
            Err(Refusal::unavailable())
        }
    }
}

async fn admit(
    node: &Node,
    mesh: &MeshId,
    key: &str,
) -> Result<Option<Box<AdmittedMember>>, Box<Refusal>> {
    match node.store.admit(mesh, key).await {
        Ok(Admission::Member(admitted)) => Ok(Some(admitted)),
        Ok(Admission::Revoked { mesh_label }) => {
            let text = format!(
                "You've been removed from \"{mesh_label}\". Contact the mesh owner to rejoin."
            );
            Err(Box::new(Refusal {
                error: ErrorFrame::new("revoked", text),
                close: CloseReason::BANNED,
            }))
        }
        Ok(Admission::Unknown) => Ok(None),
        Err(error) => {
            tracing::warn!(%error, "a hello could not be checked");
            Err(Refusal::unavailable())
        }
    }
}

// --- entry ---------------------------------------------------------------------

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
    let record = new_record(node, &proven);
    let changes = proven.changes;
    let cap = node.config.presence.connections_per_mesh_max;
    let acquired = node.cluster.acquire(&record, cap).await.map_err(|error| {
        tracing::warn!(%error, mesh = %proven.mesh, "a lease could not be taken");
        Refusal::unavailable()
    })?;
    match acquired {
        Acquired::New { lease, yielded } => {
            end_yielded(node, &proven.mesh, yielded).await;
            let active = open(node, codec, outbox, room, proven, record, lease).await?;
            recheck(node, &active, changes).await;
            Ok(active)
        }
        Acquired::Reattached { lease, record: old } => {
            let active = reattach(node, codec, outbox, room, proven, *old, lease).await?;
            recheck(node, &active, changes).await;
            Ok(active)
        }
        Acquired::AtCapacity { current, retry_after_ms } => {
            Err(at_capacity(cap, current, retry_after_ms))
        }
    }
}

fn at_capacity(cap: u32, current: u32, retry_after_ms: u64) -> Box<Refusal> {
    let mut refusal = Refusal::new("capacity", "mesh at connection capacity");
    refusal.error.limit = Some(cap);
    refusal.error.current = Some(current);
    refusal.error.retry_after_ms = Some(retry_after_ms);
    refusal
}

/// A session key in a plain `hello` is a claim. It may not be one that leads
/// to somebody else: mail for it would come here. A proven one takes the place
/// of claims that came before it.
async fn check_session_key(
    node: &Arc<Node>,
    room: &RoomGuard,
    proven: &Proven,
) -> Result<(), Box<Refusal>> {
    let Some(key) = &proven.session_key else { return Ok(()) };
    let own = &proven.admitted.member.id;
    let others: Vec<_> = room
        .addressed_by(key.as_str())
        .into_iter()
        .filter(|candidate| candidate.record.member != *own)
        .collect();
    if proven.role == PeerRole::Session {
        return end_claims(node, proven, others).await;
    }
    let of_member = room.member_by_key(key.as_str()).is_some_and(|member| member.id != *own);
    if of_member || !others.is_empty() || remembered_as_anothers(node, proven, key).await? {
        let text = "sessionPubkey belongs to another member";
        return Err(Refusal::new("bad_session_pubkey", text));
    }
    Ok(())
}

async fn remembered_as_anothers(
    node: &Node,
    proven: &Proven,
    key: &Key,
) -> Result<bool, Box<Refusal>> {
    let since = Timestamp::now().plus_ms(-limits::SESSION_KEY_MEMORY_MS);
    let known = node.store.member_of_session_key(&proven.mesh, key.as_str(), since).await;
    let known = known.map_err(|error| {
        tracing::warn!(%error, "a session key could not be looked up");
        Refusal::unavailable()
    })?;
    Ok(known.is_some_and(|member| member != proven.admitted.member.id))
}

async fn end_claims(
    node: &Arc<Node>,
    proven: &Proven,
    others: Vec<Candidate>,
) -> Result<(), Box<Refusal>> {
    let endings: Vec<presence::Ending> = others
        .into_iter()
        .filter(|candidate| candidate.record.role == PeerRole::ControlPlane)
        .map(|candidate| presence::Ending {
            record: candidate.record.as_ref().clone(),
            close: Some(CloseReason::refused("bad_session_pubkey")),
            audit: Vec::new(),
        })
        .collect();
    match presence::remove(node, &proven.mesh, &endings).await {
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::warn!(%error, "a session key's earlier holder could not be ended");
            Err(Refusal::unavailable())
        }
    }
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

fn new_record(node: &Node, proven: &Proven) -> PresenceRecord {
    let Proven { mesh, role, session_key, about, admitted, .. } = proven;
    let saved = admitted.saved.as_ref().filter(|_| *role == PeerRole::ControlPlane);
    let now = Timestamp::now();
    PresenceRecord {
        id: PresenceId::generate(),
        mesh: mesh.clone(),
        member: admitted.member.id.clone(),
        member_key: admitted.member.key.clone(),
        session_key: session_key.clone(),
        role: *role,
        session_id: cut(&about.session_id, limits::HELLO_TEXT_BYTES_MAX),
        display_name: display_name(proven),
        status: Status::Idle,
        status_source: StatusSource::Jsonl,
        status_updated_at: now,
        summary: None,
        groups: initial_groups(proven),
        connected_at: now,
        last_seen_at: now,
        cwd: cut(&about.cwd, limits::HELLO_TEXT_BYTES_MAX),
        pid: about.pid,
        hostname: cut_option(about.hostname.as_deref()),
        peer_type: cut_option(about.peer_type.as_deref()),
        channel: cut_option(about.channel.as_deref()),
        model: cut_option(about.model.as_deref()),
        stats: None,
        visible: saved.is_none_or(|saved| saved.visible),
        profile: saved.map_or_else(Profile::default, |saved| saved.profile.clone()),
        node: node.config.node.id.to_string(),
        epoch: 0,
        online: true,
    }
}

fn display_name(proven: &Proven) -> String {
    let given = proven.about.display_name.as_deref().filter(|name| !name.is_empty());
    let name = given.unwrap_or(&proven.admitted.member.display_name);
    cut(name, limits::DISPLAY_NAME_BYTES_MAX)
}

/// `hello`: its groups, else the saved ones, else the member's defaults; an
/// empty list counts as none. `session_hello`: an empty list counts.
fn initial_groups(proven: &Proven) -> Vec<Group> {
    let Proven { role, about, admitted, .. } = proven;
    let defaults = &admitted.member.default_groups;
    let groups = match (role, &about.groups) {
        (PeerRole::Session, Some(given)) => given,
        (PeerRole::Session, None) => defaults,
        (_, Some(given)) if !given.is_empty() => given,
        _ => admitted
            .saved
            .as_ref()
            .map(|saved| &saved.groups)
            .filter(|groups| !groups.is_empty())
            .unwrap_or(defaults),
    };
    groups
        .iter()
        .filter(|group| {
            let role_bytes = group.role.as_ref().map_or(0, String::len);
            (1..=limits::GROUP_NAME_BYTES_MAX).contains(&group.name.len())
                && role_bytes <= limits::GROUP_NAME_BYTES_MAX
        })
        .take(limits::GROUPS_PER_PRESENCE_MAX)
        .cloned()
        .collect()
}

fn cut(text: &str, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].to_owned()
}

fn cut_option(text: Option<&str>) -> Option<String> {
    text.map(|text| cut(text, limits::HELLO_TEXT_BYTES_MAX))
}

async fn end_yielded(node: &Arc<Node>, mesh: &MeshId, yielded: Vec<PresenceRecord>) {
    if yielded.is_empty() {
        return;
    }
    node.metrics.leases_yielded.inc_by(yielded.len() as u64);
    let endings: Vec<presence::Ending> = yielded
        .into_iter()
        .map(|record| presence::Ending {
            record,
            close: Some(CloseReason::TRY_AGAIN_LATER),
            audit: Vec::new(),
        })
        .collect();
    if let Err(error) = presence::end(node, mesh, &endings).await {
        // Their rows stay open without a lease: the sweep for such ends them.
        tracing::warn!(%error, %mesh, "presences that yielded could not be ended yet");
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
            if let Err(error) = node.cluster.release(&lease, Release::Now).await {
                tracing::warn!(%error, "its lease stays until it expires");
            }
            return Err(Refusal::unavailable());
        }
    };
    let ack = hello_ack(node, &proven, &record, false);
    let announcement = joined(&proven, &record);
    write_back(node, &lease, &record).await;
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
async fn reattach(
    node: &Arc<Node>,
    codec: Codec,
    outbox: &Outbox,
    room: RoomGuard,
    proven: Proven,
    old: PresenceRecord,
    lease: LeaseRef,
) -> Result<Active, Box<Refusal>> {
    let fresh = new_record(node, &proven);
    let named = proven.about.display_name.as_deref().is_some_and(|name| !name.is_empty());
    let record = PresenceRecord {
        display_name: if named { fresh.display_name } else { old.display_name.clone() },
        session_id: fresh.session_id,
        cwd: fresh.cwd,
        pid: fresh.pid,
        hostname: fresh.hostname.or(old.hostname.clone()),
        peer_type: fresh.peer_type.or(old.peer_type.clone()),
        channel: fresh.channel.or(old.channel.clone()),
        model: fresh.model.or(old.model.clone()),
        last_seen_at: fresh.last_seen_at,
        node: fresh.node,
        epoch: lease.epoch,
        online: true,
        ..old
    };
    let mut record = record;
    apply_pending_status(node, &mut record).await;
    let about = ReattachPresence {
        session_id: Some(record.session_id.clone()),
        cwd: record.cwd.clone(),
        pid: record.pid,
        display_name: Some(record.display_name.clone()),
        node: record.node.clone(),
    };
    let position = match resume(node, &room, &proven, &record, &about).await {
        Ok(position) => position,
        Err(error) => {
            tracing::warn!(%error, "a presence could not be resumed");
            if let Err(error) = node.cluster.release(&lease, Release::Grace).await {
                tracing::warn!(%error, "its lease stays until it expires");
            }
            return Err(Refusal::unavailable());
        }
    };
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
    Ok(active)
}

/// Where the presence's multicasts go on. What an older socket here is done
/// with is written first, so that nothing is delivered again.
async fn resume(
    node: &Node,
    room: &RoomGuard,
    proven: &Proven,
    record: &PresenceRecord,
    about: &ReattachPresence,
) -> crate::store::Result<i64> {
    let older = room.session(&record.id);
    if let Some(older) = &older {
        node.ledger.settle(&*node.store, older).await?;
    }
    let here = older.map_or(0, |older| older.inbox.lock().position());
    match node.store.reattach_presence(Timestamp::now(), &record.id, about).await? {
        Some(position) => Ok(position.max(here)),
        // The row was ended behind the lease's back: the presence begins anew
        // under its id.
        None => node.journal.open(opening(node, proven, record)).await,
    }
}

async fn write_back(node: &Node, lease: &LeaseRef, record: &PresenceRecord) {
    if let Err(error) = node.cluster.write_record(lease, record).await {
        tracing::debug!(%error, "a record waits for its renewal");
    }
}

/// A hook may have spoken before the session came.
async fn apply_pending_status(node: &Node, record: &mut PresenceRecord) {
    let pending = node.cluster.take_pending_status(record.pid, &record.cwd).await;
    if let Ok(Some(status)) = pending {
        let now = Timestamp::now();
        let current = (record.status, record.status_source, record.status_updated_at);
        let fresh_ms = node.config.presence.hook_fresh_window_ms;
        (record.status, record.status_source, record.status_updated_at) =
            status::write(current, status, StatusSource::Hook, now, fresh_ms);
    }
}

fn opening(node: &Node, proven: &Proven, record: &PresenceRecord) -> OpenPresence {
    let groups = record.groups.clone();
    let audit = match (&record.session_key, record.role) {
        (Some(session_key), PeerRole::Session) => AuditEvent::SessionJoined {
            pubkey: record.member_key.clone(),
            session_pubkey: session_key.clone(),
            groups,
        },
        _ => AuditEvent::PeerJoined {
            pubkey: record.member_key.clone(),
            groups,
            restored: proven.admitted.saved.is_some(),
        },
    };
    OpenPresence {
        id: record.id.clone(),
        mesh: record.mesh.clone(),
        member: record.member.clone(),
        session_key: record.session_key.clone(),
        role: record.role,
        about: About {
            display_name: Some(record.display_name.clone()),
            session_id: record.session_id.clone(),
            pid: record.pid,
            cwd: record.cwd.clone(),
            hostname: record.hostname.clone(),
            peer_type: record.peer_type.clone(),
            channel: record.channel.clone(),
            model: record.model.clone(),
            groups: None,
        },
        groups: record.groups.clone(),
        status: record.status,
        status_source: record.status_source,
        visible: record.visible,
        profile: record.profile.clone(),
        node: node.config.node.id.to_string(),
        actor_name: record.display_name.clone(),
        audit,
    }
}

fn joined(proven: &Proven, record: &PresenceRecord) -> crate::cluster::bus::Announcement {
    let mut data = json!({
        "name": record.display_name,
        "pubkey": record.routing_key(),
        "groups": record.groups,
    });
    let is_session = record.role == PeerRole::Session;
    let saved = proven.admitted.saved.as_ref().filter(|_| !is_session);
    let Some(saved) = saved else {
        return presence::announcement("peer_joined", record, data, is_session);
    };
    if let Some(last_seen_at) = saved.last_seen_at {
        data["lastSeenAt"] = json!(last_seen_at);
    }
    if let Some(summary) = &saved.last_summary {
        data["summary"] = json!(summary);
    }
    presence::announcement("peer_returned", record, data, false)
}

fn hello_ack(node: &Node, proven: &Proven, record: &PresenceRecord, reattached: bool) -> HelloAck {
    let AdmittedMember { member, self_editable, saved } = &*proven.admitted;
    let is_session = record.role == PeerRole::Session;
    let restored = saved.as_ref().filter(|_| !is_session && !reattached);
    let named_groups = proven.about.groups.as_ref().is_some_and(|groups| !groups.is_empty());
    HelloAck {
        presence_id: record.id.to_string(),
        member_display_name: member.display_name.clone(),
        member_profile: (!(is_session && reattached)).then(|| MemberProfile {
            role_tag: member.role_tag.clone(),
            groups: member.default_groups.clone(),
            message_mode: member.message_mode.clone(),
        }),
        mesh_policy: Some(MeshPolicy { self_editable: self_editable.clone() }),
        restored: restored.map(|_| true),
        last_summary: restored.and_then(|saved| saved.last_summary.clone()),
        last_seen_at: restored.and_then(|saved| saved.last_seen_at),
        restored_groups: restored
            .filter(|saved| !named_groups && !saved.groups.is_empty())
            .map(|saved| saved.groups.clone()),
        restored_stats: restored.map(|saved| saved.stats),
        services: (!is_session).then(Vec::new),
        node: node.config.node.id.to_string(),
        region: node.config.node.region.clone(),
        lease_ttl_ms: u64::try_from(node.config.presence.lease_grace_ms).unwrap_or(0),
        protocol_version: PROTOCOL_VERSION,
    }
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
    });
    let ack = ServerMessage::HelloAck(Box::new(ack.clone()));
    outbox.say(codec.encode(&ack, None));
    if let Some(replaced) = room.attach(record, Arc::clone(&session)) {
        replaced.outbox.close(CloseReason::SESSION_REPLACED);
    }
    node.metrics.connections_active.inc();
    Active { session, room, saved: proven.admitted.saved }
}
