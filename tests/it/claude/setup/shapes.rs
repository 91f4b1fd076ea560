//! Settings files as people have them: nothing that is not ours is changed by coming, by
//! an upgrade, or by going.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use serde_json::{Value, json};

use super::{Machine, PROGRAM, commands};

/// Files that are edited, by what is odd about them.
fn shapes() -> Vec<(&'static str, String)> {
    let foreign = r#"{"type":"command","command":"notify-send done"}"#;
    let rules: Vec<String> = (0..30_000).map(|n| format!("\"Bash(command-{n}:*)\"")).collect();
    let ours = "/old/claudemesh-broker claude hook";
    let shapes = [
        ("an empty file", String::new()),
        ("an empty object", "{}".to_owned()),
        ("blanks within", "{ \n\n }\n".to_owned()),
        ("other keys", "{\n  \"model\": \"opus\",\n  \"env\": {\"A\": \"1\"}\n}\n".to_owned()),
        ("no line end", "{\"model\":\"opus\"}".to_owned()),
        ("foreign hooks", format!("{{\n  \"hooks\": {{\"PreToolUse\": [{{\"matcher\": \"Bash\", \"hooks\": [{foreign}]}}]}}\n}}\n")),
        ("a foreign group of the same event", format!("{{\"hooks\":{{\"Stop\":[{{\"hooks\":[{foreign}]}}]}}}}")),
        ("a foreign handler beside ours", format!("{{\"hooks\":{{\"Stop\":[{{\"hooks\":[{foreign},{{\"type\":\"command\",\"command\":\"{ours} stop\"}}]}}]}}}}")),
        ("our older entries", format!("{{\"hooks\":{{\"PostToolUse\":[{{\"hooks\":[{{\"type\":\"command\",\"command\":\"{ours} post-tool-use\"}}]}}]}}, \"z\": 1}}")),
        ("the other command line's hooks", "{\"hooks\":{\"Stop\":[{\"hooks\":[{\"type\":\"command\",\"command\":\"claudemesh hook idle\"}]}]}}".to_owned()),
        ("tabs and their line ends", "{\r\n\t\"z\":\t[1,2],\r\n\t\"a\": null\r\n}\r\n".to_owned()),
        ("odd spacing", "{\"b\" :1,\n\n\n      \"a\":{\"x\":[ ]} , \"hooks\" : { } }".to_owned()),
        ("text of other tongues", "{\"language\": \"\u{65e5}\u{672c}\\u8a9e \u{1f980}\", \"n\": 1e400}".replace("1e400", "1.50")),
        ("odd entries of others", "{\"hooks\":{\"Stop\":[null,{\"hooks\":[]}],\"Other\":\"x\"}}".to_owned()),
        ("a huge file", format!("{{\"permissions\":{{\"allow\":[{}]}}}}", rules.join(",\n"))),
    ];
    shapes.into_iter().collect()
}

/// What is not ours: every key and every leaf, but for names of events, which may hold
/// both.
fn foreign_words(text: &str) -> Vec<String> {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|_| json!({}));
    let mut words = Vec::new();
    collect(&value, true, &mut words);
    words
}

fn collect(value: &Value, has_names: bool, words: &mut Vec<String>) {
    let command = value.get("command").and_then(Value::as_str).unwrap_or_default();
    if command.contains("claudemesh-broker") {
        return;
    }
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, true, words)),
        Value::Object(fields) => {
            for (key, value) in fields.iter() {
                let is_hooks = key == "hooks";
                if has_names && !is_hooks {
                    words.push(key.clone());
                }
                collect(value, !is_hooks, words);
            }
        }
        leaf => words.push(leaf.to_string()),
    }
}

#[test]
fn installing_upgrading_and_uninstalling_change_nothing_foreign() {
    for (what, text) in shapes() {
        let machine = Machine::with_claude("2.1.90");
        machine.write(".claude/settings.json", &text);
        let foreign = foreign_words(&text);
        let had_ours = text.contains("/old/claudemesh-broker");
        for release in ["2.1.90", "2.1.332"] {
            machine.write("claude.release", release);
            machine.does(&["install"]);
            let after = machine.read(".claude/settings.json");
            assert_eq!(foreign_words(&after), foreign, "{what}, {release}");
            let settings = machine.value(".claude/settings.json");
            let ours = commands(&settings, "Stop");
            let ours = ours.iter().filter(|command| command.starts_with(PROGRAM));
            assert_eq!(ours.count(), 1, "{what}, {release}");
            assert!(!after.contains("/old/"), "{what}");
        }
        machine.does(&["uninstall"]);
        let after = machine.read(".claude/settings.json");
        if had_ours {
            assert_eq!(foreign_words(&after), foreign, "{what}");
            assert!(!after.contains("claudemesh-broker"), "{what}");
        } else {
            assert_eq!(after, text, "{what}: to the byte");
        }
    }
}

#[test]
fn a_file_that_is_no_plain_json_stops_everything() {
    let texts = [
        "{\n  // mine\n  \"model\": \"opus\"\n}\n",
        "{\"model\": \"opus\",}",
        "{\"model\": \"opus\"",
        "\u{feff}{}",
        "[]",
        "{\"hooks\": []}",
        "{\"hooks\": {\"Stop\": {}}}",
        "{\"hooks\": {}, \"hooks\": {}}",
    ];
    for text in texts {
        let machine = Machine::with_claude("2.1.332");
        machine.write(".claude/settings.json", text);
        let before = machine.files();
        let (code, message) = machine.refuses(&["install"]);
        assert_eq!(code, "settings_unfit", "{text}");
        assert!(message.contains("settings.json") && message.contains("nothing was changed"));
        assert_eq!(machine.files(), before, "{text}");
        assert!(!machine.read("claude.calls").contains("mcp add"), "nor the server: {text}");
    }
}

#[test]
fn a_read_only_file_or_folder_stops_everything() {
    let machine = Machine::with_claude("2.1.332");
    let file = machine.write(".claude/settings.json", "{}");
    let folder = machine.file(".claude");
    for (path, locked, open) in [(&file, 0o444, 0o644), (&folder, 0o555, 0o755)] {
        fs::set_permissions(path, fs::Permissions::from_mode(locked)).expect("a mode");
        let before = machine.files();
        let (code, message) = machine.refuses(&["install"]);
        assert_eq!(code, "settings_read_only", "{message}");
        assert_eq!(machine.files(), before);
        assert!(!machine.read("claude.calls").contains("mcp add"));
        fs::set_permissions(path, fs::Permissions::from_mode(open)).expect("a mode");
    }
    machine.does(&["install"]);
}

#[test]
fn a_link_stays_a_link_and_what_it_leads_to_is_edited() {
    let machine = Machine::with_claude("2.1.332");
    let text = "{\n  \"model\": \"opus\"\n}\n";
    let real = machine.write("dotfiles/claude.json", text);
    fs::set_permissions(&real, fs::Permissions::from_mode(0o600)).expect("a mode");
    fs::create_dir(machine.file(".claude")).expect("made");
    symlink(&real, machine.settings()).expect("a link");
    machine.does(&["install"]);
    assert!(fs::symlink_metadata(machine.settings()).expect("there").is_symlink());
    assert!(machine.read("dotfiles/claude.json").contains(PROGRAM));
    assert_eq!(fs::metadata(&real).expect("there").permissions().mode() & 0o777, 0o600);
    machine.does(&["uninstall"]);
    assert!(fs::symlink_metadata(machine.settings()).expect("there").is_symlink());
    assert_eq!(machine.read("dotfiles/claude.json"), text);
}

#[test]
fn a_copy_of_the_file_is_made_once_and_of_what_was_there_before_us() {
    let machine = Machine::with_claude("2.1.90");
    machine.write(".claude/settings.json", "{\"model\":\"opus\"}");
    let answer = machine.does(&["install"]);
    assert!(answer.to_string().contains("settings.json.before-claudemesh"), "{answer}");
    machine.write("claude.release", "2.1.332");
    let answer = machine.does(&["install"]);
    assert!(!answer.to_string().contains("before-claudemesh"), "once: {answer}");
    assert_eq!(machine.read(".claude/settings.json.before-claudemesh"), "{\"model\":\"opus\"}");
}

#[test]
fn what_the_user_adds_between_coming_and_going_stays() {
    let machine = Machine::with_claude("2.1.332");
    machine.write(".claude/settings.json", "{\n  \"model\": \"opus\"\n}\n");
    machine.does(&["install"]);
    let changed = machine.read(".claude/settings.json").replace("\"opus\"", "\"sonnet\"");
    machine.write(".claude/settings.json", &changed);
    let answer = machine.does(&["uninstall"]);
    assert_eq!(machine.read(".claude/settings.json"), "{\n  \"model\": \"sonnet\"\n}\n");
    assert!(answer.to_string().contains("as it was before us"), "{answer}");
}
