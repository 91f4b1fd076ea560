//! Answers have a bound in bytes, whatever a mesh holds: what does not fit comes in
//! pages, and whoever asks keeps its socket.

use claudemesh_broker::audit::AuditEvent;
use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::client::{ClientOptions, HelloKind};
use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::limits;
use claudemesh_broker::protocol::{AuditQuery, PeerRole};
use claudemesh_broker::store::{AuditEntry, OpenPresence, Role};
use serde_json::{Value, json};

use crate::harness::raw::session_hello_frame;
use crate::harness::{Member, Node, Raw};
use crate::store::fixture::{Peer, opening, opening_with};

/// A byte that takes six where it is written.
fn noise(bytes: usize) -> String {
    "\u{1}".repeat(bytes)
}

/// A node that takes frames as large as any may.
async fn node_for_large_frames() -> Node {
    let max = limits::MESSAGE_BYTES_MAX_CEILING;
    Node::start_with(|config| config.message.message_bytes_max = max).await
}

/// A hello whose every text and list is as long as it may be, and longer.
fn fat_hello(node: &Node, member: &Member) -> Value {
    let mut hello = session_hello_frame(&node.mesh, member, &SecretKey::generate());
    for field in ["displayName", "cwd", "hostname", "peerType", "channel", "model"] {
        hello[field] = json!(noise(1024));
    }
    hello["sessionId"] = json!(format!("{}{}", SecretKey::generate().public_key(), noise(900)));
    let group = |n: usize| json!({ "name": format!("{n}{}", noise(120)), "role": noise(128) });
    hello["groups"] = json!((0..64).map(group).collect::<Vec<_>>());
    hello
}

/// All rows of a list, page by page; each page with its size.
async fn pages(raw: &mut Raw, ask: &Value, rows: &str) -> (Vec<Value>, Vec<usize>) {
    let (mut all, mut sizes, mut ask) = (Vec::new(), Vec::new(), ask.clone());
    loop {
        let mut page = raw.ask(ask.clone()).await;
        sizes.push(page.to_string().len());
        all.append(page[rows].as_array_mut().expect("rows"));
        assert_eq!(page["more"] == true, page["cursor"].is_string(), "{}", page["more"]);
        if page["more"] != true {
            return (all, sizes);
        }
        ask["cursor"] = page["cursor"].clone();
    }
}

#[tokio::test]
async fn what_a_peer_says_of_itself_has_a_bound_in_encoded_bytes() {
    let node = node_for_large_frames().await;
    let alice = node.member("alice").await;
    let mut watcher = Raw::hello(&node, &node.owner).await;
    let (mut a, ack) = Raw::greet(&node, fat_hello(&node, &alice)).await;
    assert_eq!(ack["type"], "hello_ack", "{ack}");
    a.ask(json!({ "type": "set_summary", "summary": noise(2048) })).await;
    let profile = json!({ "type": "set_profile", "bio": noise(600) });
    assert_eq!(a.ask(profile).await["type"], "ack");
    let profile = json!({ "type": "set_profile", "title": noise(600) });
    assert_eq!(a.ask(profile).await["code"], "invalid_argument");

    let listed = watcher.ask(json!({ "type": "list_peers" })).await;
    let rows = listed["peers"].as_array().expect("rows");
    let row = rows.iter().find(|row| row["memberName"] == "alice").expect("a row");
    assert!(row.to_string().len() <= limits::PEER_ROW_BYTES_MAX, "{}", row.to_string().len());
    assert!(!row["groups"].as_array().expect("groups").is_empty());
    assert!(row["displayName"].as_str().is_some_and(|name| !name.is_empty()));

    let joined = watcher.event("peer_joined").await;
    assert!(joined.to_string().len() < limits::EVENT_GROUPS_BYTES_MAX + 1024);
    assert!(joined["eventData"]["groupsLeftOut"].is_number(), "{joined}");
    let audit = watcher.ask(json!({ "type": "audit_query", "limit": 1 })).await;
    assert!(audit.to_string().len() < limits::AUDIT_GROUPS_BYTES_MAX + 1024);
    assert!(node.audit_is_valid().await);
}

#[tokio::test]
async fn a_group_over_the_budget_is_refused_and_ordinary_ones_fit() {
    let node = Node::start().await;
    let alice = node.member("alice").await;
    let mut a = Raw::hello(&node, &alice).await;
    for n in 0..limits::GROUPS_PER_PRESENCE_MAX {
        let join = json!({ "type": "join_group", "name": format!("team/backend-{n}") });
        assert_eq!(a.ask(join).await["type"], "ack", "{n}");
    }
    let mut b = Raw::hello_with(&node, &alice, |f| f["sessionId"] = json!("b")).await.0;
    let join = |n: usize| json!({ "type": "join_group", "name": format!("{n}{}", noise(120)) });
    assert_eq!(b.ask(join(0)).await["type"], "ack");
    b.ask(json!({ "type": "join_group", "name": "x", "role": noise(128) })).await;
    let refused = b.ask(join(1)).await;
    assert_eq!(refused["code"], "invalid_argument", "{refused}");
}

#[tokio::test]
async fn fat_sessions_break_no_list_and_no_audit_query() {
    let node = node_for_large_frames().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut sockets = Vec::new();
    for _ in 0..80 {
        let (mut fat, ack) = Raw::greet(&node, fat_hello(&node, &alice)).await;
        assert_eq!(ack["type"], "hello_ack", "{ack}");
        fat.ask(json!({ "type": "set_summary", "summary": noise(2048) })).await;
        fat.ask(json!({ "type": "set_profile", "bio": noise(650) })).await;
        sockets.push(fat);
    }
    let mut b = Raw::hello(&node, &bob).await;
    let (rows, sizes) = pages(&mut b, &json!({ "type": "list_peers" }), "peers").await;
    assert_eq!(rows.len(), 81);
    assert!(sizes.len() > 1, "{sizes:?}");
    assert!(sizes.iter().all(|size| *size <= limits::ANSWER_BYTES_MAX), "{sizes:?}");
    let mut keys: Vec<_> = rows.iter().map(|row| row["pubkey"].to_string()).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 81, "each once");

    let mut owner = Raw::hello(&node, &node.owner).await;
    let ask = json!({ "type": "audit_query", "limit": 500 });
    let (rows, sizes) = pages(&mut owner, &ask, "entries").await;
    assert!(rows.len() > 80);
    assert!(sizes.iter().all(|size| *size <= limits::ANSWER_BYTES_MAX), "{sizes:?}");
}

/// Rows that an earlier release or another program wrote have no bound.
#[tokio::test]
async fn old_rows_of_any_size_are_read_in_pages() {
    let node = Node::start().await;
    let entry = |bytes: usize| AuditEntry {
        mesh: node.mesh.clone(),
        actor: None,
        actor_name: None,
        event: AuditEvent::StateSet { key: noise(bytes) },
    };
    let entries: Vec<AuditEntry> = (0..90).map(|_| entry(8_000)).collect();
    node.store.audit.append(Timestamp::now(), &entries).await.expect("a mesh");
    node.store.audit.append(Timestamp::now(), &[entry(600_000)]).await.expect("a mesh");
    let mut owner = Raw::hello(&node, &node.owner).await;
    let ask = json!({ "type": "audit_query", "limit": 500, "eventType": "state_set" });
    let (rows, sizes) = pages(&mut owner, &ask, "entries").await;
    assert_eq!(rows.len(), 91);
    assert!(sizes.len() > 5, "{sizes:?}");
    assert!(sizes.iter().all(|size| *size <= limits::ANSWER_BYTES_MAX), "{sizes:?}");
    let ids: Vec<_> = rows.iter().map(|row| row["id"].as_i64()).collect();
    assert!(ids.is_sorted_by(|a, b| a > b), "newest first, each once");
    assert!(rows[0]["payload"]["leftOutBytes"].is_number(), "a row larger than an answer");
    let first = owner.ask(ask).await;
    assert_eq!(first["total"], 91);

    let options = ClientOptions::new(node.owner.identity(&node.mesh), HelloKind::Member, "test");
    let (client, _inbox) = node.connect(options).await;
    let event_type = Some("state_set".to_owned());
    let ask = AuditQuery { limit: Some(60), event_type, ..AuditQuery::default() };
    let read = client.audit_query(&ask).await.expect("all pages");
    assert_eq!((read.entries.len(), read.more), (60, false));
}

#[tokio::test]
async fn a_cursor_of_no_such_list_is_refused() {
    let node = Node::start().await;
    let mut owner = Raw::hello(&node, &node.owner).await;
    let id = owner.sent("*", "next", "hi").await;
    for ask in [
        json!({ "type": "list_peers" }),
        json!({ "type": "list_bans" }),
        json!({ "type": "audit_query" }),
        json!({ "type": "message_status", "messageId": id }),
    ] {
        for cursor in ["", "nonsense", &"x".repeat(1000)] {
            let mut ask = ask.clone();
            ask["cursor"] = json!(cursor);
            assert_eq!(owner.ask(ask.clone()).await["code"], "invalid_argument", "{ask}");
        }
    }
}

/// Of sessions that were open when the node went down.
#[tokio::test]
async fn thousands_of_ordinary_rows_are_listed_in_pages() {
    const ROWS: usize = 3_000;
    let mut node = Node::start_with(|config| {
        config.presence.connections_per_mesh_max = 1_000_000;
        config.presence.lease_grace_ms = 600_000;
    })
    .await;
    let (ada, admin) = (node.member("ada").await, node.member_as("admin", Role::Admin).await);
    node.stop().await;
    let opened: Vec<OpenPresence> = (0..ROWS).map(|n| ordinary(&node, &ada, n)).collect();
    for batch in opened.chunks(limits::PRESENCE_BATCH_MAX) {
        node.store.presences.open(Timestamp::now(), batch).await.expect("presences");
    }
    node.restart().await;
    let mut raw = Raw::hello(&node, &admin).await;
    let (rows, sizes) = pages(&mut raw, &json!({ "type": "list_peers" }), "peers").await;
    assert_eq!(rows.len(), ROWS + 1);
    assert!(sizes.iter().all(|size| *size <= limits::ANSWER_BYTES_MAX), "{sizes:?}");
    let id = raw.sent("*", "next", "hi").await;
    let ask = json!({ "type": "message_status", "messageId": id });
    let (recipients, sizes) = pages(&mut raw, &ask, "recipients").await;
    assert_eq!(recipients.len(), ROWS, "its sender is none of them");
    assert!(sizes.len() > 1 && sizes.iter().all(|size| *size <= limits::ANSWER_BYTES_MAX));

    let options = ClientOptions::new(ada.identity(&node.mesh), HelloKind::Member, "test");
    let (client, _inbox) = node.connect(options).await;
    assert_eq!(client.list_peers().await.expect("all pages").len(), ROWS + 2);
    assert_eq!(client.message_status(&id).await.expect("all").recipients.len(), ROWS);
}

fn ordinary(node: &Node, member: &Member, n: usize) -> OpenPresence {
    let peer = Peer { id: member.id.clone(), key: member.pubkey(), name: member.name.clone() };
    opening_with(opening(&node.mesh, &peer), |record| {
        record.session_key = Some(format!("{n:064x}").as_str().into());
        record.role = PeerRole::Session;
        record.session_id = format!("launch-{n}");
        record.display_name = format!("{n:0>200}");
        record.node = node.config.node.id.to_string();
    })
}
