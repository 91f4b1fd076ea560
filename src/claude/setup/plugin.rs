//! The plugin folder: what the installer tells a host of, in files that a host loads.
//! Made from the same description; a test holds the committed folder against it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};

use super::description::{self, CLAUDE_EVENTS, Form, SERVER};
use super::json_text::{self, JsonText};
use super::version::Version;
use crate::output;

/// Our server within the plugin: tools are `mcp__plugin_claudemesh_mesh__send_message`.
const PLUGIN_SERVER: &str = "mesh";
/// How the plugin names this program, which has to be on the path.
const PROGRAM: &str = "claudemesh-broker";
/// The oldest release that the plugin is for: it knows all of our events.
const FOR_RELEASE: Version = Version(2, 1, 120);
const ABOUT: &str = "This session as a peer of a mesh: it sees who else is there, writes to them, \
                     and is shown what they write";
const SKILL: &str = include_str!("SKILL.md");

/// Arguments of `claude plugin`.
#[derive(Debug, Args)]
pub(crate) struct PluginArgs {
    /// Where to; what is there under the same names is replaced
    folder: PathBuf,
}

/// Runs it.
pub(crate) fn run(args: &PluginArgs, as_json: bool) -> anyhow::Result<ExitCode> {
    let files = files()?;
    for (name, text) in &files {
        let path = args.folder.join(name);
        let folder = path.parent().unwrap_or(&args.folder);
        let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, text));
        written.with_context(|| format!("cannot write {}", path.display()))?;
    }
    let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
    // A folder's bare name would be taken for a repository's.
    let folder = std::fs::canonicalize(&args.folder).unwrap_or_else(|_| args.folder.clone());
    let shown = description::shell_line(&folder.to_string_lossy(), &[]);
    let text = format!(
        "{} in {shown}\nnext: claude plugin marketplace add {shown} && claude plugin install \
         {SERVER}@{SERVER}",
        output::count(names.len(), "file")
    );
    output::answer(as_json, &json!({"folder": folder, "files": names}), &text)?;
    Ok(ExitCode::SUCCESS)
}

/// The files, by their names below the folder.
fn files() -> anyhow::Result<Vec<(&'static str, String)>> {
    let files = [
        (".claude-plugin/marketplace.json", document(&marketplace())?),
        ("claudemesh/.claude-plugin/plugin.json", document(&manifest())?),
        ("claudemesh/.mcp.json", document(&servers())?),
        ("claudemesh/hooks/hooks.json", document(&hooks())?),
        ("claudemesh/skills/claudemesh/SKILL.md", SKILL.to_owned()),
    ];
    Ok(files.into())
}

fn marketplace() -> Value {
    json!({
        "name": SERVER,
        "owner": {"name": SERVER},
        "description": "Meshes of coding sessions",
        "plugins": [{"name": SERVER, "source": format!("./{SERVER}"), "description": ABOUT}],
    })
}

fn manifest() -> Value {
    json!({
        "name": SERVER,
        "version": env!("CARGO_PKG_VERSION"),
        "description": ABOUT,
        "author": {"name": SERVER},
        "license": env!("CARGO_PKG_LICENSE"),
        "channels": [{"server": PLUGIN_SERVER}],
    })
}

fn servers() -> Value {
    json!({"mcpServers": {(PLUGIN_SERVER): description::server(PROGRAM)}})
}

/// The hooks. A plugin does not know the release that loads it, so it has the lines that
/// every release reads: one that ignored arguments would run the bare program.
fn hooks() -> Value {
    let events = description::known(CLAUDE_EVENTS, Some(FOR_RELEASE)).into_iter();
    let hooks: serde_json::Map<String, Value> = events
        .map(|event| {
            let handler = description::handler(event, PROGRAM, Form::Shell, &[]);
            (event.name.to_owned(), json!([description::group(&[handler])]))
        })
        .collect();
    json!({"description": ABOUT, "hooks": hooks})
}

/// A file's text, in the form in which the installer writes.
fn document(value: &Value) -> anyhow::Result<String> {
    let text = JsonText::parse("{}\n")?;
    for (key, value) in json_text::in_order(value) {
        text.object().append(&key, json_text::input(value));
    }
    Ok(text.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_plugin_is_the_one_that_is_made() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("integrations/claude-code");
        for (name, text) in files().expect("JSON") {
            let there = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
            let advice = "write it anew: claudemesh-broker claude plugin integrations/claude-code";
            assert_eq!(there, text, "{name}: {advice}");
        }
    }

    #[test]
    fn the_plugin_registers_what_the_installer_does() {
        let hooks = hooks();
        let events: Vec<&String> = hooks["hooks"].as_object().expect("events").keys().collect();
        assert_eq!(
            events,
            [
                "Notification",
                "PostToolBatch",
                "SessionEnd",
                "SessionStart",
                "Stop",
                "UserPromptSubmit"
            ]
        );
        assert_eq!(
            hooks["hooks"]["Stop"][0]["hooks"][0]["command"],
            "claudemesh-broker claude hook stop"
        );
        let server = &servers()["mcpServers"][PLUGIN_SERVER];
        assert_eq!(server["args"], json!(["claude", "mcp"]));
        assert_eq!(manifest()["channels"][0]["server"], PLUGIN_SERVER);
    }

    #[test]
    fn the_skill_fits_its_listing_and_orders_nobody_to_answer_at_once() {
        let front = SKILL.split("---").nth(1).expect("front matter");
        assert!(front.contains("name: claudemesh") && front.len() < 1_500);
        let text = SKILL.to_lowercase();
        assert!(!text.contains("immediately") && text.contains("never an instruction"));
    }
}
