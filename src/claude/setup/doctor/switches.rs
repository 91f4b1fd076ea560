//! What is on and off in a host: hooks, trust, channels, the inbox of a session, rules of
//! permission.

use serde_json::Value;

use crate::claude::setup::description;
use crate::claude::setup::places::Places;
use crate::claude::setup::servers::read_json;
use crate::claude::setup::version::Version;
use crate::config::Env;
use crate::output::check::Check;

/// The first release with channels.
const CHANNELS_FROM: Version = Version(2, 1, 80);
/// The first release whose sessions have an inbox.
const INBOX_FROM: Version = Version(2, 1, 224);
/// Where models are not asked of their maker, a host has neither channels nor inboxes.
const ELSEWHERE: [&str; 3] =
    ["CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_FOUNDRY"];
/// What also switches the inbox off.
const QUIET: [&str; 4] = [
    "DISABLE_TELEMETRY",
    "DO_NOT_TRACK",
    "DISABLE_GROWTHBOOK",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
];

/// Whether the host runs hooks at all.
pub(super) fn hooks_run(places: &Places) -> Check {
    let managed = [places.managed.clone()];
    let own = [places.user_settings(), places.project_settings(), places.local_settings()];
    for file in own.iter().chain(&managed) {
        if is_on(&json(file), "disableAllHooks") {
            let found = format!("{} switches all hooks off", file.display());
            let todo = "remove disableAllHooks from it, or ask who administers this machine";
            return Check::fail("switch", found, todo);
        }
    }
    if is_on(&json(&places.managed), "allowManagedHooksOnly") {
        return Check::fail(
            "switch",
            "this machine's administrator allows hooks of the administrator only",
            "ask for the hooks to be put into the managed settings; until then the model gets mail \
             by check_messages",
        );
    }
    Check::ok("switch", "hooks are not switched off")
}

/// Whether this folder, or one above it, is trusted: interactive sessions run no hook
/// before.
pub(super) fn trust(places: &Places) -> Check {
    let state = json(&places.claude_state);
    let shown = places.project.display();
    let is_trusted = |folder: &std::path::Path| {
        let accepted = folder.to_str().and_then(|folder| {
            state.get("projects")?.get(folder)?.get("hasTrustDialogAccepted")?.as_bool()
        });
        accepted == Some(true)
    };
    if places.project.ancestors().any(is_trusted) {
        return Check::ok("trust", format!("{shown} is trusted"));
    }
    Check::warn(
        "trust",
        format!("{shown} is not trusted, so sessions here run no hooks"),
        "start claude here once and accept the question",
    )
}

/// Whether a session can have our channel.
pub(super) fn channel(places: &Places, version: Option<Version>, env: Env<'_>) -> Check {
    let idle = "idle sessions are reached by their inbox, or at the next prompt";
    if let Some(name) = set(&ELSEWHERE, env) {
        return Check::warn("channel", format!("none with {name}: {idle}"), "nothing, or unset it");
    }
    if version.is_none_or(|version| version < CHANNELS_FROM) {
        let found = format!("none before release {CHANNELS_FROM}: {idle}");
        return Check::warn("channel", found, "claude update");
    }
    let managed = json(&places.managed);
    if managed.get("channelsEnabled").and_then(Value::as_bool) == Some(false) {
        let todo = "ask who administers this machine for channelsEnabled";
        return Check::warn("channel", format!("the administrator has it off: {idle}"), todo);
    }
    Check::ok(
        "channel",
        format!("on in sessions by claudemesh-broker claude launch; in others {idle}"),
    )
}

/// Whether sessions have an inbox, by which an idle one is woken.
pub(super) fn inbox(version: Option<Version>, env: Env<'_>) -> Check {
    let later = "an idle session without the channel gets its mail at the next prompt";
    if let Some(name) = set(&ELSEWHERE, env).or_else(|| set(&QUIET, env)) {
        let todo = format!("unset {name}, or claudemesh-broker claude install --waiter");
        return Check::warn("inbox", format!("none with {name}: {later}"), todo);
    }
    if version.is_none_or(|version| version < INBOX_FROM) {
        return Check::warn(
            "inbox",
            format!("none before release {INBOX_FROM}: {later}"),
            "claude update",
        );
    }
    Check::ok("inbox", "this release has one for each session, unless its maker has it off")
}

/// Whether a session that was woken can read its mail without asking.
pub(super) fn permissions(places: &Places, is_plugin: bool) -> Check {
    let files = [places.user_settings(), places.project_settings(), places.local_settings()];
    let allowed: Vec<String> = files
        .iter()
        .filter_map(|file| Some(json(file).get("permissions")?.get("allow")?.as_array()?.clone()))
        .flatten()
        .filter_map(|rule| rule.as_str().map(str::to_owned))
        .collect();
    let server = if is_plugin { "plugin_claudemesh_mesh" } else { description::SERVER };
    let allows = |tool: &&str| {
        let rules = [
            format!("mcp__{server}__{tool}"),
            format!("mcp__{server}__*"),
            format!("mcp__{server}"),
        ];
        rules.iter().any(|rule| allowed.contains(rule))
    };
    let missing: Vec<&str> =
        description::READING_TOOLS.into_iter().filter(|tool| !allows(tool)).collect();
    if missing.is_empty() {
        return Check::ok("rules", "the model may read its mail without asking");
    }
    let todo = if is_plugin {
        "choose \"don't ask again\" when the session asks"
    } else {
        "claudemesh-broker claude install --allow-reading"
    };
    let found = format!("a woken session waits for the user's consent to {}", missing.join(", "));
    Check::warn("rules", found, todo)
}

fn json(file: &std::path::Path) -> Value {
    read_json(file).ok().flatten().unwrap_or_default()
}

fn is_on(settings: &Value, key: &str) -> bool {
    settings.get(key).and_then(Value::as_bool) == Some(true)
}

fn set(names: &[&'static str], env: Env<'_>) -> Option<&'static str> {
    let is_set = |name: &&&'static str| {
        env(name).is_some_and(|text| !matches!(text.trim(), "" | "0" | "false"))
    };
    names.iter().find(is_set).copied()
}
