//! `claude uninstall`: takes away what `claude install` put in, and nothing else.

use std::process::ExitCode;

use clap::Args;

use super::codex;
use super::description::{self, SERVER};
use super::file::{HostFile, TakenBack};
use super::host::{self, Host, HostKind};
use super::install::{Scope, here, settings_of, unfit};
use super::json_text::Unfit;
use super::places::Places;
use super::report::{Outcome, Report};
use super::servers::{self, Entry};
use super::settings::{self, Settings};
use crate::output::Failure;

/// Arguments of `claude uninstall`.
#[derive(Debug, Args)]
pub(crate) struct UninstallArgs {
    /// From where it was installed to
    #[arg(long, value_enum, default_value_t = Scope::User)]
    scope: Scope,
    /// Out of Codex instead of Claude Code
    #[arg(long, conflicts_with = "scope")]
    codex: bool,
}

/// Runs it.
pub(crate) async fn run(args: &UninstallArgs, json: bool) -> anyhow::Result<ExitCode> {
    let places = here()?;
    let mut report = Report::default();
    if args.codex {
        out_of_codex(&places, &mut report).await?;
    } else {
        out_of_claude(&places, args.scope, &mut report).await?;
    }
    report.print(json, "sessions that run keep the server until they end")?;
    Ok(ExitCode::SUCCESS)
}

async fn out_of_claude(places: &Places, scope: Scope, report: &mut Report) -> Result<(), Failure> {
    let mut files = vec![(settings_of(places, scope), as_settings as Edit)];
    if scope == Scope::Project {
        files.push((places.local_settings(), as_settings));
        files.push((places.project_servers(), as_servers));
    }
    // All are read before one is written.
    let mut edits = Vec::new();
    for (path, edit) in files {
        let file = HostFile::read(&path)?;
        let mut settings = Settings::parse(file.text()).map_err(|reason| unfit(&file, &reason))?;
        edit(&mut settings).map_err(|reason| unfit(&file, &reason))?;
        let edited = settings.finish().map_err(|reason| unfit(&file, &reason))?;
        if !edited.changes.is_empty() {
            file.check_writable()?;
        }
        edits.push((file, edited));
    }
    if scope == Scope::User {
        unregister(places, report).await;
    }
    for (file, edited) in edits {
        take_back(&file, &edited.text, settings::says_the_same, edited.changes, report)?;
    }
    Ok(())
}

type Edit = fn(&mut Settings) -> Result<(), Unfit>;

fn as_settings(settings: &mut Settings) -> Result<(), Unfit> {
    settings.remove_hooks()?;
    settings.disallow(&description::rules())?;
    settings.remove_status_line()
}

fn as_servers(settings: &mut Settings) -> Result<(), Unfit> {
    settings.remove_server()
}

fn take_back(
    file: &HostFile,
    text: &str,
    says_the_same: fn(&str, &str) -> bool,
    mut changes: Vec<String>,
    report: &mut Report,
) -> Result<(), Failure> {
    if !changes.is_empty() {
        match file.take_back(text, says_the_same)? {
            TakenBack::Restored => changes.push("the file is as it was before us".to_owned()),
            TakenBack::Removed => changes.push("nothing was left, so the file is gone".to_owned()),
            TakenBack::Kept(Some(backup)) => {
                changes.push(format!("the file as it was before us: {}", backup.display()));
            }
            TakenBack::Kept(None) => {}
        }
    }
    report.file(file.path(), changes, "nothing of ours in it");
    Ok(())
}

/// Takes the server of this user away, by the host's own program.
async fn unregister(places: &Places, report: &mut Report) {
    let what = places.claude_state.display().to_string();
    match servers::in_json(&places.claude_state) {
        Entry::Missing => {
            report.add(Outcome::Kept, what, vec!["nothing of ours in it".to_owned()]);
        }
        Entry::Foreign(line) => {
            let detail = format!("the server {SERVER} is another program's ({line}), and stays");
            report.add(Outcome::Kept, what, vec![detail]);
        }
        Entry::Ours(_) | Entry::Unreadable(_) => {
            let done = match Host::find(places, HostKind::Claude).await {
                Some(host) => host.remove_server(HostKind::Claude).await,
                None => Err("the program claude does not answer".to_owned()),
            };
            said_by_host(HostKind::Claude, what, done, report);
        }
    }
}

fn said_by_host(kind: HostKind, what: String, done: Result<(), String>, report: &mut Report) {
    match done {
        Ok(()) => {
            let detail = format!("server {SERVER} removed, by `{} mcp remove`", kind.program());
            report.add(Outcome::Changed, what, vec![detail]);
        }
        Err(reason) => {
            let command = description::shell_line(kind.program(), host::remove_args(kind));
            let details = vec![format!("server {SERVER}: {reason}; run"), command];
            report.add(Outcome::Todo, what, details);
        }
    }
}

async fn out_of_codex(places: &Places, report: &mut Report) -> Result<(), Failure> {
    let hooks = HostFile::read(&places.codex.join("hooks.json"))?;
    let mut settings = Settings::parse(hooks.text()).map_err(|reason| unfit(&hooks, &reason))?;
    settings.remove_hooks().map_err(|reason| unfit(&hooks, &reason))?;
    let edited = settings.finish().map_err(|reason| unfit(&hooks, &reason))?;
    if !edited.changes.is_empty() {
        hooks.check_writable()?;
    }
    let config = HostFile::read(&places.codex.join("config.toml"))?;
    let removed = codex::remove(config.text()).map_err(|reason| unfit(&config, &reason))?;
    match Host::find(places, HostKind::Codex).await {
        Some(host) if !removed.changes.is_empty() => {
            let what = config.path().display().to_string();
            let done = host.remove_server(HostKind::Codex).await;
            said_by_host(HostKind::Codex, what, done, report);
        }
        _ => take_back(&config, &removed.text, str::eq, removed.changes, report)?,
    }
    take_back(&hooks, &edited.text, settings::says_the_same, edited.changes, report)
}
