//! Whether a host knows our server and our hooks, once each, and whether what it would
//! run is there.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::claude::setup::codex;
use crate::claude::setup::copies;
use crate::claude::setup::description::{ARGS_FROM, CLAUDE_EVENTS, CODEX_EVENTS, Event, known};
use crate::claude::setup::host::{Host, HostKind};
use crate::claude::setup::owner::{self, Owner};
use crate::claude::setup::places::{Places, is_program};
use crate::claude::setup::servers::{self, Entry, read_json};
use crate::claude::setup::settings;
use crate::claude::setup::version::Version;
use crate::output::check::Check;

const INSTALL: &str = "claudemesh-broker claude install";

/// The host's own program.
pub(super) fn host(kind: HostKind, host: Option<&Host>) -> Check {
    let name = kind.program();
    let Some(host) = host else {
        let todo = format!("install it, or put {name} on the path");
        return Check::fail("host", format!("the program {name} does not answer"), todo);
    };
    let shown = host.program.display();
    match host.version {
        None => Check::warn(
            "host",
            format!("{shown} does not say its release, and is treated as an old one"),
            format!("look at what `{name} --version` prints"),
        ),
        Some(version) if kind == HostKind::Claude && version < ARGS_FROM => Check::warn(
            "host",
            format!("{shown} is release {version}: fewer ways to reach its model"),
            "claude update, then claudemesh-broker claude install",
        ),
        Some(version) => Check::ok("host", format!("{shown}, release {version}")),
    }
}

/// Our server, as a session that is started here would find it.
pub(super) fn server(places: &Places, plugin: Option<&str>) -> Check {
    let found = [
        (servers::of_project(&places.claude_state, &places.project), &places.claude_state),
        (servers::in_json(&places.project_servers()), &places.project_servers()),
        (servers::in_json(&places.claude_state), &places.claude_state),
    ];
    let first = found.into_iter().find(|(entry, _)| *entry != Entry::Missing);
    match first {
        Some((Entry::Ours(program), file)) => {
            let shown = format!("{program}, in {}", file.display());
            if runs(places, &program) {
                Check::ok("server", shown)
            } else {
                Check::fail("server", format!("{shown}: no such program"), INSTALL)
            }
        }
        Some((Entry::Foreign(line), file)) => Check::fail(
            "server",
            format!("claudemesh is another program's, in {}: {line}", file.display()),
            "claude mcp remove claudemesh, then claudemesh-broker claude install",
        ),
        Some((Entry::Unreadable(reason), _)) => {
            Check::warn("server", format!("not known: {reason}"), "claude mcp get claudemesh")
        }
        Some((Entry::Missing, _)) | None => match plugin {
            Some(plugin) => Check::ok("server", format!("by the plugin {plugin}")),
            None => Check::fail("server", "claudemesh is not registered", INSTALL),
        },
    }
}

/// Our hooks: all that this release knows.
pub(super) fn hooks(places: &Places, version: Option<Version>, plugin: Option<&str>) -> Check {
    if let Some(plugin) = plugin {
        return Check::ok("hooks", format!("by the plugin {plugin}"));
    }
    let files = [places.user_settings(), places.project_settings(), places.local_settings()];
    for file in &files {
        if let Err(reason) = read_json(file) {
            let todo = "mend the file: its host reads none of it either";
            return Check::fail("hooks", format!("not known: {reason}"), todo);
        }
    }
    let with = files.iter().find(|file| copies::has_our_hooks(file));
    let Some(file) = with else { return Check::fail("hooks", "none of ours", INSTALL) };
    of_file(places, file, &known(CLAUDE_EVENTS, version))
}

fn of_file(places: &Places, file: &Path, wanted: &[Event]) -> Check {
    let shown = file.display();
    let settings = read_json(file).ok().flatten().unwrap_or_default();
    let ours: Vec<(String, Value)> = settings::handlers(&settings)
        .into_iter()
        .filter(|(_, handler)| owner::of_handler(handler) == Owner::Ours)
        .collect();
    let programs: BTreeSet<String> = ours
        .iter()
        .filter_map(|(_, handler)| owner::words_of(handler).into_iter().next())
        .collect();
    if let Some(gone) = programs.iter().find(|program| !runs(places, program)) {
        return Check::fail("hooks", format!("{shown} runs {gone}: no such program"), INSTALL);
    }
    let has = |event: &&Event| ours.iter().any(|(name, _)| name == event.name);
    let missing: Vec<&str> =
        wanted.iter().filter(|event| !has(event)).map(|event| event.name).collect();
    if missing.is_empty() {
        return Check::ok("hooks", format!("{} events, in {shown}", wanted.len()));
    }
    Check::warn("hooks", format!("{shown} lacks {}", missing.join(", ")), INSTALL)
}

/// Whether each event is answered once.
pub(super) fn copies(places: &Places, plugin: Option<&str>) -> Check {
    let mut files =
        vec![places.user_settings(), places.project_settings(), places.local_settings()];
    files.dedup();
    let mut ways: Vec<String> = files
        .iter()
        .filter(|file| copies::has_our_hooks(file))
        .map(|file| file.display().to_string())
        .collect();
    ways.extend(plugin.map(|plugin| format!("the plugin {plugin}")));
    if ways.len() > 1 {
        return Check::fail(
            "copies",
            format!("the hooks are there {} times: {}", ways.len(), ways.join(", ")),
            "take all but one out: claudemesh-broker claude uninstall, or claude plugin uninstall",
        );
    }
    match copies::of_claudemesh(places).first() {
        Some(file) => Check::warn(
            "copies",
            format!(
                "the other command line of claudemesh reports statuses too, by {}",
                file.display()
            ),
            "claudemesh uninstall, unless its sessions are still in use; then claudemesh-broker \
             claude install",
        ),
        None => Check::ok("copies", "nothing else answers the same events"),
    }
}

/// Codex: its files, and what it needs from the user.
pub(super) fn codex(places: &Places) -> Vec<Check> {
    let install = "claudemesh-broker claude install --codex";
    let config = std::fs::read_to_string(places.codex.join("config.toml")).unwrap_or_default();
    let server = match codex::entry(&config) {
        Ok(Entry::Ours(program)) if runs(places, &program) => Check::ok("server", program),
        Ok(Entry::Ours(program)) => {
            Check::fail("server", format!("{program}: no such program"), install)
        }
        Ok(Entry::Foreign(line)) => Check::fail(
            "server",
            format!("claudemesh is another program's: {line}"),
            "codex mcp remove claudemesh, then claudemesh-broker claude install --codex",
        ),
        Ok(Entry::Missing | Entry::Unreadable(_)) => {
            Check::fail("server", "claudemesh is not registered", install)
        }
        Err(reason) => Check::fail("server", format!("config.toml: {reason}"), "mend the file"),
    };
    let file = places.codex.join("hooks.json");
    let mut hooks = if copies::has_our_hooks(&file) {
        of_file(places, &file, &known(CODEX_EVENTS, None))
    } else {
        Check::fail("hooks", "none of ours", install)
    };
    if codex::hooks_are_off(&config) {
        let todo = "remove hooks = false from [features] in config.toml";
        hooks = Check::fail("hooks", "config.toml switches all hooks off", todo);
    }
    vec![server, hooks]
}

/// Whether a host would find a program: by its path, or by its name.
fn runs(places: &Places, program: &str) -> bool {
    let path = Path::new(program);
    if path.is_absolute() { is_program(path) } else { places.find_program(program).is_some() }
}
