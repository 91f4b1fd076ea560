//! Hellos that meet a ban, a grant, a claim or a forged record half-way: each step
//! is taken by hand, so that nothing depends on who is faster.

mod refusals;

use tempfile::TempDir;

use super::*;
use crate::admission::teardown;
use crate::app;
use crate::audit::AuditEvent;
use crate::auth::SecretKey;
use crate::cluster::books::LeaseTimes;
use crate::cluster::single::SingleCluster;
use crate::config::Config;
use crate::delivery::testing::heard;
use crate::id::{self, MemberId};
use crate::node::Node;
use crate::presence::{UnsettledEnd, changes};
use crate::protocol::handshake::About;
use crate::record::PresenceRecord;
use crate::store::{Join, Joined, Moderation, NewInvite, NewMesh, Role};

const CAP: u64 = 60_000;

struct Peer {
    id: MemberId,
    key: Key,
}

impl Peer {
    fn new() -> Self {
        Self { id: MemberId::generate(), key: SecretKey::generate().public_key() }
    }
}

/// A node on SQLite, with a mesh; none of its jobs run.
struct Scene {
    node: Arc<Node>,
    mesh: MeshId,
    owner: Peer,
    _folder: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = Config::for_tests(folder.path());
        let store = app::open_store(&config).await.expect("a store");
        let (cluster, _events) = SingleCluster::new(LeaseTimes { grace_ms: CAP, ttl_ms: CAP });
        let (node, _writers) = app::assemble(config, store, cluster);
        let owner = Peer::new();
        let mesh = NewMesh {
            id: MeshId::generate(),
            slug: "test".to_owned(),
            name: "test".to_owned(),
            owner_key: owner.key.clone(),
            root_key: "cm9vdA".to_owned(),
            owner_member: owner.id.clone(),
            owner_name: "owner".to_owned(),
            founder: None,
        };
        node.stores.meshes.create(Timestamp::now(), &mesh).await.expect("a mesh");
        Self { node, mesh: mesh.id, owner, _folder: folder }
    }

    async fn member(&self) -> Peer {
        let now = Timestamp::now();
        let invite = NewInvite {
            id: id::generate(),
            mesh: self.mesh.clone(),
            token: id::generate(),
            role: Role::Member,
            code: None,
            max_uses: 1,
            expires_at: now.plus_ms(60_000),
            created_by: self.owner.id.to_string(),
        };
        self.node.stores.invites.create(now, &invite).await.expect("an invite");
        let peer = Peer::new();
        let join = Join {
            token: invite.token,
            mesh: self.mesh.clone(),
            owner_key: self.owner.key.to_string(),
            member: peer.id.clone(),
            key: peer.key.clone(),
            display_name: "peer".to_owned(),
            certificate: None,
        };
        let joined = self.node.stores.invites.join(now, &join).await.expect("the store answers");
        assert_eq!(joined, Joined::New(peer.id.clone()));
        peer
    }

    /// As its hello has proven it; what follows has yet to happen.
    async fn proven(&self, peer: &Peer, role: PeerRole, session_key: Option<&Key>) -> Proven {
        let read = MemberRead::begin(&self.node.admission);
        let admitted =
            admit(&self.node.admission, &self.mesh, peer.key.as_str(), peer.id.as_str()).await;
        let about = About { session_id: peer.id.to_string(), ..About::default() };
        Proven {
            read,
            mesh: self.mesh.clone(),
            role,
            session_key: session_key.cloned(),
            visitor: false,
            about,
            client_mark: None,
            admitted: admitted.expect("the store answers").expect("a member"),
        }
    }

    async fn enters(&self, proven: Proven) -> (Active, Outbox) {
        let outbox = Outbox::new();
        match enter(&self.node.admission, Codec::Json, &outbox, proven).await {
            Ok(active) => (active, outbox),
            Err(refusal) => panic!("{refusal:?}"),
        }
    }

    /// What follows when the check of its session key is over.
    async fn enters_unchecked(&self, proven: Proven, outbox: &Outbox) -> Result<Active, Refusal> {
        let parts = &self.node.admission;
        let (members, mail, presence) = (&*parts.members, &*parts.mail, &parts.presence);
        let room = presence.registry.enter(&proven.mesh, members, mail, &*presence.cluster).await;
        let room = room.expect("a room");
        let entering = Entering { parts, codec: Codec::Json, outbox, room, proven };
        let place = acquire(parts, &entering.room, &entering.proven).await;
        match place.map_err(|refusal| *refusal)? {
            Place::New { record, lease } => {
                entering.open(*record, lease).await.map_err(|refusal| *refusal)
            }
            Place::Kept { .. } | Place::Visit { .. } => panic!("it was not here before"),
        }
    }

    /// A hello of the member's own, from its first step to its last.
    async fn arrives(&self, peer: &Peer) -> (Active, Outbox) {
        self.enters(self.proven(peer, PeerRole::ControlPlane, None).await).await
    }

    async fn bans(&self, peer: &Peer) {
        let ban = Moderation {
            mesh: self.mesh.clone(),
            member: peer.id.clone(),
            actor: None,
            actor_name: None,
            audit: AuditEvent::PeerLeft,
        };
        let banned = self.node.stores.bans.ban(Timestamp::now(), &ban).await;
        assert!(banned.expect("the store answers"));
    }

    /// That member lets the owner do nothing, says the store.
    async fn blocks_owner(&self, peer: &Peer) {
        let (members, owner) = (&self.node.stores.members, self.owner.key.as_str());
        members.set_grant(&peer.id, owner, Some(&[])).await.expect("a member");
    }

    /// Whether that member lets the owner do nothing, as far as the room knows.
    fn is_owner_blocked(&self, room: &RoomGuard, peer: &Peer) -> bool {
        let member = room.member(&peer.id).expect("a member");
        member.grants.get(self.owner.key.as_str()).is_some_and(Vec::is_empty)
    }

    async fn leases(&self) -> usize {
        self.node.presence.cluster.leases(&self.mesh).await.expect("in memory").len()
    }
}

/// How many events of that name wait for a peer, which reads them.
fn events(outbox: &Outbox, name: &str) -> usize {
    heard(outbox).0.iter().filter(|frame| frame["event"] == name).count()
}

// --- bans and grants ---------------------------------------------------------------------

#[tokio::test]
async fn a_ban_between_the_read_of_a_member_and_that_of_its_room_is_not_lost() {
    let scene = Scene::new().await;
    let bob = scene.member().await;
    let proven = scene.proven(&bob, PeerRole::ControlPlane, None).await;
    // By another program, and nobody is told: there is no room here yet.
    scene.bans(&bob).await;
    let (active, outbox) = scene.enters(proven).await;
    scene.node.life.settled().await;
    assert_eq!(heard(&outbox).1, Some(CloseReason::BANNED));
    assert!(active.room.member(&bob.id).is_none());
    assert!(active.room.records().is_empty());
    assert_eq!(scene.leases().await, 0);
}

#[tokio::test]
async fn a_grant_that_was_read_during_a_hello_is_not_overwritten_by_it() {
    let scene = Scene::new().await;
    let bob = scene.member().await;
    let (here, _outbox) = scene.arrives(&scene.owner).await;
    let proven = scene.proven(&bob, PeerRole::ControlPlane, None).await;
    scene.blocks_owner(&bob).await;
    members::refresh(&scene.node.presence, &here.room).await;
    let (active, outbox) = scene.enters(proven).await;
    assert!(scene.is_owner_blocked(&active.room, &bob), "the block holds");
    assert!(outbox.is_open());
}

#[tokio::test]
async fn a_grant_that_nobody_read_during_a_hello_is_read_by_it() {
    let scene = Scene::new().await;
    let bob = scene.member().await;
    let proven = scene.proven(&bob, PeerRole::ControlPlane, None).await;
    scene.blocks_owner(&bob).await;
    // As where the store tells of a change in a mesh that has no room here.
    scene.node.presence.member_changes.fetch_add(1, Ordering::AcqRel);
    let (active, _outbox) = scene.enters(proven).await;
    assert!(scene.is_owner_blocked(&active.room, &bob), "the block holds");
}

// --- claims ------------------------------------------------------------------------------

/// Two hellos with one session key, which Ada's proves and Eve's merely names; both have
/// passed the check of it.
struct Contest {
    ada: Peer,
    key: Key,
    claim: Proven,
    proof: Proven,
}

impl Contest {
    async fn new() -> (Scene, Self) {
        let scene = Scene::new().await;
        let (ada, eve) = (scene.member().await, scene.member().await);
        let key = SecretKey::generate().public_key();
        let claim = scene.proven(&eve, PeerRole::ControlPlane, Some(&key)).await;
        let proof = scene.proven(&ada, PeerRole::Session, Some(&key)).await;
        (scene, Self { ada, key, claim, proof })
    }
}

#[tokio::test]
async fn a_claim_that_enters_at_the_same_moment_does_not_survive_the_proof() {
    let (scene, Contest { ada, key, claim, proof }) = Contest::new().await;
    let (claims, proves) = (Outbox::new(), Outbox::new());
    let _claim = scene.enters_unchecked(claim, &claims).await.expect("nobody has it yet");
    let proof = scene.enters_unchecked(proof, &proves).await.expect("it is its own");
    scene.node.life.settled().await;
    assert_eq!(heard(&claims).1, Some(CloseReason::BAD_SESSION_PUBKEY));
    let addressed = proof.room.addressed_by(key.as_str());
    assert_eq!(addressed.len(), 1, "nothing goes to the claim any more");
    assert_eq!(addressed[0].record.member, ada.id);
    assert_eq!(scene.leases().await, 1);
    assert!(proves.is_open());
}

#[tokio::test]
async fn a_claim_that_enters_just_after_the_proof_is_refused() {
    let (scene, Contest { key, claim, proof, .. }) = Contest::new().await;
    let (claims, proves) = (Outbox::new(), Outbox::new());
    let proof = scene.enters_unchecked(proof, &proves).await.expect("it is its own");
    let Err(refusal) = scene.enters_unchecked(claim, &claims).await else { panic!("it is in") };
    assert_eq!(refusal.error.code, "bad_session_pubkey");
    assert_eq!(refusal.close, CloseReason::BAD_SESSION_PUBKEY);
    assert_eq!(proof.room.addressed_by(key.as_str()).len(), 1);
    assert_eq!((scene.leases().await, claims.bytes()), (1, 0), "no hello_ack went before");
    let open = scene.node.stores.presence_search.unheard(Timestamp::now().plus_ms(1)).await;
    assert_eq!(open.expect("the store answers").len(), 1);
}

// --- identity ----------------------------------------------------------------------------

/// Whoever can write the cluster's directory edits its own record.
#[tokio::test]
async fn a_session_that_comes_back_is_who_it_proves_to_be_whatever_the_directory_says() {
    let scene = Scene::new().await;
    let (ada, eve) = (scene.member().await, scene.member().await);
    let adas_key = SecretKey::generate().public_key();
    let edits: [&dyn Fn(&mut PresenceRecord); 5] = [
        &|record| record.member = ada.id.clone(),
        &|record| record.member_key = ada.key.clone(),
        &|record| (record.member, record.member_key) = (ada.id.clone(), ada.key.clone()),
        &|record| record.session_key = Some(adas_key.clone()),
        &|record| record.role = PeerRole::Session,
    ];
    for (at, edit) in edits.iter().enumerate() {
        let (active, _) = scene.arrives(&eve).await;
        let lease = active.session.lease.clone();
        let record = active.room.record(&lease.presence).expect("it is here");
        teardown::teardown(&scene.node.admission, active).await;
        let mut record = PresenceRecord::clone(&record);
        edit(&mut record);
        assert!(
            scene.node.presence.cluster.write_record(&lease, &record).await.expect("in memory")
        );

        let (back, _) = scene.arrives(&eve).await;
        let session = &back.session;
        assert_eq!((&session.member, &session.member_key), (&eve.id, &eve.key), "edit {at}");
        assert_eq!((&session.session_key, session.role), (&None, PeerRole::ControlPlane));
        let record = back.room.record(&session.presence).expect("it is here");
        assert_eq!((&record.member, &record.member_key), (&eve.id, &eve.key), "edit {at}");
        assert_ne!(session.presence, lease.presence, "edit {at}: it is another presence");
        teardown::teardown(&scene.node.admission, back).await;
    }
}

/// Nor does a lease lead to the row of another member's presence.
#[tokio::test]
async fn a_session_does_not_come_back_to_another_members_row() {
    let scene = Scene::new().await;
    let (ada, eve) = (scene.member().await, scene.member().await);
    let (adas, _) = scene.arrives(&ada).await;
    let room = &adas.room;
    let forged = PresenceRecord {
        member: eve.id.clone(),
        member_key: eve.key.clone(),
        ..PresenceRecord::clone(&room.record(&adas.session.presence).expect("it is here"))
    };
    let resumed =
        place::resume(&scene.node.admission, room, &forged).await.expect("the store answers");
    assert_eq!(resumed, None);
}

// --- ends whose answer was lost ------------------------------------------------------------

#[tokio::test]
async fn an_end_whose_answer_was_lost_is_told_once_by_who_ended_it() {
    let scene = Scene::new().await;
    let bob = scene.member().await;
    let (here, outbox) = scene.arrives(&scene.owner).await;
    let (bobs, _) = scene.arrives(&bob).await;
    let record = bobs.room.record(&bobs.session.presence).expect("it is here");
    let at = Timestamp::now();
    let end = changes::ended_row(&record, &[]);
    scene.node.stores.presences.end(at, &[end]).await.expect("the store answers");
    let unsettled = |at| UnsettledEnd {
        record: PresenceRecord::clone(&record),
        close: Some(CloseReason::DISCONNECTED),
        at,
    };
    // Another node's end, at another instant, is not told by this one.
    scene.node.presence.unsettled_ends.lock().push(unsettled(at.plus_ms(-1)));
    changes::settle_ends(&scene.node.presence).await;
    assert_eq!(here.room.records().len(), 2);
    scene.node.presence.unsettled_ends.lock().push(unsettled(at));
    changes::settle_ends(&scene.node.presence).await;
    changes::settle_ends(&scene.node.presence).await;
    assert_eq!(here.room.records().len(), 1);
    assert_eq!(events(&outbox, "peer_left"), 1);
}

#[tokio::test]
async fn a_session_comes_back_to_its_presence_and_its_peers_hear_nothing() {
    let scene = Scene::new().await;
    let bob = scene.member().await;
    let (_here, outbox) = scene.arrives(&scene.owner).await;
    let (first, _) = scene.arrives(&bob).await;
    let lease = first.session.lease.clone();
    assert_eq!(events(&outbox, "peer_joined"), 1);
    teardown::teardown(&scene.node.admission, first).await;
    let (back, _) = scene.arrives(&bob).await;
    assert_eq!(back.session.presence, lease.presence);
    assert!(back.session.lease.epoch > lease.epoch);
    assert_eq!(heard(&outbox), (Vec::new(), None), "nobody is told");
    assert_eq!(scene.leases().await, 2);
}
