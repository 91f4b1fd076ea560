//! `peer webhook`: addresses that other programs call, and addresses that the broker
//! calls. Over the client library only.

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCandidates as Candidates;
use serde_json::json;

use super::asking::Shown;
use super::{WhoArgs, complete};
use crate::cli::output;
use crate::protocol::{
    CreateWebhook, DeleteWebhook, ListWebhooks, WebhookEvent, WebhookRow, WebhookSigning,
};

/// What can be done with webhooks.
#[derive(Debug, Subcommand)]
pub(crate) enum WebhookCommand {
    /// Make an address for other programs to call, or have the broker call one
    Create(CreateArgs),
    /// Show the mesh's webhooks, and how the calls of the broker do
    List(WhoArgs),
    /// Delete a webhook; its name stays taken
    Delete(DeleteArgs),
}

/// Arguments of `peer webhook create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// What it is called
    pub(crate) webhook: String,
    /// How its callers sign
    #[arg(long, value_enum, conflicts_with = "url")]
    pub(crate) signing: Option<SigningArg>,
    /// Keep what is posted for members that are away
    #[arg(long, conflicts_with = "url")]
    pub(crate) durable: bool,
    /// The address that the broker is to call
    #[arg(long, value_name = "URL", requires = "events")]
    pub(crate) url: Option<String>,
    /// What the broker tells that address; may be given several times
    #[arg(long = "event", value_name = "EVENT", value_enum, requires = "url")]
    pub(crate) events: Vec<EventArg>,
    /// Who makes it.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// Arguments of `peer webhook delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// What it is called
    #[arg(add = Candidates::new(complete::webhooks))]
    pub(crate) webhook: String,
    /// Who deletes it.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// A way to sign, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SigningArg {
    /// As Standard Webhooks has it
    Standard,
    /// As GitHub has it
    Github,
}

impl From<SigningArg> for WebhookSigning {
    fn from(typed: SigningArg) -> Self {
        match typed {
            SigningArg::Standard => Self::Standard,
            SigningArg::Github => Self::Github,
        }
    }
}

/// An event, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum EventArg {
    /// A message waits: no session of its recipient takes it now
    MailWaiting,
    /// A message was given up undelivered
    MessageExpired,
    /// A presence began
    PeerJoined,
    /// A presence ended
    PeerLeft,
    /// A task changed
    Task,
    /// A session was refused: the mesh is full
    Capacity,
}

impl From<EventArg> for WebhookEvent {
    fn from(typed: EventArg) -> Self {
        match typed {
            EventArg::MailWaiting => Self::MailWaiting,
            EventArg::MessageExpired => Self::MessageExpired,
            EventArg::PeerJoined => Self::PeerJoined,
            EventArg::PeerLeft => Self::PeerLeft,
            EventArg::Task => Self::Task,
            EventArg::Capacity => Self::Capacity,
        }
    }
}

pub(super) async fn run(
    command: WebhookCommand,
    json: bool,
    data_dir: &Path,
) -> anyhow::Result<ExitCode> {
    match command {
        WebhookCommand::Create(args) => create(args, json, data_dir).await,
        WebhookCommand::List(who) => {
            let shown = Shown {
                headings: ["name", "address", "told of", "waiting", "given up", "last error"],
                row,
                nothing: "the mesh has no webhooks",
            };
            who.list(data_dir, json, ListWebhooks::default(), shown).await?;
            Ok(ExitCode::SUCCESS)
        }
        WebhookCommand::Delete(args) => delete(args, json, data_dir).await,
    }
}

async fn create(args: CreateArgs, json: bool, data_dir: &Path) -> anyhow::Result<ExitCode> {
    let kept = args.who.choose(data_dir)?;
    let (client, _inbox) = args.who.visit(&kept).await?;
    let is_called = args.url.is_some();
    let ask = CreateWebhook {
        name: args.webhook,
        signing: args.signing.map(WebhookSigning::from),
        durable: args.durable.then_some(true),
        url: args.url,
        events: args.events.into_iter().map(WebhookEvent::from).collect(),
    };
    let made = client.ask(&ask).await?;
    client.close().await;
    let text = match (&made.signing_secret, is_called) {
        (_, true) => {
            format!("{} is told of it\ncalls are signed by {}", made.url, made.secret)
        }
        (Some(secret), false) => format!("call {}\nsign by {secret}", made.url),
        (None, false) => format!("call {}", made.url),
    };
    output::answer(json, &json!(made), &text)?;
    Ok(ExitCode::SUCCESS)
}

fn row(hook: &WebhookRow) -> [String; 6] {
    let events: Vec<&str> = hook.events.iter().map(|event| event.as_str()).collect();
    let calls = hook.calls.as_ref();
    let number = |of: Option<i64>| of.map(|number| number.to_string()).unwrap_or_default();
    [
        hook.name.clone(),
        hook.url.clone(),
        events.join(" "),
        number(calls.map(|calls| calls.waiting)),
        number(calls.map(|calls| calls.dead_letters)),
        calls.and_then(|calls| calls.last_error.clone()).unwrap_or_default(),
    ]
}

async fn delete(args: DeleteArgs, json: bool, data_dir: &Path) -> anyhow::Result<ExitCode> {
    let kept = args.who.choose(data_dir)?;
    let (client, _inbox) = args.who.visit(&kept).await?;
    let gone = client.ask(&DeleteWebhook { name: args.webhook }).await?;
    client.close().await;
    let text = format!("{} is called no more", gone.name);
    output::answer(json, &json!({ "name": gone.name }), &text)?;
    Ok(ExitCode::SUCCESS)
}
