//! Messages that are sent later, as members find them on one node.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claudemesh_broker::audit::AuditEvent;
use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::store::{Author, Moderation, NewSchedule};
use serde_json::{Value, json};

use crate::harness::{Node, Raw, until};

fn in_ms(ms: i64) -> i64 {
    Timestamp::now().plus_ms(ms).as_ms()
}

#[tokio::test]
async fn a_message_is_scheduled_listed_cancelled_and_sent_as_recorded() {
    let node = Node::start().await;
    let mut a = Raw::hello(&node, &node.owner).await;
    let bob = node.member("bob").await;
    let mut b = Raw::hello(&node, &bob).await;
    let later = in_ms(3_600_000);
    let ask =
        json!({ "type": "schedule", "to": bob.pubkey(), "message": "hi", "deliverAt": later });
    let ack = a.ask(ask).await;
    let id = ack["scheduledId"].clone();
    assert_eq!(
        (&ack["type"], &ack["deliverAt"], ack.get("cron")),
        (&json!("scheduled_ack"), &json!(later), None)
    );
    let cron = json!({ "type": "schedule", "to": "*", "message": "c", "deliverAt": 0, "cron": "0 9 * * 1" });
    let ack = a.ask(cron).await;
    assert_eq!(ack["cron"], "0 9 * * 1");
    let first = Timestamp::from_ms(ack["deliverAt"].as_i64().expect("an instant"));
    assert!(first.to_string().ends_with("T09:00:00.000Z"), "{first}");
    let list = a.ask(json!({ "type": "list_scheduled" })).await;
    // Those of one millisecond have no order.
    let mut rows = list["messages"].as_array().expect("rows").clone();
    rows.sort_by_key(|row| row["id"] != id);
    let recorded = json!({
        "id": id, "to": bob.pubkey(), "message": "hi", "deliverAt": later,
        "createdAt": rows[0]["createdAt"],
    });
    assert_eq!((rows.len(), &rows[0]), (2, &recorded));
    assert_eq!(rows[1]["firedCount"], 0);
    assert_eq!(b.ask(json!({ "type": "list_scheduled" })).await["messages"], json!([]));
    for (raw, ok) in [(&mut b, false), (&mut a, true)] {
        let ack = raw.ask(json!({ "type": "cancel_scheduled", "scheduledId": id })).await;
        let expected = json!({ "type": "cancel_scheduled_ack", "scheduledId": id, "ok": ok, "_reqId": ack["_reqId"] });
        assert_eq!(ack, expected);
    }
    let ask = json!({
        "type": "schedule", "to": bob.pubkey(), "message": "grüße", "deliverAt": in_ms(300),
        "subtype": "reminder",
    });
    a.ask(ask).await;
    // Who scheduled it need not be there.
    a.goodbye().await;
    let push = b.message().await;
    assert_eq!(push["ciphertext"], STANDARD.encode("grüße"));
    assert_eq!((&push["nonce"], &push["priority"]), (&json!(""), &json!("now")));
    assert_eq!((&push["subtype"], push.get("late")), (&json!("reminder"), None));
    assert_eq!(push["senderPubkey"], json!(node.owner.pubkey()));
    assert_eq!(push["senderName"], "owner");
    assert_eq!(node.audit_count("message_sent").await, 1);
    assert_eq!(node.audit_count("schedule_created").await, 3);
    assert_eq!(node.audit_count("schedule_cancelled").await, 1);
    assert!(node.audit_is_valid().await);
}

#[tokio::test]
async fn a_message_is_taken_back_by_the_beginning_of_its_id_that_clients_show() {
    let node = Node::start().await;
    let mut a = Raw::hello(&node, &node.owner).await;
    let mut b = Raw::hello(&node, &node.member("bob").await).await;
    let ask =
        json!({ "type": "schedule", "to": "*", "message": "hi", "deliverAt": in_ms(3_600_000) });
    let id = a.ask(ask).await["scheduledId"].as_str().expect("an id").to_owned();
    for (raw, ok) in [(&mut b, false), (&mut a, true)] {
        let ack = raw.ask(json!({ "type": "cancel_scheduled", "scheduledId": &id[..8] })).await;
        assert_eq!(ack["ok"], ok, "only its own: {ack}");
    }
    assert_eq!(a.ask(json!({ "type": "list_scheduled" })).await["messages"], json!([]));
}

#[tokio::test]
async fn what_is_past_is_sent_at_once_to_many_and_to_oneself() {
    let node = Node::start().await;
    let mut a = Raw::hello(&node, &node.owner).await;
    let mut b = Raw::hello(&node, &node.member("bob").await).await;
    for past in [0, -1, i64::MIN] {
        a.ask(json!({ "type": "schedule", "to": "@all", "message": "m", "deliverAt": past })).await;
        let push = b.message().await;
        assert_eq!(push.get("late"), None);
    }
    let own = json!({
        "type": "schedule", "to": node.owner.pubkey(), "message": "note", "deliverAt": 0,
    });
    assert_eq!(a.ask(own).await["type"], "scheduled_ack");
    assert_eq!(a.message().await["ciphertext"], STANDARD.encode("note"));
}

#[tokio::test]
async fn what_is_sealed_comes_as_it_was_sealed_and_is_not_listed() {
    let node = Node::start().await;
    let mut a = Raw::hello(&node, &node.owner).await;
    let bob = node.member("bob").await;
    let sealed = |deliver_at: i64| {
        json!({
            "type": "schedule", "to": bob.pubkey(), "nonce": "bm9uY2U=", "ciphertext": "c2VhbA==",
            "deliverAt": deliver_at,
        })
    };
    a.ask(sealed(in_ms(3_600_000))).await;
    let row = a.ask(json!({ "type": "list_scheduled" })).await["messages"][0].clone();
    assert_eq!((&row["message"], &row["sealed"]), (&json!(""), &json!(true)));
    assert!(!row.to_string().contains("c2VhbA"), "{row}");
    a.ask(sealed(0)).await;
    // Whoever comes later finds it.
    until("it is sent", async || node.audit_count("message_sent").await == 1).await;
    let mut b = Raw::hello(&node, &bob).await;
    let push = b.message().await;
    assert_eq!((&push["nonce"], &push["ciphertext"]), (&json!("bm9uY2U="), &json!("c2VhbA==")));
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let node = Node::start().await;
    let mut a = Raw::hello(&node, &node.owner).await;
    let (mallory, key) = (node.member("mallory").await, "ab".repeat(32));
    for (fields, code) in [
        (json!({ "to": "*", "message": "m", "cron": "x" }), "invalid_cron"),
        (json!({ "to": "*", "message": "m", "cron": "0 0 0 * * *" }), "invalid_cron"),
        (json!({ "to": "*", "message": "m", "cron": "0 0 31 2 *" }), "invalid_cron"),
        (json!({ "to": "*", "message": "m", "cron": "*/0 * * * *" }), "invalid_cron"),
        (
            json!({ "to": "*", "message": "m", "cron": "* * * * *", "timezone": "Nowhere" }),
            "invalid_argument",
        ),
        (json!({ "to": "*", "message": "m" }), "invalid_argument"),
        (
            json!({ "to": "*", "message": "m", "deliverAt": in_ms(367 * 24 * 3_600_000) }),
            "invalid_argument",
        ),
        (json!({ "to": "*", "deliverAt": 1 }), "invalid_argument"),
        (
            json!({ "to": "*", "message": "m", "ciphertext": "m", "deliverAt": 1 }),
            "invalid_argument",
        ),
        (json!({ "to": "", "message": "m", "deliverAt": 1 }), "invalid_argument"),
        (json!({ "to": "*", "message": "m\0", "deliverAt": 1 }), "invalid_argument"),
        (
            json!({ "to": "*", "message": "x".repeat(32 * 1024 + 1), "deliverAt": 1 }),
            "invalid_argument",
        ),
        (
            json!({ "to": "*", "message": "m", "deliverAt": 1, "subtype": "system" }),
            "invalid_argument",
        ),
        (json!({ "to": key, "message": "m", "deliverAt": 1 }), "no_peer"),
        (json!({ "to": "#topic", "message": "m", "deliverAt": 1 }), "topic"),
    ] {
        let mut ask = fields.clone();
        ask["type"] = json!("schedule");
        assert_eq!(a.ask(ask.clone()).await["code"], code, "{fields}");
        a.say(ask).await;
    }
    let cron =
        json!({ "type": "schedule", "to": "*", "message": "c", "deliverAt": 0, "cron": "x" });
    assert_eq!(a.ask(cron).await["message"], "Invalid cron expression: x");
    assert_eq!(a.so_far().await, Vec::<Value>::new(), "without an id there is no error");
    assert_eq!(a.ask(json!({ "type": "list_scheduled" })).await["messages"], json!([]));
    let (owner, key) = (&node.owner.id, mallory.pubkey());
    node.store.members.set_grant(owner, key.as_str(), Some(&[])).await.expect("a member");
    let mut m = Raw::hello(&node, &mallory).await;
    let to_owner =
        json!({ "type": "schedule", "to": node.owner.pubkey(), "message": "m", "deliverAt": 1 });
    until("the grant is known", async || m.ask(to_owner.clone()).await["code"] == json!("grants"))
        .await;
}

#[tokio::test]
async fn after_a_stop_a_message_comes_late_and_a_banned_members_not_at_all() {
    let mut node = Node::start().await;
    let (bob, eve) = (node.member("bob").await, node.member("eve").await);
    let author = |member: &crate::harness::Member| Author {
        mesh: node.mesh.clone(),
        member: member.id.clone(),
        member_name: member.name.clone(),
        session_name: member.name.clone(),
        presence: "p".into(),
    };
    let (of_owner, of_eve) = (author(&node.owner), author(&eve));
    node.stop().await;
    let then = Timestamp::now().plus_ms(-600_000);
    let schedule = async |author: &Author, id: &str, cron: Option<&str>| {
        let new = NewSchedule {
            id: id.to_owned(),
            to: bob.pubkey().to_string(),
            message: id.to_owned(),
            nonce: None,
            deliver_at: then.plus_ms(60_000),
            cron: cron.map(str::to_owned),
            timezone: None,
            subtype: None,
            reply_to_id: None,
            hop: 0,
        };
        node.store.schedules.schedule(then, author, &new).await.expect("room");
    };
    schedule(&of_owner, "once", None).await;
    schedule(&of_owner, "hourly", Some("0 * * * *")).await;
    schedule(&of_eve, "banned", None).await;
    let ban = Moderation {
        mesh: node.mesh.clone(),
        member: eve.id.clone(),
        actor: None,
        actor_name: None,
        audit: AuditEvent::MemberBanned { target: "eve".to_owned(), target_pubkey: eve.pubkey() },
    };
    assert!(node.store.bans.ban(Timestamp::now(), &ban).await.expect("the store answers"));
    node.restart().await;
    let mut b = Raw::hello(&node, &bob).await;
    let mut heard = Vec::new();
    for _ in 0..2 {
        let push = b.message().await;
        heard.push((push["ciphertext"].clone(), push.get("late").cloned()));
        b.confirm(&push).await;
    }
    heard.sort_by_key(|(text, _)| text.to_string());
    let text = |text: &str| json!(STANDARD.encode(text));
    let mut expected = vec![(text("once"), Some(json!(true))), (text("hourly"), None)];
    expected.sort_by_key(|(text, _)| text.to_string());
    assert_eq!(heard, expected, "what repeats comes once, and goes on");
    until("the other is dropped", async || node.audit_count("schedule_dropped").await == 1).await;
    assert_eq!(node.audit_count("message_sent").await, 2);
    let mut a = Raw::hello(&node, &node.owner).await;
    let left = a.ask(json!({ "type": "list_scheduled" })).await["messages"].clone();
    assert_eq!((left.as_array().map(Vec::len), &left[0]["firedCount"]), (Some(1), &json!(1)));
    assert!(node.audit_is_valid().await);
}
