//! `peer schedule`: messages that the broker sends later, in the peer's name.
//!
//! What is for one peer is sealed here, when it is scheduled.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCandidates as Candidates;
use serde_json::json;

use super::asking::{Shown, all, explain, short, text_or_input, whole_id};
use super::send::{is_direct, recipient};
use super::{WhoArgs, complete};
use crate::cli::{Failure, output};
use crate::client::{Client, Secrecy};
use crate::clock::Timestamp;
use crate::keyring::Kept;
use crate::keyring::recipient::short as short_key;
use crate::protocol::{CancelScheduled, ListScheduled, Schedule, ScheduledAck, ScheduledRow};

/// What can be done with messages that are sent later.
#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    /// Have a message sent later, whoever is there then
    Add(AddArgs),
    /// Show what you have scheduled
    List(WhoArgs),
    /// Take one back
    Remove(RemoveArgs),
}

/// Arguments of `peer schedule add`.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// To whom: a name, a key, `@group`, or `*` for everyone
    #[arg(add = Candidates::new(complete::recipients))]
    pub(crate) to: String,
    /// What to say; `-` reads it from standard input
    pub(crate) text: String,
    /// When.
    #[command(flatten)]
    pub(crate) when: WhenArgs,
    /// The zone of the hours of `--cron`, such as Europe/Berlin; UTC if not said
    #[arg(long, value_name = "ZONE", requires = "cron")]
    pub(crate) timezone: Option<String>,
    /// Call it a reminder
    #[arg(long)]
    pub(crate) reminder: bool,
    /// The id of the message that it answers
    #[arg(long, value_name = "ID")]
    pub(crate) reply_to: Option<String>,
    /// Who sends.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// When a message is sent: one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct WhenArgs {
    /// At that instant: 2026-12-24T18:00, 2026-12-24T18:00+01:00; in UTC without a zone
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    pub(crate) at: Option<Timestamp>,
    /// After so long: 30m, 12h, 7d
    #[arg(long = "in", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) after: Option<Duration>,
    /// Again and again: 'minute hour day-of-month month day-of-week', all of which must match
    #[arg(long, value_name = "EXPRESSION")]
    pub(crate) cron: Option<String>,
}

/// Arguments of `peer schedule remove`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The id of what is scheduled, or the beginning of it
    #[arg(add = Candidates::new(complete::schedule_ids))]
    pub(crate) id: String,
    /// Who takes it back.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

fn instant(typed: &str) -> Result<Timestamp, String> {
    let advice = "write it as 2026-12-24T18:00 or 2026-12-24T18:00+01:00";
    Timestamp::read(typed).ok_or_else(|| advice.to_owned())
}

pub(super) async fn run(
    command: ScheduleCommand,
    json: bool,
    data_dir: &Path,
) -> anyhow::Result<ExitCode> {
    match command {
        ScheduleCommand::Add(args) => add(&args, json, data_dir).await?,
        ScheduleCommand::List(who) => {
            let shown = Shown {
                headings: ["id", "to", "next", "again", "what"],
                row,
                nothing: "you have scheduled nothing that is still to be sent",
            };
            who.list(data_dir, json, ListScheduled::default(), shown).await?;
        }
        ScheduleCommand::Remove(args) => remove(&args, json, data_dir).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn add(args: &AddArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let text = text_or_input(&args.text)?;
    let kept = args.who.choose(data_dir)?;
    let (client, _inbox) = args.who.visit_knowing(&kept, data_dir).await?;
    let added = schedule(args, &text, &client, (data_dir, &kept)).await;
    client.close().await;
    let (added, secrecy) = added?;
    let object = json!({
        "sealed": secrecy.is_sealed(),
        "id": added.scheduled_id, "to": args.to, "deliverAt": added.deliver_at,
        "cron": added.cron, "timezone": added.timezone,
    });
    let at = Timestamp::from_ms(added.deliver_at);
    let first = if added.cron.is_some() { "first sent" } else { "sent" };
    let text =
        format!("{} is {first} at {at}, to {}, {secrecy}", short(&added.scheduled_id), args.to);
    output::answer(json, &object, &output::printable(&text))
}

async fn schedule(
    args: &AddArgs,
    text: &str,
    client: &Client,
    (data_dir, kept): (&Path, &Kept),
) -> anyhow::Result<(ScheduledAck, Secrecy)> {
    let after_ms = args.when.after.map(|after| i64::try_from(after.as_millis())).transpose()?;
    let at = args.when.at.or_else(|| after_ms.map(|after| Timestamp::now().plus_ms(after)));
    let mut ask = Schedule {
        to: args.to.clone(),
        deliver_at: at.map(Timestamp::as_ms),
        subtype: args.reminder.then(|| "reminder".to_owned()),
        cron: args.when.cron.clone(),
        timezone: args.timezone.clone(),
        reply_to_id: args.reply_to.clone(),
        ..Schedule::default()
    };
    if is_direct(&args.to) {
        ask.to = recipient(client, data_dir, kept, &args.to).await?.key;
        let sealed = client.seal(&ask.to, text.as_bytes())?;
        ask.nonce = Some(sealed.nonce_b64);
        ask.ciphertext = Some(sealed.ciphertext_b64);
        return Ok((client.ask(&ask).await.map_err(explain)?, Secrecy::Sealed));
    }
    let (sealed, secrecy) = client.seal_for_later(&args.to, text).await.map_err(explain)?;
    match sealed {
        Some(sealed) => {
            ask.nonce = Some(sealed.nonce_b64);
            ask.ciphertext = Some(sealed.ciphertext_b64);
        }
        None => ask.message = Some(text.to_owned()),
    }
    Ok((client.ask(&ask).await.map_err(explain)?, secrecy))
}

fn row(scheduled: &ScheduledRow) -> [String; 5] {
    let zone = scheduled.timezone.as_deref().unwrap_or_default();
    let again = scheduled.cron.as_ref().map(|cron| format!("{cron} {zone}").trim().to_owned());
    let what = if scheduled.sealed { "(sealed)" } else { &scheduled.message };
    [
        short(&scheduled.id).to_owned(),
        short_key(&scheduled.to).to_owned(),
        Timestamp::from_ms(scheduled.deliver_at).to_string(),
        output::or_dash(again),
        what.to_owned(),
    ]
}

async fn remove(args: &RemoveArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let kept = args.who.choose(data_dir)?;
    let (client, _inbox) = args.who.visit(&kept).await?;
    let removed = async {
        let known = all(&client, ListScheduled::default()).await?;
        let scheduled_id =
            whole_id(&args.id, "message", known.iter().map(|scheduled| scheduled.id.as_str()))?;
        client.ask(&CancelScheduled { scheduled_id }).await.map_err(explain)
    }
    .await;
    client.close().await;
    let removed = removed?;
    if !removed.ok {
        let text = format!("nothing with the id {} waits to be sent", removed.scheduled_id);
        return Err(Failure::new("not_found", text).into());
    }
    let text = format!("{} is not sent", short(&removed.scheduled_id));
    output::answer(json, &json!({ "id": removed.scheduled_id, "removed": true }), &text)
}
