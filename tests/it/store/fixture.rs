//! A mesh of one's own, and short words for what the properties do with it.

use claudemesh_broker::audit::{AuditEvent, ChainVerifier, GENESIS_EVENT};
use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::id::{self, Key, MemberId, MeshId, MessageId, PresenceId};
use claudemesh_broker::protocol::{PeerRole, Priority};
use claudemesh_broker::record::PresenceRecord;
use claudemesh_broker::store::{
    Accepted, AuditRecord, ClaimRequest, Envelope, Join, Joined, MessageState, NewEnvelope,
    NewInvite, NewMesh, OpenPresence, Reach, ReattachPresence, Role, Stores,
};

/// The instant at which everything begins.
pub(crate) const T0: Timestamp = Timestamp::from_ms(1_800_000_000_123);

/// So many seconds later.
pub(crate) const fn at(seconds: i64) -> Timestamp {
    T0.plus_ms(1000 * seconds)
}

/// A key that nobody else has.
pub(crate) fn fresh_key() -> Key {
    // The random half of each id comes first, so that no two keys begin alike.
    let half = || id::generate().chars().rev().collect::<String>();
    Key::from(half() + &half())
}

/// A member.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) id: MemberId,
    pub(crate) key: Key,
    pub(crate) name: String,
}

/// A mesh with its owner.
#[derive(Clone)]
pub(crate) struct Fixture {
    pub(crate) store: Stores,
    pub(crate) mesh: MeshId,
    pub(crate) owner: Peer,
}

impl Fixture {
    pub(crate) async fn new(store: Stores) -> Self {
        let owner = Peer { id: MemberId::generate(), key: fresh_key(), name: "owner".to_owned() };
        let mesh = new_mesh(&id::generate(), &owner);
        store.meshes.create(T0, &mesh).await.expect("a new slug");
        Self { store, mesh: mesh.id, owner }
    }

    /// A second mesh in the same store.
    pub(crate) async fn another(&self) -> Self {
        Self::new(self.store.clone()).await
    }

    pub(crate) fn invite(&self, max_uses: i32) -> NewInvite {
        NewInvite {
            id: id::generate(),
            mesh: self.mesh.clone(),
            token: id::generate(),
            role: Role::Member,
            code: None,
            max_uses,
            expires_at: at(3600),
            created_by: self.owner.id.to_string(),
        }
    }

    pub(crate) fn join(&self, token: &str, key: &Key, name: &str) -> Join {
        Join {
            token: token.to_owned(),
            mesh: self.mesh.clone(),
            owner_key: self.owner.key.to_string(),
            member: MemberId::generate(),
            key: key.clone(),
            display_name: name.to_owned(),
            certificate: None,
        }
    }

    /// A new member of that name.
    pub(crate) async fn member(&self, name: &str) -> Peer {
        self.member_with_key(name, fresh_key()).await
    }

    pub(crate) async fn member_with_key(&self, name: &str, key: Key) -> Peer {
        let invite = self.invite(1);
        self.store.invites.create(T0, &invite).await.expect("a new token");
        let join = self.join(&invite.token, &key, name);
        let joined = self.store.invites.join(T0, &join).await.expect("a good invite");
        assert_eq!(joined, Joined::New(join.member.clone()));
        Peer { id: join.member, key, name: name.to_owned() }
    }

    /// A presence to open: `control-plane`, idle, of no group.
    pub(crate) fn opening(&self, peer: &Peer) -> OpenPresence {
        opening(&self.mesh, peer)
    }

    pub(crate) async fn open(&self, now: Timestamp, opening: &OpenPresence) -> PresenceId {
        let positions = self.store.presences.open(now, std::slice::from_ref(opening)).await;
        assert_eq!(positions.expect("a good presence").len(), 1);
        opening.record.id.clone()
    }

    /// A presence of that member, opened at [`T0`].
    pub(crate) async fn present(&self, peer: &Peer) -> PresenceId {
        self.open(T0, &self.opening(peer)).await
    }

    /// The presence as the store has it, if it is open.
    pub(crate) async fn stored(&self, presence: &PresenceId) -> Option<PresenceRecord> {
        let all = self.store.presence_search.unheard(at(1_000_000)).await.expect("readable");
        all.into_iter().find(|stored| stored.id == *presence)
    }

    pub(crate) fn direct(&self, from: &Peer, to: &Key) -> NewEnvelope {
        NewEnvelope {
            envelope: Envelope {
                id: MessageId::generate(),
                mesh: self.mesh.clone(),
                sender_member: from.id.clone(),
                sender_name: from.name.clone(),
                sender_session_key: None,
                target_spec: to.to_string(),
                priority: Priority::Next,
                nonce: "bm9uY2U=".to_owned(),
                ciphertext: "Y2lwaGVydGV4dA==".to_owned(),
                client_message_id: None,
                request_fingerprint: None,
                reply_to_id: None,
                scheduled: None,
                properties: None,
            },
            reach: Reach::Direct { claim: None, note: None },
        }
    }

    pub(crate) fn multicast(&self, from: &Peer) -> NewEnvelope {
        let envelope = self.direct(from, &from.key);
        changed(envelope, |envelope| {
            envelope.target_spec = "*".to_owned();
            envelope.reach = Reach::Multicast;
        })
    }

    /// Accepts one envelope and returns its place.
    pub(crate) async fn send(&self, now: Timestamp, envelope: &NewEnvelope) -> i64 {
        let batch = std::slice::from_ref(envelope);
        match self.store.envelopes.accept(now, batch).await.expect("a good envelope").as_slice() {
            [Accepted::New { seq, .. }] => *seq,
            other => panic!("not taken as new: {other:?}"),
        }
    }

    /// Accepts direct envelopes from the owner, one transaction each.
    pub(crate) async fn mail(&self, to: &Key, count: usize) -> Vec<MessageId> {
        let mut ids = Vec::new();
        for _ in 0..count {
            let envelope = self.direct(&self.owner, to);
            self.send(T0, &envelope).await;
            ids.push(envelope.envelope.id);
        }
        ids
    }

    /// A request for all mail of a member, until 30 seconds after [`T0`].
    pub(crate) fn asks(&self, presence: &PresenceId, peer: &Peer) -> ClaimRequest {
        ClaimRequest {
            presence: presence.clone(),
            mesh: self.mesh.clone(),
            member_key: Some(peer.key.clone()),
            session_key: None,
            urgent_only: false,
            in_flight: Vec::new(),
            until: at(30),
            limit: 1000,
        }
    }

    /// What a claim gives.
    pub(crate) async fn claims(&self, now: Timestamp, ask: &ClaimRequest) -> Vec<MessageId> {
        let given = self.store.mail.claim(now, ask).await.expect("a good request");
        given.into_iter().map(|stored| stored.envelope.id).collect()
    }

    pub(crate) async fn message(&self, id: &MessageId) -> Option<MessageState> {
        let found =
            self.store.messages.find(&self.mesh, id.as_str(), None).await.expect("readable");
        assert!(found.len() <= 1, "{id} is unique");
        found.into_iter().next()
    }

    /// The mesh's audit rows but for the one that begins the chain, oldest first, after
    /// checking the chain.
    pub(crate) async fn audit(&self) -> Vec<AuditRecord> {
        let mut rows = self.store.audit.after(&self.mesh, 0, i64::MAX).await.expect("readable");
        let mut verifier = ChainVerifier::new(self.mesh.as_str());
        for row in &rows {
            verifier.push(row.as_link());
        }
        let verdict = verifier.finish();
        assert!(verdict.valid, "the chain breaks at {:?}", verdict.first_bad());
        rows.retain(|row| row.event_type != GENESIS_EVENT);
        rows
    }

    /// The mesh's audit rows of one type.
    pub(crate) async fn audit_of(&self, event_type: &str) -> Vec<AuditRecord> {
        let mut rows = self.audit().await;
        rows.retain(|row| row.event_type == event_type);
        rows
    }
}

/// A mesh with that slug.
pub(crate) fn new_mesh(slug: &str, owner: &Peer) -> NewMesh {
    NewMesh {
        id: MeshId::generate(),
        slug: slug.to_owned(),
        name: format!("mesh {slug}"),
        owner_key: owner.key.clone(),
        root_key: "cm9vdA".to_owned(),
        owner_member: owner.id.clone(),
        owner_name: owner.name.clone(),
        founder: None,
    }
}

/// A presence of that member to open: `control-plane`, idle, of no group.
pub(crate) fn opening(mesh: &MeshId, peer: &Peer) -> OpenPresence {
    OpenPresence {
        record: PresenceRecord {
            role: PeerRole::ControlPlane,
            session_id: id::generate(),
            display_name: peer.name.clone(),
            node: "node-1".to_owned(),
            ..PresenceRecord::new(mesh.clone(), peer.id.clone(), peer.key.clone(), T0)
        },
        audit: AuditEvent::PeerJoined {
            pubkey: peer.key.clone(),
            groups: Vec::new(),
            restored: false,
        },
    }
}

/// That opening, but for what is changed about its record.
pub(crate) fn opening_with(
    mut opening: OpenPresence,
    change: impl FnOnce(&mut PresenceRecord),
) -> OpenPresence {
    change(&mut opening.record);
    opening
}

/// What another node says of a presence that it takes over, whosever it is.
pub(crate) fn taking_over(node: &str) -> ReattachPresence {
    ReattachPresence {
        session_id: None,
        cwd: String::new(),
        pid: 1,
        display_name: None,
        node: node.to_owned(),
        member: None,
    }
}

/// That envelope, but for what is changed about it.
pub(crate) fn changed(
    mut envelope: NewEnvelope,
    change: impl FnOnce(&mut NewEnvelope),
) -> NewEnvelope {
    change(&mut envelope);
    envelope
}
