//! Hellos: every check in its order, what the answer says, and what a hello
//! that is not one's own can never do.

use std::time::{Duration, Instant};

use claudemesh_broker::auth::{SecretKey, sign_attestation, sign_hello, sign_session_hello};
use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::id::{MemberId, MeshId};
use claudemesh_broker::store::Role;
use serde_json::{Value, json};

use crate::harness::raw::{hello_frame, session_hello_frame, unused_now};
use crate::harness::{Member, Node, Raw};

const BAD_SESSION_KEY: &str = "sessionPubkey must be 64 lowercase hex chars";
const BAD_PARENT_KEY: &str = "parentMemberPubkey must be 64 lowercase hex chars";

/// What must be refused, and how. Later faults of a frame must not show.
type Fault<'a> = (&'a str, &'a str, Box<dyn Fn(&mut Value) + 'a>);

fn fault<'a>(code: &'a str, message: &'a str, make: impl Fn(&mut Value) + 'a) -> Fault<'a> {
    (code, message, Box::new(make))
}

async fn assert_refused(node: &Node, hello: Value, code: &str, message: &str) {
    let shown = hello.to_string();
    let (error, close) = Raw::refused(node, hello).await;
    assert_eq!(error, json!({ "type": "error", "code": code, "message": message }), "{shown}");
    let expected = if code == "revoked" { (4002, "banned") } else { (1008, code) };
    assert_eq!((close.0, close.1.as_str()), expected, "{shown}");
}

/// A signature by that key over the text, as `auth` makes them.
fn signed(key: &SecretKey, text: &str) -> Value {
    use ed25519_dalek::{Signer as _, SigningKey};
    let mut pair = [0; 64];
    hex::decode_to_slice(key.to_hex128(), &mut pair).expect("hex");
    let key = SigningKey::from_keypair_bytes(&pair).expect("a pair");
    json!(hex::encode(key.sign(text.as_bytes()).to_bytes()))
}

fn sign_again(frame: &mut Value, mesh: &MeshId, member: &Member, at: Timestamp) {
    frame["timestamp"] = json!(at.as_ms());
    frame["signature"] = json!(sign_hello(&member.key, mesh, &member.id, at));
}

// --- hello -----------------------------------------------------------------------

#[tokio::test]
async fn each_fault_of_a_hello_has_its_answer_and_the_first_one_counts() {
    let node = Node::start().await;
    let alice = node.member("alice").await;
    let stranger = Member {
        id: MemberId::generate(),
        key: SecretKey::generate(),
        name: "stranger".to_owned(),
    };
    let mesh = &node.mesh;
    let skewed = |frame: &mut Value, ms: i64| {
        sign_again(frame, mesh, &alice, Timestamp::now().plus_ms(ms));
    };
    let skew = "hello rejected: timestamp_skew";
    let malformed = "hello rejected: malformed";
    let forged = "hello rejected: bad_signature";
    let unknown = "pubkey not found in mesh";
    let faults = [
        fault("bad_session_pubkey", BAD_SESSION_KEY, |f| {
            f["sessionPubkey"] = json!("AB".repeat(32));
            f["timestamp"] = json!(0);
        }),
        fault("bad_session_pubkey", BAD_SESSION_KEY, |f| f["sessionPubkey"] = json!(7)),
        fault("bad_session_pubkey", BAD_SESSION_KEY, |f| f["sessionPubkey"] = json!("ab")),
        fault("timestamp_skew", skew, |f| skewed(f, -61_000)),
        fault("timestamp_skew", skew, |f| skewed(f, 62_000)),
        fault("timestamp_skew", skew, |f| {
            f["timestamp"] = json!("soon");
            f["signature"] = json!("zz");
        }),
        fault("timestamp_skew", skew, |f| f["timestamp"] = Value::Null),
        fault("malformed", malformed, |f| f["signature"] = json!("ab".repeat(63))),
        fault("malformed", malformed, |f| f["signature"] = json!("xy".repeat(64))),
        fault("malformed", malformed, |f| f["pubkey"] = json!("short")),
        fault("malformed", malformed, |f| f["pubkey"] = json!(12)),
        fault("malformed", malformed, |f| {
            f.as_object_mut().expect("an object").remove("signature");
        }),
        fault("bad_signature", forged, |f| f["signature"] = json!("00".repeat(64))),
        fault("bad_signature", forged, |f| f["meshId"] = json!(MeshId::generate())),
        fault("bad_signature", forged, |f| f["memberId"] = json!(stranger.id)),
        fault("bad_signature", forged, |f| f["pubkey"] = json!(stranger.pubkey())),
        fault("bad_signature", forged, |f| {
            f["timestamp"] = json!(f["timestamp"].as_i64().expect("ms") - 1);
        }),
        fault("unauthorized", unknown, |f| *f = hello_frame(mesh, &stranger)),
        fault("unauthorized", unknown, |f| *f = hello_frame(&MeshId::generate(), &alice)),
        fault("unauthorized", unknown, |f| {
            let someone_else = Member { id: node.owner.id.clone(), ..alice.clone() };
            *f = hello_frame(mesh, &someone_else);
        }),
        // Another spelling of the key is another key.
        fault("unauthorized", unknown, |f| {
            let spelled = alice.pubkey().as_str().to_uppercase();
            let text = format!("{mesh}|{}|{spelled}|{}", alice.id, f["timestamp"]);
            f["pubkey"] = json!(spelled);
            f["signature"] = signed(&alice.key, &text);
        }),
    ];
    for (code, message, make) in &faults {
        let mut frame = hello_frame(mesh, &alice);
        make(&mut frame);
        assert_refused(&node, frame, code, message).await;
    }
    assert_eq!(node.audit_count("peer_joined").await, 0);
    Raw::hello(&node, &alice).await;
}

#[tokio::test]
async fn clocks_may_differ_by_a_minute() {
    let node = Node::start().await;
    let alice = node.member("alice").await;
    for ms in [-58_000, 58_000] {
        let adjust = |f: &mut Value| sign_again(f, &node.mesh, &alice, unused_now().plus_ms(ms));
        Raw::hello_with(&node, &alice, adjust).await;
    }
}

#[tokio::test]
async fn the_revoked_and_the_archived_are_told_apart() {
    let node = Node::start().await;
    let boss = node.member_as("boss", Role::Admin).await;
    let bob = node.member("bob").await;
    let (mesh, owner) = node.another_mesh("closed").await;
    let mut admin = Raw::hello(&node, &boss).await;
    admin.ask(json!({ "type": "ban", "target": "bob" })).await;
    let text = "You've been removed from \"test\". Contact the mesh owner to rejoin.";
    assert_refused(&node, hello_frame(&node.mesh, &bob), "revoked", text).await;
    let session = session_hello_frame(&node.mesh, &bob, &SecretKey::generate());
    assert_refused(&node, session, "revoked", text).await;

    node.store.meshes.archive(Timestamp::now(), &mesh, None).await.expect("the store answers");
    let unknown = "pubkey not found in mesh";
    assert_refused(&node, hello_frame(&mesh, &owner), "unauthorized", unknown).await;
    let session = session_hello_frame(&mesh, &owner, &SecretKey::generate());
    let unknown = "parent pubkey not found in mesh";
    assert_refused(&node, session, "unauthorized", unknown).await;
}

// --- session_hello ---------------------------------------------------------------

#[tokio::test]
async fn each_fault_of_a_session_hello_has_its_answer_and_the_first_one_counts() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let key = SecretKey::generate();
    let mesh = &node.mesh;
    let vouch = |frame: &mut Value, by: &SecretKey, ms: i64| {
        let expires_at = Timestamp::now().plus_ms(ms);
        frame["parentAttestation"]["expiresAt"] = json!(expires_at.as_ms());
        let word = sign_attestation(by, &key.public_key(), expires_at);
        frame["parentAttestation"]["signature"] = json!(word);
    };
    let mismatch = "parentAttestation is not for these two keys";
    let word = |code: &str| format!("attestation rejected: {code}");
    let (stale, eternal) = (word("expired"), word("ttl_too_long"));
    let (odd_word, forged_word) = (word("malformed"), word("bad_signature"));
    let faults = [
        fault("bad_session_pubkey", BAD_SESSION_KEY, |f| {
            f["sessionPubkey"] = json!(key.public_key().as_str().to_uppercase());
            f["parentMemberPubkey"] = json!("no key");
        }),
        fault("bad_session_pubkey", BAD_SESSION_KEY, |f| f["sessionPubkey"] = json!(7)),
        fault("bad_parent_pubkey", BAD_PARENT_KEY, |f| {
            f["parentMemberPubkey"] = json!(alice.pubkey().as_str().to_uppercase());
        }),
        fault("bad_parent_pubkey", BAD_PARENT_KEY, |f| f["parentMemberPubkey"] = Value::Null),
        fault("attestation_mismatch", mismatch, |f| f["parentAttestation"] = Value::Null),
        fault("attestation_mismatch", mismatch, |f| f["parentAttestation"] = json!("trust me")),
        fault("attestation_mismatch", mismatch, |f| {
            f["parentAttestation"]["sessionPubkey"] = json!(bob.pubkey());
            f["parentAttestation"]["expiresAt"] = json!(0);
        }),
        fault("attestation_mismatch", mismatch, |f| f["parentMemberPubkey"] = json!(bob.pubkey())),
        fault("malformed", &odd_word, |f| f["parentAttestation"]["expiresAt"] = json!("later")),
        fault("expired", &stale, |f| {
            vouch(f, &alice.key, -1);
            f["timestamp"] = json!(0);
        }),
        fault("ttl_too_long", &eternal, |f| vouch(f, &alice.key, 86_400_000 + 60_000)),
        fault("malformed", &odd_word, |f| f["parentAttestation"]["signature"] = json!("ab")),
        fault("bad_signature", &forged_word, |f| vouch(f, &bob.key, 60_000)),
        fault("bad_signature", &forged_word, |f| {
            let later = f["parentAttestation"]["expiresAt"].as_i64().expect("ms") + 1;
            f["parentAttestation"]["expiresAt"] = json!(later);
            f["timestamp"] = json!(0);
        }),
        fault("timestamp_skew", "session_hello rejected: timestamp_skew", |f| {
            let at = Timestamp::now().plus_ms(-61_000);
            f["timestamp"] = json!(at.as_ms());
            f["signature"] = json!(sign_session_hello(&key, mesh, &alice.pubkey(), at));
        }),
        fault("malformed", "session_hello rejected: malformed", |f| f["signature"] = json!(5)),
        fault("bad_signature", "session_hello rejected: bad_signature", |f| {
            // The member cannot speak for the session.
            let at = unused_now();
            f["timestamp"] = json!(at.as_ms());
            f["signature"] = json!(sign_session_hello(&alice.key, mesh, &alice.pubkey(), at));
        }),
        fault("unauthorized", "parent pubkey not found in mesh", |f| {
            let elsewhere = MeshId::generate();
            *f = session_hello_frame(&elsewhere, &alice, &key);
        }),
        fault(
            "parent_member_id_mismatch",
            "parentMemberId is not the member with parentMemberPubkey",
            |f| f["parentMemberId"] = json!(bob.id),
        ),
    ];
    for (code, message, make) in &faults {
        let mut frame = session_hello_frame(mesh, &alice, &key);
        make(&mut frame);
        assert_refused(&node, frame, code, message).await;
    }
    assert_eq!(node.audit_count("peer_joined").await, 0);
    Raw::session(&node, &alice, &key).await;
}

// --- captured hellos ---------------------------------------------------------------

#[tokio::test]
async fn a_captured_hello_is_worthless_and_disturbs_nobody() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let key = SecretKey::generate();
    for captured in [hello_frame(&node.mesh, &alice), session_hello_frame(&node.mesh, &bob, &key)] {
        let (mut first, ack) = Raw::greet(&node, captured.clone()).await;
        assert_eq!(ack["type"], "hello_ack", "{ack}");
        let mut spelled = captured.clone();
        spelled["signature"] =
            json!(captured["signature"].as_str().expect("hex").to_ascii_uppercase());
        let mut dressed = captured.clone();
        dressed["sessionId"] = json!("another");
        dressed["displayName"] = json!("mallory");
        for frame in [captured, spelled, dressed] {
            let text = "this hello was used before; sign a new one";
            assert_refused(&node, frame, "replayed", text).await;
        }
        let mut listed = first.ask(json!({ "type": "list_peers" })).await;
        let last = listed["peers"].as_array_mut().and_then(Vec::pop).expect("a row");
        assert_ne!(last["displayName"], "mallory");
        assert!(first.so_far().await.is_empty());
    }
    assert_eq!(node.audit_count("peer_joined").await, 2);
}

/// The order of the group that signatures live in, least byte first.
const GROUP_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

#[tokio::test]
async fn a_captured_signature_has_no_second_form() {
    let node = Node::start().await;
    let alice = node.member("alice").await;
    let mut frame = hello_frame(&node.mesh, &alice);
    let (_first, _) = Raw::greet(&node, frame.clone()).await;
    let mut bytes = hex::decode(frame["signature"].as_str().expect("hex")).expect("hex");
    let mut carry = 0;
    for (byte, more) in bytes[32..].iter_mut().zip(GROUP_ORDER) {
        let sum = u16::from(*byte) + u16::from(more) + carry;
        *byte = (sum & 0xff) as u8;
        carry = sum >> 8;
    }
    frame["signature"] = json!(hex::encode(bytes));
    assert_refused(&node, frame, "bad_signature", "hello rejected: bad_signature").await;
}

// --- before hello, and after ---------------------------------------------------------

#[tokio::test]
async fn nothing_is_served_before_a_hello() {
    let node = Node::start().await;
    let alice = node.member("alice").await;
    let mut raw = Raw::connect(&node).await;
    let error = json!({ "type": "error", "code": "no_hello", "message": "must send hello first" });
    raw.say(json!({ "type": "list_peers" })).await;
    assert_eq!(raw.hear("error").await, error);
    raw.say(json!({ "type": "no such thing" })).await;
    assert_eq!(raw.hear("error").await, error);
    let answer = raw.ask(json!({ "type": "set_status", "status": "dnd" })).await;
    assert_eq!(answer["code"], "no_hello");
    raw.say(hello_frame(&node.mesh, &alice)).await;
    raw.hear("hello_ack").await;
}

#[tokio::test]
async fn who_does_not_say_hello_in_time_is_closed() {
    let node = Node::start().await;
    let begun = Instant::now();
    let mut raw = Raw::connect(&node).await;
    raw.say(json!({ "type": "list_peers" })).await;
    raw.hear("error").await;
    let close = raw.closed_within(Duration::from_secs(20)).await;
    assert_eq!(close, (1008, "hello_timeout".to_owned()));
    assert!(begun.elapsed() > Duration::from_secs(9), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_second_hello_on_a_socket_changes_nothing() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut b = Raw::hello(&node, &bob).await;
    let mut a = Raw::hello(&node, &alice).await;
    b.event("peer_joined").await;
    let mut again = hello_frame(&node.mesh, &alice);
    again["displayName"] = json!("renamed");
    a.say(again.clone()).await;
    assert!(a.so_far().await.is_empty(), "old clients take a stray error for another answer");
    assert_eq!(a.ask(again).await["code"], "already_active");
    let other = session_hello_frame(&node.mesh, &alice, &SecretKey::generate());
    assert_eq!(a.ask(other).await["code"], "already_active");
    let listed = a.ask(json!({ "type": "list_peers" })).await;
    assert_eq!(listed["peers"].as_array().map(Vec::len), Some(2));
    assert_eq!(listed["peers"][1]["displayName"], "alice");
    assert!(b.so_far().await.is_empty());
}

/// As `JSON.stringify` writes a name that was cut within an emoji; and fields of a
/// later version, whatever they hold.
#[tokio::test]
async fn half_a_surrogate_and_odd_new_fields_keep_nobody_out() {
    let node = Node::start().await;
    let alice = node.member("alice").await;
    let deep = format!("{}{}", "[".repeat(130), "]".repeat(130));
    for (number, odd) in [r#""\ud83d""#, "1e400", &"9".repeat(400), &deep].iter().enumerate() {
        let mut hello = hello_frame(&node.mesh, &alice);
        hello["displayName"] = json!("cut-HALF");
        hello["sessionId"] = json!(format!("session-{number}"));
        let text = hello.to_string().replace("HALF", r"\ud83d");
        let mut raw = Raw::connect(&node).await;
        raw.say_text(format!(r#"{},"new":{odd}}}"#, &text[..text.len() - 1])).await;
        raw.hear("hello_ack").await;
        let listed = raw.ask(json!({ "type": "list_peers" })).await;
        let own = format!("session-{number}");
        let rows = listed["peers"].as_array().expect("rows");
        let row = rows.iter().find(|row| row["sessionId"] == own.as_str()).expect("it is here");
        assert_eq!(row["displayName"], "cut-\u{fffd}");
    }
}

#[tokio::test]
async fn a_used_hello_is_not_good_again_after_a_restart() {
    let mut node = Node::start().await;
    let alice = node.member("alice").await;
    let hello = hello_frame(&node.mesh, &alice);
    let session = session_hello_frame(&node.mesh, &alice, &SecretKey::generate());
    for frame in [&hello, &session] {
        let (_raw, ack) = Raw::greet(&node, frame.clone()).await;
        assert_eq!(ack["type"], "hello_ack", "{ack}");
    }
    node.restart().await;
    for frame in [hello, session] {
        let (error, close) = Raw::refused(&node, frame).await;
        assert_eq!(error["code"], "replayed");
        assert_eq!(close, (1008, "replayed".to_owned()));
    }
    // One that is signed now is good, and is nobody's replay.
    Raw::hello(&node, &alice).await;
}

/// Whoever is no member uses nothing up: the replay guard is for members' hellos.
#[tokio::test]
async fn a_strangers_hello_is_not_remembered() {
    let node = Node::start().await;
    let stranger = Member {
        id: node.owner.id.clone(),
        key: SecretKey::generate(),
        name: "stranger".to_owned(),
    };
    let hello = hello_frame(&node.mesh, &stranger);
    for _ in 0..2 {
        let (error, _) = Raw::refused(&node, hello.clone()).await;
        assert_eq!(error["code"], "unauthorized");
    }
}
