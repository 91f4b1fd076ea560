//! `peer memory`: what a mesh remembers.

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::WhoArgs;
use super::asking::{explain, text_or_input};
use crate::cli::output;
use crate::client::how_kept;
use crate::protocol::{Forget, Memory, Recall, Remember};

/// What can be done with memories.
#[derive(Debug, Subcommand)]
pub(crate) enum MemoryCommand {
    /// Have the mesh remember a text; its tags stay readable for the broker
    Add(AddArgs),
    /// Find texts by their words
    Find(FindArgs),
    /// Remove a text
    Forget(ForgetArgs),
}

/// Arguments of `peer memory add`.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// The text; `-` reads it from standard input
    pub(crate) text: String,
    /// A word to find it by, too; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
    /// Who remembers.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// Arguments of `peer memory find`.
#[derive(Debug, Args)]
pub(crate) struct FindArgs {
    /// Words, all of which a text is to have
    #[arg(required = true)]
    pub(crate) words: Vec<String>,
    /// How many to show
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=100))]
    pub(crate) limit: Option<i64>,
    /// Who asks.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// Arguments of `peer memory forget`.
#[derive(Debug, Args)]
pub(crate) struct ForgetArgs {
    /// The memory's whole id
    pub(crate) id: String,
    /// Who removes it.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

pub(super) async fn run(
    command: MemoryCommand,
    json: bool,
    data_dir: &Path,
) -> anyhow::Result<ExitCode> {
    match command {
        MemoryCommand::Add(args) => add(args, json, data_dir).await?,
        MemoryCommand::Find(args) => find(&args, json, data_dir).await?,
        MemoryCommand::Forget(args) => forget(args, json, data_dir).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn add(args: AddArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let content = text_or_input(&args.text)?;
    let ask = Remember { content, tags: Some(args.tags) };
    let (stored, secrecy) = args.who.keep(data_dir, ask).await?;
    let text = format!("the mesh remembers it as {}, {secrecy}", stored.id);
    let object = json!({ "id": stored.id, "sealed": secrecy.is_sealed() });
    output::answer(json, &object, &output::printable(&text))
}

async fn find(args: &FindArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let ask = Recall { query: args.words.join(" "), limit: args.limit, cursor: None };
    let kept = args.who.choose(data_dir)?;
    let (client, _inbox) = args.who.visit(&kept).await?;
    let found = client.recall(&ask).await;
    client.close().await;
    let mut found = found.map_err(explain)?;
    // Those that only this client could find come behind the others.
    if let Some(limit) = args.limit.and_then(|limit| usize::try_from(limit).ok()) {
        found.memories.truncate(limit);
    }
    if json {
        return output::json(&found);
    }
    if found.memories.is_empty() {
        return Ok(output::line("the mesh remembers nothing of the kind")?);
    }
    let rows = found.memories.iter().map(row);
    Ok(output::table(["id", "what", "kept", "tags", "from", "at"], rows)?)
}

async fn forget(args: ForgetArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let ask = Forget { memory_id: args.id };
    args.who.ask(data_dir, &ask).await?;
    let text = format!("the mesh has forgotten {}", ask.memory_id);
    output::answer(json, &json!({ "id": ask.memory_id, "forgotten": true }), &text)
}

fn row(memory: &Memory) -> [String; 6] {
    [
        memory.id.clone(),
        memory.content.clone(),
        how_kept(memory.sealed).to_owned(),
        memory.tags.join(" "),
        memory.remembered_by.clone(),
        memory.remembered_at.clone(),
    ]
}
