//! `peer state`: the values that a mesh shares.

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCandidates as Candidates;
use serde_json::{Value, json};

use super::asking::{Shown, text_or_input};
use super::{WhoArgs, complete};
use crate::cli::{Failure, output};
use crate::client::how_kept;
use crate::protocol::{DeleteState, GetState, ListState, SetState, StateEntry, StateResult};

/// What can be done with shared values.
#[derive(Debug, Subcommand)]
pub(crate) enum StateCommand {
    /// Write a value
    Set(SetArgs),
    /// Show a value
    Get(GetArgs),
    /// Show all values
    List(ListArgs),
    /// Remove a value
    Delete(DeleteArgs),
}

/// Arguments of `peer state set`.
#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// The key
    #[arg(add = Candidates::new(complete::state_keys))]
    pub(crate) key: String,
    /// The value: JSON, or else a text; `-` reads it from standard input
    pub(crate) value: String,
    /// Take the value for a text, also if it is JSON
    #[arg(long)]
    pub(crate) text: bool,
    /// Only if the value has this version; 0: only if there is none
    #[arg(long, value_name = "N")]
    pub(crate) if_version: Option<i64>,
    /// Who writes.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// Arguments of `peer state get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// The key
    #[arg(add = Candidates::new(complete::state_keys))]
    pub(crate) key: String,
    /// Who asks.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// Arguments of `peer state list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Who asks.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// Arguments of `peer state delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The key
    #[arg(add = Candidates::new(complete::state_keys))]
    pub(crate) key: String,
    /// Only if the value has this version
    #[arg(long, value_name = "N")]
    pub(crate) if_version: Option<i64>,
    /// Who removes it.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

pub(super) async fn run(
    command: StateCommand,
    json: bool,
    data_dir: &Path,
) -> anyhow::Result<ExitCode> {
    match command {
        StateCommand::Set(args) => set(args, json, data_dir).await?,
        StateCommand::Get(args) => get(args, json, data_dir).await?,
        StateCommand::List(args) => list(&args, json, data_dir).await?,
        StateCommand::Delete(args) => delete(args, json, data_dir).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn set(args: SetArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let SetArgs { key, value, text, if_version, who } = args;
    let typed = text_or_input(&value)?;
    let value = match serde_json::from_str(&typed) {
        Ok(value) if !text => value,
        _ => Value::String(typed),
    };
    let ask = SetState { key, value, if_version };
    let mut object = json!({ "key": ask.key, "value": ask.value });
    let (text, (_, secrecy)) = (format!("{} is written", ask.key), who.keep(data_dir, ask).await?);
    object["sealed"] = json!(secrecy.is_sealed());
    output::answer(json, &object, &output::printable(&format!("{text}, {secrecy}")))
}

async fn get(args: GetArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let ask = GetState { key: args.key };
    let StateResult(entry) = args.who.ask_opened(data_dir, &ask).await?;
    if entry.version.is_none() {
        let text = format!("there is no value under {}", entry.key);
        return Err(Failure::new("not_found", text).into());
    }
    output::answer(json, &entry, &shown(&entry.value))
}

async fn list(args: &ListArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let shown = Shown {
        headings: ["key", "value", "kept", "version", "by", "at"],
        row,
        nothing: "the mesh shares no values",
    };
    args.who.list(data_dir, json, ListState::default(), shown).await
}

async fn delete(args: DeleteArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let ask = DeleteState { key: args.key, if_version: args.if_version };
    args.who.ask(data_dir, &ask).await?;
    let text = format!("{} is removed", ask.key);
    output::answer(json, &json!({ "key": ask.key, "removed": true }), &text)
}

fn row(entry: &StateEntry) -> [String; 6] {
    [
        entry.key.clone(),
        shown(&entry.value),
        how_kept(entry.sealed).to_owned(),
        output::or_dash(entry.version),
        entry.updated_by.clone(),
        entry.updated_at.clone(),
    ]
}

/// A text as it is, anything else as JSON; harmless to look at.
fn shown(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    output::printable_lines(&text)
}
