//! Admission: from a hello to a session, and what remains when its socket is gone.
//!
//! The checks stand in the recorded order; nothing is registered before the
//! signature has been verified and used up. Who somebody is, only a proof says, never the
//! cluster's directory. Called by [`socket`](crate::socket) alone.

mod cost;
mod daemon;
mod entering;
mod place;
mod proof;
mod record;
mod refusal;
mod session_key;
pub(crate) mod teardown;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use self::cost::charge;
use self::entering::Entering;
use self::place::{Place, acquire};
use self::proof::{admit, admit_or_bind, check_session_proofs, session_key_of, use_up};
pub(crate) use self::refusal::Refusal;
use self::session_key::check_session_key;
use crate::accounts::Keys;
use crate::auth::{HelloProof, verify_hello};
use crate::clock::Timestamp;
use crate::codec::Codec;
use crate::config::NodeConfig;
use crate::delivery::adopt;
use crate::id::{Key, MeshId};
use crate::presence::{self, members, servers};
use crate::protocol::handshake::About;
use crate::protocol::{CloseReason, Hello, PeerRole, SessionHello};
use crate::rates::Rates;
use crate::registry::RoomGuard;
use crate::session::Session;
use crate::session::outbox::Outbox;
use crate::store::{
    Admission, AdmittedMember, Invites, Mail, Members, PeerState, Presences, TopicMail,
};
use crate::writers::confirmations::Confirmations;

pub(crate) struct Parts {
    pub node: NodeConfig,
    /// How long a claim on a message holds, in milliseconds.
    pub claim_ms: i64,
    pub members: Arc<dyn Members>,
    pub invites: Arc<dyn Invites>,
    pub mail: Arc<dyn Mail>,
    /// What members missed in their topics.
    pub topics: Arc<dyn TopicMail>,
    pub presences: Arc<dyn Presences>,
    /// What peers are told, and through it delivery, the registry and the cluster.
    pub presence: Arc<presence::Parts>,
    pub confirmations: Arc<Confirmations>,
    pub rates: Arc<Rates>,
    /// Makes marks of client addresses, where other nodes have to tell them apart.
    pub marks: Option<Arc<Keys>>,
}

impl Parts {
    /// What stands for a client's address in a record. Without it a member is not known
    /// by its address on other nodes, and everything else goes on.
    async fn mark(&self, client: IpAddr) -> Option<String> {
        let mark = self.marks.as_ref()?.mark(client).await;
        mark.inspect_err(|error| tracing::debug!(%error, "a client address has no mark")).ok()
    }
}

/// A session and its hold on its mesh.
pub(crate) struct Active {
    pub(crate) session: Arc<Session>,
    /// The session's mesh, which the node serves while this lives.
    pub(crate) room: RoomGuard,
    /// What the member's last session left, to go on from.
    pub(crate) saved: Option<Box<PeerState>>,
}

/// A peer that has proven who it is. Only this module makes one, and a session's
/// identity is taken from here alone: what the cluster says of a presence is a
/// hint about where somebody is, never about who.
struct Proven {
    read: MemberRead,
    mesh: MeshId,
    role: PeerRole,
    session_key: Option<Key>,
    visitor: bool,
    about: About,
    /// What stands for its client address, for other nodes.
    client_mark: Option<String>,
    admitted: Box<AdmittedMember>,
}

/// What tells whether anything about a member has changed since it was read.
#[derive(Clone, Copy)]
struct MemberRead {
    /// [`presence::Parts::member_changes`] before.
    changes: u64,
    /// The number of the read among the node's reads of members.
    number: u64,
}

impl MemberRead {
    fn begin(parts: &Parts) -> Self {
        let changes = parts.presence.member_changes.load(Ordering::Acquire);
        Self { changes, number: parts.presence.registry.begin_refresh() }
    }
}

pub(crate) async fn hello(
    parts: &Arc<Parts>,
    codec: Codec,
    outbox: &Outbox,
    client: IpAddr,
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
    let read = MemberRead::begin(parts);
    let admitted = admit_or_bind(parts, &mesh, &hello.pubkey, &hello.member_id)
        .await?
        .ok_or_else(Refusal::unauthorized)?;
    if admitted.member.id.as_str() != hello.member_id {
        return Err(Refusal::unauthorized());
    }
    use_up(parts, &hello.signature).await?;
    let role = PeerRole::ControlPlane;
    // The member's key is none of its own, under which it could be given mail.
    let session_key = session_key.filter(|key| !visitor || *key != admitted.member.key);
    let (about, client_mark) = (hello.about, parts.mark(client).await);
    let proven = Proven { read, mesh, role, session_key, visitor, about, client_mark, admitted };
    enter(parts, codec, outbox, proven).await
}

pub(crate) async fn session_hello(
    parts: &Arc<Parts>,
    codec: Codec,
    outbox: &Outbox,
    client: IpAddr,
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
    let (about, client_mark) = (hello.about, parts.mark(client).await);
    let visitor = false;
    let proven = Proven { read, mesh, role, session_key, visitor, about, client_mark, admitted };
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
    let (members, mail, presence) = (&*parts.members, &*parts.mail, &parts.presence);
    let room = presence.registry.enter(&proven.mesh, members, mail, &*presence.cluster).await;
    let room = room.map_err(|error| {
        tracing::warn!(%error, mesh = %proven.mesh, "a mesh could not be entered");
        Refusal::unavailable()
    })?;
    room.set_member(proven.read.number, proven.admitted.member.clone());
    check_session_key(parts, &room, &proven).await?;
    charge(parts, &room, &proven).await?;
    let changes = proven.read.changes;
    let entering = Entering { parts, codec, outbox, room, proven };
    let active = match acquire(parts, &entering.room, &entering.proven).await? {
        Place::Visit { record, lease } => entering.visit(*record, lease).await?,
        Place::New { record, lease } => entering.open(*record, lease).await?,
        Place::Kept { record, lease, position, heard_until } => {
            entering.reattach(*record, lease, position, heard_until).await?
        }
    };
    recheck(parts, &active, changes).await;
    restore_servers(parts, &active);
    adopt_posts(parts, &active);
    Ok(active)
}

/// While this node did not serve the mesh, nobody here was told of what other programs
/// posted. Who comes first has that looked for.
fn adopt_posts(parts: &Arc<Parts>, active: &Active) {
    if active.room.begin_adoption() {
        let (presence, room) = (Arc::clone(&parts.presence), Arc::clone(&active.room));
        let tasks = presence.life.tasks.clone();
        tasks.spawn(async move {
            adopt::posts(&presence.delivery, &room).await;
        });
    }
}

/// A member's own connection takes up servers of its that outlived their hosts; the
/// hello waits for no reading of them.
fn restore_servers(parts: &Arc<Parts>, active: &Active) {
    let session = &active.session;
    if session.role == PeerRole::ControlPlane && !session.visitor {
        let (presence, room) = (Arc::clone(&parts.presence), Arc::clone(&active.room));
        let (session, tasks) = (Arc::clone(session), presence.life.tasks.clone());
        tasks.spawn(async move { servers::restore(&presence, &room, &session).await });
    }
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
    match parts.members.admit(mesh, member_key.as_str(), member.as_str()).await {
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

#[cfg(test)]
mod tests;
