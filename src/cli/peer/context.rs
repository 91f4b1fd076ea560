//! `peer context`: what the members of a mesh work on.

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::WhoArgs;
use super::asking::{Shown, text_or_input};
use crate::cli::output;
use crate::protocol::{ContextEntry, GetContext, ListContexts, ShareContext};

/// What can be done with contexts.
#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// Say what you work on, in place of what you said before
    Share(ShareArgs),
    /// Show who works on something
    Find(FindArgs),
    /// Show what all work on
    List(ListArgs),
}

/// Arguments of `peer context share`.
#[derive(Debug, Args)]
pub(crate) struct ShareArgs {
    /// What it is about; `-` reads it from standard input
    pub(crate) summary: String,
    /// A file that was read for it; may be given several times
    #[arg(long = "file", value_name = "PATH")]
    pub(crate) files: Vec<String>,
    /// What was found out; may be given several times
    #[arg(long = "finding", value_name = "TEXT")]
    pub(crate) findings: Vec<String>,
    /// A word to find it by, too; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
    /// Who works.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// Arguments of `peer context find`.
#[derive(Debug, Args)]
pub(crate) struct FindArgs {
    /// A part of the summary, or a whole tag
    pub(crate) query: String,
    /// Who asks.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// Arguments of `peer context list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Who asks.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

pub(super) async fn run(
    command: ContextCommand,
    json: bool,
    data_dir: &Path,
) -> anyhow::Result<ExitCode> {
    match command {
        ContextCommand::Share(args) => share(args, json, data_dir).await?,
        ContextCommand::Find(args) => find(args, json, data_dir).await?,
        ContextCommand::List(args) => list(&args, json, data_dir).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn share(args: ShareArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let ShareArgs { summary, files, findings, tags, who } = args;
    let summary = text_or_input(&summary)?;
    let (files_read, key_findings) = (Some(files), Some(findings));
    let ask = ShareContext { summary, files_read, key_findings, tags: Some(tags) };
    let shared = who.ask(data_dir, &ask).await?;
    output::answer(json, &json!({ "id": shared.id }), "the others know")
}

async fn find(args: FindArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let ask = GetContext { query: args.query, cursor: None };
    let contexts = args.who.ask(data_dir, &ask).await?.contexts;
    if json {
        return output::json(&json!({ "contexts": contexts }));
    }
    if contexts.is_empty() {
        return Ok(output::line("nobody works on that")?);
    }
    let rows = contexts.into_iter().map(|context| {
        let (files, findings) = (context.files_read.join(" "), context.key_findings.join("; "));
        [context.peer_name, context.summary, files, findings, context.updated_at]
    });
    Ok(output::table(["who", "on", "files", "findings", "at"], rows)?)
}

async fn list(args: &ListArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let shown = Shown {
        headings: ["who", "on", "tags", "at"],
        row,
        nothing: "nobody has said what it works on",
    };
    args.who.list(data_dir, json, ListContexts::default(), shown).await
}

fn row(context: &ContextEntry) -> [String; 4] {
    let ContextEntry { peer_name, summary, tags, updated_at, .. } = context;
    [peer_name.clone(), summary.clone(), tags.join(" "), updated_at.clone()]
}
