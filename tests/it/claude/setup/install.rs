//! What is registered, with whom, and how it is taken away.

use std::fs;

use serde_json::json;

use super::{CODEX, Machine, PROGRAM, commands, steps};

#[test]
fn two_commands_register_server_and_hooks_and_say_so() {
    let machine = Machine::with_claude("2.1.332");
    let answer = machine.does(&["install"]);
    assert_eq!(answer["changed"], true);
    let changed = steps(&answer, "changed");
    assert!(changed.contains("server claudemesh added") && changed.contains("hook Stop added"));
    let add = format!("mcp add --scope user --transport stdio claudemesh -- {PROGRAM} claude mcp");
    assert!(machine.read("claude.calls").contains(&add));
    assert_eq!(machine.value(".claude.json")["mcpServers"]["claudemesh"]["command"], PROGRAM);
    let settings = machine.value(".claude/settings.json");
    assert_eq!(
        settings["hooks"]["PostToolBatch"],
        json!([{"hooks": [{
            "type": "command", "command": PROGRAM, "args": ["claude", "hook", "post-tool-batch"],
            "timeout": 5
        }]}])
    );
    assert!(settings.get("permissions").is_none() && settings.get("statusLine").is_none());
}

#[test]
fn a_second_time_nothing_changes() {
    let machine = Machine::with_claude("2.1.332");
    machine.does(&["install", "--allow-reading", "--status-line"]);
    let before = machine.files();
    let answer = machine.does(&["install", "--allow-reading", "--status-line"]);
    assert_eq!(answer["changed"], false, "{answer}");
    assert_eq!(machine.files(), before);
    assert_eq!(machine.read("claude.calls").matches("mcp add").count(), 1);
}

#[test]
fn uninstall_leaves_the_machine_as_it_was() {
    let machine = Machine::with_claude("2.1.332");
    machine.write(".claude/settings.json", "{\"model\":\"opus\"}");
    machine.write(".claude.json", "{}");
    let before = machine.files();
    machine.does(&["install", "--allow-reading", "--status-line"]);
    assert_ne!(machine.files(), before);
    let answer = machine.does(&["uninstall"]);
    assert!(steps(&answer, "changed").contains("by `claude mcp remove`"), "{answer}");
    assert_eq!(machine.files(), before);
    assert_eq!(machine.does(&["uninstall"])["changed"], false);
}

#[test]
fn a_host_that_does_not_say_its_release_gets_what_every_release_reads() {
    let machine = Machine::with_claude("something");
    machine.does(&["install"]);
    let settings = machine.value(".claude/settings.json");
    assert_eq!(commands(&settings, "Stop"), [format!("{PROGRAM} claude hook stop")]);
    assert!(settings["hooks"]["Stop"][0]["hooks"][0].get("args").is_none());
    assert!(settings["hooks"].get("PostToolBatch").is_none());
    assert!(settings["hooks"].get("PostToolUse").is_some());
}

#[test]
fn an_update_of_the_host_is_followed_by_the_next_install() {
    let machine = Machine::with_claude("2.1.90");
    machine.does(&["install"]);
    machine.write("claude.release", "2.1.332");
    let answer = machine.does(&["install"]);
    assert!(steps(&answer, "changed").contains("hook PostToolUse removed"), "{answer}");
    assert!(steps(&answer, "changed").contains("hook Stop: our older entry replaced"));
    let settings = machine.value(".claude/settings.json");
    assert!(settings["hooks"].get("PostToolUse").is_none());
    assert_eq!(commands(&settings, "PostToolBatch"), [PROGRAM]);
    assert_eq!(commands(&settings, "Stop"), [PROGRAM]);
}

#[test]
fn another_copy_of_this_program_is_replaced_and_never_doubled() {
    let machine = Machine::with_claude("2.1.332");
    let old = "/old/claudemesh-broker";
    let server = json!({"command": old, "args": ["claude", "mcp"]});
    machine.write(".claude.json", &json!({"mcpServers": {"claudemesh": server}}).to_string());
    let hook = json!({"type": "command", "command": format!("{old} claude hook stop")});
    let hooks = json!({"hooks": {"Stop": [{"hooks": [hook]}]}});
    machine.write(".claude/settings.json", &hooks.to_string());
    machine.does(&["install"]);
    assert!(machine.read("claude.calls").contains("mcp remove claudemesh --scope user"));
    assert_eq!(machine.value(".claude.json")["mcpServers"]["claudemesh"]["command"], PROGRAM);
    assert_eq!(commands(&machine.value(".claude/settings.json"), "Stop"), [PROGRAM]);
}

#[test]
fn without_the_host_the_command_to_run_is_said() {
    let machine = Machine::bare();
    let answer = machine.does(&["install"]);
    let todo = steps(&answer, "todo");
    assert!(
        todo.contains("claude mcp add --scope user --transport stdio claudemesh -- "),
        "{todo}"
    );
    assert!(!machine.file(".claude.json").exists(), "what the host rewrites is never written");
    assert!(machine.settings().exists());
    let said = machine.run(&["uninstall"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!machine.settings().exists());
}

#[test]
fn a_server_of_that_name_that_is_not_ours_stays() {
    let machine = Machine::with_claude("2.1.332");
    let server = json!({"mcpServers": {"claudemesh": {"command": "claudemesh", "args": ["mcp"]}}});
    machine.write(".claude.json", &server.to_string());
    let before = machine.files();
    let (code, message) = machine.refuses(&["install"]);
    assert_eq!(code, "server_name_taken");
    assert!(
        message.contains("claudemesh mcp") && message.contains("claude mcp remove"),
        "{message}"
    );
    assert_eq!(machine.files(), before);
    machine.does(&["uninstall"]);
    assert_eq!(machine.files(), before);
}

#[test]
fn a_plugin_and_hooks_in_settings_are_not_installed_together() {
    let machine = Machine::with_claude("2.1.332");
    let enabled = json!({"enabledPlugins": {"claudemesh@mine": true}});
    machine.write(".claude/settings.json", &enabled.to_string());
    let before = machine.files();
    let (code, message) = machine.refuses(&["install"]);
    assert_eq!(code, "plugin_installed");
    assert!(message.contains("claude plugin uninstall claudemesh@mine"), "{message}");
    assert_eq!(machine.files(), before);
}

#[test]
fn a_project_gets_its_own_files_and_not_beside_the_users() {
    let machine = Machine::with_claude("2.1.332");
    machine.does(&["install", "--scope", "project"]);
    let server = &machine.value("project/.mcp.json")["mcpServers"]["claudemesh"];
    assert_eq!((&server["command"], &server["args"]), (&json!(PROGRAM), &json!(["claude", "mcp"])));
    assert_eq!(commands(&machine.value("project/.claude/settings.json"), "Stop"), [PROGRAM]);
    assert!(!machine.settings().exists() && !machine.file(".claude.json").exists());
    let (code, message) = machine.refuses(&["install"]);
    assert_eq!(code, "installed_elsewhere");
    assert!(message.contains("--scope project"), "{message}");
    machine.does(&["uninstall", "--scope", "project"]);
    assert!(!machine.file("project/.mcp.json").exists());
    assert!(!machine.file("project/.claude/settings.json").exists());
}

#[test]
fn a_project_that_others_share_names_the_program_without_a_folder() {
    let machine = Machine::with_claude("2.1.332");
    let link = machine.file("bin/claudemesh-broker");
    std::os::unix::fs::symlink(PROGRAM, &link).expect("a link");
    machine.does(&["install", "--scope", "project"]);
    let server = &machine.value("project/.mcp.json")["mcpServers"]["claudemesh"];
    assert_eq!(server["command"], "claudemesh-broker");
    machine.does(&["uninstall", "--scope", "project"]);
    machine.does(&["install"]);
    let settings = machine.value(".claude/settings.json");
    assert_eq!(commands(&settings, "Stop"), [link.display().to_string()], "the link outlives it");
}

#[test]
fn the_other_command_lines_hooks_stay_and_are_mentioned() {
    let machine = Machine::with_claude("2.1.332");
    let hook = |word: &str| {
        let command = format!("claudemesh hook {word}");
        json!([{"hooks": [{"type": "command", "command": command}]}])
    };
    let theirs = json!({"hooks": {"Stop": hook("idle"), "UserPromptSubmit": hook("working")}});
    machine.write(".claude/settings.json", &theirs.to_string());
    let answer = machine.does(&["install"]);
    assert!(steps(&answer, "note").contains("the other command line of claudemesh"), "{answer}");
    let settings = machine.value(".claude/settings.json");
    assert_eq!(commands(&settings, "Stop"), ["claudemesh hook idle", PROGRAM]);
    machine.does(&["uninstall"]);
    assert_eq!(machine.value(".claude/settings.json"), theirs);
}

#[test]
fn a_status_line_of_somebody_else_is_never_replaced() {
    let machine = Machine::with_claude("2.1.332");
    let theirs = json!({"statusLine": {"type": "command", "command": "mine.sh"}});
    machine.write(".claude/settings.json", &theirs.to_string());
    let answer = machine.does(&["install", "--status-line"]);
    assert!(steps(&answer, "note").contains("another status line"), "{answer}");
    assert_eq!(machine.value(".claude/settings.json")["statusLine"]["command"], "mine.sh");
}

#[test]
fn the_hosts_folder_is_where_its_variable_says() {
    let machine = Machine::with_claude("2.1.332");
    let folder = machine.file("elsewhere");
    fs::create_dir(&folder).expect("made");
    let mut command = machine.command(&["claude", "install", "--json"]);
    let output = command.env("CLAUDE_CONFIG_DIR", &folder).output().expect("it starts");
    assert!(output.status.success(), "{output:?}");
    assert!(folder.join("settings.json").exists() && folder.join(".claude.json").exists());
    assert!(!machine.file(".claude").exists() && !machine.file(".claude.json").exists());
}

#[test]
fn the_hosts_program_is_not_taken_for_a_part_of_another_session() {
    let machine = Machine::with_claude("2.1.332");
    let mut command = machine.command(&["claude", "install"]);
    command.env("CLAUDECODE", "1").env("CLAUDE_CODE_SESSION_ID", "x");
    assert!(command.output().expect("it starts").status.success());
    let env = machine.read("claude.env");
    assert!(!env.contains("CLAUDECODE") && !env.contains("CLAUDE_CODE_SESSION_ID"), "{env}");
}

#[test]
fn codex_gets_its_server_and_its_hooks_and_loses_them_again() {
    let with_program = |machine: &Machine| machine.program("codex", CODEX);
    let without: fn(&Machine) = |_| {};
    for prepare in [&with_program as &dyn Fn(&Machine), &without] {
        let machine = Machine::bare();
        prepare(&machine);
        let config = "# mine\nmodel = \"gpt\"\n";
        machine.write(".codex/config.toml", config);
        let answer = machine.does(&["install", "--codex"]);
        assert!(text_of(&answer).contains("trust the hooks"), "{answer}");
        let text = machine.read(".codex/config.toml");
        assert!(text.starts_with(config) && text.contains("[mcp_servers.claudemesh]"), "{text}");
        let hooks = machine.value(".codex/hooks.json");
        assert_eq!(commands(&hooks, "Stop"), [format!("{PROGRAM} claude hook stop --codex")]);
        assert!(hooks["hooks"].get("SessionEnd").is_none());
        assert_eq!(machine.does(&["install", "--codex"])["changed"], false);
        machine.does(&["uninstall", "--codex"]);
        assert!(!machine.file(".codex/hooks.json").exists());
        assert!(!machine.read(".codex/config.toml").contains("claudemesh"));
        assert!(!machine.file(".claude").exists(), "the other host is left alone");
    }
}

fn text_of(answer: &serde_json::Value) -> &str {
    answer["next"].as_str().expect("a text")
}

#[test]
fn the_plugin_folder_is_written_as_it_is_committed() {
    let machine = Machine::bare();
    let folder = machine.file("plugin");
    let answer = machine.does(&["plugin", folder.to_str().expect("UTF-8")]);
    let committed =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("integrations/claude-code");
    let files = answer["files"].as_array().expect("files");
    assert_eq!(files.len(), 5, "{answer}");
    for file in files {
        let name = file.as_str().expect("a name");
        let read = |folder: &std::path::Path| fs::read_to_string(folder.join(name)).expect(name);
        assert_eq!(read(&folder), read(&committed), "{name}");
    }
    assert!(text_of(&answer_text(&machine)).contains("claude plugin marketplace add /"));
}

/// What people read when the folder is written: an address that is no repository's.
fn answer_text(machine: &Machine) -> serde_json::Value {
    let answer = machine.run(&["plugin", "relative"]);
    fs::remove_dir_all(machine.file("project/relative")).expect("it was written here");
    json!({"next": answer.out})
}

#[test]
fn who_waits_behind_a_turn_is_registered_when_asked_for_and_where_it_is_known() {
    let machine = Machine::with_claude("2.1.332");
    machine.does(&["install", "--waiter"]);
    let handlers = machine.value(".claude/settings.json")["hooks"]["Stop"][0]["hooks"].clone();
    assert_eq!(handlers[0]["args"], json!(["claude", "hook", "stop"]));
    assert_eq!(handlers[1]["args"], json!(["claude", "hook", "wait"]));
    assert_eq!(handlers[1]["asyncRewake"], true);
    assert_eq!(machine.does(&["install", "--waiter"])["changed"], false);
    machine.does(&["uninstall"]);
    assert!(!machine.settings().exists());
    machine.write("claude.release", "2.1.150");
    let answer = machine.does(&["install", "--waiter"]);
    assert!(steps(&answer, "note").contains("2.1.220"), "{answer}");
    assert_eq!(commands(&machine.value(".claude/settings.json"), "Stop"), [PROGRAM]);
}
