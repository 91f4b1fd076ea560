//! An exported chain is checked without the broker, by `tools/verify-audit.py`.

use std::process::Command;

use claudemesh_broker::audit::{GENESIS, NameHead, canonical_json, entry_hash, row_hash};
use serde_json::json;

use super::anchors::{append, chain_of, keep, make_key};
use super::*;
use crate::harness::root;

/// An export, and what checks it.
struct Export {
    place: Place,
    rows: Vec<Value>,
}

/// What `audit export` writes.
pub(super) fn exported(place: &Place) -> Vec<Value> {
    let export = place.run(&["audit", "export", "team"]);
    export.out.lines().map(|line| serde_json::from_str(line).expect("JSON Lines")).collect()
}

/// What the script says of those rows.
pub(super) fn check(place: &Place, rows: &[Value], args: &[&str]) -> Answer {
    let file = place.path().join("export.jsonl");
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(&file, lines).expect("written");
    let script = root().join("tools/verify-audit.py");
    let output = Command::new("python3").arg(script).arg(file).args(args).output();
    Answer::of(&output.expect("python3 starts"), args)
}

impl Export {
    fn of(place: Place) -> Self {
        Self { rows: exported(&place), place }
    }

    fn check(&self, rows: &[Value], args: &[&str]) -> Answer {
        check(&self.place, rows, args)
    }

    fn refuses(&self, what: &str, rows: &[Value], args: &[&str]) -> String {
        let answer = self.check(rows, args);
        let is_refused = answer.code == 1 && answer.out.is_empty();
        assert!(is_refused && answer.err.lines().count() == 1, "{what}: {answer:?}");
        answer.err
    }
}

pub(super) fn has_python() -> bool {
    let found = Command::new("python3").arg("--version").output().is_ok_and(|o| o.status.success());
    if !found {
        eprintln!("not run: python3 is not installed");
    }
    found
}

#[tokio::test]
async fn an_export_that_was_tampered_with_in_any_way_is_found_without_the_broker() {
    if !has_python() {
        return;
    }
    let place = Place::new();
    let team = chain_of(&place, 4).await;
    let (key, public, _) = make_key(&place, "audit.key");
    let (anchors, anchor) = keep(&place, "anchors.jsonl", Some(&key));
    append(&place, &team, 2).await;
    let export = Export::of(place);
    let rows = &export.rows;
    let signed = ["--anchor", &anchors, "--key", &public];
    let whole = export.check(rows, &signed);
    assert_eq!((whole.code, whole.err.as_str()), (0, ""), "{whole:?}");
    assert!(whole.out.contains(&format!("signed by {public}\n")), "{whole:?}");
    let alone = export.check(rows, &[]);
    assert!(alone.code == 0 && alone.out.contains("without an anchor"), "{alone:?}");

    let changes = [
        ("id", json!(1)),
        ("meshId", json!("another")),
        ("eventType", json!("state_removed")),
        ("actorMemberId", Value::Null),
        ("actorName", json!("somebody else")),
        ("actorName", Value::Null),
        ("payload", json!({"key": "another"})),
        ("createdAt", json!("2023-11-14T22:13:20.120Z")),
        ("prevHash", rows[0]["hash"].clone()),
        ("hash", rows[0]["hash"].clone()),
        ("nameHash", rows[0]["hash"].clone()),
        ("nameHash", Value::Null),
    ];
    for (field, value) in changes {
        let mut altered = rows.clone();
        altered[2][field] = value;
        export.refuses(field, &altered, &[]);
    }
    let mut removed = rows.clone();
    removed.remove(2);
    export.refuses("removed", &removed, &[]);
    let mut inserted = rows.clone();
    inserted.insert(2, rows[2].clone());
    export.refuses("inserted", &inserted, &[]);
    let mut swapped = rows.clone();
    swapped.swap(2, 3);
    export.refuses("swapped", &swapped, &[]);

    // What is left of a chain whose end was cut off is whole in itself.
    let at = rows.iter().position(|row| row["id"] == anchor["rowId"]).expect("the anchored row");
    let cut = &rows[..at];
    assert_eq!(export.check(cut, &[]).code, 0);
    let row = anchor["rowId"].to_string();
    let hash = text(&anchor["hash"]);
    for args in [&signed[..], &["--head", &hash, "--at", &row]] {
        let found = export.refuses("cut off", cut, args);
        assert!(found.contains(&format!("has no row {row}")), "{found}");
    }
    assert_eq!(export.check(&rows[..=at], &signed).code, 0, "up to the anchor it is there");
}

/// A chain that follows by itself with these payloads, as the broker would have made it.
fn chain(mesh: &str, payloads: &[Value], names: &[Option<&str>]) -> Vec<Value> {
    let (mut hash, mut names_before) = (GENESIS.to_owned(), NameHead::after(GENESIS, None));
    let mut rows = Vec::new();
    for (at, (payload, name)) in payloads.iter().zip(names.iter().cycle()).enumerate() {
        let created_at = Timestamp::from_ms(1_700_000_000_120 + at as i64);
        let canonical = canonical_json(payload);
        let next = entry_hash(&hash, mesh, "odd", Some("member"), &canonical, created_at);
        let id = 10 * at as i64 + 7;
        let second = row_hash(&names_before, id, &next, *name);
        rows.push(json!({
            "id": id, "meshId": mesh, "eventType": "odd", "actorMemberId": "member",
            "actorName": name, "payload": payload, "prevHash": hash, "hash": next,
            "nameHash": hex::encode(second), "createdAt": created_at,
        }));
        names_before = NameHead::after(&next, Some(&second));
        hash = next;
    }
    rows
}

#[test]
fn a_chain_that_was_written_anew_is_found_by_an_anchor_alone() {
    if !has_python() {
        return;
    }
    let payloads = [json!({"n": 1}), json!({"n": 2}), json!({"n": 3})];
    let rows = chain("mesh-1", &payloads, &[Some("ada")]);
    let export = Export { place: Place::new(), rows: rows.clone() };
    let (row, head) = (rows[2]["id"].to_string(), text(&rows[2]["hash"]));
    let noted = ["--at", &row, "--head", &head];
    assert_eq!(export.check(&rows, &noted).code, 0);
    let anew = [json!({"n": 1}), json!({"n": 0}), json!({"n": 3})];
    let anew = chain("mesh-1", &anew, &[Some("ada")]);
    assert_eq!(export.check(&anew, &[]).code, 0, "it is whole in itself");
    let found = export.refuses("anew", &anew, &noted);
    assert!(found.contains("another hash than was noted"), "{found}");

    let renamed = chain("mesh-1", &payloads, &[Some("bob")]);
    assert_eq!(export.check(&renamed, &noted).code, 0, "the first hash does not cover names");
    let anchor = json!({
        "meshId": "mesh-1", "rowId": rows[2]["id"], "hash": rows[2]["hash"],
        "nameHash": rows[2]["nameHash"], "takenAt": "2023-11-14T22:13:20.120Z",
    });
    let file = export.place.path().join("anchor.json");
    std::fs::write(&file, anchor.to_string()).expect("written");
    let file = file.to_str().expect("UTF-8");
    assert_eq!(export.check(&rows, &["--anchor", file]).code, 0);
    let found = export.refuses("renamed", &renamed, &["--anchor", file]);
    assert!(found.contains("a name was altered"), "{found}");
}

#[test]
fn whatever_a_payload_holds_is_hashed_alike_without_the_broker() {
    if !has_python() {
        return;
    }
    let payloads = [
        json!({"\u{fb33}": 1, "\u{1f600}": 2, "a\"\\\n\u{1}\u{7f}/": "größe \u{2028}\u{202e}"}),
        json!([0, -0.0, 1.0, 1.5, -2.25, 1e21, 1e20, 123456789012345680000.0, 1e-6, 1e-7, 5e-324]),
        json!([9_007_199_254_740_993_u64, u64::MAX, i64::MIN, 0.1, 1.7976931348623157e308]),
        json!([null, true, false, "", {}, [], {"b": {"d": 1, "c": 2}, "a": []}]),
        json!("a payload that names a key twice is kept as text"),
    ];
    let names = [None, Some("größe"), Some("")];
    let rows = chain("mesh-1", &payloads, &names);
    let export = Export { place: Place::new(), rows };
    let answer = export.check(&export.rows, &[]);
    assert_eq!((answer.code, answer.err.as_str()), (0, ""), "{answer:?}");
}

#[test]
fn a_row_of_the_first_kind_after_one_of_the_second_is_found_without_the_broker() {
    if !has_python() {
        return;
    }
    let payloads = [json!({"n": 1}), json!({"n": 2}), json!({"n": 3})];
    let rows = chain("mesh-1", &payloads, &[Some("ada")]);
    let export = Export { place: Place::new(), rows: rows.clone() };
    let mut stripped = rows.clone();
    stripped[2]["nameHash"] = Value::Null;
    let found = export.refuses("without its second hash", &stripped, &[]);
    assert!(found.contains("lacks the hash over its number"), "{found}");
    let mut numbered = rows.clone();
    numbered[2]["id"] = json!(1000);
    export.refuses("another number", &numbered, &[]);
    // Nothing of a chain that earlier releases wrote is worse than it was.
    let mut older = rows;
    older.iter_mut().for_each(|row| row["nameHash"] = Value::Null);
    assert_eq!(export.check(&older, &[]).code, 0);
    older[0]["eventType"] = json!("genesis");
    export.refuses("a chain that began with the second kind", &older, &[]);
}

#[tokio::test]
async fn an_anchor_that_is_not_to_be_believed_is_refused_without_the_broker() {
    if !has_python() {
        return;
    }
    let place = Place::new();
    chain_of(&place, 2).await;
    let (key, public, _) = make_key(&place, "audit.key");
    let (_, stranger, _) = make_key(&place, "other.key");
    let (file, anchor) = keep(&place, "anchors.jsonl", Some(&key));
    let export = Export::of(place);
    let with = |key: &str| ["--anchor", &*file, "--key", key].map(str::to_owned);
    let check = |key: &str| {
        let args = with(key);
        export.check(&export.rows, &args.each_ref().map(String::as_str))
    };
    assert_eq!(check(&public).code, 0);
    assert_eq!(check(&stranger).code, 1, "by another key");
    let signature = text(&anchor["signature"]);
    let torn =
        format!("{}{}", &signature[..126], if signature.ends_with("00") { "01" } else { "00" });
    let changes = [
        ("takenAt", json!("2001-01-01T00:00:00.000Z")),
        ("rowId", export.rows[0]["id"].clone()),
        ("hash", export.rows[0]["hash"].clone()),
        ("nameHash", Value::Null),
        ("signature", json!(torn)),
        ("signature", Value::Null),
        ("publicKey", json!(stranger)),
        // Of small order: it would sign anything.
        ("publicKey", json!(format!("01{}", "00".repeat(31)))),
    ];
    for (field, value) in changes {
        let mut altered = anchor.clone();
        altered[field] = value;
        std::fs::write(&file, altered.to_string()).expect("written");
        assert_eq!(check(&public).code, 1, "{field}");
        let by_itself = export.check(&export.rows, &["--anchor", &file]);
        assert_eq!(by_itself.code, 1, "{field}: {by_itself:?}");
    }
    std::fs::write(&file, "no anchor").expect("written");
    assert_eq!(check(&public).code, 2);
    std::fs::write(&file, json!({"meshId": "another"}).to_string()).expect("written");
    assert_eq!(check(&public).code, 2, "none of this mesh");
}
