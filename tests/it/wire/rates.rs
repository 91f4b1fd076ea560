//! How much may be sent to one peer and to many, what a refused send is told, and what is
//! left.

use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::config::Config;
use claudemesh_broker::store::Role;
use serde_json::{Value, json};

use crate::harness::cluster::Setup;
use crate::harness::{Member, Node, Raw, http, until};

/// Sends per minute that do not come back while a test runs.
const NEXT_TO_NOTHING: u32 = 1;
const PAIR_BURST: usize = 6;
const MULTICAST_BURST: usize = 4;

/// A node of few sends: so many to one peer, so many to many.
async fn node(adjust: impl FnOnce(&mut Config)) -> Node {
    Node::start_with(|config| {
        let message = &mut config.message;
        (message.send_rate_per_minute, message.send_burst) = (NEXT_TO_NOTHING, 1_000);
        (message.pair_rate_per_minute, message.pair_burst) = (NEXT_TO_NOTHING, PAIR_BURST as u32);
        message.multicast_rate_per_minute = NEXT_TO_NOTHING;
        message.multicast_burst = MULTICAST_BURST as u32;
        adjust(config);
    })
    .await
}

/// Sends until it is refused; how often it was not, and what it was told then.
async fn send_until_refused(raw: &mut Raw, target: &str, priority: &str) -> (usize, Value) {
    for number in 0..200 {
        let ack = raw.send(target, priority, "bXNn").await;
        if ack["queued"] == false {
            return (number, ack);
        }
    }
    panic!("never refused");
}

/// What a send over that limit is told.
fn assert_over(ack: &Value, scope: &str) {
    assert_eq!((&ack["code"], &ack["scope"]), (&json!("rate_limit"), &json!(scope)), "{ack}");
    assert_eq!((&ack["limit"], &ack["messageId"]), (&json!(NEXT_TO_NOTHING), &json!("")), "{ack}");
    let wait = ack["retryAfterMs"].as_u64().expect("a time");
    assert!((1..=60_000).contains(&wait), "one comes a minute: {ack}");
    let text = ack["error"].as_str().expect("a sentence");
    assert!(text.starts_with("rate_limit: max 1 msg/min"), "{ack}");
}

async fn budget(raw: &mut Raw, to: Option<&str>) -> Value {
    raw.ask(json!({ "type": "budget", "to": to })).await
}

#[tokio::test]
async fn a_pair_has_a_rate_of_its_own_and_its_members_go_on_with_others() {
    let node = node(|_| {}).await;
    let (alice, bob, carol) =
        (node.member("alice").await, node.member("bob").await, node.member("carol").await);
    let mut a = Raw::hello(&node, &alice).await;
    let (mut session, _) = Raw::session(&node, &alice, &SecretKey::generate()).await;
    let (taken, ack) = send_until_refused(&mut a, bob.pubkey().as_str(), "next").await;
    assert_eq!(taken, PAIR_BURST);
    assert_over(&ack, "pair");
    let text = "rate_limit: max 1 msg/min to one member (burst 6) — slow down";
    assert_eq!(ack["error"], text);
    let ack = session.send(bob.pubkey().as_str(), "next", "bXNn").await;
    assert_over(&ack, "pair");
    session.sent(carol.pubkey().as_str(), "next", "bXNn").await;
    a.sent("*", "next", "bXNn").await;
    // The other direction is another pair.
    let mut b = Raw::hello(&node, &bob).await;
    b.sent(alice.pubkey().as_str(), "next", "bXNn").await;
    let metrics = http::get(&node, "/metrics").await.body;
    assert!(metrics.contains("broker_messages_rejected_total{reason=\"rate_limit\"} 2"));
}

#[tokio::test]
async fn ones_own_sessions_are_a_pair() {
    let node = node(|_| {}).await;
    let alice = node.member("alice").await;
    let keys = [SecretKey::generate(), SecretKey::generate()];
    let (mut one, _) = Raw::session(&node, &alice, &keys[0]).await;
    let (mut two, _) = Raw::session(&node, &alice, &keys[1]).await;
    one.sent(keys[1].public_key().as_str(), "next", "bXNn").await;
    let (taken, ack) = send_until_refused(&mut two, keys[0].public_key().as_str(), "next").await;
    assert_eq!(taken, PAIR_BURST - 1, "both count");
    assert_over(&ack, "pair");
}

#[tokio::test]
async fn a_key_that_only_the_store_remembers_counts_towards_its_members_pair() {
    let node = node(|config| config.presence.lease_grace_ms = 0).await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let key = SecretKey::generate();
    let mut a = Raw::hello(&node, &alice).await;
    let (b, _) = Raw::session(&node, &bob, &key).await;
    b.goodbye().await;
    until("he has left", async || {
        let listed = a.ask(json!({ "type": "list_peers" })).await;
        listed["peers"].as_array().is_some_and(|rows| rows.len() == 1)
    })
    .await;
    a.sent(bob.pubkey().as_str(), "next", "bXNn").await;
    let (taken, ack) = send_until_refused(&mut a, key.public_key().as_str(), "next").await;
    assert_eq!(taken, PAIR_BURST - 1);
    assert_over(&ack, "pair");
}

#[tokio::test]
async fn messages_to_many_have_a_rate_of_their_own() {
    let node = node(|_| {}).await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    a.ask(json!({ "type": "topic_create", "name": "t" })).await;
    for target in ["*", "@group", "#t"] {
        a.sent(target, "next", "bXNn").await;
    }
    let (taken, ack) = send_until_refused(&mut a, "@all", "now").await;
    assert_eq!(taken, MULTICAST_BURST - 3);
    assert_over(&ack, "multicast");
    a.sent(bob.pubkey().as_str(), "next", "bXNn").await;
}

// --- loops ---------------------------------------------------------------------------------

/// Has each answer what it hears, around the ring, until one may not; how many were sent.
async fn goes_round(ring: &mut [(Member, Raw)]) -> (usize, Value) {
    let first = ring[1].0.pubkey();
    ring[0].1.sent(first.as_str(), "next", "cGluZw==").await;
    for sent in 1..1_000 {
        let at = sent % ring.len();
        let next = ring[(at + 1) % ring.len()].0.pubkey();
        let raw = &mut ring[at].1;
        let push = raw.message().await;
        raw.confirm(&push).await;
        let ack = raw.send(next.as_str(), "next", "cG9uZw==").await;
        if ack["queued"] == false {
            return (sent, ack);
        }
    }
    panic!("they answer each other for ever");
}

async fn ring(node: &Node, names: &[&str]) -> Vec<(Member, Raw)> {
    let mut ring = Vec::new();
    for name in names {
        let member = node.member(name).await;
        let raw = Raw::hello(node, &member).await;
        ring.push((member, raw));
    }
    ring
}

#[tokio::test]
async fn two_that_always_answer_each_other_are_slowed_and_reach_everybody_else() {
    let node = node(|_| {}).await;
    let mut pair = ring(&node, &["alice", "bob"]).await;
    let (sent, ack) = goes_round(&mut pair).await;
    assert_eq!(sent, 2 * PAIR_BURST);
    assert_over(&ack, "pair");
    let carol = node.member("carol").await;
    let mut c = Raw::hello(&node, &carol).await;
    for (member, raw) in &mut pair {
        raw.sent(carol.pubkey().as_str(), "next", "aGVscA==").await;
        c.sent(member.pubkey().as_str(), "next", "c3RvcA==").await;
        assert_eq!(raw.message().await["ciphertext"], "c3RvcA==");
    }
}

#[tokio::test]
async fn three_in_a_ring_are_slowed() {
    let node = node(|_| {}).await;
    let mut three = ring(&node, &["alice", "bob", "carol"]).await;
    let (sent, ack) = goes_round(&mut three).await;
    assert_eq!(sent, 3 * PAIR_BURST);
    assert_over(&ack, "pair");
}

#[tokio::test]
async fn they_go_on_at_the_pace_that_the_pair_has() {
    let node = node(|config| config.message.pair_rate_per_minute = 300).await;
    let mut pair = ring(&node, &["alice", "bob"]).await;
    let (_, mut ack) = goes_round(&mut pair).await;
    let target = pair[1].0.pubkey();
    let raw = &mut pair[0].1;
    for _ in 0..5 {
        while ack["queued"] == false {
            assert_eq!(ack["scope"], "pair", "{ack}");
            let wait = ack["retryAfterMs"].as_u64().expect("a time");
            assert!(wait <= 200, "five come in a second: {ack}");
            tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
            ack = raw.send(target.as_str(), "next", "bXNn").await;
        }
        ack = raw.send(target.as_str(), "next", "bXNn").await;
    }
}

// --- what gets out all the same ------------------------------------------------------------

#[tokio::test]
async fn that_one_is_stuck_gets_out_to_an_admin_when_a_rate_is_used_up() {
    let node = node(|config| config.message.send_burst = 10).await;
    let (alice, admin) = (node.member("alice").await, node.member_as("adam", Role::Admin).await);
    let bob = node.member("bob").await;
    let mut a = Raw::hello(&node, &alice).await;
    let (_, ack) = send_until_refused(&mut a, admin.pubkey().as_str(), "now").await;
    assert_over(&ack, "pair");
    let mut o = Raw::hello(&node, &node.owner).await;
    assert_eq!(o.ask(json!({ "type": "set_status", "status": "working" })).await["type"], "ack");
    // Alice's own rate is used up as well.
    let mut b = Raw::hello(&node, &bob).await;
    let (_, ack) = send_until_refused(&mut b, alice.pubkey().as_str(), "next").await;
    assert_over(&ack, "pair");
    let (_, ack) = send_until_refused(&mut b, node.owner.pubkey().as_str(), "next").await;
    assert_over(&ack, "member");
    for number in 0..3 {
        b.sent(node.owner.pubkey().as_str(), "now", "c3R1Y2s=").await;
        let push = o.hear_where("push", |push| push["ciphertext"] == "c3R1Y2s=").await;
        assert_eq!(push["senderName"], "bob", "{number}");
    }
    let ack = b.send(node.owner.pubkey().as_str(), "now", "c3R1Y2s=").await;
    assert_over(&ack, "member");
    let ack = b.send(alice.pubkey().as_str(), "now", "c3R1Y2s=").await;
    assert_over(&ack, "member");
    // And everybody sees that it is stuck.
    let set = b.ask(json!({ "type": "set_status", "status": "dnd" })).await;
    assert_eq!(set["type"], "ack", "{set}");
}

#[tokio::test]
async fn a_send_that_is_repeated_is_answered_as_ever_and_counts_once() {
    let node = node(|_| {}).await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let named = |target: &str, name: &str| {
        json!({
            "type": "send", "id": name, "targetSpec": target, "priority": "next",
            "nonce": "bg==", "ciphertext": "eA==", "client_message_id": name,
        })
    };
    for (target, burst) in
        [(bob.pubkey().to_string(), PAIR_BURST), ("*".to_owned(), MULTICAST_BURST)]
    {
        let mut ids = Vec::new();
        for number in 0..burst {
            let send = named(&target, &format!("{target} {number}"));
            for _ in 0..2 {
                a.say(send.clone()).await;
                let ack = a.hear("ack").await;
                assert_eq!(ack["queued"], true, "{number}: {ack}");
                ids.push(ack["messageId"].clone());
            }
            assert_eq!(ids[2 * number], ids[2 * number + 1]);
        }
        a.say(named(&target, &format!("{target} new"))).await;
        assert_eq!(a.hear("ack").await["code"], "rate_limit");
        for number in 0..burst {
            a.say(named(&target, &format!("{target} {number}"))).await;
            let ack = a.hear("ack").await;
            assert_eq!((&ack["queued"], &ack["messageId"]), (&json!(true), &ids[2 * number]));
            assert!(ack.get("code").is_none(), "{ack}");
        }
    }
    assert_eq!(node.audit_count("message_sent").await, (PAIR_BURST + MULTICAST_BURST) as i64);
}

#[tokio::test]
async fn posts_by_a_key_count_as_its_makers_multicasts_and_one_that_was_posted_is_none() {
    let node = node(|_| {}).await;
    let alice = node.member("alice").await;
    let mut a = Raw::hello(&node, &alice).await;
    a.ask(json!({ "type": "topic_create", "name": "t" })).await;
    let ask = json!({ "type": "apikey_create", "label": "k", "capabilities": ["send"] });
    let made = a.ask(ask).await;
    let shown = format!("Bearer {}", made["secret"].as_str().expect("a secret"));
    let headers = [("authorization", shown.as_str()), ("content-type", "application/json")];
    let post = async |name: &str| {
        let body = json!({
            "topic": "t", "ciphertext": "eA==", "nonce": "AAAA", "client_message_id": name,
        });
        http::request(&node, "POST", "/api/v1/messages", &headers, &body.to_string()).await
    };
    a.sent("*", "next", "bXNn").await;
    let mut ids = Vec::new();
    for number in 1..MULTICAST_BURST {
        let reply = post(&number.to_string()).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        ids.push(reply.json()["messageId"].clone());
    }
    let reply = post("one more").await;
    assert_eq!((reply.status, &reply.json()["code"]), (429, &json!("error.rate_limit")));
    let seconds: u64 = reply.header("retry-after").expect("when").parse().expect("seconds");
    assert!((1..=60).contains(&seconds), "{seconds}");
    assert_over(&a.send("#t", "next", "bXNn").await, "multicast");
    for (number, id) in (1..).zip(&ids) {
        let reply = post(&number.to_string()).await;
        assert_eq!((reply.status, &reply.json()["messageId"]), (200, id));
    }
}

#[tokio::test]
async fn what_is_refused_for_another_reason_counts_towards_no_pair() {
    let node = node(|_| {}).await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    for _ in 0..3 * PAIR_BURST {
        let ack = a.send(bob.pubkey().as_str(), "next", "a\0b").await;
        assert_eq!(ack["code"], "invalid", "{ack}");
    }
    let (taken, _) = send_until_refused(&mut a, bob.pubkey().as_str(), "next").await;
    assert_eq!(taken, PAIR_BURST);
}

#[tokio::test]
async fn nought_turns_a_limit_off_and_a_members_nought_all_of_them() {
    let off: [fn(&mut Config); 2] = [
        |config| {
            config.message.pair_rate_per_minute = 0;
            config.message.multicast_rate_per_minute = 0;
        },
        |config| config.message.send_rate_per_minute = 0,
    ];
    for turn_off in off {
        let node = node(turn_off).await;
        let (alice, bob) = (node.member("alice").await, node.member("bob").await);
        let mut a = Raw::hello(&node, &alice).await;
        for _ in 0..2 * PAIR_BURST {
            a.sent(bob.pubkey().as_str(), "next", "bXNn").await;
            a.sent("*", "next", "bXNn").await;
        }
        let told = budget(&mut a, Some(bob.pubkey().as_str())).await;
        for limit in ["pair", "multicast"] {
            assert!(told.get(limit).is_none(), "{told}");
        }
    }
}

// --- what is told --------------------------------------------------------------------------

#[tokio::test]
async fn every_refusal_of_a_send_has_a_code_and_what_is_taken_has_none() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let whole = |target: &str, text: &str| {
        json!({
            "type": "send", "id": "s", "targetSpec": target, "priority": "next", "nonce": "bg==",
            "ciphertext": text,
        })
    };
    let mut odd = whole("*", "eA==");
    odd["priority"] = json!("soon");
    for (send, code) in [
        (whole(&"ab".repeat(32), "eA=="), "no_peer"),
        (whole("nobody", "eA=="), "no_peer"),
        (whole("#nothing", "eA=="), "topic"),
        (whole("*", "a\0b"), "invalid"),
        (odd, "invalid"),
    ] {
        a.say(send).await;
        let ack = a.hear("ack").await;
        assert_eq!((&ack["queued"], &ack["code"]), (&json!(false), &json!(code)), "{ack}");
        assert!(ack["error"].is_string() && ack.get("retryAfterMs").is_none(), "{ack}");
    }
    let ack = a.send(bob.pubkey().as_str(), "next", "eA==").await;
    let fields: Vec<_> = ack.as_object().expect("an object").keys().cloned().collect();
    assert_eq!(fields, ["id", "messageId", "queued", "type"], "as it always was");
}

#[tokio::test]
async fn who_asks_for_its_budget_is_told_what_is_left_of_each_limit() {
    let node = node(|config| {
        let message = &mut config.message;
        (message.request_rate_per_minute, message.request_burst) = (NEXT_TO_NOTHING, 6_000);
    })
    .await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    a.sent(bob.pubkey().as_str(), "next", "bXNn").await;
    a.sent("*", "next", "bXNn").await;
    let told = budget(&mut a, Some(bob.pubkey().as_str())).await;
    assert_eq!(told["type"], "budget_result");
    for (limit, burst, left) in [
        ("member", 1_000, 998),
        ("pair", PAIR_BURST, PAIR_BURST - 1),
        ("multicast", MULTICAST_BURST, MULTICAST_BURST - 1),
    ] {
        let allowed = &told[limit];
        assert_eq!((&allowed["burst"], &allowed["left"]), (&json!(burst), &json!(left)), "{told}");
        assert_eq!(allowed["perMinute"], NEXT_TO_NOTHING);
        assert!(allowed["fullInMs"].as_u64() > Some(0), "{told}");
        assert!(allowed.get("nextInMs").is_none(), "some are left: {told}");
    }
    let urgent = json!({ "perMinute": 6, "burst": 3, "left": 3, "fullInMs": 0 });
    assert_eq!(told["urgent"], urgent);
    assert!(told["requests"]["left"].as_u64() > Some(1_000), "{told}");
    let max = 256 << 20;
    assert_eq!(told["waiting"], json!({ "bytes": 4_096, "bytesMax": max }), "one waits");
    assert!(told.get("stale").is_none(), "{told}");

    send_until_refused(&mut a, bob.pubkey().as_str(), "next").await;
    let told = budget(&mut a, Some(bob.pubkey().as_str())).await;
    assert_eq!(told["pair"]["left"], 0);
    assert!(told["pair"]["nextInMs"].as_u64() > Some(0), "{told}");
    // A group is no pair; asked for nobody, none is told.
    for to in [Some("@group"), Some("*"), None] {
        let told = budget(&mut a, to).await;
        assert!(told.get("pair").is_none() && told["member"]["left"].is_u64(), "{told}");
    }
    for (to, code) in [("nobody", "no_peer"), ("a\0b", "invalid_argument")] {
        assert_eq!(budget(&mut a, Some(to)).await["code"], code);
    }
}

#[tokio::test]
async fn a_list_says_since_when_each_does_what_it_does() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let (mut a, mut b) = (Raw::hello(&node, &alice).await, Raw::hello(&node, &bob).await);
    let since = async |a: &mut Raw| {
        let listed = a.ask(json!({ "type": "list_peers" })).await;
        let rows = listed["peers"].as_array().expect("rows").clone();
        let row = rows.iter().find(|row| row["displayName"] == "bob").expect("he is here");
        assert!(row.get("stale").is_none(), "{row}");
        (row["status"].clone(), row["statusSince"].as_str().expect("an instant").to_owned())
    };
    let mut say = async |status: &str| {
        b.ask(json!({ "type": "set_status", "status": status })).await;
    };
    let (status, began) = since(&mut a).await;
    assert_eq!(status, "idle");
    say("idle").await;
    assert_eq!(since(&mut a).await.1, began, "it was idle before");
    say("working").await;
    let (status, works) = since(&mut a).await;
    assert_eq!(status, "working");
    assert!(works >= began);
    for _ in 0..3 {
        say("working").await;
        assert_eq!(since(&mut a).await.1, works, "however often it says so");
    }
}

// --- over several nodes --------------------------------------------------------------------

#[tokio::test]
async fn the_limits_of_a_pair_and_of_multicasts_are_those_of_all_nodes_together() {
    const BURST: usize = 9;
    let cluster = Setup::new(3)
        .set("SEND_RATE_PER_MINUTE", 1)
        .set("SEND_BURST", 1_000)
        .set("PAIR_RATE_PER_MINUTE", 1)
        .set("PAIR_BURST", BURST)
        .set("MULTICAST_RATE_PER_MINUTE", 1)
        .set("MULTICAST_BURST", BURST)
        .start()
        .await;
    let (alice, bob) =
        (cluster.nodes[0].member("alice").await, cluster.nodes[0].member("bob").await);
    let mut sockets = Vec::new();
    for node in &cluster.nodes {
        sockets.push(Raw::session(node, &alice, &SecretKey::generate()).await.0);
    }
    for (target, scope) in [(bob.pubkey().as_str(), "pair"), ("*", "multicast")] {
        let sends = sockets.iter_mut().map(async |raw| {
            let mut accepted = 0;
            for _ in 0..BURST {
                let ack = raw.send(target, "next", "bXNn").await;
                if ack["queued"] == true {
                    accepted += 1;
                } else {
                    assert_over(&ack, scope);
                }
            }
            accepted
        });
        let accepted: usize = futures_util::future::join_all(sends).await.into_iter().sum();
        assert_eq!(accepted, BURST, "{scope}");
    }
    let left = budget(&mut sockets[1], Some(bob.pubkey().as_str())).await;
    assert_eq!((&left["pair"]["left"], &left["multicast"]["left"]), (&json!(0), &json!(0)));
}

#[tokio::test]
async fn what_a_node_cannot_vouch_for_it_lists_as_stale() {
    let cluster = Setup::new(2).set("LEASE_GRACE_SECONDS", 60).start().await;
    let [one, two] = &cluster.nodes[..] else { unreachable!() };
    let (alice, bob) = (one.member("alice").await, one.member("bob").await);
    let (mut a, _b) = (Raw::hello(one, &alice).await, Raw::hello(two, &bob).await);
    let stale = async |a: &mut Raw| {
        let listed = a.ask(json!({ "type": "list_peers" })).await;
        let rows = listed["peers"].as_array().expect("rows").clone();
        let stale = |row: &Value| (row["displayName"].clone(), row["stale"] == true);
        let mut told: Vec<_> = rows.iter().map(stale).collect();
        told.sort_by_key(|(name, _)| name.to_string());
        told
    };
    let told = |is_stale: bool| vec![(json!("alice"), false), (json!("bob"), is_stale)];
    until("they see each other", async || stale(&mut a).await == told(false)).await;
    cluster.redis.freeze();
    until("the other's row is doubtful", async || stale(&mut a).await == told(true)).await;
    let left = budget(&mut a, None).await;
    assert_eq!(left["stale"], true, "{left}");
    cluster.redis.thaw();
    until("it is heard of again", async || stale(&mut a).await == told(false)).await;
}
