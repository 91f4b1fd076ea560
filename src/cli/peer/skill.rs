//! `peer skill`: instructions that a mesh shares.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCandidates as Candidates;

use super::asking::{Shown, text_or_input};
use super::{WhoArgs, complete};
use crate::cli::{Failure, output};
use crate::protocol::{GetSkill, ListSkills, RemoveSkill, ShareSkill, SkillAction, SkillEntry};

/// What can be done with skills.
#[derive(Debug, Subcommand)]
pub(crate) enum SkillCommand {
    /// Share instructions, in place of what was under that name
    Share(ShareArgs),
    /// Show a skill's instructions
    Get(NameArgs),
    /// Show what skills there are
    List(ListArgs),
    /// Remove a skill: your own, or as an admin anybody's
    Remove(NameArgs),
}

/// Arguments of `peer skill share`.
#[derive(Debug, Args)]
pub(crate) struct ShareArgs {
    /// The skill's name
    #[arg(add = Candidates::new(complete::skills))]
    pub(crate) skill: String,
    /// The file with the instructions; `-` reads them from standard input
    pub(crate) file: String,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: String,
    /// A word to find it by, too; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
    /// Who shares.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// Arguments of `peer skill get` and `peer skill remove`.
#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// The skill's name
    #[arg(add = Candidates::new(complete::skills))]
    pub(crate) skill: String,
    /// Who asks.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// Arguments of `peer skill list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only those with this in their name, their description or a tag
    pub(crate) query: Option<String>,
    /// Who asks.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

pub(super) async fn run(
    command: SkillCommand,
    json: bool,
    data_dir: &Path,
) -> anyhow::Result<ExitCode> {
    match command {
        SkillCommand::Share(args) => share(args, json, data_dir).await?,
        SkillCommand::Get(args) => get(args, json, data_dir).await?,
        SkillCommand::List(args) => list(args, json, data_dir).await?,
        SkillCommand::Remove(args) => remove(args, json, data_dir).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn share(args: ShareArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let ShareArgs { skill: name, file, description, tags, who } = args;
    let instructions = if file == "-" {
        text_or_input(&file)?
    } else {
        std::fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?
    };
    let tags = Some(tags);
    let ask = ShareSkill { name, description, instructions, tags, manifest: None };
    let ack = who.ask(data_dir, &ask).await?;
    output::answer(json, &ack, &format!("{} is shared", ack.name))
}

async fn get(args: NameArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let found = args.who.ask(data_dir, &GetSkill { name: args.skill.clone() }).await?.skill;
    let skill = found.ok_or_else(|| not_found(&args.skill))?;
    output::answer(json, &skill, &output::printable_lines(&skill.instructions))
}

async fn list(args: ListArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let shown = Shown {
        headings: ["name", "what for", "tags", "by"],
        row,
        nothing: "the mesh shares no such skills",
    };
    let ask = ListSkills { query: args.query, cursor: None };
    args.who.list(data_dir, json, ask, shown).await
}

fn row(skill: &SkillEntry) -> [String; 4] {
    let SkillEntry { name, description, tags, author, .. } = skill;
    [name.clone(), description.clone(), tags.join(" "), author.clone()]
}

async fn remove(args: NameArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let ack = args.who.ask(data_dir, &RemoveSkill { name: args.skill.clone() }).await?;
    if ack.action == SkillAction::NotFound {
        return Err(not_found(&args.skill).into());
    }
    output::answer(json, &ack, &format!("{} is removed", ack.name))
}

fn not_found(name: &str) -> Failure {
    Failure::new("not_found", format!("the mesh shares no skill {name}"))
}
