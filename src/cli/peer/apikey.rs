//! `peer apikey`: keys by which programs call the broker's HTTP API in a peer's name.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::WhoArgs;
use super::asking::{Shown, short};
use crate::cli::output;
use crate::clock::Timestamp;
use crate::protocol::{ApiCapability, ApikeyCreate, ApikeyList, ApikeyRevoke, ListedApikey};

/// What can be done with API keys.
#[derive(Debug, Subcommand)]
pub(crate) enum ApikeyCommand {
    /// Make a key; its secret is shown this once
    Create(CreateArgs),
    /// Show the keys: a moderator's are all of the mesh
    List(ListArgs),
    /// Have a key be good no longer
    Revoke(RevokeArgs),
}

/// Arguments of `peer apikey create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// What the key is for
    pub(crate) label: String,
    /// What its holder may do; may be given several times
    #[arg(long = "can", value_enum, required = true)]
    pub(crate) capabilities: Vec<CapabilityArg>,
    /// A topic that it is good for; may be given several times. Without: all of them
    #[arg(long = "topic", value_name = "TOPIC")]
    pub(crate) topics: Vec<String>,
    /// How long it is good: 30m, 12h, 7d. Without: until it is revoked
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) expires: Option<Duration>,
    /// Whose key.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// Arguments of `peer apikey list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Who asks.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// Arguments of `peer apikey revoke`.
#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// The key's id, or the beginning of it
    pub(crate) id: String,
    /// Who asks.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// A capability, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CapabilityArg {
    /// Post messages
    Send,
    /// Read
    Read,
    /// Write shared state
    StateWrite,
    /// All of it; for moderators
    Admin,
}

impl From<CapabilityArg> for ApiCapability {
    fn from(typed: CapabilityArg) -> Self {
        match typed {
            CapabilityArg::Send => Self::Send,
            CapabilityArg::Read => Self::Read,
            CapabilityArg::StateWrite => Self::StateWrite,
            CapabilityArg::Admin => Self::Admin,
        }
    }
}

pub(super) async fn run(
    command: ApikeyCommand,
    json: bool,
    data_dir: &Path,
) -> anyhow::Result<ExitCode> {
    match command {
        ApikeyCommand::Create(args) => create(args, json, data_dir).await,
        ApikeyCommand::List(args) => {
            let shown = Shown {
                headings: ["id", "label", "can", "topics", "of", "made", "used", "ends"],
                row,
                nothing: "there are no API keys",
            };
            args.who.list(data_dir, json, ApikeyList::default(), shown).await?;
            Ok(ExitCode::SUCCESS)
        }
        ApikeyCommand::Revoke(args) => revoke(args, json, data_dir).await,
    }
}

async fn create(args: CreateArgs, json: bool, data_dir: &Path) -> anyhow::Result<ExitCode> {
    let kept = args.who.choose(data_dir)?;
    let (client, _inbox) = args.who.visit(&kept).await?;
    let expires_ms = args.expires.map(|after| i64::try_from(after.as_millis())).transpose()?;
    let ask = ApikeyCreate {
        label: args.label,
        capabilities: args.capabilities.into_iter().map(ApiCapability::from).collect(),
        topic_scopes: (!args.topics.is_empty()).then_some(args.topics),
        expires_at: expires_ms.map(|after| Timestamp::now().plus_ms(after).to_string()),
    };
    let made = client.ask(&ask).await;
    client.close().await;
    let made = made?;
    let text = format!(
        "{}\nthis is key {}: keep it, it is not shown again",
        made.secret.0,
        short(&made.id)
    );
    output::answer(json, &made, &text)?;
    Ok(ExitCode::SUCCESS)
}

fn row(key: &ListedApikey) -> [String; 8] {
    let can: Vec<&str> = key.capabilities.iter().map(|one| one.as_str()).collect();
    let topics = key.topic_scopes.as_ref().map_or_else(|| "all".to_owned(), |all| all.join(" "));
    let ends = match (&key.revoked_at, &key.expires_at) {
        (Some(at), _) => format!("revoked {at}"),
        (None, Some(at)) => at.clone(),
        (None, None) => output::or_dash(None::<&str>),
    };
    [
        short(&key.id).to_owned(),
        key.label.clone(),
        can.join(" "),
        topics,
        output::or_dash(key.issued_by.as_deref()),
        key.created_at.clone(),
        output::or_dash(key.last_used_at.as_deref()),
        ends,
    ]
}

async fn revoke(args: RevokeArgs, json: bool, data_dir: &Path) -> anyhow::Result<ExitCode> {
    let kept = args.who.choose(data_dir)?;
    let (client, _inbox) = args.who.visit(&kept).await?;
    let revoked = client.ask(&ApikeyRevoke { id: args.id }).await;
    client.close().await;
    let revoked = revoked?;
    let id = revoked.id.as_deref().unwrap_or_default();
    let text = format!("key {} is good no longer", short(id));
    output::answer(json, &revoked, &text)?;
    Ok(ExitCode::SUCCESS)
}
