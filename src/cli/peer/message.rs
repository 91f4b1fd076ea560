//! `peer message`: how far a message is, and taking one back.

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{WhoArgs, output};
use crate::protocol::{Recipient, Stage, Withdraw, WithdrawResult};

/// What a peer can do with messages that it sent.
#[derive(Debug, Subcommand)]
pub(crate) enum MessageCommand {
    /// Show how far a message is with each recipient
    Status(MessageArgs),
    /// Take a message back from those who do not have it
    Withdraw(MessageArgs),
}

/// Arguments of `peer message`.
#[derive(Debug, Args)]
pub(crate) struct MessageArgs {
    /// The message's id; for `status` its first eight characters will do
    pub(crate) id: String,
    /// Who asks.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

pub(super) async fn run(
    command: &MessageCommand,
    json: bool,
    data_dir: &Path,
) -> anyhow::Result<ExitCode> {
    match command {
        MessageCommand::Status(args) => status(args, json, data_dir).await,
        MessageCommand::Withdraw(args) => withdraw(args, json, data_dir).await,
    }
}

async fn status(args: &MessageArgs, json: bool, data_dir: &Path) -> anyhow::Result<ExitCode> {
    let kept = args.who.choose(data_dir)?;
    let (client, _inbox) = args.who.visit(&kept).await?;
    let answer = client.message_status(&args.id).await;
    client.close().await;
    let status = answer?;
    if json {
        output::json(&status)?;
        return Ok(ExitCode::SUCCESS);
    }
    let whole = if status.delivered { "delivered" } else { "not delivered to all" };
    output::line(&output::printable(&format!("to {}: {whole}", status.target_spec)))?;
    if status.recipients.is_empty() {
        output::line("nobody was there for it")?;
    } else {
        let rows = status.recipients.iter().map(row);
        output::table(["NAME", "STAGE", "SINCE", "NOW", "KEY"], rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn row(recipient: &Recipient) -> [String; 5] {
    let short = recipient.pubkey.chars().take(16).collect();
    [
        recipient.name.clone(),
        recipient.stage.as_str().to_owned(),
        recipient.at.map(|at| at.to_string()).unwrap_or_default(),
        recipient.peer_status.as_deref().unwrap_or("away").to_owned(),
        short,
    ]
}

async fn withdraw(args: &MessageArgs, json: bool, data_dir: &Path) -> anyhow::Result<ExitCode> {
    let result = args.who.ask(data_dir, &Withdraw { message_id: args.id.clone() }).await?;
    let answer = json!({
        "messageId": result.message_id, "withdrawn": result.withdrawn, "stage": result.stage,
    });
    output::answer(json, &answer, &sentence(&result))?;
    Ok(ExitCode::SUCCESS)
}

fn sentence(result: &WithdrawResult) -> String {
    match (result.withdrawn, result.stage) {
        (true, _) => "it is taken back: nobody gets it who does not have it".to_owned(),
        (false, Stage::Confirmed) => {
            "too late: the recipient's client has it, and was asked to drop it".to_owned()
        }
        (false, stage) => format!("there is nothing to take back: it is {}", stage.as_str()),
    }
}
