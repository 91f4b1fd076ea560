//! Other ways by which the same events would be answered twice: our plugin, our hooks in
//! another settings file, and the hooks of the other command line of claudemesh.

use serde_json::Value;

use super::description::SERVER;
use super::owner::{self, Owner};
use super::places::Places;
use super::servers::read_json;
use super::settings;

/// Our plugin, if a session would load it: `claudemesh@<marketplace>`.
pub(crate) fn plugin(places: &Places) -> Option<String> {
    let files = [places.user_settings(), places.project_settings(), places.local_settings()];
    let mut enabled = serde_json::Map::new();
    for file in files {
        let settings = read_json(&file).ok().flatten().unwrap_or_default();
        // The more specific file is read later, and wins.
        if let Some(plugins) = settings.get("enabledPlugins").and_then(Value::as_object) {
            enabled.extend(plugins.clone());
        }
    }
    let is_ours = |name: &str| name.split('@').next() == Some(SERVER);
    let is_on = |value: &Value| !matches!(value, Value::Bool(false));
    if let Some((name, _)) = enabled.iter().find(|(name, value)| is_ours(name) && is_on(value)) {
        return Some(name.clone());
    }
    let skill = places.claude.join("skills").join(SERVER).join(".claude-plugin/plugin.json");
    let skill = skill.exists().then(|| format!("{SERVER}@skills-dir"));
    let installed = read_json(&places.claude.join("plugins/installed_plugins.json")).ok().flatten();
    let installed = installed.as_ref().and_then(|file| file.get("plugins")?.as_object());
    let names = installed.into_iter().flat_map(serde_json::Map::keys).cloned();
    names.chain(skill).find(|name| is_ours(name) && enabled.get(name).is_none_or(is_on))
}

/// Whether a settings file has handlers of ours.
pub(crate) fn has_our_hooks(file: &std::path::Path) -> bool {
    let settings = read_json(file).ok().flatten().unwrap_or_default();
    settings::handlers(&settings)
        .iter()
        .any(|(_, handler)| owner::of_handler(handler) == Owner::Ours)
}

/// The files in which the other command line of claudemesh has its hooks.
pub(crate) fn of_claudemesh(places: &Places) -> Vec<std::path::PathBuf> {
    let files = [places.user_settings(), places.project_settings(), places.local_settings()];
    let has = |file: &std::path::PathBuf| {
        let settings = read_json(file).ok().flatten().unwrap_or_default();
        settings::handlers(&settings)
            .iter()
            .any(|(_, handler)| owner::of_handler(handler) == Owner::Claudemesh)
    };
    let mut found: Vec<_> = files.into_iter().filter(has).collect();
    // The home folder may be the project.
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn places(home: &Path) -> Places {
        let home_text = home.to_string_lossy().into_owned();
        let env = move |name: &str| (name == "HOME").then(|| home_text.clone());
        Places::of(&env, home.join("project")).expect("a home")
    }

    fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    }

    #[test]
    fn a_plugin_counts_where_a_session_would_load_it() {
        let home = tempfile::tempdir().expect("a folder");
        let places = places(home.path());
        assert_eq!(plugin(&places), None);
        let installed = places.claude.join("plugins/installed_plugins.json");
        write(&installed, r#"{"version":2,"plugins":{"other@m":[],"claudemesh@mine":[{}]}}"#);
        assert_eq!(plugin(&places).as_deref(), Some("claudemesh@mine"));
        write(&places.user_settings(), r#"{"enabledPlugins":{"claudemesh@mine":false}}"#);
        assert_eq!(plugin(&places), None, "switched off");
        write(&places.local_settings(), r#"{"enabledPlugins":{"claudemesh@mine":true}}"#);
        assert_eq!(plugin(&places).as_deref(), Some("claudemesh@mine"), "on again here");
    }

    #[test]
    fn a_plugin_among_the_skills_counts() {
        let home = tempfile::tempdir().expect("a folder");
        let places = places(home.path());
        write(&places.claude.join("skills/claudemesh/SKILL.md"), "a skill alone is no plugin");
        assert_eq!(plugin(&places), None);
        write(&places.claude.join("skills/claudemesh/.claude-plugin/plugin.json"), "{}");
        assert_eq!(plugin(&places).as_deref(), Some("claudemesh@skills-dir"));
    }

    #[test]
    fn the_other_command_lines_hooks_are_noticed() {
        let home = tempfile::tempdir().expect("a folder");
        let places = places(home.path());
        let text = r#"{"hooks":{"Stop":[{"hooks":[{"type":"command","command":"claudemesh hook idle"}]}]}}"#;
        write(&places.user_settings(), text);
        assert_eq!(of_claudemesh(&places), [places.user_settings()]);
        assert!(!has_our_hooks(&places.user_settings()));
    }
}
