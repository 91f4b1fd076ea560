//! Tasks, messages that are sent later, the vault and the mesh as a whole, as they are typed.

use serde_json::{Value, json};

use super::shared::{by, team};
use crate::harness::program::{Printing, text};

fn rows<'a>(list: &'a Value, name: &str) -> &'a [Value] {
    list[name].as_array().expect("rows")
}

#[test]
fn a_task_goes_from_hand_to_hand() {
    let (terminal, _broker) = team();
    let create = ["task", "create", "fix the login", "--tag", "ui", "--priority", "high"];
    let id = text(&terminal.types(&by("ada", &create))["id"]);
    let other = text(&terminal.types(&by("ada", &["task", "create", "write it down"]))["id"]);
    assert_ne!(id, other);
    let claimed = terminal.types(&by("bob", &["task", "claim", &id[..12], "--lease", "1h"]));
    assert_eq!((&claimed["id"], &claimed["action"]), (&json!(id), &json!("claimed")));
    assert_eq!(terminal.fails(&by("ada", &["task", "claim", &id])), "task_not_claimable");
    assert_eq!(terminal.fails(&by("ada", &["task", "renew", &id])), "task_not_claimed");
    terminal.types(&by("bob", &["task", "renew", &id, "--lease", "2h"]));
    let listed = terminal.types(&by("ada", &["task", "list", "--status", "claimed"]));
    let [task] = rows(&listed, "tasks") else { panic!("{listed}") };
    assert_eq!((&task["claimedBy"], &task["tags"]), (&json!("bob"), &json!(["ui"])));
    assert!(task["claimExpiresAt"].is_string(), "{task}");
    let table = terminal.shows(&by("ada", &["task", "list"]));
    assert!(table.contains("fix the login") && table.contains(&id[..8]), "{table}");
    terminal.types(&by("bob", &["task", "release", &id]));
    let update = ["task", "update", &id, "--title", "fix the page", "--assignee", "ada"];
    terminal.types(&by("bob", &update));
    assert_eq!(terminal.answers(&by("bob", &["task", "update", &id])).code, 2, "nothing to change");
    terminal.types(&by("ada", &["task", "complete", &id, "--result", "it works"]));
    let listed = terminal.types(&by("ada", &["task", "list", "--status", "done"]));
    let [task] = rows(&listed, "tasks") else { panic!("{listed}") };
    assert_eq!((&task["title"], &task["assignee"]), (&json!("fix the page"), &json!("ada")));
    assert_eq!(task["result"], "it works");
    assert_eq!(terminal.fails(&by("ada", &["task", "complete", "zzz"])), "not_found");
    let nobody = terminal.shows(&by("ada", &["task", "list", "--assignee", "carol"]));
    assert_eq!(nobody, "there are no such tasks\n");
}

#[test]
fn who_watches_sees_what_becomes_of_tasks() {
    let (terminal, _broker) = team();
    let watch = by("ada", &["task", "watch", "--count", "2", "--json"]);
    let mut ada = Printing::start(terminal.command(&watch));
    assert_eq!(ada.next(), json!({ "type": "watching" }));
    let id = text(&terminal.types(&by("bob", &["task", "create", "one"]))["id"]);
    let told =
        |status: &str| json!({ "type": "task", "taskId": id, "status": status, "by": "bob" });
    assert_eq!(ada.next(), told("open"));
    terminal.types(&by("bob", &["task", "claim", &id]));
    assert_eq!(ada.next(), told("claimed"));
    assert_eq!(ada.wait().code(), Some(0), "two were enough");
}

#[test]
fn a_message_is_sealed_now_and_sent_later() {
    let (terminal, _broker) = team();
    let schedule = |args: &[&str]| terminal.types(&by("ada", &[&["schedule"], args].concat()));
    let id = text(&schedule(&["add", "bob", "for you alone", "--in", "1h"])["id"]);
    let cron = ["add", "*", "stand-up", "--cron", "0 9 * * 1", "--timezone", "Europe/Berlin"];
    let weekly = schedule(&cron);
    assert_eq!(
        (&weekly["cron"], &weekly["timezone"]),
        (&json!("0 9 * * 1"), &json!("Europe/Berlin"))
    );
    let listed = schedule(&["list"]);
    let [first, second] = rows(&listed, "messages") else { panic!("{listed}") };
    assert_eq!((&first["id"], &first["sealed"]), (&json!(id), &json!(true)));
    assert_eq!((&second["sealed"], &second["firedCount"]), (&json!(true), &json!(0)));
    for text in ["for you alone", "stand-up"] {
        assert!(!listed.to_string().contains(text), "{listed}");
    }
    let table = terminal.shows(&by("ada", &["schedule", "list"]));
    assert!(table.contains("(sealed)") && table.contains("Europe/Berlin"), "{table}");
    let removed = schedule(&["remove", &id[..12]]);
    assert_eq!(removed, json!({ "id": id, "removed": true }));
    assert_eq!(terminal.fails(&by("ada", &["schedule", "remove", &id])), "not_found");
    assert_eq!(
        terminal.fails(&by("ada", &["schedule", "add", "*", "x", "--cron", "x"])),
        "invalid_cron"
    );
    for unclear in [&[][..], &["--in", "1h", "--at", "2030"], &["--at", "soon"]] {
        let typed = [&["schedule", "add", "*", "x"], unclear].concat();
        assert_eq!(terminal.answers(&by("ada", &typed)).code, 2, "{unclear:?}");
    }
    // What comes is readable for whom it was sealed.
    let mut bob =
        Printing::start(terminal.command(&by("bob", &["listen", "--count", "1", "--json"])));
    assert_eq!(bob.next()["type"], "listening");
    schedule(&["add", "bob", "lunch?", "--at", "2020-01-01", "--reminder"]);
    let message = bob.next_of("message");
    assert_eq!(message["text"], "lunch?");
    assert_eq!(bob.wait().code(), Some(0));
}

#[test]
fn a_vault_gives_its_member_what_the_broker_cannot_read() {
    let (terminal, broker) = team();
    let set = ["vault", "set", "TOKEN", "confidential-4711", "--description", "for the tests"];
    terminal.types(&by("ada", &set));
    terminal.types(&by("ada", &["vault", "set", "KEY", "pem", "--mount", "/run/key.pem"]));
    let got = terminal.types(&by("ada", &["vault", "get", "TOKEN"]));
    assert_eq!((&got["value"], &got["entry_type"]), (&json!("confidential-4711"), &json!("env")));
    assert_eq!(terminal.shows(&by("ada", &["vault", "get", "TOKEN"])), "confidential-4711\n");
    let listed = terminal.types(&by("ada", &["vault", "list"]));
    let [key, token] = rows(&listed, "entries") else { panic!("{listed}") };
    assert_eq!((&key["entry_type"], &key["mount_path"]), (&json!("file"), &json!("/run/key.pem")));
    assert_eq!(token["description"], "for the tests");
    assert!(terminal.shows(&by("ada", &["vault", "list"])).contains("TOKEN"));
    assert_eq!(terminal.fails(&by("bob", &["vault", "get", "TOKEN"])), "not_found");
    drop(broker);
    for file in std::fs::read_dir(terminal.place.path()).expect("the data folder") {
        let path = file.expect("readable").path();
        if path.is_file() {
            let bytes = std::fs::read(&path).expect("readable");
            let held = bytes.windows(12).any(|part| part == b"confidential");
            assert!(!held, "{}", path.display());
        }
    }
}

#[test]
fn a_shell_completes_the_names_that_there_are() {
    let (terminal, broker) = team();
    terminal.types(&by("ada", &["state", "set", "build", "1"]));
    terminal.types(&by("ada", &["vault", "set", "TOKEN", "x"]));
    let id = text(&terminal.types(&by("ada", &["task", "create", "fix the login"]))["id"]);
    // As a shell does whose candidates have a line each.
    let complete = |line: &[&str]| {
        let mut command = terminal.command(&[&["--", "claudemesh-broker"], line].concat());
        let output = command.env("CLAUDEMESH_COMPLETE", "fish").output().expect("it starts");
        let candidates = String::from_utf8(output.stdout).expect("UTF-8");
        candidates.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete(&["peer", "state", "get", "--as", ""]), ["team/ada", "team/bob"]);
    let typed = |verb: &[&str]| complete(&[&["peer"], verb, &["--as", "team/ada"], &[""]].concat());
    assert!(typed(&["state", "get"]).contains(&"build".to_owned()));
    assert!(typed(&["vault", "get"]).contains(&"TOKEN".to_owned()));
    let task = format!("{}\tfix the login", &id[..8]);
    assert!(typed(&["task", "claim"]).contains(&task), "{:?}", typed(&["task", "claim"]));
    assert!(complete(&["peer", "sta"]).iter().any(|line| line.starts_with("state")));
    for shell in ["bash", "zsh", "fish"] {
        let script = terminal.shows(&["completions", shell]);
        assert!(script.contains("CLAUDEMESH_COMPLETE"), "{script}");
    }
    drop(broker);
    let names = typed(&["state", "get"]);
    assert!(!names.contains(&"build".to_owned()), "nobody can be asked: {names:?}");
}

#[test]
fn a_mesh_is_shown_as_a_whole() {
    let (terminal, _broker) = team();
    terminal.types(&by("ada", &["state", "set", "build", "1"]));
    terminal.types(&by("ada", &["task", "create", "one"]));
    terminal.types(&by("ada", &["stream", "create", "builds"]));
    let info = terminal.types(&by("bob", &["info"]));
    assert_eq!((&info["stateKeys"], &info["streams"]), (&json!(["build"]), &json!(["builds"])));
    assert_eq!(info["tasks"], json!({ "open": 1, "claimed": 0, "done": 0 }));
    assert_eq!(info["yourName"], "bob");
    let table = terminal.shows(&by("bob", &["info"]));
    assert!(table.contains("1 open, 0 claimed, 0 done") && table.contains("build"), "{table}");
}
