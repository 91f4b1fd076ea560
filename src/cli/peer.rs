//! `claudemesh-broker peer`: a real peer in a terminal.
//!
//! With `--json` each command prints one object; `listen` prints one per line:
//! `{"type":"listening"|"message"|"event"|"error"|"disconnected"|"reconnected"|"closed", ...}`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCandidates as Candidates;
use serde_json::json;

use super::{Failure, output};
use crate::auth::{InviteLink, SecretKey};
use crate::client::{self, Client, ClientError, ClientOptions, HelloKind, Inbox, KnownKeys};
use crate::config::Config;
use crate::id::MeshId;
use crate::keyring::known::Known;
use crate::keyring::recipient::short;
use crate::keyring::{self, Kept, KeyFile, contacts};
use crate::private;
use crate::protocol::{Priority, Status};

mod apikey;
mod asking;
mod audit;
mod budget;
mod clock;
mod complete;
mod context;
mod control;
mod file;
mod info;
mod list;
mod listen;
mod mcp;
mod members;
mod memory;
mod message;
mod schedule;
mod send;
mod skill;
mod state;
mod stream;
mod task;
mod topic;
mod vault;
mod verify;
mod webhook;

/// As long as a broker lets a peer take to answer another, and a little more.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What a peer can do from the terminal.
#[derive(Debug, Subcommand)]
pub(crate) enum PeerCommand {
    /// Join a mesh by an invite; makes a key and keeps it
    Join(JoinArgs),
    /// Send a message, sealed for its recipient
    Send(SendArgs),
    /// Show what comes in, until Ctrl-C
    Listen(ListenArgs),
    /// Show who is here
    List(list::ListArgs),
    /// Show every member, here or away, and whether its key is proven
    Members(WhoArgs),
    /// Compare keys with a member by another way, and take the key that it has
    Verify(verify::VerifyArgs),
    /// Forget the key that a name had, and take the one that it has next
    Forget(ForgetArgs),
    /// Check that the broker shows the audit chain that it has shown before
    Audit(audit::AuditArgs),
    /// Show the mesh as a whole: who is there, and what it keeps
    Info(WhoArgs),
    /// Show how much may still be sent and asked
    Budget(budget::BudgetArgs),
    /// Show how far a message is, or take it back
    #[command(subcommand)]
    Message(message::MessageCommand),
    /// Say whether the peer that listens may be disturbed
    Status(StatusArgs),
    /// List and call the servers that peers host
    #[command(subcommand)]
    Mcp(mcp::McpCommand),
    /// Read what a peer shows of its disk
    #[command(subcommand)]
    File(file::FileCommand),
    /// Read and write the values that the mesh shares
    #[command(subcommand)]
    State(state::StateCommand),
    /// Have the mesh remember something, and find it again
    #[command(subcommand)]
    Memory(memory::MemoryCommand),
    /// Say what you work on, and read what others do
    #[command(subcommand)]
    Context(context::ContextCommand),
    /// Share, read and remove instructions
    #[command(subcommand)]
    Skill(skill::SkillCommand),
    /// Say what is to be done, take it, and say that it is done
    #[command(subcommand)]
    Task(task::TaskCommand),
    /// Have messages sent later
    #[command(subcommand)]
    Schedule(schedule::ScheduleCommand),
    /// Keep values for yourself, sealed
    #[command(subcommand)]
    Vault(vault::VaultCommand),
    /// Make, list and revoke keys for the HTTP API
    #[command(subcommand)]
    Apikey(apikey::ApikeyCommand),
    /// Look at the mesh's simulation clock, or move it
    Clock(clock::ClockArgs),
    /// Publish to streams, and show what is published
    Stream(stream::StreamArgs),
    /// Talk in topics, and read what was said there
    #[command(subcommand)]
    Topic(topic::TopicCommand),
    /// Addresses that other programs call, and addresses that the broker calls
    #[command(subcommand)]
    Webhook(webhook::WebhookCommand),
}

/// Arguments of `peer join`.
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// The invite: `ic://join/...` or the token alone
    pub(crate) link: String,
    /// What to be called in the mesh
    #[arg(long)]
    pub(crate) name: String,
    /// The broker's address, if not the one in the invite
    #[arg(long, value_name = "URL")]
    pub(crate) broker: Option<String>,
}

/// Which of this user's peers acts.
#[derive(Debug, Args)]
pub(crate) struct WhoArgs {
    /// Which peer, when there are several: NAME or MESH/NAME
    #[arg(long = "as", value_name = "NAME", add = Candidates::new(complete::own_peers))]
    pub(crate) name: Option<String>,
    /// The peer's key file, instead
    #[arg(long = "key", value_name = "FILE", conflicts_with = "name")]
    pub(crate) key_file: Option<PathBuf>,
    /// The broker's address, if not the one of the invite
    #[arg(long, value_name = "URL")]
    pub(crate) broker: Option<String>,
}

/// Arguments of `peer send`.
#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// To whom: a name, a key, `@group`, or `*` for everyone
    #[arg(add = Candidates::new(complete::recipients))]
    pub(crate) to: String,
    /// What to say; `-` reads it from standard input
    pub(crate) text: String,
    /// `now` interrupts, `next` and `low` wait until the recipient is idle
    #[arg(long, value_enum, default_value_t = PriorityArg::Next)]
    pub(crate) priority: PriorityArg,
    /// After how many seconds it must not be delivered any more: 1 to 604800
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(i64).range(1..=604_800))]
    pub(crate) ttl: Option<i64>,
    /// The id of the message that it answers
    #[arg(long, value_name = "ID")]
    pub(crate) reply_to: Option<String>,
    /// Say that you wait for an answer
    #[arg(long)]
    pub(crate) expects_reply: bool,
    /// Who sends.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// Arguments of `peer listen`.
#[derive(Debug, Args)]
pub(crate) struct ListenArgs {
    /// A group to be in; may be given several times
    #[arg(long = "group", value_name = "GROUP")]
    pub(crate) groups: Vec<String>,
    /// The status to start with
    #[arg(long, value_enum)]
    pub(crate) status: Option<StatusArg>,
    /// What to show the others as this peer's work
    #[arg(long, value_name = "TEXT")]
    pub(crate) summary: Option<String>,
    /// End after this many messages
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Who listens.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// Arguments of `peer forget`.
#[derive(Debug, Args)]
pub(crate) struct ForgetArgs {
    /// The name that was met
    pub(crate) contact: String,
    /// Who met it.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// Arguments of `peer status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// `idle` takes everything; `working` and `dnd` only what is sent as `now`
    #[arg(value_enum)]
    pub(crate) status: StatusArg,
    /// Whose status.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// A priority, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PriorityArg {
    /// Interrupts
    Now,
    /// Waits for an idle recipient
    Next,
    /// Waits for an idle recipient
    Low,
}

impl From<PriorityArg> for Priority {
    fn from(typed: PriorityArg) -> Self {
        match typed {
            PriorityArg::Now => Self::Now,
            PriorityArg::Next => Self::Next,
            PriorityArg::Low => Self::Low,
        }
    }
}

/// A status, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatusArg {
    /// Takes everything
    Idle,
    /// Takes only what is urgent
    Working,
    /// Takes only what is urgent
    Dnd,
}

impl From<StatusArg> for Status {
    fn from(typed: StatusArg) -> Self {
        match typed {
            StatusArg::Idle => Self::Idle,
            StatusArg::Working => Self::Working,
            StatusArg::Dnd => Self::Dnd,
        }
    }
}

/// Runs a peer's command.
pub(crate) async fn run(
    command: PeerCommand,
    json: bool,
    config: &Config,
) -> anyhow::Result<ExitCode> {
    let data_dir = private::data_dir(config)?;
    match command {
        PeerCommand::Join(args) => join(&args, json, &data_dir).await,
        PeerCommand::Send(args) => send::run(&args, json, &data_dir).await,
        PeerCommand::Listen(args) => listen::run(&args, json, &data_dir).await,
        PeerCommand::List(args) => list::run(&args, json, &data_dir).await,
        PeerCommand::Members(who) => members::run(&who, json, &data_dir).await,
        PeerCommand::Verify(args) => verify::run(&args, json, &data_dir).await,
        PeerCommand::Forget(args) => forget(&args, json, &data_dir),
        PeerCommand::Status(args) => status(&args, json, &data_dir).await,
        PeerCommand::Message(command) => message::run(&command, json, &data_dir).await,
        PeerCommand::Mcp(command) => mcp::run(&command, json, &data_dir).await,
        PeerCommand::File(command) => file::run(&command, json, &data_dir).await,
        PeerCommand::State(command) => state::run(command, json, &data_dir).await,
        PeerCommand::Memory(command) => memory::run(command, json, &data_dir).await,
        PeerCommand::Context(command) => context::run(command, json, &data_dir).await,
        PeerCommand::Skill(command) => skill::run(command, json, &data_dir).await,
        PeerCommand::Budget(args) => budget::run(&args, json, &data_dir).await,
        PeerCommand::Audit(args) => audit::run(&args, json, &data_dir).await,
        PeerCommand::Info(who) => info::run(&who, json, &data_dir).await,
        PeerCommand::Task(command) => task::run(command, json, &data_dir).await,
        PeerCommand::Schedule(command) => schedule::run(command, json, &data_dir).await,
        PeerCommand::Vault(command) => vault::run(command, json, &data_dir).await,
        PeerCommand::Apikey(command) => apikey::run(command, json, &data_dir).await,
        PeerCommand::Clock(args) => clock::run(&args, json, &data_dir).await,
        PeerCommand::Stream(args) => stream::run(&args, json, &data_dir).await,
        PeerCommand::Topic(command) => topic::run(command, json, &data_dir).await,
        PeerCommand::Webhook(command) => webhook::run(command, json, &data_dir).await,
    }
}

async fn join(args: &JoinArgs, json: bool, data_dir: &Path) -> anyhow::Result<ExitCode> {
    let InviteLink { payload, .. } = InviteLink::read(&args.link)
        .map_err(|error| Failure::new("invalid_invite", error.to_string()))?;
    let path = keyring::path_of(data_dir, &payload.mesh_slug, &args.name)?;
    let mesh = MeshId::from(payload.mesh_id.as_str());
    let mut file = match path.exists().then(|| keyring::read(&path)).transpose()? {
        // After a join that was cut short the same key is no second member.
        Some(Kept { file, .. }) if file.member_id.is_none() && file.mesh_id == mesh => file,
        Some(_) => {
            let message = format!(
                "{} is there already; choose another --name, or remove {} to give that peer up",
                args.name,
                path.display()
            );
            return Err(Failure::new("peer_exists", message).into());
        }
        None => {
            let (slug, url) = (payload.mesh_slug.clone(), payload.broker_url.clone());
            KeyFile::new(mesh, slug, &args.name, url, &SecretKey::generate())
        }
    };
    if let Some(broker) = &args.broker {
        file.broker_url.clone_from(broker);
    }
    file.owner_pubkey = Some(payload.owner_pubkey.as_str().into());
    // The key is written before the invite is used: one that cannot be kept must not join.
    file.write(&path)?;
    let secret = file.secret()?;
    let joining = client::join(Some(&file.broker_url), &args.link, &secret, &args.name).await;
    let enrolled = match joining {
        Ok(enrolled) => enrolled,
        Err(error) => {
            if matches!(error, ClientError::Http { .. }) {
                // The key is nobody's, since the broker said no.
                let _ = std::fs::remove_file(&path);
            }
            return Err(explain_join(error));
        }
    };
    file.member_id = Some(enrolled.member.clone());
    file.write(&path)?;
    let object = json!({
        "meshId": file.mesh_id,
        "meshSlug": file.mesh_slug,
        "memberId": enrolled.member,
        "name": file.name,
        "pubkey": file.public_key,
        "brokerUrl": file.broker_url,
        "keyFile": path,
        "alreadyMember": enrolled.already_member,
    });
    let text = format!(
        "{} is a member of {} now; its key is in {}\nnext: claudemesh-broker peer listen --as {}",
        file.name,
        file.mesh_slug,
        path.display(),
        file.full_name()
    );
    output::answer(json, &object, &text)?;
    Ok(ExitCode::SUCCESS)
}

fn explain_join(error: ClientError) -> anyhow::Error {
    let ClientError::Http { message, .. } = &error else { return error.into() };
    let (code, advice) = match message.as_str() {
        "invite_expired" => ("invite_expired", "the invite has expired; ask for a new one"),
        "invite_exhausted" => {
            ("invite_exhausted", "the invite has been used as often as it may; ask for a new one")
        }
        "invite_revoked" => ("invite_revoked", "the invite was revoked; ask for a new one"),
        "invite_banned" => (
            "invite_banned",
            "this key was banned since the invite was made; ask an admin to unban it",
        ),
        "certificate_required" => (
            "certificate_required",
            "this mesh takes only who is certified; ask for an invite that certifies (`invite \
             create` without --uncertified)",
        ),
        "invite_bad_signature" | "invite_owner_mismatch" | "invite_bad_certificate" => {
            ("invite_invalid", "the invite was not signed by the mesh's owner; ask for a new one")
        }
        "invite_not_found" | "invite_mesh_mismatch" | "mesh_not_found" => (
            "invite_unknown",
            "this broker does not know the invite; check that --broker names the right one",
        ),
        _ => return error.into(),
    };
    Failure::new(code, advice).into()
}

fn forget(args: &ForgetArgs, json: bool, data_dir: &Path) -> anyhow::Result<ExitCode> {
    let kept = args.who.choose(data_dir)?;
    let forgotten = contacts::forget(data_dir, &kept, &args.contact)?;
    Known::of(data_dir, &kept).forget(&args.contact)?;
    let text = if forgotten.is_empty() {
        format!("{} was not met in {}", args.contact, kept.file.mesh_slug)
    } else {
        let keys: Vec<&str> = forgotten.iter().map(|key| short(key)).collect();
        format!("{} ({}) is forgotten", args.contact, keys.join(", "))
    };
    output::answer(json, &json!({ "name": args.contact, "forgotten": forgotten }), &text)?;
    Ok(ExitCode::SUCCESS)
}

async fn status(args: &StatusArgs, json: bool, data_dir: &Path) -> anyhow::Result<ExitCode> {
    let kept = args.who.choose(data_dir)?;
    let status = Status::from(args.status);
    control::ask(&kept, status).await?;
    let effect = match status {
        Status::Idle => "takes everything",
        Status::Working | Status::Dnd => "takes only what is sent as `now`",
    };
    let text = format!("{} is {} and {effect}", kept.file.name, status.as_str());
    output::answer(json, &json!({ "peer": kept.file.full_name(), "status": status }), &text)?;
    Ok(ExitCode::SUCCESS)
}

impl WhoArgs {
    fn choose(&self, data_dir: &Path) -> anyhow::Result<Kept> {
        let mut kept = keyring::choose(data_dir, self.name.as_deref(), self.key_file.as_deref())?;
        if let Some(broker) = &self.broker {
            kept.file.broker_url.clone_from(broker);
        }
        Ok(kept)
    }

    /// A short connection beside the sessions, of which nobody is told. To brokers
    /// that do not know visits it says that it confirms, and never does, so that it
    /// takes no mail away from the sessions.
    async fn visit(&self, kept: &Kept) -> anyhow::Result<(Client, Inbox)> {
        self.visit_with(kept, None).await
    }

    /// As [`Self::visit`], for what seals: nothing is sealed for keys that have changed.
    async fn visit_knowing(&self, kept: &Kept, data_dir: &Path) -> anyhow::Result<(Client, Inbox)> {
        self.visit_with(kept, Some(Known::of(data_dir, kept))).await
    }

    async fn visit_with(
        &self,
        kept: &Kept,
        known: Option<Arc<Known>>,
    ) -> anyhow::Result<(Client, Inbox)> {
        let identity = kept.file.identity()?;
        let mut options = ClientOptions::new(identity, HelloKind::Member, "claudemesh-daemon");
        options.visit = true;
        options.known = known.map(|known| known as Arc<dyn KnownKeys>);
        options.confirm = false;
        options.reconnect = false;
        // Another peer may be asked, which takes its time.
        options.limits.answer_timeout = ANSWER_TIMEOUT;
        about(&mut options);
        connect(kept, options).await
    }
}

async fn connect(kept: &Kept, options: ClientOptions) -> anyhow::Result<(Client, Inbox)> {
    Client::connect(&kept.file.broker_url, options).await.map_err(|error| match error {
        ClientError::Unreachable { url, reason } => {
            let message = format!(
                "no broker answers at {url}: {reason}; is it running? --broker gives another address"
            );
            Failure::new("unreachable", message).into()
        }
        other => other.into(),
    })
}

/// What the others see of this machine.
fn about(options: &mut ClientOptions) {
    options.about.peer_type = Some("human".to_owned());
    let host = rustix::system::uname();
    options.about.hostname = Some(host.nodename().to_string_lossy().into_owned());
    let folder = std::env::current_dir().unwrap_or_default();
    options.about.cwd = folder.to_string_lossy().into_owned();
}
