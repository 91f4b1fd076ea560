//! A broker in this process, with a mesh and members.

use claudemesh_broker::app;
use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::client::{Client, ClientOptions, Identity, Inbox};
use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::config::Config;
use claudemesh_broker::id::{self, Key, MemberId, MeshId};
use claudemesh_broker::store::chain::verify;
use claudemesh_broker::store::{Join, Joined, NewInvite, NewMesh, Role, Stores};
use std::net::SocketAddr;
use std::path::Path;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::BrokerProcess;

/// A member of the node's mesh.
#[derive(Clone)]
pub struct Member {
    pub id: MemberId,
    pub key: SecretKey,
    pub name: String,
}

impl Member {
    pub fn pubkey(&self) -> Key {
        self.key.public_key()
    }

    /// The same, as a client is one.
    pub fn identity(&self, mesh: &MeshId) -> Identity {
        Identity::new(mesh.clone(), self.id.clone(), self.key.clone()).named(&*self.name)
    }
}

/// A running broker.
pub struct Node {
    pub address: SocketAddr,
    pub mesh: MeshId,
    pub owner: Member,
    /// A second way into the same database, as another program has it.
    pub store: Stores,
    pub config: Config,
    shutdown: CancellationToken,
    running: Option<JoinHandle<anyhow::Result<()>>>,
    /// The broker, where it is a process of its own.
    process: Option<BrokerProcess>,
    _folder: Option<tempfile::TempDir>,
}

impl Node {
    /// With short windows, so that tests need not wait: grace 2 s.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// As configured by `adjust`.
    pub async fn start_with(adjust: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut config = Config::for_tests(folder.path());
        config.presence.lease_grace_ms = 2_000;
        config.message.send_rate_per_minute = 0;
        config.message.request_rate_per_minute = 0;
        adjust(&mut config);
        let store = app::open_store(&config).await.expect("a store");
        let (mesh, owner) = new_mesh(&store, "test").await;
        let (address, shutdown, running) = run(&config).await;
        Self {
            address,
            mesh,
            owner,
            store,
            config,
            shutdown,
            running: Some(running),
            process: None,
            _folder: Some(folder),
        }
    }

    /// The real program as a process of its own, where what it costs is what
    /// its process costs.
    pub async fn program(env: &[(&str, &str)]) -> Self {
        Self::of(BrokerProcess::start(env).await)
    }

    /// As above, with so many open files and no more.
    pub async fn program_with_files(env: &[(&str, &str)], open_files: u32) -> Self {
        Self::of(BrokerProcess::start_limited(env, Some(open_files)).await)
    }

    fn of(process: BrokerProcess) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], process.port)),
            mesh: process.mesh.clone(),
            owner: process.owner.clone(),
            store: process.store.clone(),
            config: Config::for_tests(folder.path()),
            shutdown: CancellationToken::new(),
            running: None,
            process: Some(process),
            _folder: Some(folder),
        }
    }

    /// What the program has logged so far.
    pub fn log(&self) -> String {
        self.process.as_ref().expect("a program").log()
    }

    /// The memory that the program holds now.
    pub fn resident_bytes(&self) -> u64 {
        self.process.as_ref().expect("a program").resident_bytes()
    }

    /// One of several on the same databases, with a mesh that is there.
    pub async fn start_on(config: Config, store: Stores, mesh: MeshId, owner: Member) -> Self {
        let (address, shutdown, running) = run(&config).await;
        let running = Some(running);
        let _folder = None;
        Self { address, mesh, owner, store, config, shutdown, running, process: None, _folder }
    }

    /// One that runs elsewhere, as peers see it.
    pub fn elsewhere(
        address: SocketAddr,
        config: Config,
        store: Stores,
        mesh: MeshId,
        owner: Member,
    ) -> Self {
        let (shutdown, running, _folder) = (CancellationToken::new(), None, None);
        Self { address, mesh, owner, store, config, shutdown, running, process: None, _folder }
    }

    /// Another mesh on the same broker.
    pub async fn another_mesh(&self, slug: &str) -> (MeshId, Member) {
        new_mesh(&self.store, slug).await
    }

    pub fn url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    /// A new member of the mesh.
    pub async fn member(&self, name: &str) -> Member {
        self.member_as(name, Role::Member).await
    }

    /// A new member with that role.
    pub async fn member_as(&self, name: &str, role: Role) -> Member {
        new_member(&self.store, &self.mesh, &self.owner, name, role).await
    }

    /// Tells it to stop, and does not wait.
    pub fn begin_stop(&self) {
        self.shutdown.cancel();
    }

    /// Where its database lies.
    pub fn data_dir(&self) -> &Path {
        self._folder.as_ref().expect("a node of its own").path()
    }

    /// Stops it as an operator would, and waits.
    pub async fn stop(&mut self) {
        self.shutdown.cancel();
        if let Some(running) = self.running.take() {
            running.await.expect("no panic").expect("a clean stop");
        }
    }

    /// Stops it and starts it again on the same data; the port changes.
    pub async fn restart(&mut self) {
        self.stop().await;
        let (address, shutdown, running) = run(&self.config).await;
        (self.address, self.shutdown, self.running) = (address, shutdown, Some(running));
    }

    /// The mesh's audit rows of that type.
    pub async fn audit_count(&self, event_type: &str) -> i64 {
        let page = self.store.audit.page(&self.mesh, Some(event_type), 0, 0).await;
        page.expect("the store answers").1
    }

    /// Whether the mesh's chain verifies.
    pub async fn audit_is_valid(&self) -> bool {
        verify(&*self.store.audit, &self.mesh).await.expect("the store answers").valid
    }

    /// A new member of the mesh, as a client is one.
    pub async fn identity(&self, name: &str) -> Identity {
        self.member(name).await.identity(&self.mesh)
    }

    /// A connected client.
    pub async fn connect(&self, options: ClientOptions) -> (Client, Inbox) {
        Client::connect(&self.url(), options).await.expect("connected")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn run(config: &Config) -> (SocketAddr, CancellationToken, JoinHandle<anyhow::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(app::run(config.clone(), listener, shutdown.clone()));
    (address, shutdown, running)
}

/// How many audit rows of that type a mesh has, in a chain that must hold.
pub async fn audited(store: &Stores, mesh: &MeshId, event_type: &str) -> i64 {
    let verdict = verify(&*store.audit, mesh).await.expect("the store answers");
    assert!(verdict.valid, "the chain breaks at {:?}", verdict.broken_at);
    let page = store.audit.page(mesh, Some(event_type), 0, 0).await;
    page.expect("the store answers").1
}

/// A new mesh and its owner.
pub async fn new_mesh(store: &Stores, slug: &str) -> (MeshId, Member) {
    let owner =
        Member { id: MemberId::generate(), key: SecretKey::generate(), name: "owner".to_owned() };
    let mesh = NewMesh {
        id: MeshId::generate(),
        slug: slug.to_owned(),
        name: slug.to_owned(),
        owner_key: owner.pubkey(),
        root_key: "cm9vdA".to_owned(),
        owner_member: owner.id.clone(),
        owner_name: owner.name.clone(),
        founder: None,
    };
    store.meshes.create(Timestamp::now(), &mesh).await.expect("a mesh");
    (mesh.id, owner)
}

/// A new member, by an invite of its own.
pub async fn new_member(
    store: &Stores,
    mesh: &MeshId,
    owner: &Member,
    name: &str,
    role: Role,
) -> Member {
    let member =
        Member { id: MemberId::generate(), key: SecretKey::generate(), name: name.to_owned() };
    let now = Timestamp::now();
    let invite = NewInvite {
        id: id::generate(),
        mesh: mesh.clone(),
        token: id::generate(),
        role,
        code: None,
        max_uses: 1,
        expires_at: now.plus_ms(60_000),
        created_by: owner.id.to_string(),
    };
    store.invites.create(now, &invite).await.expect("an invite");
    let join = Join {
        token: invite.token,
        mesh: mesh.clone(),
        owner_key: owner.pubkey().to_string(),
        member: member.id.clone(),
        key: member.pubkey(),
        display_name: name.to_owned(),
        certificate: None,
    };
    let joined = store.invites.join(now, &join).await.expect("the store answers");
    assert_eq!(joined, Joined::New(member.id.clone()));
    member
}
