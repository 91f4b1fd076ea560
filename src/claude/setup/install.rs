//! `claude install`: tells a host of our server and of our hooks.
//!
//! Everything is read and decided before anything is written: what cannot be done whole
//! is not begun.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::description::{self, CLAUDE_EVENTS, CODEX_EVENTS, Event, Form, SERVER};
use super::file::HostFile;
use super::host::{self, Host, HostKind};
use super::json_text::Unfit;
use super::places::Places;
use super::program::Program;
use super::report::{Outcome, Report};
use super::servers::{self, Entry};
use super::settings::{Place, Settings};
use super::version::Version;
use super::{codex, copies};
use crate::config::process_env;
use crate::output::Failure;

/// Arguments of `claude install`.
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// For all of this user's sessions, or for those in this folder and whoever shares it
    #[arg(long, value_enum, default_value_t = Scope::User)]
    pub(super) scope: Scope,
    /// Into Codex instead of Claude Code
    #[arg(long, conflicts_with_all = ["scope", "allow_reading", "status_line", "waiter"])]
    pub(super) codex: bool,
    /// Let the model read its mail and see who is there without asking each time
    #[arg(long)]
    allow_reading: bool,
    /// Show mesh, peers and unread mail in the status line, unless there is another
    #[arg(long)]
    status_line: bool,
    /// Have a process wait behind each turn, which wakes the session when mail has come: for
    /// hosts whose sessions have neither channel nor inbox
    #[arg(long)]
    waiter: bool,
}

/// For which sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scope {
    /// All of this user
    User,
    /// Those in this folder
    Project,
}

/// Runs it.
pub(crate) async fn run(args: &InstallArgs, json: bool) -> anyhow::Result<ExitCode> {
    let places = here()?;
    let program = Program::find(&places)?;
    let mut report = Report::default();
    let next = if args.codex {
        into_codex(&places, &program.absolute, &mut report).await?;
        "start codex, and trust the hooks when it asks: it runs none before"
    } else {
        into_claude(args, &places, &program, &mut report).await?;
        "claudemesh-broker claude doctor"
    };
    report.print(json, next)?;
    Ok(ExitCode::SUCCESS)
}

/// The folders of this process.
pub(super) fn here() -> anyhow::Result<Places> {
    let project = std::env::current_dir().context("the folder that this runs in is gone")?;
    Ok(Places::of(&process_env, project)?)
}

/// The settings file of a scope.
pub(super) fn settings_of(places: &Places, scope: Scope) -> PathBuf {
    match scope {
        Scope::User => places.user_settings(),
        Scope::Project => places.project_settings(),
    }
}

/// A file that is not edited, and why.
pub(super) fn unfit(file: &HostFile, reason: &Unfit) -> Failure {
    let message = format!("{}: {reason}; nothing was changed", file.path().display());
    Failure::new("settings_unfit", message)
}

async fn into_claude(
    args: &InstallArgs,
    places: &Places,
    program: &Program,
    report: &mut Report,
) -> anyhow::Result<()> {
    refuse_second_copy(places, args.scope)?;
    let host = Host::find(places, HostKind::Claude).await;
    say_host(host.as_ref(), report);
    let named = match args.scope {
        Scope::User => program.absolute.as_str(),
        Scope::Project => program.shared(),
    };
    let version = host.as_ref().and_then(|host| host.version);
    let waiter = description::waiter(named, version).filter(|_| args.waiter);
    if args.waiter && waiter.is_none() {
        let detail = format!("none before release {}", description::REWAKE_FROM);
        report.add(Outcome::Note, "waiter", vec![detail]);
    }
    let wanted = groups(named, version, waiter.as_ref());

    let file = HostFile::read(&settings_of(places, args.scope))?;
    let mut settings = Settings::parse(file.text()).map_err(|reason| unfit(&file, &reason))?;
    let mut line_is_taken = false;
    let mut edit = || -> Result<(), Unfit> {
        settings.put_hooks(&wanted)?;
        if args.allow_reading {
            settings.allow(&description::rules())?;
        }
        if args.status_line {
            let place = settings.put_status_line(&description::status_line(named))?;
            line_is_taken = place == Place::Taken;
        }
        Ok(())
    };
    edit().map_err(|reason| unfit(&file, &reason))?;
    let edited = settings.finish().map_err(|reason| unfit(&file, &reason))?;
    if !edited.changes.is_empty() {
        file.check_writable()?;
    }
    match args.scope {
        Scope::User => register(host.as_ref(), places, named, report).await?,
        Scope::Project => register_in_project(places, named, report)?,
    }
    write(&file, &edited.text, edited.changes, report)?;
    if line_is_taken {
        let detail = "another status line is there and stays; its script may call \
                      `claudemesh-broker claude status --line`";
        report.add(Outcome::Note, "status line", vec![detail.to_owned()]);
    }
    note_other_hooks(places, report);
    Ok(())
}

/// The group of each event that a release knows.
fn groups(
    program: &str,
    version: Option<Version>,
    waiter: Option<&Value>,
) -> Vec<(&'static str, Value)> {
    let form = Form::of(version);
    let group = |event: Event| {
        let waits = waiter.filter(|_| event.name == description::WAITS_BEHIND).cloned();
        let first = description::handler(event, program, form, &[]);
        let handlers: Vec<Value> = std::iter::once(first).chain(waits).collect();
        (event.name, description::group(&handlers))
    };
    description::known(CLAUDE_EVENTS, version).into_iter().map(group).collect()
}

/// Writes a file, if anything is different, and says so.
fn write(
    file: &HostFile,
    text: &str,
    mut changes: Vec<String>,
    report: &mut Report,
) -> Result<(), Failure> {
    if !changes.is_empty()
        && let Some(backup) = file.write(text)?.backup
    {
        changes.push(format!("the file as it was: {}", backup.display()));
    }
    report.file(file.path(), changes, "as it should be");
    Ok(())
}

fn refuse_second_copy(places: &Places, scope: Scope) -> Result<(), Failure> {
    if let Some(plugin) = copies::plugin(places) {
        let message = format!(
            "the plugin {plugin} is installed: with hooks in settings too, each message would come \
             twice; remove it first: claude plugin uninstall {plugin}"
        );
        return Err(Failure::new("plugin_installed", message));
    }
    let own = settings_of(places, scope);
    let others = [places.user_settings(), places.project_settings(), places.local_settings()];
    let mut others = others.into_iter().filter(|file| *file != own);
    if let Some(other) = others.find(|file| copies::has_our_hooks(file)) {
        let message = format!(
            "{} has the hooks already, and each message would come twice; take them out first: \
             claudemesh-broker claude uninstall --scope {}",
            other.display(),
            if other == places.user_settings() { "user" } else { "project" }
        );
        return Err(Failure::new("installed_elsewhere", message));
    }
    Ok(())
}

fn say_host(host: Option<&Host>, report: &mut Report) {
    let (what, detail) = match host {
        Some(Host { program, version: Some(version) }) => {
            (program.display().to_string(), format!("release {version}"))
        }
        Some(Host { program, version: None }) => (
            program.display().to_string(),
            "its release is not known, so it is treated as an old one".to_owned(),
        ),
        None => (
            "claude".to_owned(),
            "the program does not answer, so its release is treated as an old one; install again \
             when it is there"
                .to_owned(),
        ),
    };
    report.add(Outcome::Note, what, vec![detail]);
}

/// The server of this user, by the host's own program.
async fn register(
    host: Option<&Host>,
    places: &Places,
    program: &str,
    report: &mut Report,
) -> Result<(), Failure> {
    let entry = servers::in_json(&places.claude_state);
    if let Entry::Foreign(line) = &entry {
        return Err(name_taken(line, "claude mcp remove claudemesh --scope user"));
    }
    let what = places.claude_state.display().to_string();
    if entry == Entry::Ours(program.to_owned()) {
        report.add(Outcome::Kept, what, vec!["as it should be".to_owned()]);
        return Ok(());
    }
    let done = match host {
        Some(host) => replace(host, HostKind::Claude, &entry, program).await,
        None => Err("the program claude does not answer".to_owned()),
    };
    let is_there = || servers::in_json(&places.claude_state) == Entry::Ours(program.to_owned());
    match done {
        Ok(()) if is_there() => {
            let detail = "server claudemesh added, by `claude mcp add`".to_owned();
            report.add(Outcome::Changed, what, vec![detail]);
        }
        failed => {
            let reason = failed.err().unwrap_or_else(|| "it is still not in the file".to_owned());
            let command =
                description::shell_line("claude", &host::add_args(HostKind::Claude, program));
            let details = vec![format!("server claudemesh: {reason}; run"), command];
            report.add(Outcome::Todo, what, details);
        }
    }
    Ok(())
}

async fn replace(host: &Host, kind: HostKind, before: &Entry, program: &str) -> Result<(), String> {
    if matches!(before, Entry::Ours(_)) {
        host.remove_server(kind).await?;
    }
    host.add_server(kind, program).await
}

fn register_in_project(places: &Places, program: &str, report: &mut Report) -> Result<(), Failure> {
    let file = HostFile::read(&places.project_servers())?;
    let mut servers = Settings::parse(file.text()).map_err(|reason| unfit(&file, &reason))?;
    let put = servers.put_server(&description::server(program));
    if put.map_err(|reason| unfit(&file, &reason))? == Place::Taken {
        let Entry::Foreign(line) = servers::in_json(file.path()) else {
            return Err(unfit(&file, &Unfit::Shape(format!("{SERVER:?}"), "a server")));
        };
        return Err(name_taken(&line, "claude mcp remove claudemesh --scope project"));
    }
    let edited = servers.finish().map_err(|reason| unfit(&file, &reason))?;
    write(&file, &edited.text, edited.changes, report)
}

fn name_taken(line: &str, command: &str) -> Failure {
    let message = format!(
        "another server is called claudemesh already ({line}), and stays; nothing was changed; to \
         use this one instead: {command}"
    );
    Failure::new("server_name_taken", message)
}

fn note_other_hooks(places: &Places, report: &mut Report) {
    for file in copies::of_claudemesh(places) {
        let details = vec![
            "the other command line of claudemesh reports statuses by hooks here; they stay, and \
             both report the same"
                .to_owned(),
            "to have one of them only: claudemesh uninstall, then claudemesh-broker claude install"
                .to_owned(),
        ];
        report.add(Outcome::Note, file.display().to_string(), details);
    }
}

async fn into_codex(places: &Places, program: &str, report: &mut Report) -> Result<(), Failure> {
    let events = description::known(CODEX_EVENTS, None).into_iter();
    let group = |event| {
        description::group(&[description::handler(event, program, Form::Shell, &["--codex"])])
    };
    let wanted: Vec<(&'static str, Value)> =
        events.map(|event| (event.name, group(event))).collect();
    let hooks = HostFile::read(&places.codex.join("hooks.json"))?;
    let mut settings = Settings::parse(hooks.text()).map_err(|reason| unfit(&hooks, &reason))?;
    settings.put_hooks(&wanted).map_err(|reason| unfit(&hooks, &reason))?;
    let edited = settings.finish().map_err(|reason| unfit(&hooks, &reason))?;
    if !edited.changes.is_empty() {
        hooks.check_writable()?;
    }

    let config = HostFile::read(&places.codex.join("config.toml"))?;
    let entry = codex::entry(config.text()).map_err(|reason| unfit(&config, &reason))?;
    if let Entry::Foreign(line) = &entry {
        return Err(name_taken(line, "codex mcp remove claudemesh"));
    }
    let put = codex::put(config.text(), program).map_err(|reason| unfit(&config, &reason))?;
    match Host::find(places, HostKind::Codex).await {
        Some(host) if !put.changes.is_empty() => {
            let what = config.path().display().to_string();
            match replace(&host, HostKind::Codex, &entry, program).await {
                Ok(()) => {
                    let detail = "server claudemesh added, by `codex mcp add`".to_owned();
                    report.add(Outcome::Changed, what, vec![detail]);
                }
                Err(reason) => {
                    let command =
                        description::shell_line("codex", &host::add_args(HostKind::Codex, program));
                    let details = vec![format!("server claudemesh: {reason}; run"), command];
                    report.add(Outcome::Todo, what, details);
                }
            }
        }
        _ => write(&config, &put.text, put.changes, report)?,
    }
    write(&hooks, &edited.text, edited.changes, report)
}
