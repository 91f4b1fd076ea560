//! A mesh with its owner, from which tests take members.

use std::sync::Arc;

use claudemesh_broker::audit::{ChainRow, ChainVerifier};
use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::cli::enrol::{self, CreatedMesh, InviteTerms};
use claudemesh_broker::client::Identity;
use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::id::{MemberId, MeshId};
use claudemesh_broker::store::{AuditRecord, Join, Joined, Role, Store};

/// A mesh of a broker.
#[derive(Clone)]
pub(crate) struct TestMesh {
    created: Arc<CreatedMesh>,
    store: Arc<dyn Store>,
    member_token: String,
    admin_token: String,
}

impl TestMesh {
    /// Makes a mesh in a store that a broker uses.
    pub(crate) async fn create(store: &Arc<dyn Store>, slug: &str, broker_url: &str) -> Self {
        let created = enrol::create_mesh(&**store, slug, None, Timestamp::now()).await;
        let created = Arc::new(created.expect("a mesh"));
        let member_token = invite(&**store, &created, Role::Member, broker_url).await;
        let admin_token = invite(&**store, &created, Role::Admin, broker_url).await;
        Self { created, store: Arc::clone(store), member_token, admin_token }
    }

    /// Its id.
    pub(crate) fn id(&self) -> &MeshId {
        &self.created.mesh.id
    }

    /// The owner, as a peer.
    pub(crate) fn owner(&self) -> Identity {
        let (member, key) = (self.created.member_id.clone(), self.created.owner_secret.clone());
        Identity::new(self.id().clone(), member, key).named("owner")
    }

    /// A new member of that name.
    pub(crate) async fn member(&self, name: &str) -> Identity {
        self.enrol(name, Role::Member, &self.member_token).await
    }

    /// A new admin of that name.
    pub(crate) async fn admin(&self, name: &str) -> Identity {
        self.enrol(name, Role::Admin, &self.admin_token).await
    }

    /// A member's invite, as a newcomer gets it.
    pub(crate) fn link(&self) -> String {
        format!("ic://join/{}", self.member_token)
    }

    async fn enrol(&self, name: &str, role: Role, token: &str) -> Identity {
        let key = SecretKey::generate();
        let join = Join {
            token: token.to_owned(),
            mesh: self.id().clone(),
            owner_key: self.created.owner_secret.public_key().to_string(),
            role,
            member: MemberId::generate(),
            key: key.public_key(),
            display_name: name.to_owned(),
        };
        match self.store.join(Timestamp::now(), &join).await.expect("joined") {
            Joined::New(member) => Identity::new(self.id().clone(), member, key).named(name),
            other => panic!("a new member, not {other:?}"),
        }
    }

    /// All audit rows, oldest first.
    pub(crate) async fn audit_rows(&self) -> Vec<AuditRecord> {
        self.store.audit_after(self.id(), 0, 1_000_000).await.expect("rows")
    }

    /// How many audit rows there are of that type, in a chain that must hold.
    pub(crate) async fn audited(&self, event_type: &str) -> usize {
        let rows = self.audit_rows().await;
        let mut verifier = ChainVerifier::new(self.id().as_str());
        for row in &rows {
            let holds = verifier.push(ChainRow {
                id: row.id,
                prev_hash: &row.prev_hash,
                event_type: &row.event_type,
                actor: row.actor.as_deref(),
                payload: &row.payload,
                created_at: row.created_at,
                hash: &row.hash,
            });
            assert!(holds, "the chain breaks at {row:?}");
        }
        rows.iter().filter(|row| row.event_type == event_type).count()
    }
}

async fn invite(store: &dyn Store, created: &CreatedMesh, role: Role, url: &str) -> String {
    let terms = InviteTerms {
        role,
        max_uses: i32::MAX,
        lifetime_ms: 60 * 60 * 1000,
        broker_url: url.to_owned(),
    };
    let now = Timestamp::now();
    let invite = enrol::create_invite(store, &created.mesh, &created.owner_secret, &terms, now);
    invite.await.expect("an invite").token
}
