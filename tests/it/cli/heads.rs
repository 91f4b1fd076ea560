//! Heads that nodes sign by the clock, as `audit verify` and the script see them.

use claudemesh_broker::audit::{Anchor, AuditEvent, HEAD_EVENT};
use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::store::{AuditEntry, HeadPace};

use super::anchors::{append, behind_its_back, chain_of, make_key, problem, verdict};
use super::offline::{check, exported, has_python};
use super::*;
use crate::harness::{Node, http, until};
use serde_json::json;

/// Signs where the chain ends, as a node would.
async fn sign(place: &Place, team: &Team, secret: &str) -> Anchor {
    let key = SecretKey::from_seed_hex(secret).expect("a seed");
    let store = place.store().await;
    let now = Timestamp::now();
    let pace = HeadPace { rows: 1, signed_before: now };
    let head = store.audit_heads.sign(now, &team.mesh, pace, &key).await.expect("writable");
    store.database.close().await;
    head.expect("it has grown")
}

/// Appends the row of a head that was signed before.
async fn put_back(place: &Place, team: &Team, head: Anchor) {
    let store = place.store().await;
    let (mesh, event) = (team.mesh.clone(), AuditEvent::HeadSigned(head));
    let entry = AuditEntry { mesh, actor: None, actor_name: None, event };
    store.audit.append(Timestamp::now(), &[entry]).await.expect("appended");
    store.database.close().await;
}

#[tokio::test]
async fn a_chain_that_was_written_anew_without_the_key_is_found_by_its_signed_heads() {
    let place = Place::new();
    let team = chain_of(&place, 3).await;
    let (_, public, secret) = make_key(&place, "audit.key");
    let (_, stranger, strange_secret) = make_key(&place, "other.key");
    let head = sign(&place, &team, &secret).await;
    append(&place, &team, 2).await;
    let found = verdict(&place, &["--key", &public]);
    assert_eq!(problem(&found), ("none", 0));
    let counts = ["signedHeads", "signedRow", "rowsSince"].map(|name| found[name].clone());
    assert_eq!(counts, [json!(1), json!(head.row_id), json!(2)]);
    assert_eq!(found["signedBy"], json!([public]));
    let people = place.run(&["audit", "verify", "team", "--key", &public]);
    assert!(people.code == 0 && people.out.contains("signed by nodes: 1 head"), "{people:?}");
    assert_eq!(problem(&verdict(&place, &["--key", &stranger])).0, "head_key");
    assert_eq!(problem(&verdict(&place, &[])), ("none", 0), "by the key that it names");
    let script = |key: &str| check(&place, &exported(&place), &["--key", key]);
    if has_python() {
        let answer = script(&public);
        assert!(answer.code == 0 && answer.out.contains("signed by nodes: 1 head"), "{answer:?}");
        assert_eq!(script(&stranger).code, 1);
    }

    // All of it anew, with every hash right, up to the head that was signed.
    let all = "delete from audit_log";
    let numbers = "update sqlite_sequence set seq = 0 where name = 'audit_log'";
    let noted = "delete from audit_head";
    behind_its_back(&place, &[all, numbers, noted]).await;
    let rows = usize::try_from(head.row_id).expect("a number");
    append(&place, &team, rows).await;
    put_back(&place, &team, head.clone()).await;
    let (anew, row) = (verdict(&place, &["--key", &public]), head.row_id + 1);
    assert_eq!(problem(&anew), ("head_row", row));
    let people = place.run(&["audit", "verify", "team", "--key", &public]);
    assert!(people.code == 1 && people.err.contains("written anew"), "{people:?}");
    if has_python() {
        assert!(script(&public).err.contains("written anew"));
    }
    // With another head in its place, which only another key can sign; or with none.
    let remove = format!("delete from audit_log where event_type = '{HEAD_EVENT}'");
    let numbers = format!("update sqlite_sequence set seq = {rows} where name = 'audit_log'");
    behind_its_back(&place, &[&remove, &numbers]).await;
    assert_eq!(problem(&verdict(&place, &["--key", &public])), ("heads_missing", 0));
    assert_eq!(problem(&verdict(&place, &[])), ("none", 0), "it is whole in itself");
    if has_python() {
        assert!(script(&public).err.contains("its heads were removed"));
    }
    sign(&place, &team, &strange_secret).await;
    assert_eq!(problem(&verdict(&place, &["--key", &public])), ("head_key", row));
}

#[tokio::test]
async fn a_head_that_was_altered_proves_nothing() {
    let place = Place::new();
    let team = chain_of(&place, 2).await;
    let (_, public, secret) = make_key(&place, "audit.key");
    let key = SecretKey::from_seed_hex(&secret).expect("a seed");
    let store = place.store().await;
    let last = store.audit.before(&team.mesh, None, i64::MAX, 1).await.expect("readable");
    store.database.close().await;
    let [last] = &last[..] else { panic!("{last:?}") };
    let head = Anchor {
        mesh_id: team.mesh.clone(),
        row_id: last.id,
        hash: last.hash.clone(),
        name_hash: last.name_hash.as_deref().map(hex::encode),
        taken_at: Timestamp::now(),
        public_key: None,
        signature: None,
    };
    for (wrong, code) in [
        (head.clone(), "head_unsigned"),
        (Anchor { taken_at: Timestamp::from_ms(0), ..head.clone().signed(&key) }, "head_signature"),
    ] {
        put_back(&place, &team, wrong).await;
        assert_eq!(problem(&verdict(&place, &["--key", &public])), (code, last.id + 1));
        if has_python() {
            let answer = check(&place, &exported(&place), &["--key", &public]);
            assert_eq!(answer.code, 1, "{code}: {answer:?}");
        }
        let remove = format!("delete from audit_log where id > {}", last.id);
        let numbers = format!("update sqlite_sequence set seq = {}", last.id);
        behind_its_back(&place, &[&remove, &numbers]).await;
    }
}

#[tokio::test]
async fn a_broker_with_a_key_signs_heads_and_tells_of_them_outside_the_database() {
    let place = Place::new();
    let (key, public, secret) = make_key(&place, "audit.key");
    let env = [("AUDIT_KEY", key.as_str()), ("AUDIT_HEAD_SECONDS", "0.1"), ("LOG_FORMAT", "json")];
    let node = Node::program(&env).await;
    let _ada = node.member("ada").await;
    until("a head is signed", async || node.log().contains("an audit head was signed")).await;
    let log = node.log();
    assert!(!log.contains(&secret), "the key itself is nowhere");
    let line = log.lines().find(|line| line.contains("an audit head was signed")).expect("a line");
    let line: Value = serde_json::from_str(line).expect("JSON");
    let anchor: Anchor = serde_json::from_str(&text(&line["anchor"]))
        .unwrap_or_else(|error| panic!("{error}: {line}"));
    assert_eq!(anchor.verify(&[public.as_str().into()]), Ok(anchor.public_key.as_ref()));
    assert_eq!((line["mesh"].as_str(), &anchor.mesh_id), (Some(node.mesh.as_str()), &node.mesh));
    let metrics = http::get(&node, "/metrics").await.body;
    let info = metrics.lines().find(|line| line.starts_with("broker_audit_head_info{"));
    assert!(info.is_some_and(|info| info.contains(&public)), "{metrics}");
    assert!(!metrics.contains(node.mesh.as_str()));
    let rows = node.store.audit.after(&node.mesh, i64::MIN, 1000).await.expect("readable");
    let signed = rows.iter().find(|row| row.id == anchor.row_id).expect("it is in the chain");
    assert_eq!(signed.hash, anchor.hash);
    let heads = rows.windows(2).filter(|pair| pair.iter().all(|row| row.event_type == HEAD_EVENT));
    assert_eq!(heads.count(), 0, "no head is signed for the sake of another");
}
