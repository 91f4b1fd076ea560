//! Running it and looking inside.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use claudemesh_broker::id::{MessageId, PresenceId};
use claudemesh_broker::protocol::Priority;
use claudemesh_broker::store::{Envelope, NewEnvelope, Reach};
use rustix::process::Signal;
use sqlx::sqlite::{SqliteConnectOptions, SqliteLockingMode};
use sqlx::{Connection as _, SqliteConnection};

use super::*;
use crate::harness::ports::free_port;

const NONCE: &str = "bm9uY2Utbm9uY2Utbm9uY2U";
const CIPHERTEXT: &str = "Y2lwaGVydGV4dC1jaXBoZXJ0ZXh0";

fn envelope(team: &Team, sender: &MemberId) -> NewEnvelope {
    NewEnvelope {
        envelope: Envelope {
            id: MessageId::generate(),
            mesh: team.mesh.clone(),
            sender_member: sender.clone(),
            sender_name: "ada".to_owned(),
            sender_session_key: None,
            target_spec: team.ada_key.clone(),
            priority: Priority::Next,
            nonce: NONCE.to_owned(),
            ciphertext: CIPHERTEXT.to_owned(),
            client_message_id: None,
            request_fingerprint: None,
            reply_to_id: None,
            scheduled: None,
            properties: None,
        },
        reach: Reach::Direct { claim: None::<(PresenceId, Timestamp)>, note: None },
    }
}

pub(super) async fn send(place: &Place, team: &Team, count: usize) {
    let store = place.store().await;
    let batch: Vec<NewEnvelope> = (0..count).map(|_| envelope(team, &team.ada)).collect();
    store.envelopes.accept(Timestamp::now(), &batch).await.expect("accepted");
    store.database.close().await;
}

#[test]
fn every_wrong_setting_is_told_at_once_before_anything_starts() {
    let place = Place::new();
    let wrong = [("BROKER_PORT", "http"), ("LEASE_GRACE_SECONDS", "soon"), ("LOG_FORMAT", "xml")];
    for args in [&["--json"][..], &["serve", "--json"], &["mesh", "list", "--json"]] {
        let output = place.command(args).envs(wrong).output().expect("it starts");
        let answer = Answer::of(&output, args);
        assert_eq!(answer.code, 2, "{answer:?}");
        let error = &answer.object()["error"];
        assert_eq!(error["code"], "config");
        assert_eq!(error["problems"].as_array().map(Vec::len), Some(3), "{error}");
        for (name, _) in wrong {
            assert!(answer.err.contains(name), "{name} in {answer:?}");
        }
    }
    let doctor = place.command(&["doctor", "--json"]).envs(wrong).output().expect("it starts");
    let doctor = Answer::of(&doctor, &["doctor"]);
    assert_eq!(doctor.code, 1);
    assert_eq!(doctor.object()["checks"].as_array().map(Vec::len), Some(3), "{doctor:?}");
    assert!(place.path().read_dir().expect("readable").next().is_none(), "nothing was made");
}

#[test]
fn the_settings_are_shown_as_one_object() {
    let place = Place::new();
    let settings = place.json(&["config"]);
    assert_eq!(settings["valid"], true);
    let rows = settings["settings"].as_array().expect("a list");
    assert!(rows.iter().any(|row| row["name"] == "BROKER_PORT" && row["value"] == "7900"));
}

#[test]
fn mistakes_in_the_arguments_have_their_own_exit_code() {
    let place = Place::new();
    for args in [&["fly"][..], &["mesh"], &["mesh", "create"], &["queue", "show", "t", "-n", "x"]] {
        let answer = place.run(&[args, &["--json"]].concat());
        assert_eq!(answer.code, 2, "{answer:?}");
        assert_eq!(answer.object()["error"]["code"], "usage", "{answer:?}");
        assert!(!answer.err.is_empty(), "{answer:?}");
        let people = place.run(args);
        assert_eq!((people.code, people.out.as_str()), (2, ""), "{people:?}");
    }
}

#[test]
fn help_teaches_and_shells_complete() {
    let place = Place::new();
    let help = place.run(&["--help"]);
    assert_eq!(help.code, 0);
    for part in ["demo", "First steps", "--json"] {
        assert!(help.out.contains(part), "{part} in {}", help.out);
    }
    for command in ["serve", "mesh", "invite", "member", "audit", "queue", "peer", "doctor"] {
        let help = place.run(&[command, "--help"]);
        assert!(help.code == 0 && help.out.contains("Examples:"), "{command}: {help:?}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = place.run(&["completions", shell]);
        assert!(script.code == 0 && script.out.contains("claudemesh-broker"), "{shell}");
    }
    assert!(place.run(&["--version"]).out.contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn migrations_are_checked_without_being_run() {
    let place = Place::new();
    let check = place.run(&["migrate", "--check", "--json"]);
    assert_eq!(check.code, 1, "{check:?}");
    let pending = check.object()["pending"].clone();
    assert!(pending.as_array().is_some_and(|list| !list.is_empty()), "{pending}");
    assert_eq!(place.json(&["migrate"])["applied"], pending);
    assert_eq!(place.json(&["migrate"])["applied"], serde_json::json!([]));
    assert_eq!(place.json(&["migrate", "--check"])["pending"], serde_json::json!([]));
}

#[test]
fn a_doctor_finds_a_fresh_place_well() {
    let place = Place::new();
    let port = free_port();
    let free = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
    let port = port.to_string();
    let look = || {
        let mut command = place.command(&["doctor", "--json"]);
        Answer::of(&command.env("BROKER_PORT", &port).output().expect("it starts"), &["doctor"])
    };
    let taken = look();
    assert_eq!(taken.code, 1, "another program has the port: {taken:?}");
    drop(free);
    let well = look();
    assert_eq!(well.code, 0, "{well:?}");
    let object = well.object();
    let names: Vec<String> = object["checks"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|check| text(&check["name"]))
        .collect();
    assert_eq!(names, ["settings", "port", "limits", "data", "database", "clock"]);
    assert_eq!(object["ok"], true);
    place.json(&["mesh", "create", "team"]);
    let found = look().object()["checks"][4]["found"].clone();
    assert!(text(&found).contains("meshes: 1"), "{found}");
}

#[test]
fn a_doctor_says_what_to_do_about_a_data_folder_that_is_none() {
    let place = Place::new();
    let file = place.path().join("file");
    std::fs::write(&file, "").expect("a file");
    let mut command = place.command(&["doctor"]);
    let output = command.env("CLAUDEMESH_DATA_DIR", &file).output().expect("it starts");
    let answer = Answer::of(&output, &["doctor"]);
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.out.contains("FAIL  data"), "{answer:?}");
    assert!(answer.out.contains("-> set CLAUDEMESH_DATA_DIR"), "{answer:?}");
}

#[tokio::test]
async fn the_queue_shows_who_waits_for_what_and_never_the_message() {
    let place = Place::new();
    let team = place.team().await;
    assert_eq!(place.json(&["queue", "show", "team"])["messages"], serde_json::json!([]));
    send(&place, &team, 3).await;

    let queue = place.json(&["queue", "show", "team"]);
    let messages = queue["messages"].as_array().expect("a list");
    assert_eq!(messages.len(), 3);
    assert_eq!(messages[0]["targetSpec"], team.ada_key);
    assert_eq!(messages[0]["senderMemberId"], team.ada.as_str());
    assert_eq!(messages[0]["ciphertextBytes"], CIPHERTEXT.len());
    let limited = place.json(&["queue", "show", "team", "-n", "1"]);
    assert_eq!(limited["messages"].as_array().map(Vec::len), Some(1));
    let text = place.run(&["queue", "show", "team"]).out;
    for shown in [queue.to_string(), text] {
        assert!(!shown.contains(NONCE) && !shown.contains(CIPHERTEXT), "{shown}");
    }
    assert_eq!(place.json(&["mesh", "list"])["meshes"][0]["queued"], 3);
}

#[tokio::test]
async fn the_audit_chain_is_read_verified_and_exported() {
    let place = Place::new();
    let team = place.team().await;
    send(&place, &team, 5).await;

    let tail = place.json(&["audit", "tail", "team", "-n", "2", "--type", "message_sent"]);
    let entries = tail["entries"].as_array().expect("a list");
    assert_eq!((entries.len(), &tail["total"]), (2, &5.into()), "{tail}");
    assert!(entries[0]["id"].as_i64() < entries[1]["id"].as_i64(), "oldest first: {tail}");
    assert_eq!(entries[1]["prevHash"], entries[0]["hash"]);

    let verdict = place.json(&["audit", "verify", "team"]);
    assert_eq!(verdict["valid"], true);
    assert_eq!(verdict["head"], entries[1]["hash"]);

    let export = place.run(&["audit", "export", "team"]);
    let rows: Vec<Value> =
        export.out.lines().map(|line| serde_json::from_str(line).expect("JSON Lines")).collect();
    assert_eq!(verdict["entries"], rows.len());
    assert_eq!(rows[0]["prevHash"], "genesis");
    let file = place.path().join("team.jsonl");
    let file = file.to_str().expect("UTF-8");
    let written = place.json(&["audit", "export", "team", "--out", file]);
    assert_eq!(written["entries"], verdict["entries"]);
    assert_eq!(std::fs::read_to_string(file).expect("written"), export.out);
    let (code, message) = place.failure(&["audit", "export", "team", "--out", file]);
    assert!(code == "io" && message.contains("team.jsonl"), "{message}");
}

#[tokio::test]
async fn a_row_that_was_tampered_with_is_named() {
    let place = Place::new();
    let team = place.team().await;
    send(&place, &team, 3).await;
    let rows = place.json(&["audit", "tail", "team", "--type", "message_sent"]);
    let id = rows["entries"][1]["id"].as_i64().expect("a number");
    tamper(place.path(), id).await;

    let answer = place.run(&["audit", "verify", "team", "--json"]);
    assert_eq!(answer.code, 1, "{answer:?}");
    let verdict = answer.object();
    assert_eq!((&verdict["valid"], &verdict["brokenAt"]), (&false.into(), &id.into()));
    let people = place.run(&["audit", "verify", "team"]);
    assert_eq!(people.code, 1);
    assert!(people.err.contains(&format!("row {id}")), "{people:?}");
}

/// The database of that folder, past the program.
fn file_of(folder: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(folder.join("broker.db"))
}

/// The driver would warn of a statement that takes a second, in its own words.
#[tokio::test]
async fn a_command_that_waits_for_the_database_says_nothing_of_it() {
    let place = Place::new();
    place.json(&["mesh", "create", "team"]);
    let alone = file_of(place.path()).locking_mode(SqliteLockingMode::Exclusive);
    let mut file = SqliteConnection::connect_with(&alone).await.expect("the file");
    sqlx::query("begin immediate").execute(&mut file).await.expect("nobody else is there");
    let args = ["mesh", "create", "other", "--json"];
    let child = place.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    file.close().await.expect("closed");
    let output = child.expect("the program starts").wait_with_output().expect("it ends");
    let answer = Answer::of(&output, &args);
    assert_eq!((answer.code, answer.err.as_str()), (0, ""));
}

/// What somebody with the file in hands can do: change a row behind the
/// broker's back.
async fn tamper(folder: &Path, id: i64) {
    let mut file = SqliteConnection::connect_with(&file_of(folder)).await.expect("the file");
    let triggers: Vec<String> = sqlx::query_scalar(
        "select name from sqlite_schema
         where type = 'trigger' and sql like '%update on audit_log%'",
    )
    .fetch_all(&mut file)
    .await
    .expect("readable");
    assert_eq!(triggers, Vec::<String>::new(), "drop them here first");
    let done = sqlx::query("update audit_log set payload = '{\"targetSpec\":\"*\"}' where id = ?1")
        .bind(id)
        .execute(&mut file)
        .await
        .expect("written");
    assert_eq!(done.rows_affected(), 1);
    file.close().await.expect("closed");
}

#[test]
fn it_follows_the_audit_trail_line_by_line() {
    let place = Place::new();
    place.json(&["mesh", "create", "team"]);
    let args = ["audit", "tail", "team", "--follow", "-n", "0", "--json"];
    let mut child =
        place.command(&args).stdout(Stdio::piped()).spawn().expect("the program starts");
    let out = BufReader::new(child.stdout.take().expect("piped"));
    let rows = std::thread::spawn(move || {
        let line = out.lines().next().expect("a line").expect("readable");
        serde_json::from_str::<Value>(&line).expect("an object")
    });
    // It reads the chain's end before it waits; what comes then must appear.
    std::thread::sleep(Duration::from_millis(500));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mesh = text(&place.json(&["mesh", "show", "team"])["meshId"]);
        let store = place.store().await;
        let entry = claudemesh_broker::store::AuditEntry {
            mesh: MeshId::from(mesh),
            actor: None,
            actor_name: None,
            event: claudemesh_broker::audit::AuditEvent::PeerLeft,
        };
        store.audit.append(Timestamp::now(), &[entry]).await.expect("written");
        store.database.close().await;
    });
    assert_eq!(rows.join().expect("a row")["eventType"], "peer_left");
    let _ = child.kill();
    let _ = child.wait();
}

#[test]
fn it_serves_until_told_to_stop() {
    let place = Place::new();
    let broker = Serving::start(&place);
    assert_eq!(broker.banner["status"], "listening");
    assert_eq!(broker.banner["url"], format!("ws://localhost:{}/ws", broker.port));
    assert!(text(&broker.banner["data"]).starts_with(&place.path().display().to_string()));
    assert!(std::net::TcpStream::connect(("127.0.0.1", broker.port)).is_ok());
    // The command line works beside it.
    place.json(&["mesh", "create", "team"]);
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait().code(), Some(0));
}

#[test]
fn a_peer_that_is_banned_here_is_closed_by_the_broker_that_runs() {
    let place = Place::new();
    let broker = Serving::start(&place);
    place.json(&["mesh", "create", "team"]);
    let args = ["invite", "create", "team", "--json"];
    let mut command = place.command(&args);
    let invite = command.env("BROKER_PORT", broker.port.to_string()).output().expect("it starts");
    let link = text(&Answer::of(&invite, &args).object()["link"]);
    place.json(&["peer", "join", &link, "--name", "mallory"]);
    let mut peer = Printing::start(place.command(&["peer", "listen", "--json"]));
    assert_eq!(peer.next()["type"], "listening");

    assert_eq!(place.json(&["member", "ban", "team", "mallory"])["changed"], true);
    let banned_at = Instant::now();
    let closed = peer.next();
    assert_eq!((&closed["type"], &closed["code"]), (&"closed".into(), &4002.into()));
    // One second, and something for a busy machine.
    assert!(banned_at.elapsed() < Duration::from_secs(4), "{:?}", banned_at.elapsed());
    assert_eq!(peer.wait().code(), Some(1));
    let rows = place.json(&["audit", "tail", "team", "--type", "member_banned"]);
    assert_eq!(rows["total"], 1, "{rows}");
}

#[test]
fn ctrl_c_stops_it_too() {
    let place = Place::new();
    let broker = Serving::start(&place);
    broker.signal(Signal::INT);
    assert_eq!(broker.wait().code(), Some(0));
}

/// A broker that another program becomes: what that does with signals is passed on.
fn begun_by(place: &Place, program: &str, args: &[&str]) -> (Printing, String) {
    let mut command = std::process::Command::new(program);
    command.args(args).env_clear();
    let of_place = place.command(&[]);
    command.envs(of_place.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("BROKER_PORT", "0").stdin(std::process::Stdio::null());
    let mut broker = Printing::start(command);
    let url = format!("http://127.0.0.1:{}", broker.next()["port"]);
    (broker, url)
}

#[test]
fn a_terminal_that_closes_stops_it_in_order_and_other_signals_do_not() {
    let place = Place::new();
    let program = env!("CARGO_BIN_EXE_claudemesh-broker");
    // The tests themselves may run under nohup.
    let args = ["--default-signal=HUP", program, "--json"];
    let (mut broker, url) = begun_by(&place, "/usr/bin/env", &args);
    for ignored in [Signal::USR1, Signal::USR2] {
        broker.signal(ignored);
    }
    assert_eq!(place.json(&["health", "--url", &url])["ok"], true);
    broker.signal(Signal::HUP);
    assert_eq!(broker.wait().code(), Some(0), "drained, not killed");
}

#[test]
fn under_nohup_a_terminal_that_closes_is_ignored() {
    let place = Place::new();
    let program = env!("CARGO_BIN_EXE_claudemesh-broker");
    let args = ["-c", "trap '' HUP; exec \"$0\" --json", program];
    let (mut broker, url) = begun_by(&place, "/bin/sh", &args);
    broker.signal(Signal::HUP);
    assert_eq!(place.json(&["health", "--url", &url])["ok"], true);
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait().code(), Some(0));
}

#[test]
fn a_second_broker_on_the_same_folder_is_refused_and_told_whose_it_is() {
    let place = Place::new();
    let broker = Serving::start(&place);
    let second = || {
        let mut command = place.command(&["serve", "--json"]);
        Answer::of(&command.env("BROKER_PORT", "0").output().expect("it starts"), &["serve"])
    };
    let (_, sentence) = second().failure();
    let node = text(&broker.banner["node"]);
    assert!(sentence.contains("process ") && sentence.contains(&node), "{sentence}");
    assert!(sentence.contains("CLAUDEMESH_DATA_DIR"), "{sentence}");
    // The command line works beside it.
    place.json(&["mesh", "create", "team"]);
    broker.signal(Signal::KILL);
    broker.wait();
    let again = Serving::start(&place);
    again.signal(Signal::TERM);
    assert_eq!(again.wait().code(), Some(0), "a killed one leaves no lock behind");
}

#[test]
fn a_taken_port_is_a_sentence_with_what_to_set() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let mut command = place.command(&["serve", "--json"]);
    let output = command.env("BROKER_PORT", &port).output().expect("it starts");
    let answer = Answer::of(&output, &["serve"]);
    assert_eq!(answer.code, 1, "{answer:?}");
    assert_eq!(answer.object()["error"]["code"], "port_in_use");
    assert!(answer.err.contains(&port) && answer.err.contains("BROKER_PORT"), "{answer:?}");
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let place = Place::new();
    let mut child = place
        .command(&["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("a child");
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn health_is_an_exit_code_with_a_sentence() {
    let place = Place::new();
    let broker = Serving::start(&place);
    let url = format!("http://127.0.0.1:{}", broker.port);
    for args in [&["health", "--url", &url][..], &["health", "--live", "--url", &url]] {
        let said = place.json(args);
        assert_eq!(said["ok"], true, "{said}");
        assert!(said["said"]["gitSha"].is_string(), "{said}");
    }
    let port = broker.port.to_string();
    let by_settings = place.command(&["health"]).env("BROKER_PORT", &port).output();
    let by_settings = Answer::of(&by_settings.expect("it starts"), &["health"]);
    assert_eq!(by_settings.code, 0, "{by_settings:?}");
    assert!(by_settings.out.starts_with("ready: claudemesh-broker"), "{by_settings:?}");
    broker.signal(Signal::TERM);
    broker.wait();
    let (code, sentence) = place.failure(&["health", "--url", &url]);
    assert_eq!(code, "no_answer");
    assert!(sentence.contains(&url), "{sentence}");
}
