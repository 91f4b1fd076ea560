//! Whatever goes wrong, a host's turn goes on: code 0, one object, and a line in a log of
//! ours that quotes nobody.

use serde_json::json;

use super::host::{Kind, User, ids_of, mode_of};

#[test]
fn who_has_not_joined_is_left_in_peace() {
    let user = User::new(&[]);
    let mut host = user.host(Kind::Claude);
    assert_eq!(host.starts("startup"), None);
    assert_eq!(host.prompt("hello"), None);
    assert_eq!(host.tools(), None);
    assert_eq!(host.stops(false), None);
    host.ends("other");
    assert!(!user.folder().exists(), "nothing is written");
}

#[test]
fn a_call_that_makes_no_sense_is_answered_with_nothing() {
    let user = User::new(&["ada"]);
    let host = user.host(Kind::Claude);
    let long = format!("{{\"session_id\": \"s\", \"x\": \"{}\"", "y".repeat(1 << 20));
    let other = json!({ "session_id": "s", "hook_event_name": "Stop" }).to_string();
    let typed = json!({ "session_id": 1, "prompt": "my secret" }).to_string();
    for (word, input) in [
        ("stop", ""),
        ("stop", "not JSON"),
        ("stop", "[1]"),
        ("stop", long.as_str()),
        ("stop", "{}"),
        ("stop", typed.as_str()),
        ("session-start", other.as_str()),
        ("an-event-of-next-year", "{}"),
        ("--an-option-of-next-year", "{}"),
        ("wait", "not JSON"),
        ("wait", other.as_str()),
    ] {
        let output = host.run(word, input);
        assert!(output.status.success(), "{word} {input:.40}: {output:?}");
        if !word.starts_with("--") && word != "wait" {
            assert_eq!(output.stdout, b"{}\n", "{word} {input:.40}");
            assert!(output.stderr.is_empty(), "{output:?}");
        }
    }
    assert!(user.log().lines().count() >= 8, "{}", user.log());
    assert!(!user.log().contains("secret"), "{}", user.log());
    assert_eq!(mode_of(&user.folder().join("hooks.log")), 0o600);
}

#[test]
fn a_subagent_has_no_mail_and_says_nothing_of_its_host() {
    let user = User::new(&["ada"]);
    let host = user.host(Kind::Claude);
    for (word, event) in [("session-start", "SessionStart"), ("post-tool-batch", "PostToolBatch")] {
        assert_eq!(host.calls(word, event, json!({ "agent_id": "a1", "agent_type": "x" })), None);
    }
    assert!(!user.folder().exists());
}

#[test]
fn settings_of_the_users_own_project_are_none_of_ours() {
    let user = User::new(&["ada"]);
    let mut host = user.host(Kind::Claude);
    host.env = vec![
        ("DATABASE_URL", "mysql://project/db".to_owned()),
        ("BROKER_PORT", "http".to_owned()),
        ("LOG", "trace".to_owned()),
        ("LOG_FORMAT", "xml".to_owned()),
        ("CLAUDEMESH_PEER", String::new()),
    ];
    let shown = host.starts("startup").expect("an introduction");
    assert!(shown.contains("\"ada\"") && shown.contains("\"team\""), "{shown}");
    assert_eq!(user.log(), "");
}

#[tokio::test]
async fn a_broken_spool_stops_no_turn() {
    let user = User::new(&["ada"]);
    let mut host = user.host(Kind::Claude);
    host.starts("startup");
    let folder = user.folder().join("sessions").join(host.mesh_session());
    for name in ["spool.db", "spool.db-wal", "spool.db-shm"] {
        std::fs::write(folder.join(name), "x".repeat(8_192)).expect("written");
    }
    assert_eq!(host.prompt("hello"), None);
    assert_eq!(host.stops(false), None);
    assert!(user.log().contains("spool.db"), "{}", user.log());
}

#[tokio::test]
async fn what_the_host_did_not_take_is_not_seen() {
    let user = User::new(&["ada"]);
    let mut host = user.host(Kind::Claude);
    host.starts("startup");
    let mut mail = host.mail().await;
    let sent = mail.come(2, "now").await;
    let mut child = host.start("user-prompt-submit");
    // The host is gone before the hook speaks.
    drop(child.stdout.take());
    let input = json!({ "session_id": host.session }).to_string();
    std::io::Write::write_all(&mut child.stdin.take().expect("piped"), input.as_bytes())
        .expect("written");
    assert!(child.wait().expect("it ends").success());
    assert!(mail.with_state("seen").await.is_empty());
    assert_eq!(ids_of(&host.prompt("again")), sent, "it comes at once by the next way");
}

#[tokio::test]
async fn what_a_hook_held_when_it_was_killed_comes_by_the_next_way() {
    let user = User::new(&["ada"]);
    let mut host = user.host(Kind::Claude);
    host.starts("startup");
    let mut mail = host.mail().await;
    let sent = mail.come(1, "next").await;
    let held = "update message set state = 'offered', offered_to = 8, tried = 8, \
        offered_until = received_at + 10000";
    mail.run(held).await;
    assert_eq!(host.prompt("go on"), None, "it may be on its way");
    mail.passes(10_001).await;
    assert_eq!(host.stops(false), None, "not twice at a turn's end");
    let shown = host.prompt("go on");
    assert_eq!(ids_of(&shown), sent);
    assert!(shown.expect("shown").contains("\"maybeShownBefore\":true"));
}
