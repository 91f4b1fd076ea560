//! The HTTP side of the port.

use claudemesh_broker::auth::{InvitePayload, SecretKey};
use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::id::{self, MeshId};
use claudemesh_broker::store::{NewInvite, Role};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio_tungstenite::tungstenite::Error;

use crate::harness::http::{self, Reply};
use crate::harness::{Cluster, Member, Node, Raw, metric, until};

#[tokio::test]
async fn health_says_what_this_is_and_metrics_what_it_does() {
    let node = Node::start().await;
    let health = http::get(&node, "/health").await;
    assert_eq!((health.status, health.header("content-type")), (200, Some("application/json")));
    let body = health.json();
    for (field, value) in [("status", "ok"), ("db", "up"), ("redis", "none"), ("mode", "single")] {
        assert_eq!(body[field], value, "{body}");
    }
    assert_eq!(body["version"], env!("CARGO_PKG_VERSION"));
    assert!(body["gitSha"].is_string() && body["node"].is_string() && body["uptime"].is_u64());
    assert!(body.get("region").is_some(), "{body}");
    let ready = http::get(&node, "/health/ready").await;
    assert_eq!((ready.status, &ready.json()["status"]), (200, &json!("ready")));

    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut b = Raw::hello(&node, &bob).await;
    a.sent(bob.pubkey().as_str(), "now", "eA==").await;
    b.message().await;
    http::post(&node, "/hook/set-status", "{}").await;
    let metrics = http::get(&node, "/metrics").await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.header("content-type").is_some_and(|kind| kind.contains("version=")));
    let value = |name: &str| -> f64 {
        let line = metrics.body.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.and_then(|text| text.parse().ok())
            .unwrap_or_else(|| panic!("{name} in {}", metrics.body))
    };
    assert_eq!(value("broker_connections_total"), 2.0);
    assert_eq!(value("broker_connections_active"), 2.0);
    assert_eq!(value("broker_messages_routed_total{priority=\"now\"}"), 1.0);
    assert_eq!(value("broker_hook_requests_total"), 1.0);
    assert_eq!(value("broker_hook_requests_rate_limited_total"), 0.0);
    assert_eq!(value("broker_legacy_auth_hits_total"), 0.0);
    assert_eq!(value("broker_hello_seconds_count"), 2.0);
    assert_eq!(value("broker_accept_seconds_count"), 1.0);
    assert_eq!(value("broker_deliver_seconds_count"), 1.0);
    for name in ["broker_queue_depth ", "broker_db_healthy ", "broker_accept_seconds_bucket{le="] {
        assert!(metrics.body.contains(name), "{name}");
    }
    Raw::connect(&node).await.say(json!({ "type": "hello" })).await;
    until("a refused hello is counted", async || {
        let metrics = http::get(&node, "/metrics").await.body;
        metrics.contains("broker_connections_rejected_total{reason=\"timestamp_skew\"} 1")
    })
    .await;
}

#[tokio::test]
async fn a_node_that_stops_is_not_ready_and_sends_its_peers_away() {
    let mut node = Node::start_with(|config| config.presence.connections_per_mesh_max = 1000).await;
    let alice = node.member("alice").await;
    let mut raws = Vec::new();
    // So many that they are sent away in several waves.
    for _ in 0..300 {
        raws.push(Raw::session(&node, &alice, &SecretKey::generate()).await.0);
    }
    node.begin_stop();
    let not_ready = loop {
        let ready = http::get(&node, "/health/ready").await;
        if ready.status != 200 {
            break ready;
        }
    };
    assert_eq!(not_ready.status, 503);
    let body = not_ready.json();
    assert_eq!((&body["status"], &body["reason"]), (&json!("not_ready"), &json!("draining")));
    assert_eq!(http::get(&node, "/health").await.status, 200, "it lives");
    match tokio_tungstenite::connect_async(node.url()).await {
        Err(Error::Http(refused)) => {
            assert_eq!(refused.status(), 503);
            assert!(refused.headers().contains_key("retry-after"));
        }
        other => panic!("not refused: {other:?}"),
    }
    for raw in &mut raws {
        assert_eq!(raw.closed().await, (1001, "shutting down".to_owned()));
    }
    node.stop().await;
}

#[tokio::test]
async fn what_is_not_there_and_what_is_too_large() {
    let node = Node::start().await;
    for path in ["/", "/nothing", "/uploads", "/health/", "/join/x/y"] {
        let reply = http::get(&node, path).await;
        assert_eq!((reply.status, reply.body.as_str()), (404, "not found"), "{path}");
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
    }
    let preflight = http::request(&node, "OPTIONS", "/join", &[], "").await;
    assert_eq!((preflight.status, preflight.body.as_str()), (204, ""));
    let allowed = preflight.header("access-control-allow-methods").expect("a list");
    assert!(["GET", "POST", "OPTIONS"].iter().all(|method| allowed.contains(method)), "{allowed}");
    assert!(
        preflight.header("access-control-allow-headers").expect("a list").contains("Content-Type")
    );

    let old = [("sec-websocket-version", "8"), ("upgrade", "websocket"), ("connection", "upgrade")];
    for headers in [&[][..], &old] {
        let reply = http::request(&node, "GET", "/ws", headers, "").await;
        assert_eq!(reply.status, 426);
        assert!(reply.body.contains("ws://"), "{reply:?}");
        assert_eq!(reply.header("sec-websocket-version"), Some("13"));
        assert_eq!(reply.header("upgrade"), Some("websocket"));
    }

    let large = "x".repeat(70_000);
    for path in ["/join", "/hook/set-status"] {
        let reply = http::post(&node, path, &large).await;
        assert_eq!(reply.status, 413, "{path}");
        assert_eq!(reply.json(), json!({ "ok": false, "error": "payload too large" }));
    }
}

#[tokio::test]
async fn how_the_broker_does_is_not_for_pages_to_read() {
    let node = Node::start().await;
    let page = [("origin", "https://any.example")];
    for path in ["/health", "/health/ready", "/metrics"] {
        for method in ["GET", "OPTIONS"] {
            let reply = http::request(&node, method, path, &page, "").await;
            assert!([200, 204].contains(&reply.status), "{method} {path}");
            for name in ["origin", "methods", "headers"] {
                let name = format!("access-control-allow-{name}");
                assert_eq!(reply.header(&name), None, "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn metrics_come_in_the_format_that_is_asked_for() {
    let node = Node::start().await;
    let get = async |accept: &str| {
        http::request(&node, "GET", "/metrics", &[("accept", accept)], "").await
    };
    let plain = get("text/plain;version=0.0.4").await;
    assert_eq!(plain.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(plain.body.contains("# TYPE broker_connections_total counter"), "{}", plain.body);
    assert!(!plain.body.contains(" info\n") && !plain.body.contains("# EOF"), "{}", plain.body);
    for accept in ["*/*", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"] {
        let open = get(accept).await;
        let kind = open.header("content-type").expect("a kind");
        assert!(kind.starts_with("application/openmetrics-text"), "{accept}: {kind}");
        assert!(open.body.ends_with("# EOF\n"), "{accept}");
    }
}

#[tokio::test]
async fn a_small_frame_size_leaves_room_for_hellos_and_joins() {
    let node = Node::start_with(|config| config.message.message_bytes_max = 512).await;
    let alice = node.member("alice").await;
    let (mut raw, _) = Raw::session(&node, &alice, &SecretKey::generate()).await;
    let fits = json!({ "type": "list_peers", "pad": "" }).to_string().len();
    raw.say(json!({ "type": "list_peers", "pad": "x".repeat(512 - fits) })).await;
    raw.hear("peers_list").await;
    raw.say(json!({ "type": "list_peers", "pad": "x".repeat(513 - fits) })).await;
    assert_eq!(raw.closed().await, (1009, "frame too large".to_owned()));
    let token = invite(&node, &node.mesh, 1, 60_000).await;
    let body = ask(&token, &payload(&node.mesh, &node.owner, "member"), &fresh());
    assert!(body.to_string().len() > 512);
    assert_eq!(join(&node, &body).await.status, 200);
}

#[tokio::test]
async fn a_database_file_that_was_removed_or_replaced_is_no_good_health() {
    let node = Node::start().await;
    let file = node.data_dir().join("broker.db");
    let says = async |db: &str, status: u16| {
        until("the file is looked at", async || {
            let health = http::get(&node, "/health").await.json();
            health["db"] == db && http::get(&node, "/health/ready").await.status == status
        })
        .await;
    };
    says("up", 200).await;
    let aside = node.data_dir().join("aside.db");
    std::fs::rename(&file, &aside).expect("moved");
    says("down", 503).await;
    std::fs::copy(&aside, &file).expect("copied");
    until("it has looked again", async || metric(&node, "broker_db_healthy").await == 0).await;
    says("down", 503).await;
    std::fs::rename(&aside, &file).expect("moved back");
    says("up", 200).await;
}

// --- /join ---------------------------------------------------------------------------

fn payload(mesh: &MeshId, owner: &Member, role: &str) -> InvitePayload {
    InvitePayload {
        v: 1,
        mesh_id: mesh.to_string(),
        mesh_slug: "test".to_owned(),
        broker_url: "ws://localhost/ws".to_owned(),
        // Past: what counts is the date in the broker's books.
        expires_at: 1_000_000_000,
        mesh_root_key: "cm9vdA".to_owned(),
        role: role.to_owned(),
        owner_pubkey: String::new(),
        certifying: None,
        signature: String::new(),
    }
    .sign(&owner.key)
}

async fn invite(node: &Node, mesh: &MeshId, max_uses: i32, expires_in_ms: i64) -> String {
    let token = id::generate();
    keep(node, mesh, &token, Role::Member, max_uses, expires_in_ms).await;
    token
}

async fn keep(
    node: &Node,
    mesh: &MeshId,
    token: &str,
    role: Role,
    max_uses: i32,
    expires_in_ms: i64,
) {
    let now = Timestamp::now();
    let invite = NewInvite {
        id: id::generate(),
        mesh: mesh.clone(),
        token: token.to_owned(),
        role,
        code: None,
        max_uses,
        expires_at: now.plus_ms(expires_in_ms),
        created_by: node.owner.id.to_string(),
    };
    node.store.invites.create(now, &invite).await.expect("an invite");
}

fn ask(token: &str, payload: &InvitePayload, key: &str) -> Value {
    json!({
        "invite_token": token, "invite_payload": payload, "peer_pubkey": key,
        "display_name": "newcomer",
    })
}

async fn join(node: &Node, body: &Value) -> Reply {
    http::post(node, "/join", &body.to_string()).await
}

async fn is_refused(node: &Node, body: &Value, error: &str) {
    let reply = join(node, body).await;
    assert_eq!(reply.status, 400, "{reply:?}");
    assert_eq!(reply.json(), json!({ "ok": false, "error": error }));
}

fn fresh() -> String {
    SecretKey::generate().public_key().to_string()
}

#[tokio::test]
async fn a_newcomer_joins_by_invite_and_is_a_peer_at_once() {
    let node = Node::start().await;
    let mut owner = Raw::hello(&node, &node.owner).await;
    let token = id::generate();
    keep(&node, &node.mesh, &token, Role::Admin, 1, 60_000).await;
    let key = SecretKey::generate();
    let shouted = key.public_key().as_str().to_uppercase();
    let body = ask(&token, &payload(&node.mesh, &node.owner, "admin"), &shouted);
    let reply = join(&node, &body).await;
    assert_eq!((reply.status, &reply.json()["ok"]), (200, &json!(true)), "{reply:?}");
    assert!(reply.json().get("alreadyMember").is_none());
    let id = reply.json()["memberId"].as_str().expect("an id").to_owned();
    owner.sent(key.public_key().as_str(), "next", "d2VsY29tZQ==").await;
    let member = Member { id: id.as_str().into(), key, name: "newcomer".to_owned() };
    let mut raw = Raw::hello(&node, &member).await;
    assert_eq!(raw.message().await["ciphertext"], "d2VsY29tZQ==");
    assert_eq!(raw.ask(json!({ "type": "audit_verify" })).await["valid"], true, "it is an admin");
    assert_eq!(node.audit_count("member_joined").await, 1);

    let again = join(&node, &body).await.json();
    assert_eq!(again, json!({ "ok": true, "memberId": id, "alreadyMember": true }));
    let body = ask(&token, &payload(&node.mesh, &node.owner, "member"), &fresh());
    is_refused(&node, &body, "invite_exhausted").await;
}

#[tokio::test]
async fn every_refusal_of_a_join_in_its_order() {
    let node = Node::start().await;
    let (other, other_owner) = node.another_mesh("other").await;
    let good = payload(&node.mesh, &node.owner, "member");
    let token = invite(&node, &node.mesh, 1, 60_000).await;
    let whole = ask(&token, &good, &fresh());
    for field in ["invite_token", "invite_payload", "peer_pubkey", "display_name"] {
        let mut body = whole.clone();
        body.as_object_mut().expect("an object").remove(field);
        is_refused(
            &node,
            &body,
            "invite_token, invite_payload, peer_pubkey, display_name required",
        )
        .await;
    }
    // Each case has one fault more than the checks before it know of.
    let mut forged = good.clone();
    forged.role = "admin".to_owned();
    is_refused(&node, &ask("x", &forged, "abc"), "peer_pubkey must be 64 hex chars (32 bytes)")
        .await;
    for no_key in ["02", "01", "00"].map(|first| format!("{first}{}", "00".repeat(31))) {
        let body = ask(&token, &good, &no_key);
        is_refused(&node, &body, "peer_pubkey is not an ed25519 key").await;
    }
    is_refused(&node, &ask("x", &forged, &fresh()), "invite_bad_signature").await;
    let nowhere = payload(&MeshId::generate(), &node.owner, "member");
    is_refused(&node, &ask("x", &nowhere, &fresh()), "mesh_not_found").await;
    let usurper = payload(&node.mesh, &other_owner, "member");
    is_refused(&node, &ask("x", &usurper, &fresh()), "invite_owner_mismatch").await;
    is_refused(&node, &ask("x", &good, &fresh()), "invite_not_found").await;
    let elsewhere = invite(&node, &other, 1, -1).await;
    is_refused(&node, &ask(&elsewhere, &good, &fresh()), "invite_mesh_mismatch").await;
    let revoked = invite(&node, &node.mesh, 1, 60_000).await;
    assert!(
        node.store.invites.revoke(Timestamp::now(), &revoked).await.expect("the store answers")
    );
    is_refused(&node, &ask(&revoked, &good, &fresh()), "invite_revoked").await;
    let expired = invite(&node, &node.mesh, 1, -1_000).await;
    is_refused(&node, &ask(&expired, &good, &fresh()), "invite_expired").await;
    is_refused(&node, &ask(&expired, &good, node.owner.pubkey().as_str()), "invite_expired").await;
    assert_eq!(join(&node, &whole).await.status, 200, "none of these used it up");
    is_refused(&node, &ask(&token, &good, &fresh()), "invite_exhausted").await;

    assert!(
        node.store.meshes.archive(Timestamp::now(), &other, None).await.expect("the store answers")
    );
    let archived = payload(&other, &other_owner, "member");
    is_refused(&node, &ask(&elsewhere, &archived, &fresh()), "mesh_not_found").await;
    for body in ["", "[]", "{", "\"x\"", "{\"invite_payload\":7}"] {
        let reply = http::post(&node, "/join", body).await;
        assert_eq!((reply.status, &reply.json()["ok"]), (400, &json!(false)), "{body}: {reply:?}");
    }

    let file = node.data_dir().join("broker.db");
    let mut file = SqliteConnectOptions::new().filename(file).connect().await.expect("the file");
    sqlx::query("update mesh set owner_pubkey = null where id = ?1")
        .bind(node.mesh.as_str())
        .execute(&mut file)
        .await
        .expect("the row");
    file.close().await.expect("closed");
    is_refused(&node, &whole, "mesh_missing_owner_key").await;
}

/// An invite as its owner made it.
struct Issued {
    what: &'static str,
    payload: InvitePayload,
    role: Role,
    /// What it comes to by itself.
    outcome: Result<(), &'static str>,
}

impl Issued {
    fn token(&self) -> String {
        self.payload.to_token()
    }
}

/// Every kind of invite of the mesh and one of another, each in an admin's form and
/// in a member's.
async fn issued(node: &Node) -> Vec<Issued> {
    let (other, other_owner) = node.another_mesh("elsewhere").await;
    let mut all = Vec::new();
    for (role, word) in [(Role::Admin, "admin"), (Role::Member, "member")] {
        for (what, mesh, owner, outcome) in [
            ("good", &node.mesh, &node.owner, Ok(())),
            ("used up", &node.mesh, &node.owner, Err("invite_exhausted")),
            ("expired", &node.mesh, &node.owner, Err("invite_expired")),
            ("revoked", &node.mesh, &node.owner, Err("invite_revoked")),
            ("another mesh's", &other, &other_owner, Ok(())),
        ] {
            let slug = format!("{word}-{what}");
            let payload = InvitePayload { mesh_slug: slug, ..payload(mesh, owner, word) };
            let payload = payload.sign(&owner.key);
            let one = Issued { what, payload, role, outcome };
            let expires_in_ms = if what == "expired" { -1_000 } else { 60_000 };
            let uses = if what == "used up" { 1 } else { 100 };
            keep(node, mesh, &one.token(), role, uses, expires_in_ms).await;
            match what {
                "used up" => {
                    let body = ask(&one.token(), &one.payload, &fresh());
                    assert_eq!(join(node, &body).await.status, 200);
                }
                "revoked" => {
                    let revoked = node.store.invites.revoke(Timestamp::now(), &one.token()).await;
                    assert!(revoked.expect("the store answers"));
                }
                _ => {}
            }
            all.push(one);
        }
    }
    all
}

/// A capability has one source of truth: what the token is decides, and a payload
/// that the owner signed for another invite changes nothing.
async fn a_payload_of_another_invite_is_good_for_nothing(node: &Node) {
    let all = issued(node).await;
    let before = node.store.members.all(&node.mesh).await.expect("readable").len();
    for (at, token) in all.iter().enumerate() {
        for (of, payload) in all.iter().enumerate().filter(|(of, _)| *of != at) {
            let body = ask(&token.token(), &payload.payload, &fresh());
            let reply = join(node, &body).await;
            let what = format!("the token of {at}, {}; the payload of {of}", token.what);
            assert_eq!(reply.json()["error"], "invite_bad_signature", "{what}: {reply:?}");
        }
    }
    assert_eq!(node.store.members.all(&node.mesh).await.expect("readable").len(), before);
    for one in &all {
        let key = fresh();
        let reply = join(node, &ask(&one.token(), &one.payload, &key)).await.json();
        match one.outcome {
            Ok(()) => {
                let mesh = MeshId::from(one.payload.mesh_id.as_str());
                let members = node.store.members.all(&mesh).await.expect("readable");
                let member = members.iter().find(|member| member.key.as_str() == key);
                assert_eq!(member.expect("enrolled").role, one.role, "{}", one.what);
            }
            Err(error) => assert_eq!(reply["error"], error, "{}", one.what),
        }
    }
}

#[tokio::test]
async fn a_payload_of_another_invite_is_good_for_nothing_on_sqlite() {
    a_payload_of_another_invite_is_good_for_nothing(&Node::start().await).await;
}

#[tokio::test]
async fn a_payload_of_another_invite_is_good_for_nothing_on_postgres() {
    let cluster = Cluster::start(1).await;
    a_payload_of_another_invite_is_good_for_nothing(&cluster.nodes[0]).await;
}

/// A row decides, also where its token is nobody's payload.
#[tokio::test]
async fn the_role_is_the_rows() {
    let node = Node::start().await;
    let token = invite(&node, &node.mesh, 1, 60_000).await;
    let key = fresh();
    let body = ask(&token, &payload(&node.mesh, &node.owner, "admin"), &key);
    assert_eq!(join(&node, &body).await.status, 200);
    let members = node.store.members.active(&node.mesh).await.expect("readable");
    let member = members.iter().find(|member| member.key.as_str() == key).expect("enrolled");
    assert_eq!(member.role, Role::Member);
}

#[tokio::test]
async fn an_invite_for_five_admits_five_of_thirty() {
    let node = std::sync::Arc::new(Node::start().await);
    let token = invite(&node, &node.mesh, 5, 60_000).await;
    let good = payload(&node.mesh, &node.owner, "member");
    let mut joins = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let (node, body) = (std::sync::Arc::clone(&node), ask(&token, &good, &fresh()));
        joins.spawn(async move { join(&node, &body).await });
    }
    let (mut admitted, mut exhausted) = (0, 0);
    while let Some(reply) = joins.join_next().await {
        let reply = reply.expect("no panic");
        match reply.status {
            200 => admitted += 1,
            _ => {
                assert_eq!(reply.json()["error"], "invite_exhausted");
                exhausted += 1;
            }
        }
    }
    assert_eq!((admitted, exhausted), (5, 25));
    assert_eq!(node.audit_count("member_joined").await, 5);
    assert!(node.audit_is_valid().await);
}
