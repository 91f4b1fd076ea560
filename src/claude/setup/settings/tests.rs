//! Shapes of settings files that people have.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::claude::setup::description::{CLAUDE_EVENTS, Form, group, handler, known};
use crate::claude::setup::version::Version;

const PROGRAM: &str = "/opt/bin/claudemesh-broker";

fn wanted(program: &str, version: Option<Version>) -> Vec<(&'static str, Value)> {
    let events = known(CLAUDE_EVENTS, version).into_iter();
    let form = Form::of(version);
    events.map(|event| (event.name, group(&[handler(event, program, form, &[])]))).collect()
}

fn new() -> Vec<(&'static str, Value)> {
    wanted(PROGRAM, Some(Version(2, 1, 332)))
}

fn installed(text: &str) -> String {
    with(text, |settings| settings.put_hooks(&new()))
}

fn uninstalled(text: &str) -> String {
    with(text, Settings::remove_hooks)
}

fn with(text: &str, edit: impl FnOnce(&mut Settings) -> Result<(), Unfit>) -> String {
    let mut settings = Settings::parse(text).expect("JSON");
    edit(&mut settings).expect("a usual shape");
    settings.finish().expect("foreign things stay").text
}

/// How often our program is named in a text.
fn ours(text: &str) -> usize {
    text.matches("claudemesh-broker").count()
}

const FOREIGN: &str = r#"{
  "model": "opus",
  "hooks": {
    "Stop": [
      { "matcher": "", "hooks": [ {"type": "command", "command": "notify-send done"} ] }
    ],
    "PreToolUse": [{"matcher": "Bash", "hooks": [{"type": "command", "command": "audit"}]}]
  },
  "env": {"A": "1"}
}
"#;

#[test]
fn a_file_that_is_not_there_or_empty_gets_our_hooks_alone() {
    for text in ["", "\n", "{}\n"] {
        let after = installed(text);
        let value: Value = serde_json::from_str(&after).expect("JSON");
        let events: Vec<&String> = value["hooks"].as_object().expect("hooks").keys().collect();
        let all = [
            "Notification",
            "PostToolBatch",
            "SessionEnd",
            "SessionStart",
            "Stop",
            "UserPromptSubmit",
        ];
        assert_eq!(events, all);
        assert_eq!(
            value["hooks"]["Stop"],
            json!([{"hooks": [{
                "type": "command", "command": PROGRAM, "args": ["claude", "hook", "stop"],
                "timeout": 5
            }]}])
        );
        assert_eq!(uninstalled(&after), "{}\n");
    }
}

#[test]
fn foreign_hooks_keep_their_bytes_and_come_first() {
    let after = installed(FOREIGN);
    for line in FOREIGN.lines().filter(|line| line.contains("command")) {
        assert!(after.contains(line), "{line} is not in {after}");
    }
    let value: Value = serde_json::from_str(&after).expect("JSON");
    assert_eq!(value["hooks"]["Stop"][0]["hooks"][0]["command"], "notify-send done");
    assert_eq!(value["hooks"]["Stop"][1]["hooks"][0]["command"], PROGRAM);
    assert_eq!(value["hooks"]["PreToolUse"].as_array().expect("a list").len(), 1);
    let places = ["\"model\"", "\"hooks\"", "\"env\""].map(|key| after.find(key).expect("there"));
    assert!(places.is_sorted(), "{after}");
    assert_eq!(uninstalled(&after), FOREIGN);
}

#[test]
fn an_installation_that_is_there_changes_nothing() {
    for text in ["", FOREIGN] {
        let after = installed(text);
        let mut settings = Settings::parse(&after).expect("JSON");
        settings.put_hooks(&new()).expect("a usual shape");
        let again = settings.finish().expect("fine");
        assert_eq!((again.text, again.changes), (after, Vec::new()));
    }
}

#[test]
fn an_upgrade_replaces_what_is_ours_in_its_place() {
    let old = with(FOREIGN, |settings| settings.put_hooks(&wanted("/old/claudemesh-broker", None)));
    assert!(old.contains("PostToolUse\"") && !old.contains("PostToolBatch"), "{old}");
    let after = installed(&old);
    assert!(!after.contains("/old/") && !after.contains("PostToolUse\""), "{after}");
    assert_eq!(ours(&after), 6);
    assert_eq!(uninstalled(&after), FOREIGN);
}

#[test]
fn our_handler_in_a_foreign_group_goes_alone() {
    let text = r#"{"hooks":{"Stop":[{"matcher":"x","hooks":[{"type":"command","command":"mine"},{"type":"command","command":"/a/claudemesh-broker claude hook stop"}]}]}}"#;
    let without = uninstalled(text);
    let value: Value = serde_json::from_str(&without).expect("JSON");
    let mine = json!([{"matcher": "x", "hooks": [{"type": "command", "command": "mine"}]}]);
    assert_eq!(value["hooks"]["Stop"], mine);
    assert_eq!(ours(&installed(text)), 6);
}

#[test]
fn the_other_command_lines_hooks_are_foreign() {
    let text = r#"{"hooks": {"Stop": [{"hooks": [{"type": "command", "command": "claudemesh hook idle"}]}]}}"#;
    let after = installed(text);
    assert!(after.contains("claudemesh hook idle"));
    assert!(uninstalled(&after).contains("claudemesh hook idle"));
}

#[test]
fn odd_entries_of_others_are_left_as_they_are() {
    let text =
        r#"{"hooks": {"Stop": [null, 7, {"hooks": "x"}, {"hooks": []}, {}], "X": "y", "Z": []}}"#;
    let back: Value = serde_json::from_str(&uninstalled(&installed(text))).expect("JSON");
    assert_eq!(back, serde_json::from_str::<Value>(text).expect("JSON"));
}

#[test]
fn a_shape_that_is_not_understood_is_refused() {
    let cases = [
        r#"{"hooks": []}"#,
        r#"{"hooks": null}"#,
        r#"{"hooks": {"Stop": {}}}"#,
        r#"{"hooks": {}, "hooks": {}}"#,
        r#"{"hooks": {"Stop": [], "Stop": []}}"#,
        "[]",
        "{\"hooks\": {}} // mine",
        "{\"hooks\": {",
    ];
    for text in cases {
        let put = |mut settings: Settings| settings.put_hooks(&new());
        assert!(Settings::parse(text).and_then(put).is_err(), "{text}");
    }
}

#[test]
fn tabs_and_line_ends_of_a_file_are_kept() {
    let text = "{\r\n\t\"a\": [1,\t2],\r\n\t\"b\":  {}\r\n}\r\n";
    let after = installed(text);
    assert!(after.starts_with("{\r\n\t\"a\": [1,\t2],\r\n\t\"b\":  {},\r\n\t\"hooks\": {\r\n"));
    assert_eq!(after.matches('\n').count(), after.matches("\r\n").count(), "{after:?}");
    assert_eq!(uninstalled(&after), text);
}

#[test]
fn a_huge_file_is_edited_like_a_small_one() {
    let rules: Vec<String> = (0..20_000).map(|n| format!("\"Bash(command-{n}:*)\"")).collect();
    let text = format!("{{\n  \"permissions\": {{\"allow\": [{}]}}\n}}\n", rules.join(",\n"));
    assert_eq!(uninstalled(&installed(&text)), text);
}

#[test]
fn rules_are_added_once_and_taken_away_exactly() {
    let text =
        "{\n  \"permissions\": {\n    \"allow\": [\"Bash(ls:*)\"],\n    \"deny\": []\n  }\n}\n";
    let rules = description::rules();
    let after = with(text, |settings| settings.allow(&rules));
    assert_eq!(with(&after, |settings| settings.allow(&rules)), after);
    let value: Value = serde_json::from_str(&after).expect("JSON");
    assert_eq!(value["permissions"]["allow"].as_array().expect("a list").len(), 4);
    assert_eq!(with(&after, |settings| settings.disallow(&rules)), text);
    let fresh = with("{}", |settings| settings.allow(&rules));
    assert_eq!(with(&fresh, |settings| settings.disallow(&rules)), "{}");
}

#[test]
fn a_foreign_status_line_or_server_is_never_replaced() {
    let text = "{\n  \"statusLine\": {\"type\": \"command\", \"command\": \"mine.sh\"}\n}\n";
    let mut settings = Settings::parse(text).expect("JSON");
    let line = description::status_line(PROGRAM);
    assert_eq!(settings.put_status_line(&line), Ok(Place::Taken));
    settings.remove_status_line().expect("fine");
    assert_eq!(settings.finish().expect("fine").text, text);

    let text = r#"{"mcpServers": {"claudemesh": {"command": "claudemesh", "args": ["mcp"]}}}"#;
    let mut settings = Settings::parse(text).expect("JSON");
    assert_eq!(settings.put_server(&description::server(PROGRAM)), Ok(Place::Taken));
    settings.remove_server().expect("fine");
    assert_eq!(settings.finish().expect("fine").text, text);
}

#[test]
fn our_status_line_and_server_come_and_go() {
    let line = description::status_line(PROGRAM);
    let both = |settings: &mut Settings| {
        assert_eq!(settings.put_status_line(&line)?, Place::Ours);
        assert_eq!(settings.put_server(&description::server(PROGRAM))?, Place::Ours);
        Ok(())
    };
    let after = with("{}\n", both);
    assert_eq!(with(&after, both), after, "once");
    let without = with(&after, |settings| {
        settings.remove_status_line()?;
        settings.remove_server()
    });
    assert_eq!(without, "{}\n");
}

#[test]
fn two_files_say_the_same_whatever_is_empty_where_ours_would_stand() {
    for (one, other) in [
        ("", "{}\n"),
        ("{ \"a\" : 1, \"hooks\": {} }", "{\"a\":1}"),
        ("{\"hooks\":{\"Stop\":[]},\"permissions\":{\"allow\":[]}}", "{}"),
    ] {
        assert!(says_the_same(one, other), "{one} and {other}");
    }
    let ours = installed("{}");
    for (one, other) in [
        ("{\"a\":1,\"b\":2}", "{\"b\":2,\"a\":1}"),
        ("{\"permissions\":{\"deny\":[]}}", "{}"),
        ("{\"a\":{}}", "{}"),
        (ours.as_str(), "{}"),
        (ours.as_str(), ours.as_str()),
    ] {
        assert!(!says_the_same(one, other), "{one} and {other}");
    }
}

/// Settings as a random user has them.
fn some_settings() -> impl Strategy<Value = Value> {
    let command = prop_oneof!["[a-z ]{0,12}", Just("claudemesh hook idle".to_owned())];
    let handler = command.prop_map(|command| json!({"type": "command", "command": command}));
    let group = (prop::collection::vec(handler, 0..3), any::<bool>()).prop_map(|(hooks, all)| {
        if all { json!({ "hooks": hooks }) } else { json!({"matcher": "Bash", "hooks": hooks}) }
    });
    let event = prop_oneof![Just("Stop"), Just("PreToolUse"), Just("SessionStart"), Just("Odd")];
    let event = event.prop_map(str::to_owned);
    let hooks = prop::collection::btree_map(event, prop::collection::vec(group, 0..3), 0..4);
    (hooks, "[a-z]{1,6}", any::<i32>()).prop_map(|(hooks, key, number)| {
        json!({"hooks": hooks, (format!("x{key}")): number, "z": {"hooks": [1, "\u{e9}"]}})
    })
}

proptest! {
    #[test]
    fn what_others_wrote_outlives_coming_and_going(value in some_settings(), pretty: bool) {
        let text = if pretty {
            serde_json::to_string_pretty(&value).expect("JSON")
        } else {
            value.to_string()
        };
        let after = installed(&text);
        prop_assert_eq!(ours(&after), 6);
        prop_assert_eq!(&installed(&after), &after);
        let back = uninstalled(&after);
        prop_assert_eq!(ours(&back), 0);
        prop_assert_eq!(foreign_part(&back).expect("JSON"), foreign_part(&text).expect("JSON"));
        for event in ["PreToolUse", "Odd"] {
            let of = |text: &str| serde_json::from_str::<Value>(text).expect("JSON")["hooks"][event].clone();
            prop_assert_eq!(of(&back), of(&text));
        }
    }
}
