//! How far messages are, how fresh they are, and how many answers follow each other.

use claudemesh_broker::auth::SecretKey;
use serde_json::{Value, json};

use crate::harness::{Cluster, Member, Node, Raw, until};

/// A session whose client asks for these capabilities.
async fn asking(node: &Node, member: &Member, capabilities: &[&str]) -> Raw {
    let ask = |hello: &mut Value| hello["capabilities"] = json!(capabilities);
    Raw::hello_with(node, member, ask).await.0
}

/// Sends with what the sender says beside the text; the id.
async fn say(raw: &mut Raw, to: &str, mut beside: Value) -> String {
    let fields = beside.as_object_mut().expect("fields");
    for (name, value) in [("targetSpec", to), ("ciphertext", "eA=="), ("nonce", "")] {
        fields.insert(name.to_owned(), json!(value));
    }
    fields.entry("priority").or_insert(json!("next"));
    fields.insert("type".to_owned(), json!("send"));
    raw.say(beside).await;
    let ack = raw.hear("ack").await;
    assert_eq!(ack["queued"], true, "{ack}");
    ack["messageId"].as_str().expect("an id").to_owned()
}

async fn refusal(raw: &mut Raw, to: &str, beside: Value, code: &str) -> String {
    let mut frame = json!({
        "type": "send", "targetSpec": to, "priority": "next", "nonce": "", "ciphertext": "eA==",
    });
    for (name, value) in beside.as_object().expect("fields") {
        frame[name] = value.clone();
    }
    raw.say(frame).await;
    let ack = raw.hear("ack").await;
    assert_eq!((&ack["queued"], &ack["code"]), (&json!(false), &json!(code)), "{ack}");
    ack["error"].as_str().expect("a sentence").to_owned()
}

async fn stage(raw: &mut Raw, id: &str) -> String {
    let status = raw.ask(json!({ "type": "message_status", "messageId": id })).await;
    status["recipients"][0]["stage"].as_str().unwrap_or_default().to_owned()
}

fn surfaced(push: &Value) -> Value {
    json!({ "type": "client_ack", "brokerMessageId": push["messageId"], "stage": "surfaced" })
}

async fn receipts_of(raw: &mut Raw) -> Vec<Value> {
    let event = raw.event("message_receipt").await;
    event["eventData"]["receipts"].as_array().expect("a list").clone()
}

#[tokio::test]
async fn a_sender_is_told_at_the_stage_that_it_wished() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = asking(&node, &alice, &["stages"]).await;
    let mut plain = Raw::session(&node, &alice, &SecretKey::generate()).await.0;
    let mut b = asking(&node, &bob, &["stages"]).await;
    let to_bob = bob.pubkey();
    let beside = json!({ "receipt": "confirmed", "client_message_id": "own" });
    let first = say(&mut a, to_bob.as_str(), beside).await;
    let second = say(&mut a, to_bob.as_str(), json!({ "receipt": "surfaced" })).await;
    let third = say(&mut a, to_bob.as_str(), json!({})).await;
    let pushes = [b.message().await, b.message().await, b.message().await];
    assert_eq!(pushes[0]["receipt"], "confirmed", "the recipient knows that it is told");
    b.confirm(&pushes[0]).await;
    let receipt = receipts_of(&mut a).await.remove(0);
    assert_eq!(
        (&receipt["messageId"], &receipt["clientMessageId"], &receipt["stage"]),
        (&json!(first), &json!("own"), &json!("confirmed"))
    );
    assert_eq!((&receipt["name"], &receipt["recipient"]), (&json!("bob"), &json!(to_bob)));
    assert!(receipt["at"].is_string(), "{receipt}");
    b.say(json!({
        "type": "client_ack", "stage": "surfaced",
        "messageIds": [pushes[1]["messageId"], pushes[2]["messageId"]],
    }))
    .await;
    let receipt = receipts_of(&mut a).await;
    assert_eq!(receipt.len(), 1, "of the third nobody wished to know: {receipt:?}");
    assert_eq!(
        (&receipt[0]["messageId"], &receipt[0]["stage"]),
        (&json!(second), &json!("surfaced"))
    );
    assert_eq!(stage(&mut a, &third).await, "surfaced", "surfaced says confirmed as well");
    let peers = a.ask(json!({ "type": "list_peers" })).await;
    let rows = peers["peers"].as_array().expect("rows");
    let row = rows.iter().find(|row| row["displayName"] == "bob").expect("bob");
    assert!(row["surfacedAt"].is_string(), "{row}");
    let heard = plain.so_far().await;
    assert!(
        heard.iter().all(|frame| frame["event"] != "message_receipt"),
        "who asked for no stages hears of none: {heard:?}"
    );
}

#[tokio::test]
async fn a_multicast_is_surfaced_up_to_a_place() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = asking(&node, &alice, &["stages"]).await;
    let mut b = asking(&node, &bob, &["stages"]).await;
    let first = say(&mut a, "*", json!({})).await;
    let second = say(&mut a, "*", json!({ "receipt": "surfaced" })).await;
    let third = say(&mut a, "*", json!({})).await;
    let pushes = [b.message().await, b.message().await, b.message().await];
    b.say(surfaced(&pushes[1])).await;
    assert_eq!(receipts_of(&mut a).await[0]["messageId"], second.as_str());
    assert_eq!(stage(&mut a, &first).await, "surfaced", "what came before it, too");
    assert_eq!(stage(&mut a, &second).await, "surfaced");
    assert_eq!(stage(&mut a, &third).await, "kept");
}

#[tokio::test]
async fn a_late_message_carries_its_age_and_what_is_newer() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let to_bob = bob.pubkey();
    let beside = json!({
        "ttlMs": 3_600_000, "threadId": "thread", "expectsReply": true, "replyToId": "unknown",
    });
    let first = say(&mut a, to_bob.as_str(), beside).await;
    say(&mut a, to_bob.as_str(), json!({})).await;
    say(&mut a, to_bob.as_str(), json!({})).await;
    let mut b = Raw::hello(&node, &bob).await;
    let late = b.message().await;
    assert_eq!(late["messageId"], first.as_str());
    assert_eq!((&late["threadId"], &late["expectsReply"]), (&json!("thread"), &json!(true)));
    assert_eq!((&late["replyToId"], &late["hop"]), (&json!("unknown"), &json!(0)));
    assert!(late["expiresAt"].is_string() && late["seq"].as_i64() > Some(0), "{late}");
    assert!(late["ageMs"].as_i64() >= Some(0), "{late}");
    assert_eq!(late["newerFromSender"], 2);
    assert_eq!(b.message().await["newerFromSender"], 1);
    assert_eq!(b.message().await["newerFromSender"], 0);
    say(&mut a, to_bob.as_str(), json!({})).await;
    let live = b.message().await;
    assert_eq!((&live["newerFromSender"], live.get("expiresAt")), (&json!(0), None));
    assert!(live.get("redelivered").is_none(), "{live}");
    for ttl in [999, 7 * 24 * 3_600_000 + 1] {
        let error = refusal(&mut a, to_bob.as_str(), json!({ "ttlMs": ttl }), "invalid").await;
        assert!(error.contains("ttlMs"), "{error}");
    }
}

#[tokio::test]
async fn what_an_earlier_socket_may_have_had_says_so() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 60_000).await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let key = SecretKey::generate();
    let (mut b, _) = Raw::session(&node, &bob, &key).await;
    let id = say(&mut a, key.public_key().as_str(), json!({})).await;
    let first = b.message().await;
    assert_eq!((&first["messageId"], first.get("redelivered")), (&json!(id), None));
    b.goodbye().await;
    let (mut b, _) = Raw::session(&node, &bob, &key).await;
    let again = b.message().await;
    assert_eq!((&again["messageId"], &again["redelivered"]), (&json!(id), &json!(true)));
}

#[tokio::test]
async fn what_is_over_before_it_is_read_is_not_delivered_and_its_sender_is_told() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = asking(&node, &alice, &["stages"]).await;
    let beside = json!({ "ttlMs": 1_000, "client_message_id": "order" });
    let id = say(&mut a, bob.pubkey().as_str(), beside).await;
    let notice = a.event("message_expired").await;
    let told = json!({
        "messageId": id, "clientMessageId": "order", "targetSpec": bob.pubkey(),
    });
    assert_eq!(notice["eventData"], told);
    a.confirm(&notice).await;
    assert_eq!(stage(&mut a, &id).await, "expired");
    let mut b = Raw::hello(&node, &bob).await;
    let marker = say(&mut a, bob.pubkey().as_str(), json!({})).await;
    assert_eq!(b.message().await["messageId"], marker.as_str());
}

#[tokio::test]
async fn an_end_is_kept_like_mail_for_a_sender_that_is_away() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 100).await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = asking(&node, &alice, &["stages"]).await;
    let id = say(&mut a, bob.pubkey().as_str(), json!({ "ttlMs": 1_000 })).await;
    a.goodbye().await;
    until("it has ended", async || node.audit_count("expired").await == 1).await;
    // A client that asks for nothing gets nothing new; one that does finds it.
    let mut old = Raw::hello(&node, &alice).await;
    assert!(old.so_far().await.iter().all(|frame| frame["event"] != "message_expired"));
    old.goodbye().await;
    let mut a = asking(&node, &alice, &["stages"]).await;
    assert_eq!(a.event("message_expired").await["eventData"]["messageId"], id.as_str());
}

#[tokio::test]
async fn a_sender_takes_back_what_nobody_has() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let withdraw = async |raw: &mut Raw, id: &str| {
        raw.ask(json!({ "type": "withdraw", "messageId": id })).await
    };
    let kept = say(&mut a, bob.pubkey().as_str(), json!({})).await;
    let result = withdraw(&mut a, &kept).await;
    assert_eq!((&result["withdrawn"], &result["stage"]), (&json!(true), &json!("withdrawn")));
    let newer = json!({ "client_message_id": "first" });
    let first = say(&mut a, bob.pubkey().as_str(), newer).await;
    let beside = json!({ "supersedes": "first" });
    let second = say(&mut a, bob.pubkey().as_str(), beside).await;
    assert_eq!(stage(&mut a, &first).await, "withdrawn");
    let mut b = asking(&node, &bob, &["stages"]).await;
    let push = b.message().await;
    assert_eq!((&push["messageId"], &push["supersedes"]), (&json!(second), &json!("first")));
    b.confirm(&push).await;
    until("it is confirmed", async || stage(&mut a, &second).await == "confirmed").await;
    // The client has it: it is told that the sender wants it back.
    let result = withdraw(&mut a, &second).await;
    assert_eq!((&result["withdrawn"], &result["stage"]), (&json!(false), &json!("confirmed")));
    assert_eq!(b.event("message_withdrawn").await["eventData"]["messageId"], second.as_str());
    let error = withdraw(&mut b, &second).await;
    assert_eq!(error["code"], "not_found", "only its sender: {error}");
}

#[tokio::test]
async fn two_that_answer_each_other_always_come_to_an_end() {
    let node = Node::start_with(|config| config.message.hops_max = 5).await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut b = Raw::hello(&node, &bob).await;
    say(&mut a, bob.pubkey().as_str(), json!({})).await;
    let mut hops = 0;
    let error = loop {
        let (answering, to) = if hops % 2 == 0 { (&mut b, &alice) } else { (&mut a, &bob) };
        let push = answering.message().await;
        answering.confirm(&push).await;
        assert_eq!(push["hop"], hops);
        let beside = json!({ "replyToId": push["messageId"] });
        if hops == 5 {
            break refusal(answering, to.pubkey().as_str(), beside, "loop").await;
        }
        say(answering, to.pubkey().as_str(), beside).await;
        hops += 1;
    };
    assert!(error.starts_with("loop: ") && error.contains("person"), "{error}");
    // A new chain begins where a person speaks; a follow-up to one's own is no answer.
    let own = say(&mut a, bob.pubkey().as_str(), json!({})).await;
    assert_eq!(b.message().await["hop"], 0);
    say(&mut a, bob.pubkey().as_str(), json!({ "replyToId": own })).await;
    assert_eq!(b.message().await["hop"], 0);
}

#[tokio::test]
async fn three_in_a_ring_come_to_an_end_over_groups_too() {
    let node = Node::start_with(|config| config.message.hops_max = 4).await;
    let mut ring = Vec::new();
    for name in ["alice", "bob", "carol"] {
        ring.push(Raw::hello(&node, &node.member(name).await).await);
    }
    say(&mut ring[0], "*", json!({})).await;
    for hop in 0..=4_usize {
        let push = ring[(hop + 1) % 3].message().await;
        assert_eq!(push["hop"], hop);
        // The third hears of each as well.
        ring[(hop + 2) % 3].message().await;
        let beside = json!({ "replyToId": push["messageId"] });
        let answering = &mut ring[(hop + 1) % 3];
        if hop == 4 {
            assert!(refusal(answering, "*", beside, "loop").await.starts_with("loop: "));
        } else {
            say(answering, "*", beside).await;
        }
    }
}

#[tokio::test]
async fn answers_that_come_by_the_clock_come_to_an_end_too() {
    let node = Node::start_with(|config| config.message.hops_max = 1).await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut b = Raw::hello(&node, &bob).await;
    say(&mut a, bob.pubkey().as_str(), json!({})).await;
    let answer = |push: &Value, to: &Member| {
        json!({
            "type": "schedule", "to": to.pubkey(), "message": "m", "deliverAt": 0,
            "replyToId": push["messageId"],
        })
    };
    let first = b.message().await;
    assert_eq!(b.ask(answer(&first, &alice)).await["type"], "scheduled_ack");
    let second = a.message().await;
    assert_eq!((&second["hop"], &second["replyToId"]), (&json!(1), &first["messageId"]));
    let refused = a.ask(answer(&second, &bob)).await;
    assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!("loop")));
}

#[tokio::test]
async fn a_client_that_holds_by_itself_gets_what_its_session_is_too_busy_for() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut b = asking(&node, &bob, &["stages", "holds"]).await;
    b.ask(json!({ "type": "set_status", "status": "working" })).await;
    let id = say(&mut a, bob.pubkey().as_str(), json!({ "priority": "low" })).await;
    assert_eq!(b.message().await["messageId"], id.as_str());
}

#[tokio::test]
async fn the_status_of_a_message_to_twenty_says_who_is_away_and_who_is_busy() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 60_000).await;
    let mut a = Raw::hello(&node, &node.member("alice").await).await;
    let mut peers = Vec::new();
    for number in 0..20 {
        let mut peer = Raw::hello(&node, &node.member(&format!("peer {number}")).await).await;
        peer.ask(json!({ "type": "join_group", "name": "team" })).await;
        if number < 2 {
            peer.ask(json!({ "type": "set_status", "status": "working" })).await;
        }
        peers.push(peer);
    }
    let gone = peers.split_off(17);
    let id = say(&mut a, "@team", json!({})).await;
    for mut peer in gone {
        peer.message().await;
        peer.goodbye().await;
    }
    for peer in &mut peers[..10] {
        let push = peer.message().await;
        peer.confirm(&push).await;
    }
    for peer in &mut peers[..5] {
        peer.say(json!({
            "type": "client_ack", "brokerMessageId": id, "stage": "surfaced",
        }))
        .await;
    }
    let told = async |a: &mut Raw, field: &str, word: &str| {
        let status = a.ask(json!({ "type": "message_status", "messageId": id })).await;
        assert_eq!(status["delivered"], false, "{status}");
        let recipients = status["recipients"].as_array().expect("recipients");
        assert_eq!(recipients.len(), 20);
        recipients.iter().filter(|one| one[field] == word).count()
    };
    for (field, word, count) in [
        ("peerStatus", "away", 3),
        ("peerStatus", "working", 2),
        ("peerStatus", "idle", 15),
        ("stage", "surfaced", 5),
        ("stage", "confirmed", 5),
        ("stage", "kept", 10),
        ("status", "delivered", 10),
        ("status", "held", 7),
        ("status", "disconnected", 3),
    ] {
        let what = format!("{count} of {field} {word}");
        until(&what, async || told(&mut a, field, word).await == count).await;
    }
}

#[tokio::test]
async fn stages_are_true_across_nodes() {
    let cluster = Cluster::start(2).await;
    let (here, there) = (&cluster.nodes[0], &cluster.nodes[1]);
    let (alice, bob) = (here.member("alice").await, here.member("bob").await);
    let mut a = asking(here, &alice, &["stages"]).await;
    let mut b = asking(there, &bob, &["stages"]).await;
    let beside = json!({ "receipt": "surfaced" });
    let direct = say(&mut a, bob.pubkey().as_str(), beside.clone()).await;
    let many = say(&mut a, "*", beside).await;
    let pushes = [b.message().await, b.message().await];
    for push in &pushes {
        b.say(surfaced(push)).await;
    }
    let mut told = receipts_of(&mut a).await;
    told.extend(receipts_of(&mut a).await);
    let ids: Vec<&Value> = told.iter().map(|receipt| &receipt["messageId"]).collect();
    assert_eq!(ids, [&json!(direct), &json!(many)]);
    for id in [&direct, &many] {
        assert_eq!(stage(&mut a, id).await, "surfaced");
    }
    let expiring = say(&mut a, "*", json!({ "ttlMs": 60_000 })).await;
    assert_eq!(b.message().await["messageId"], expiring.as_str());
    let withdrawn = a.ask(json!({ "type": "withdraw", "messageId": expiring })).await;
    assert_eq!(withdrawn["withdrawn"], true, "{withdrawn}");
    assert_eq!(b.event("message_withdrawn").await["eventData"]["messageId"], expiring.as_str());
}
