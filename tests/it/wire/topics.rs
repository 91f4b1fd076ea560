//! Topics from outside, on one node.

use claudemesh_broker::auth::SecretKey;
use serde_json::{Value, json};

use crate::harness::raw::session_hello_frame;
use crate::harness::{Member, Node, Raw, until_in_grace};

/// A session of that member on a host of its own, where no daemon is.
async fn elsewhere(node: &Node, member: &Member) -> Raw {
    let mut hello = session_hello_frame(&node.mesh, member, &SecretKey::generate());
    hello["hostname"] = json!("elsewhere");
    hello["channel"] = json!("sdk");
    Raw::greet(node, hello).await.0
}

async fn joins(raw: &mut Raw, topic: &str) {
    let ack = raw.ask(json!({ "type": "topic_join", "topic": topic })).await;
    assert_eq!((&ack["type"], ack.get("error")), (&json!("ack"), None), "{ack}");
}

async fn creates(raw: &mut Raw, name: &str, visibility: &str) -> String {
    let create = json!({ "type": "topic_create", "name": name, "visibility": visibility });
    let made = raw.ask(create).await;
    assert_eq!((&made["type"], &made["created"]), (&json!("topic_created"), &json!(true)));
    made["topic"]["id"].as_str().expect("an id").to_owned()
}

async fn refused(raw: &mut Raw, request: Value) -> Value {
    let error = raw.ask(request).await;
    assert_eq!(error["type"], "error", "{error}");
    error["code"].clone()
}

#[tokio::test]
async fn answers_have_the_recorded_fields() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut b = Raw::hello(&node, &bob).await;
    let create = json!({ "type": "topic_create", "name": "deploys", "description": "d" });
    let made = a.ask(create.clone()).await;
    let id = made["topic"]["id"].as_str().expect("an id").to_owned();
    assert_eq!(id.len(), 32);
    assert_eq!(
        made,
        json!({
            "type": "topic_created", "created": true, "keyMadeBy": "broker",
            "topic": { "id": id, "name": "deploys", "visibility": "public" },
            "_reqId": made["_reqId"],
        })
    );
    let again = a.ask(create).await;
    assert_eq!((&again["created"], &again["topic"]["id"]), (&json!(false), &json!(id)));
    let listed = b.ask(json!({ "type": "topic_list" })).await;
    let topic = &listed["topics"][0];
    assert_eq!(
        *topic,
        json!({
            "id": id, "name": "deploys", "description": "d", "visibility": "public",
            "memberCount": 1, "createdAt": topic["createdAt"],
        })
    );
    joins(&mut b, "deploys").await;
    let members = b.ask(json!({ "type": "topic_members", "topic": id })).await;
    assert_eq!(members["topic"], json!(id));
    let row = &members["members"][1];
    assert_eq!(
        *row,
        json!({
            "memberId": bob.id, "pubkey": bob.pubkey(), "displayName": "bob",
            "role": "member", "joinedAt": row["joinedAt"], "lastReadAt": null,
        })
    );
    let message = a.sent(&format!("#{id}"), "now", "aGk=").await;
    let history = b.ask(json!({ "type": "topic_history", "topic": "deploys", "limit": 5 })).await;
    let said = &history["messages"][0];
    assert_eq!(
        *said,
        json!({
            "id": message, "senderPubkey": alice.pubkey(), "senderMemberId": alice.id,
            "senderName": "alice", "nonce": "bm9uY2U=", "ciphertext": "aGk=", "bodyVersion": 1,
            "createdAt": said["createdAt"],
        })
    );
    let marked = b.ask(json!({ "type": "topic_mark_read", "topic": "deploys" })).await;
    assert_eq!(marked["type"], "ack");
    let members = b.ask(json!({ "type": "topic_members", "topic": "deploys" })).await;
    assert!(members["members"][1]["lastReadAt"].is_string(), "{members}");
    let nope = json!({ "type": "topic_history", "topic": "nope" });
    assert_eq!(refused(&mut a, nope).await, "topic_not_found");
}

#[tokio::test]
async fn a_post_reaches_the_members_by_name_and_by_id_and_nobody_else() {
    let node = Node::start().await;
    let names = ["alice", "bob", "carol"];
    let mut members = Vec::new();
    for name in names {
        members.push(node.member(name).await);
    }
    let mut a = Raw::hello(&node, &members[0]).await;
    let mut own = elsewhere(&node, &members[0]).await;
    let mut b = Raw::hello(&node, &members[1]).await;
    let mut other = elsewhere(&node, &members[1]).await;
    let (mut daemons, _) = Raw::session(&node, &members[1], &SecretKey::generate()).await;
    let mut c = Raw::hello(&node, &members[2]).await;
    let id = creates(&mut a, "t", "public").await;
    a.sent("#t", "next", "b2xk").await;
    joins(&mut b, "t").await;
    for target in ["#t".to_owned(), format!("#{id}")] {
        let sent = a.sent(&target, "low", "aGk=").await;
        for raw in [&mut b, &mut other] {
            let push = raw.message().await;
            assert_eq!(push["messageId"], sent.as_str(), "nothing older: {push}");
            assert_eq!((&push["topic"], &push["senderName"]), (&json!("t"), &json!("alice")));
            assert_eq!(push["senderMemberPubkey"], json!(members[0].pubkey()));
            assert_eq!((&push["priority"], &push["ciphertext"]), (&json!("low"), &json!("aGk=")));
            raw.confirm(&push).await;
        }
    }
    let reply = json!({
        "type": "send", "id": "r", "targetSpec": "#t", "priority": "next", "nonce": "",
        "ciphertext": "eA==", "client_message_id": "mine", "replyToId": "0123456789abcdef",
    });
    for _ in 0..2 {
        b.say(reply.clone()).await;
    }
    let ids = [b.hear("ack").await["messageId"].clone(), b.hear("ack").await["messageId"].clone()];
    assert_eq!(ids[0], ids[1], "idempotent");
    for raw in [&mut a, &mut own] {
        let push = raw.message().await;
        assert_eq!((&push["messageId"], &push["topic"]), (&ids[0], &json!("t")));
        assert_eq!(push["replyToId"], "0123456789abcdef");
        assert!(raw.messages_so_far().await.is_empty());
    }
    for raw in [&mut b, &mut other, &mut c, &mut daemons] {
        assert!(raw.messages_so_far().await.is_empty());
    }
    b.ask(json!({ "type": "topic_leave", "topic": "t" })).await;
    a.sent("#t", "now", "bmV4dA==").await;
    assert!(b.messages_so_far().await.is_empty(), "who left gets no more");
    assert!(node.audit_is_valid().await);
    assert_eq!(node.audit_count("message_sent").await, 5);
}

#[tokio::test]
async fn who_may_not_post_is_told_so_in_words_that_end_a_daemons_retries() {
    let node = Node::start().await;
    let mut a = Raw::hello(&node, &node.member("alice").await).await;
    let mut b = Raw::hello(&node, &node.member("bob").await).await;
    creates(&mut a, "open", "public").await;
    let hidden = creates(&mut a, "hidden", "private").await;
    for (target, word) in [
        ("#nope".to_owned(), "invalid"),
        ("#open".to_owned(), "forbidden"),
        ("#hidden".to_owned(), "invalid"),
        (format!("#{hidden}"), "invalid"),
        ("#".to_owned(), "invalid"),
    ] {
        let ack = b.send(&target, "next", "eA==").await;
        assert_eq!(ack["queued"], false, "{ack}");
        let text = ack["error"].as_str().expect("a reason");
        assert!(text.contains(word), "{target}: {text}");
    }
}

#[tokio::test]
async fn a_private_topic_does_not_exist_for_others() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut b = Raw::hello(&node, &bob).await;
    creates(&mut a, "plans", "private").await;
    a.sent("#plans", "next", "b2xk").await;
    let listed = b.ask(json!({ "type": "topic_list" })).await;
    assert_eq!(listed["topics"], json!([]));
    for kind in ["topic_join", "topic_members", "topic_history", "topic_leave", "topic_mark_read"] {
        let code = refused(&mut b, json!({ "type": kind, "topic": "plans" })).await;
        assert_eq!(code, "topic_not_found", "{kind}");
    }
    let code = refused(&mut b, json!({ "type": "topic_create", "name": "plans" })).await;
    assert_eq!(code, "topic_taken");
    let invite = json!({ "type": "topic_invite", "topic": "plans", "member": "bob" });
    assert_eq!(refused(&mut b, invite.clone()).await, "topic_not_found");
    assert_eq!(a.ask(invite).await["type"], "ack");
    joins(&mut b, "plans").await;
    let sent = a.sent("#plans", "next", "bmV3").await;
    assert_eq!(b.message().await["messageId"], sent.as_str());
    let history = b.ask(json!({ "type": "topic_history", "topic": "plans" })).await;
    assert_eq!(history["messages"].as_array().map(Vec::len), Some(2), "members read all of it");
    let code = refused(
        &mut b,
        json!({ "type": "topic_invite", "topic": "plans", "member": alice.pubkey() }),
    );
    assert_eq!(code.await, "forbidden", "only leads invite");
}

#[tokio::test]
async fn a_history_is_for_members_and_comes_in_pages() {
    let node = Node::start().await;
    let mut a = Raw::hello(&node, &node.member("alice").await).await;
    let mut b = Raw::hello(&node, &node.member("bob").await).await;
    creates(&mut a, "t", "public").await;
    let mut sent = Vec::new();
    for _ in 0..5 {
        sent.push(a.sent("#t", "next", "eA==").await);
    }
    sent.reverse();
    let code = refused(&mut b, json!({ "type": "topic_history", "topic": "t" })).await;
    assert_eq!(code, "forbidden");
    let ids = |page: &Value| -> Vec<String> {
        let rows = page["messages"].as_array().expect("rows");
        rows.iter().map(|row| row["id"].as_str().expect("an id").to_owned()).collect()
    };
    let first = a.ask(json!({ "type": "topic_history", "topic": "t", "limit": 2 })).await;
    assert_eq!(ids(&first), sent[..2]);
    let rest = json!({ "type": "topic_history", "topic": "t", "beforeId": sent[1] });
    assert_eq!(ids(&a.ask(rest).await), sent[2..]);
    let unknown = json!({ "type": "topic_history", "topic": "t", "beforeId": "unknown" });
    assert!(ids(&a.ask(unknown).await).is_empty());
    for (limit, count) in [(-5, 1), (0, 1), (100_000, 5)] {
        let page = a.ask(json!({ "type": "topic_history", "topic": "t", "limit": limit })).await;
        assert_eq!(ids(&page).len(), count, "limit {limit}");
    }
}

#[tokio::test]
async fn a_key_that_the_client_made_is_kept_as_it_is() {
    let node = Node::start().await;
    let mut a = Raw::hello(&node, &node.member("alice").await).await;
    let pubkey = "ab".repeat(32);
    let mut create = json!({
        "type": "topic_create", "name": "t", "encryptedKeyPubkey": pubkey,
        "encryptedKey": "c2VhbGVk", "nonce": "bm9uY2U=",
    });
    assert_eq!(a.ask(create.clone()).await["keyMadeBy"], "client");
    create["name"] = json!("u");
    create["nonce"] = Value::Null;
    assert_eq!(refused(&mut a, create).await, "invalid_argument");
}

#[tokio::test]
async fn who_asks_for_nothing_is_told_nothing() {
    let node = Node::start().await;
    let mut a = Raw::hello(&node, &node.member("alice").await).await;
    a.say(json!({ "type": "topic_create", "name": "t" })).await;
    assert_eq!(a.hear("topic_created").await.get("_reqId"), None);
    for kind in ["topic_join", "topic_mark_read", "topic_leave"] {
        for topic in ["t", "nope"] {
            a.say(json!({ "type": kind, "topic": topic })).await;
        }
    }
    assert!(a.so_far().await.is_empty());
}

#[tokio::test]
async fn a_sealed_post_is_a_notice_for_daemons_and_itself_for_others() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    creates(&mut a, "t", "public").await;
    let mut daemon = Raw::hello(&node, &bob).await;
    let mut plain = elsewhere(&node, &bob).await;
    joins(&mut daemon, "t").await;
    a.say(json!({
        "type": "send", "id": "s", "targetSpec": "#t", "priority": "next", "nonce": "bm9uY2U=",
        "ciphertext": "c2VhbGVk", "bodyVersion": 2,
    }))
    .await;
    a.hear("ack").await;
    let push = plain.message().await;
    assert_eq!((&push["bodyVersion"], &push["ciphertext"]), (&json!(2), &json!("c2VhbGVk")));
    let push = daemon.message().await;
    assert_eq!((push.get("bodyVersion"), &push["topic"]), (None, &json!("t")));
    assert_ne!(push["ciphertext"], "c2VhbGVk");
}

/// Ends every presence of a member, and waits until the others know.
async fn goes_away(raw: Raw, watch: &mut Raw) {
    raw.goodbye().await;
    watch.event("peer_left").await;
}

#[tokio::test]
async fn what_a_member_missed_comes_once_in_its_order_when_it_comes_back() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 100).await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut b = Raw::hello(&node, &bob).await;
    creates(&mut a, "one", "public").await;
    creates(&mut a, "two", "public").await;
    joins(&mut b, "one").await;
    joins(&mut b, "two").await;
    let had = a.sent("#one", "next", "MA==").await;
    let push = b.message().await;
    assert_eq!(push["messageId"], had.as_str());
    b.confirm(&push).await;
    b.so_far().await;
    goes_away(b, &mut a).await;
    let mut missed = Vec::new();
    for topic in ["#one", "#two", "#one"] {
        missed.push(a.sent(topic, "next", "MQ==").await);
        a.sent("*", "next", "broadcasts are for those who are there").await;
    }
    for round in 0..2 {
        let mut b = Raw::hello(&node, &bob).await;
        let live = a.sent("#two", "next", "Mg==").await;
        let mut expected = if round == 0 { missed.clone() } else { Vec::new() };
        expected.push(live);
        for id in expected {
            let push = b.message().await;
            assert_eq!(push["messageId"], id.as_str(), "round {round}");
            b.confirm(&push).await;
        }
        assert!(b.messages_so_far().await.is_empty());
        goes_away(b, &mut a).await;
    }
}

#[tokio::test]
async fn what_was_not_confirmed_comes_again_to_the_next_connection() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 100).await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    creates(&mut a, "t", "public").await;
    let mut b = Raw::hello(&node, &bob).await;
    joins(&mut b, "t").await;
    let first = a.sent("#t", "next", "MQ==").await;
    let second = a.sent("#t", "next", "Mg==").await;
    let push = b.message().await;
    assert_eq!(push["messageId"], first.as_str());
    b.confirm(&push).await;
    assert_eq!(b.message().await["messageId"], second.as_str());
    b.so_far().await;
    goes_away(b, &mut a).await;
    let mut b = Raw::hello(&node, &bob).await;
    let push = b.message().await;
    assert_eq!(push["messageId"], second.as_str(), "not the first again");
    b.confirm(&push).await;
    b.so_far().await;
    goes_away(b, &mut a).await;
    let mut b = Raw::hello(&node, &bob).await;
    assert!(b.messages_so_far().await.is_empty());
}

#[tokio::test]
async fn in_grace_nothing_is_lost_and_nothing_comes_twice() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 60_000).await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let key = SecretKey::generate();
    let mut a = Raw::hello(&node, &alice).await;
    creates(&mut a, "t", "public").await;
    let (mut b, _) = Raw::session(&node, &bob, &key).await;
    joins(&mut b, "t").await;
    let first = a.sent("#t", "next", "MQ==").await;
    let push = b.message().await;
    assert_eq!(push["messageId"], first.as_str());
    b.confirm(&push).await;
    let probe = a.sent("*", "low", "cHJvYmU=").await;
    let push = b.message().await;
    assert_eq!(push["messageId"], probe.as_str());
    b.confirm(&push).await;
    b.so_far().await;
    b.goodbye().await;
    until_in_grace(&mut a, &probe, "bob").await;
    let second = a.sent("#t", "next", "Mg==").await;
    let (mut b, _) = Raw::session(&node, &bob, &key).await;
    assert_eq!(b.message().await["messageId"], second.as_str());
    assert!(b.messages_so_far().await.is_empty());
}
