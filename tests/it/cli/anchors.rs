//! The audit chain against what is kept outside the database.

use claudemesh_broker::audit::{AuditEvent, NameHead, row_hash};
use claudemesh_broker::store::AuditEntry;
use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, SqliteConnection};

use super::*;

/// A mesh whose chain has that many more rows than it began with.
pub(super) async fn chain_of(place: &Place, rows: usize) -> Team {
    let team = place.team().await;
    append(place, &team, rows).await;
    team
}

pub(super) async fn append(place: &Place, team: &Team, rows: usize) {
    let store = place.store().await;
    let entry = |at: usize| AuditEntry {
        mesh: team.mesh.clone(),
        actor: Some(team.ada.clone()),
        actor_name: Some("ada's laptop".to_owned()),
        event: AuditEvent::StateSet { key: format!("key {at}") },
    };
    let entries: Vec<AuditEntry> = (0..rows).map(entry).collect();
    store.audit.append(Timestamp::now(), &entries).await.expect("appended");
    store.database.close().await;
}

/// What somebody with the file in hands can do, past the program.
pub(super) async fn behind_its_back(place: &Place, statements: &[&str]) {
    let file = SqliteConnectOptions::new().filename(place.path().join("broker.db"));
    let mut file = SqliteConnection::connect_with(&file).await.expect("the file");
    for statement in statements {
        sqlx::query(sqlx::AssertSqlSafe(*statement)).execute(&mut file).await.expect("written");
    }
    file.close().await.expect("closed");
}

/// Keeps an anchor in a file, and returns the file's name and the anchor.
pub(super) fn keep(place: &Place, name: &str, key: Option<&str>) -> (String, Value) {
    let args = ["audit", "anchor", "team", "--json"];
    let mut command = place.command(&args);
    command.envs(key.map(|key| ("AUDIT_KEY", key)));
    let answer = Answer::of(&command.output().expect("it starts"), &args);
    assert_eq!((answer.code, answer.err.as_str()), (0, ""), "{answer:?}");
    let file = place.path().join(name);
    std::fs::write(&file, &answer.out).expect("written");
    (file.to_str().expect("UTF-8").to_owned(), answer.object())
}

/// The verdict with these arguments: whether all is well must be the exit code, too.
pub(super) fn verdict(place: &Place, args: &[&str]) -> Value {
    let answer = place.run(&[&["audit", "verify", "team", "--json"], args].concat());
    let object = answer.object();
    assert_eq!(answer.code, i32::from(object["valid"] == false), "{answer:?}");
    assert_eq!(answer.err.is_empty(), object["problem"].is_null(), "a sentence: {answer:?}");
    object
}

pub(super) fn problem(verdict: &Value) -> (&str, i64) {
    let row = verdict["problemAt"].as_i64().unwrap_or_default();
    (verdict["problem"].as_str().unwrap_or("none"), row)
}

#[tokio::test]
async fn a_chain_that_grew_still_has_the_head_that_was_noted() {
    let place = Place::new();
    let team = chain_of(&place, 3).await;
    let (file, anchor) = keep(&place, "anchors.jsonl", None);
    assert_eq!(anchor["meshId"], team.mesh.as_str());
    assert_eq!(anchor["hash"], verdict(&place, &[])["head"]);
    assert!(anchor["signature"].is_null(), "no key is set: {anchor}");
    append(&place, &team, 2).await;
    let (row, hash) = (anchor["rowId"].to_string(), text(&anchor["hash"]));
    let found = verdict(&place, &["--at", &row, "--head", &hash.to_uppercase()]);
    assert_eq!((problem(&found), &found["anchors"]), (("none", 0), &json!(1)));
    assert_eq!(problem(&verdict(&place, &["--anchor", &file])), ("none", 0));
    let people = place.run(&["audit", "verify", "team", "--at", &row, "--head", &hash]);
    assert!(people.code == 0 && people.out.contains("noted elsewhere: 1 head"), "{people:?}");
    let people = place.run(&["audit", "anchor", "team"]);
    assert!(people.code == 0 && people.out.contains("Not signed"), "{people:?}");
    let alone = place.run(&["audit", "verify", "team", "--at", &row]);
    assert_eq!(alone.code, 2, "a row without its hash says nothing: {alone:?}");
}

#[tokio::test]
async fn a_chain_whose_end_was_cut_off_is_found_by_its_anchor() {
    let place = Place::new();
    chain_of(&place, 3).await;
    let (file, anchor) = keep(&place, "anchors.jsonl", None);
    let row = anchor["rowId"].as_i64().expect("a number");
    behind_its_back(&place, &["delete from audit_log where id = (select max(id) from audit_log)"])
        .await;
    let found = verdict(&place, &["--anchor", &file]);
    assert_eq!(problem(&found), ("anchor_missing", row));
    let people = place.run(&["audit", "verify", "team", "--anchor", &file]);
    assert!(people.code == 1 && people.err.contains(&format!("no row {row}")), "{people:?}");
}

#[tokio::test]
async fn a_chain_whose_end_was_cut_off_is_found_by_what_else_the_database_knows() {
    let place = Place::new();
    let team = chain_of(&place, 3).await;
    assert_eq!(problem(&verdict(&place, &[])), ("none", 0));
    behind_its_back(&place, &["delete from audit_log where id = (select max(id) from audit_log)"])
        .await;
    assert_eq!(problem(&verdict(&place, &[])), ("numbers_missing", 0));
    let people = place.run(&["audit", "verify", "team"]);
    assert!(people.code == 1 && people.err.starts_with("1 audit row of those"), "{people:?}");
    // Whoever knows of that, too, still has the messages to think of.
    super::operation::send(&place, &team, 2).await;
    let newest = verdict(&place, &[])["head"].clone();
    behind_its_back(
        &place,
        &[
            "delete from audit_log where id = (select max(id) from audit_log)",
            "update sqlite_sequence set seq = (select count(*) from audit_log)
             where name = 'audit_log'",
        ],
    )
    .await;
    let found = verdict(&place, &[]);
    assert_ne!(found["head"], newest);
    assert_eq!(problem(&found).0, "messages_missing");
    let people = place.run(&["audit", "verify", "team"]);
    assert!(people.err.contains("lacks the rows of 1 message that"), "{people:?}");
}

#[tokio::test]
async fn a_chain_that_was_written_anew_is_found_by_its_anchor() {
    let place = Place::new();
    let team = chain_of(&place, 3).await;
    let (file, anchor) = keep(&place, "anchors.jsonl", None);
    let row = anchor["rowId"].as_i64().expect("a number");
    behind_its_back(
        &place,
        &["delete from audit_log", "update sqlite_sequence set seq = 0 where name = 'audit_log'"],
    )
    .await;
    append(&place, &team, 9).await;
    assert_eq!(problem(&verdict(&place, &[])), ("none", 0), "it is whole in itself");
    assert_eq!(problem(&verdict(&place, &["--anchor", &file])), ("anchor_hash", row));
    let hash = text(&anchor["hash"]);
    let by_hand = verdict(&place, &["--at", &row.to_string(), "--head", &hash]);
    assert_eq!(problem(&by_hand), ("anchor_hash", row));
}

#[tokio::test]
async fn names_that_were_written_anew_are_found_by_an_anchor() {
    let place = Place::new();
    let team = chain_of(&place, 3).await;
    let (file, anchor) = keep(&place, "anchors.jsonl", None);
    let row = anchor["rowId"].as_i64().expect("a number");
    let store = place.store().await;
    let rows = store.audit.after(&team.mesh, i64::MIN, 100).await.expect("readable");
    store.database.close().await;
    let [.., before, last] = &rows[..] else { panic!("{rows:?}") };
    let names = NameHead::after(&before.hash, before.name_hash.as_deref());
    let forged = hex::encode(row_hash(&names, last.id, &last.hash, Some("somebody else")));
    let statement = format!(
        "update audit_log set actor_display_name = 'somebody else', name_hash = x'{forged}'
         where id = {row}"
    );
    behind_its_back(&place, &[&statement]).await;
    assert_eq!(problem(&verdict(&place, &[])), ("none", 0), "it is whole in itself");
    assert_eq!(problem(&verdict(&place, &["--anchor", &file])), ("anchor_names", row));
}

/// A key in a file of the place: the file's name, the public key, and the secret.
pub(super) fn make_key(place: &Place, name: &str) -> (String, String, String) {
    let file = place.path().join("keys").join(name);
    let file = file.to_str().expect("UTF-8").to_owned();
    let made = place.json(&["audit", "key", "--new", &file]);
    let secret = std::fs::read_to_string(&file).expect("written").trim().to_owned();
    assert!(!made.to_string().contains(&secret), "the secret half is never printed");
    (file, text(&made["publicKey"]), secret)
}

#[test]
fn a_key_is_made_for_this_user_alone_and_only_its_public_half_is_told() {
    let place = Place::new();
    let (file, public, secret) = make_key(&place, "audit.key");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&file).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    for value in [&file, &secret] {
        let args = ["audit", "key", "--json"];
        let output = place.command(&args).env("AUDIT_KEY", value).output().expect("it starts");
        let answer = Answer::of(&output, &args);
        assert_eq!(answer.object(), json!({"publicKey": public}));
        assert!(!format!("{answer:?}").contains(&secret));
    }
    let (code, message) = place.failure(&["audit", "key", "--new", &file]);
    assert!(code == "exists" && message.contains(&file), "{message}");
    assert_eq!(std::fs::read_to_string(&file).expect("there").trim(), secret, "it stays");
    assert_eq!(place.failure(&["audit", "key"]).0, "no_key");
    assert!(!place.path().join("broker.db").exists(), "none of it needs a database");
}

#[tokio::test]
async fn a_signed_anchor_is_believed_by_its_key_alone() {
    let place = Place::new();
    let team = chain_of(&place, 2).await;
    let (key, public, secret) = make_key(&place, "audit.key");
    let (_, stranger, strange_secret) = make_key(&place, "other.key");
    let (file, first) = keep(&place, "anchors.jsonl", Some(&key));
    assert_eq!(first["publicKey"], public);
    append(&place, &team, 2).await;
    let (_, second) = keep(&place, "second.json", Some(&secret));
    std::fs::write(&file, format!("{first}\n{second}\n")).expect("written");
    let row = first["rowId"].as_i64().expect("a number");

    let found = verdict(&place, &["--anchor", &file, "--key", &public]);
    assert_eq!((problem(&found), &found["anchors"]), (("none", 0), &json!(2)));
    assert_eq!(found["signedBy"], json!([public]));
    let by_itself = verdict(&place, &["--anchor", &file]);
    assert_eq!(by_itself["signedBy"], json!([public]), "whoever that is");
    let other = verdict(&place, &["--anchor", &file, "--key", &stranger]);
    assert_eq!(problem(&other), ("anchor_key", row));
    let both = verdict(&place, &["--anchor", &file, "--key", &stranger, "--key", &public]);
    assert_eq!(problem(&both), ("none", 0), "while one key follows the other");

    // Without --key, the key that is configured is the one to believe.
    let args = ["audit", "verify", "team", "--anchor", &file, "--json"];
    for (secret, problem) in [(&secret, Value::Null), (&strange_secret, json!("anchor_key"))] {
        let output = place.command(&args).env("AUDIT_KEY", secret).output().expect("it starts");
        assert_eq!(Answer::of(&output, &args).object()["problem"], problem);
    }

    let alter = |field: &str, value: Value| {
        let mut altered = first.clone();
        altered[field] = value;
        std::fs::write(&file, altered.to_string()).expect("written");
        let found = verdict(&place, &["--anchor", &file, "--key", &public]);
        problem(&found).0.to_owned()
    };
    assert_eq!(alter("rowId", second["rowId"].clone()), "anchor_signature");
    assert_eq!(alter("takenAt", json!("2001-01-01T00:00:00.000Z")), "anchor_signature");
    assert_eq!(alter("nameHash", Value::Null), "anchor_signature");
    assert_eq!(alter("signature", Value::Null), "anchor_unsigned");
    std::fs::write(&file, "not an anchor").expect("written");
    assert_eq!(place.failure(&["audit", "verify", "team", "--anchor", &file]).0, "invalid_anchor");
    std::fs::write(&file, "").expect("written");
    assert_eq!(place.failure(&["audit", "verify", "team", "--anchor", &file]).0, "no_anchor");
}

#[tokio::test]
async fn a_chain_without_rows_has_no_anchor_and_is_not_the_one_that_was_begun() {
    let place = Place::new();
    place.json(&["mesh", "create", "team"]);
    assert_eq!(problem(&verdict(&place, &[])), ("none", 0), "the row that began it");
    behind_its_back(&place, &["delete from audit_log"]).await;
    assert_eq!(problem(&verdict(&place, &[])), ("genesis_missing", 0));
    assert_eq!(place.failure(&["audit", "anchor", "team"]).0, "empty_chain");
}
