//! `claudemesh-broker demo`: a broker of its own, four peers, and all that each
//! of them sees. Everything is real: sockets, invites, boxes, the audit chain.
//! Nothing is left behind.
//!
//! With `--json` the whole transcript is one object:
//! `{"steps":[{"step","lines":[{"who","what","text"}]}],"audit":{"valid","entries"}}`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::app;
use crate::audit::{ChainVerifier, Verdict};
use crate::auth::SecretKey;
use crate::cli::enrol::{self, InviteTerms};
use crate::client::{self, Client, ClientOptions, Inbound, Inbox, Outgoing};
use crate::clock::Timestamp;
use crate::config::{Config, LogConfig};
use crate::id::{MeshId, PresenceId};
use crate::lab::scratch::Scratch;
use crate::protocol::{GetState, Group, Priority, Push, SetState, StateResult};
use crate::store::{ClaimRequest, Role, StoredEnvelope, Stores, chain};

mod transcript;

use transcript::Transcript;

/// The longest wait for what should happen at once.
const PATIENCE: Duration = Duration::from_secs(5);
const NAMES: [&str; 4] = ["alice", "bob", "carol", "dave"];

/// Runs the demo. An error is a bug, or a machine that lets nobody listen on loopback.
pub(crate) async fn run(json: bool, config: &Config) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let scratch = Scratch::new(None, "demo")?;
    let mut transcript = Transcript::new(json);
    let stage = Stage::set(&scratch, &config.log).await?;
    let played = play(&stage, &mut transcript).await;
    stage.strike().await?;
    let verdict = played?;
    let seconds = began.elapsed().as_secs_f64();
    transcript.finish(&verdict, seconds)?;
    Ok(if verdict.valid { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The running broker, and a second view of its database.
struct Stage {
    url: String,
    data_dir: PathBuf,
    store: Stores,
    shutdown: CancellationToken,
    broker: JoinHandle<anyhow::Result<()>>,
}

impl Stage {
    async fn set(scratch: &Scratch, log: &LogConfig) -> anyhow::Result<Self> {
        let mut config = Config::for_tests(scratch.path());
        config.log = log.clone();
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen")?;
        let port = listener.local_addr()?.port();
        config.http.public_url = Some(format!("ws://127.0.0.1:{port}/ws"));
        let store = app::open_store(&config).await?;
        let shutdown = CancellationToken::new();
        let broker = tokio::spawn(app::run(config, listener, shutdown.clone()));
        let url = format!("ws://127.0.0.1:{port}/ws");
        Ok(Self { url, data_dir: scratch.path().to_owned(), store, shutdown, broker })
    }

    async fn strike(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        let ended = self.broker.await;
        self.store.database.close().await;
        ended?
    }
}

struct Peer {
    name: &'static str,
    client: Client,
    inbox: Inbox,
    options: ClientOptions,
}

impl Peer {
    async fn connect(
        url: &str,
        name: &'static str,
        options: ClientOptions,
    ) -> anyhow::Result<Self> {
        let (client, inbox) = Client::connect(url, options.clone()).await?;
        Ok(Self { name, client, inbox, options })
    }

    /// The next message that comes in.
    async fn hears(&mut self) -> anyhow::Result<(Box<Push>, String)> {
        let message = tokio::time::timeout(PATIENCE, self.inbox.message()).await;
        let (push, plaintext) = message
            .ok()
            .flatten()
            .with_context(|| format!("{} waited for a message in vain", self.name))?;
        let text = plaintext.with_context(|| format!("{} cannot open it", self.name))?;
        Ok((push, String::from_utf8(text)?))
    }

    /// Waits until an event about `name` comes in.
    async fn sees(&mut self, wanted: &str, name: &str) -> anyhow::Result<()> {
        let waiting = async {
            loop {
                match self.inbox.recv().await? {
                    Inbound::Event { event, data } if event == wanted && data["name"] == name => {
                        return Some(());
                    }
                    _ => {}
                }
            }
        };
        let seen = tokio::time::timeout(PATIENCE, waiting).await.ok().flatten();
        seen.with_context(|| format!("{} saw no {wanted} of {name}", self.name))
    }
}

async fn play(stage: &Stage, transcript: &mut Transcript) -> anyhow::Result<Verdict> {
    let (mesh, link) = found_mesh(stage, transcript).await?;
    let [mut alice, mut bob, mut carol, dave] = gather(stage, &link, transcript).await?;

    transcript.step("a direct message: only its recipient can read it")?;
    let text = "the build is green, please review";
    transcript.says("alice", "to bob", text)?;
    alice.client.send(bob.client.pubkey().as_str(), Priority::Next, text).await?;
    let (push, text) = bob.hears().await?;
    transcript.sees("bob", "from alice", &text)?;
    transcript.carries("alice", "bob's key", push.ciphertext.as_text())?;

    transcript.step("a group: @backend also reaches backend/api, and the broker cannot read it")?;
    transcript.says("alice", "to @backend", "deploy at noon?")?;
    sends(&alice, "@backend", Priority::Next, "deploy at noon?", transcript).await?;
    for peer in [&mut bob, &mut carol] {
        let (_, text) = peer.hears().await?;
        transcript.sees(peer.name, "from alice", &text)?;
    }

    transcript.step("everyone: the same, for the whole mesh")?;
    transcript.says("dave", "to *", "lunch is here")?;
    sends(&dave, "*", Priority::Now, "lunch is here", transcript).await?;
    for peer in [&mut alice, &mut bob, &mut carol] {
        let (_, text) = peer.hears().await?;
        transcript.sees(peer.name, "from dave", &text)?;
    }
    for envelope in stage.store.mail.multicasts_after(&mesh, 0, 10).await? {
        transcript.carries(&envelope.sender_name, &envelope.target_spec, &envelope.ciphertext)?;
    }

    transcript.step("a value that all share: sealed under a key that the members hold")?;
    keeps(stage, &mesh, (&alice, &carol), transcript).await?;

    away_and_back(stage, &mesh, bob, &carol, transcript).await?;
    for peer in [&alice, &carol, &dave] {
        peer.client.close().await;
    }
    audit(stage, &mesh, transcript).await
}

/// Sends sealed, and says so.
async fn sends(
    peer: &Peer,
    target: &str,
    priority: Priority,
    text: &str,
    transcript: &mut Transcript,
) -> anyhow::Result<()> {
    let sent = peer.client.send_sealed(Outgoing::new(target, priority, text)).await?;
    transcript.note(peer.name, &format!("it went out {}", sent.secrecy))?;
    Ok(())
}

/// One keeps a value, another reads it, and the broker has what it cannot read.
async fn keeps(
    stage: &Stage,
    mesh: &MeshId,
    (writer, reader): (&Peer, &Peer),
    transcript: &mut Transcript,
) -> anyhow::Result<()> {
    let (key, value) = ("deploy".to_owned(), json!("at noon"));
    let ask = SetState { key: key.clone(), value: value.clone(), if_version: None };
    transcript.says(writer.name, "for all", &format!("{key}: {value}"))?;
    let (_, secrecy) = writer.client.keep(ask).await?;
    transcript.note(writer.name, &format!("it is kept {secrecy}"))?;
    let StateResult(entry) = reader.client.ask_opened(&GetState { key: key.clone() }).await?;
    transcript.sees(reader.name, "from all", &format!("{key}: {}", entry.value))?;
    let kept = stage.store.states.get(mesh, &key).await?.context("nothing is kept")?;
    transcript.carries(writer.name, "all", &kept.value.to_string())?;
    Ok(())
}

async fn found_mesh(
    stage: &Stage,
    transcript: &mut Transcript,
) -> anyhow::Result<(MeshId, String)> {
    let now = Timestamp::now();
    transcript.step("a broker, a mesh, an invite")?;
    transcript.note("broker", &format!("listens on {}", stage.url))?;
    transcript.note("broker", &format!("keeps its data in {}", stage.data_dir.display()))?;
    let created = enrol::create_mesh(&stage.store, "demo", Some("Demo"), now).await?;
    let key = created.owner_secret.public_key();
    transcript
        .note("owner", &format!("creates the mesh \"demo\" with the key {}...", key.short()))?;
    let terms = InviteTerms {
        role: Role::Member,
        max_uses: 4,
        lifetime_ms: 60 * 60 * 1000,
        broker_url: stage.url.clone(),
        certifies: true,
    };
    let (mesh, secret) = (&created.mesh, &created.owner_secret);
    let invite = enrol::create_invite(&stage.store, mesh, secret, &terms, now).await?;
    let shown: String = invite.link.chars().take(40).collect();
    transcript.note("owner", &format!("signs an invite for four: {shown}..."))?;
    Ok((created.mesh.id, invite.link))
}

async fn gather(
    stage: &Stage,
    link: &str,
    transcript: &mut Transcript,
) -> anyhow::Result<[Peer; 4]> {
    transcript.step("four peers join by the invite and connect")?;
    let mut peers: Vec<Peer> = Vec::new();
    for name in NAMES {
        let secret = SecretKey::generate();
        let enrolled = client::join(None, link, &secret, name).await?;
        let mut options = ClientOptions::session(enrolled.identity(secret.clone()).named(name));
        let group = match name {
            "bob" => Some("backend"),
            "carol" => Some("backend/api"),
            _ => None,
        };
        let groups = group.map(|name| vec![Group { name: name.to_owned(), role: None }]);
        options.about.groups = groups;
        options.identity.session_key = Some(SecretKey::generate());
        let peer = Peer::connect(&stage.url, name, options).await?;
        let of_group = group.map(|group| format!(", in @{group}")).unwrap_or_default();
        let key = secret.public_key();
        transcript.note(name, &format!("is a member with the key {}...{of_group}", key.short()))?;
        for earlier in &mut peers {
            earlier.sees("peer_joined", name).await?;
        }
        peers.push(peer);
    }
    <[Peer; 4]>::try_from(peers).map_err(|_| anyhow::anyhow!("four peers"))
}

/// Bob goes, gets a message meanwhile, and finds it when he is back.
async fn away_and_back(
    stage: &Stage,
    mesh: &MeshId,
    bob: Peer,
    carol: &Peer,
    transcript: &mut Transcript,
) -> anyhow::Result<()> {
    transcript.step("away and back: what was sent meanwhile is kept")?;
    let presence = bob.client.presence_id();
    bob.client.close().await;
    transcript.note("bob", "closes his laptop")?;
    let text = "fixed it, see my branch";
    transcript.says("carol", "to bob", text)?;
    let member_key = bob.client.member_pubkey();
    let ack = carol.client.send(member_key.as_str(), Priority::Next, text).await?;
    let message = ack.message_id.get(..12).unwrap_or(&ack.message_id).to_owned();
    transcript.note("broker", &format!("has it on disk as {message}..."))?;
    for envelope in look_at_queue(stage, mesh, &bob, &presence).await? {
        let target = format!("{}...", envelope.target_spec.get(..12).unwrap_or_default());
        transcript.carries(&envelope.sender_name, &target, &envelope.ciphertext)?;
    }
    let mut bob = Peer::connect(&stage.url, bob.name, bob.options).await?;
    let same = bob.client.presence_id() == presence;
    let how = if same { "is back; nobody noticed that he was away" } else { "is back" };
    transcript.note("bob", how)?;
    let (_, text) = bob.hears().await?;
    transcript.sees("bob", "from carol", &text)?;
    bob.client.close().await;
    Ok(())
}

/// The messages that wait for bob, asked for as he would ask; the claim ends at once.
async fn look_at_queue(
    stage: &Stage,
    mesh: &MeshId,
    bob: &Peer,
    presence: &str,
) -> anyhow::Result<Vec<StoredEnvelope>> {
    let now = Timestamp::now();
    let ask = ClaimRequest {
        presence: PresenceId::from(presence),
        mesh: mesh.clone(),
        member_key: Some(bob.client.member_pubkey()),
        session_key: Some(bob.client.pubkey()),
        urgent_only: false,
        in_flight: Vec::new(),
        until: now,
        limit: 10,
    };
    Ok(stage.store.mail.claim(now, &ask).await?)
}

async fn audit(
    stage: &Stage,
    mesh: &MeshId,
    transcript: &mut Transcript,
) -> anyhow::Result<Verdict> {
    transcript.step("the audit chain: who did what, never what was said")?;
    let mut verifier = ChainVerifier::new(mesh.as_str());
    let walked = chain::walk(&*stage.store.audit, mesh, i64::MIN, |page| {
        for row in page {
            verifier.push(row.as_link());
            let actor = if row.actor.is_some() { row.actor_label() } else { "broker" };
            transcript.audited(actor, &row.event_type, &row.payload, &row.hash)?;
        }
        anyhow::Ok(true)
    });
    walked.await?;
    Ok(verifier.finish())
}
