//! The admin API, over real sockets.

mod described;
pub(crate) mod shared;
mod stream;

use claudemesh_broker::config::{Config, Secret};
use claudemesh_broker::limits;
use serde_json::{Value, json};

use crate::harness::http::{self, Reply};
use crate::harness::{Cluster, Node, Raw, Setup, until};

/// The two tokens of a rotation.
pub const TOKEN: &str = "a-token-for-tests-1";
const NEXT_TOKEN: &str = "a-token-for-tests-2";

fn with_token(config: &mut Config) {
    config.http.admin_tokens = vec![Secret::new(TOKEN), Secret::new(NEXT_TOKEN)];
}

/// A node whose admin API is on.
pub async fn start() -> Node {
    Node::start_with(with_token).await
}

async fn call(node: &Node, method: &str, path: &str) -> Reply {
    let bearer = format!("Bearer {TOKEN}");
    let path = format!("/admin/v1{path}");
    http::request(node, method, &path, &[("authorization", &bearer)], "").await
}

async fn get(node: &Node, path: &str) -> Value {
    let reply = call(node, "GET", path).await;
    assert_eq!(reply.status, 200, "{path}: {reply:?}");
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    reply.json()
}

async fn post(node: &Node, path: &str) -> Value {
    let reply = call(node, "POST", path).await;
    assert_eq!(reply.status, 200, "{path}: {reply:?}");
    reply.json()
}

/// The presence of a peer by its name.
async fn presence_of(node: &Node, name: &str) -> String {
    let mesh = get(node, &format!("/meshes/{}", node.mesh)).await;
    let peers = mesh["peers"].as_array().expect("peers");
    let peer = peers.iter().find(|peer| peer["name"] == name);
    peer.expect(name)["presence"].as_str().expect("an id").to_owned()
}

// --- the door --------------------------------------------------------------------------

#[tokio::test]
async fn without_a_token_set_there_is_no_admin_api() {
    let node = Node::start().await;
    for path in ["/admin/v1/nodes", "/admin/v1/openapi.json", "/admin/v1/x", "/admin/v1"] {
        for headers in [vec![], vec![("authorization", "Bearer "), ("x", "y")]] {
            let reply = http::request(&node, "GET", path, &headers, "").await;
            assert_eq!((reply.status, reply.body.as_str()), (404, "not found"), "{path}");
        }
    }
}

#[tokio::test]
async fn either_token_of_a_rotation_opens_and_nothing_else_does() {
    let node = start().await;
    for token in [TOKEN, NEXT_TOKEN] {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        let reply = http::request(&node, "GET", "/admin/v1/nodes", &headers, "").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.header("access-control-allow-origin"), None, "not for other pages");
    }
    let both = format!("Bearer {TOKEN},{NEXT_TOKEN}");
    let shorter = format!("Bearer {}", &TOKEN[..TOKEN.len() - 1]);
    for wrong in ["", "Bearer ", TOKEN, &both, &shorter] {
        for path in ["/admin/v1/nodes", "/admin/v1/openapi.json", "/admin/v1/no-such-route"] {
            let headers = [("authorization", wrong)];
            let reply = http::request(&node, "GET", path, &headers, "").await;
            assert_eq!(reply.status, 401, "{wrong} {path}");
            assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
            let error = &reply.json()["error"];
            assert_eq!(error["code"], "unauthorized");
            let text = error["message"].as_str().expect("a sentence");
            assert!(text.contains("ADMIN_TOKEN") && !reply.body.contains(TOKEN), "{text}");
        }
    }
    assert_eq!(call(&node, "GET", "/no-such-route").await.status, 404);
    assert_eq!(call(&node, "POST", "/nodes").await.status, 405);
    assert_eq!(crate::harness::metric(&node, "broker_admin_refused_total").await, 15);
}

#[tokio::test]
async fn an_address_that_guesses_is_kept_out_even_when_it_guesses_right() {
    let node = Node::start_with(|config| {
        with_token(config);
        config.http.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
    })
    .await;
    let from = async |address: &str, token: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("x-forwarded-for", address)];
        http::request(&node, "GET", "/admin/v1/nodes", &headers, "").await
    };
    for _ in 0..=limits::ADMIN_FAILURES_PER_MINUTE {
        assert_eq!(from("203.0.113.9", "a-wrong-guess-of-it").await.status, 401);
    }
    let kept_out = from("203.0.113.9", TOKEN).await;
    assert_eq!(
        (kept_out.status, &kept_out.json()["error"]["code"]),
        (429, &json!("too_many_failures"))
    );
    let seconds: u64 =
        kept_out.header("retry-after").and_then(|seconds| seconds.parse().ok()).expect("a number");
    assert!((1..=60).contains(&seconds), "{seconds}");
    assert_eq!(from("203.0.113.10", TOKEN).await.status, 200, "the others are not");
}

// --- what it shows ---------------------------------------------------------------------

#[tokio::test]
async fn a_mesh_is_shown_with_its_peers_leases_and_what_waits() {
    let node = start().await;
    let (alice, bob, carol) =
        (node.member("alice").await, node.member("bob").await, node.member("carol").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut b = Raw::hello(&node, &bob).await;
    b.ask(json!({ "type": "join_group", "name": "dev" })).await;
    b.ask(json!({ "type": "set_status", "status": "dnd" })).await;
    a.sent(carol.pubkey().as_str(), "next", "c2VjcmV0").await;
    a.sent(carol.pubkey().as_str(), "now", "c2VjcmV0").await;

    let path = format!("/meshes/{}", node.mesh);
    let reply = call(&node, "GET", &path).await;
    let mesh = reply.json();
    let peers = mesh["peers"].as_array().expect("peers");
    assert_eq!(peers.len(), 2, "{mesh}");
    let bob_is = peers.iter().find(|peer| peer["name"] == "bob").expect("bob");
    assert_eq!(bob_is["status"], "dnd");
    assert_eq!(bob_is["groups"], json!(["dev"]));
    assert_eq!(bob_is["online"], true);
    assert_eq!(bob_is["node"], node.config.node.id.as_str());
    assert_eq!(bob_is["key"], bob.pubkey().as_str()[..12]);
    let leases = mesh["leases"].as_array().expect("leases");
    assert!(leases.iter().all(|lease| lease["state"] == "online"), "{leases:?}");
    assert!(leases[0]["expiresAt"].as_str() > mesh["at"].as_str(), "it lives: {mesh}");
    assert_eq!((&mesh["heldTruncated"], &mesh["sealing"]), (&json!(false), &json!("preferred")));
    let held = mesh["held"].as_array().expect("a list");
    assert_eq!(held.len(), 1, "{held:?}");
    assert_eq!((&held[0]["name"], &held[0]["messages"]), (&json!("carol"), &json!(2)));
    assert_eq!((&held[0]["now"], &held[0]["next"]), (&json!(1), &json!(1)));
    assert_eq!(held[0]["target"], carol.pubkey().as_str()[..12]);
    let audit = call(&node, "GET", &format!("{path}/audit")).await.body;
    for text in [&reply.body, &audit] {
        assert!(!text.contains("c2VjcmV0") && !text.contains("nonce"), "{text}");
        for member in [&alice, &bob, &carol, &node.owner] {
            assert!(!text.contains(&member.pubkey().as_str()[..13]), "a key: {text}");
        }
    }

    b.goodbye().await;
    until("the lease is let go", async || {
        let mesh = get(&node, &path).await;
        let lease = mesh["leases"]
            .as_array()
            .and_then(|all| all.iter().find(|lease| lease["name"] == "bob"));
        lease.is_some_and(|lease| lease["state"] == "released")
    })
    .await;
    assert_eq!(get(&node, "/meshes/test").await["id"], node.mesh.as_str(), "by its slug");
    for odd in ["/meshes/nothing", "/meshes/%00", "/meshes/nothing/audit"] {
        let unknown = call(&node, "GET", odd).await;
        assert_eq!((unknown.status, &unknown.json()["error"]["code"]), (404, &json!("no_mesh")));
    }
}

#[tokio::test]
async fn listings_count_what_is_there() {
    let node = start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let _a = Raw::hello(&node, &alice).await;
    let mut b = Raw::hello(&node, &bob).await;
    let (empty, _) = node.another_mesh("empty").await;
    b.sent(node.owner.pubkey().as_str(), "next", "eA==").await;
    until("the overview is new", async || {
        let meshes = get(&node, "/meshes").await;
        let of = |slug: &str| {
            let all = meshes["meshes"].as_array().expect("a list");
            all.iter().find(|mesh| mesh["slug"] == slug).cloned()
        };
        let (Some(test), Some(other)) = (of("test"), of("empty")) else { return false };
        assert_eq!((&meshes["total"], &test["cap"]), (&json!(2), &json!(100)));
        assert_eq!((&other["id"], &other["sockets"]), (&json!(empty), &json!(0)));
        (&test["sockets"], &test["places"], &test["queued"]) == (&json!(2), &json!(2), &json!(1))
    })
    .await;
    let nodes = get(&node, "/nodes").await;
    let own = &nodes["nodes"][0];
    assert_eq!((&own["id"], &own["state"]), (&nodes["node"], &json!("ready")));
    assert_eq!((&own["sockets"], &own["meshes"]), (&json!(2), &json!(1)));
    assert_eq!(own["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(own["busLagMs"], Value::Null, "there is no bus");
}

#[tokio::test]
async fn a_point_of_the_series_tells_what_happened() {
    let node = start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let _b = Raw::hello(&node, &bob).await;
    for _ in 0..20 {
        a.sent(bob.pubkey().as_str(), "now", "eA==").await;
    }
    let deadline = tokio::time::Instant::now() + 3 * crate::harness::PATIENCE;
    let series = loop {
        let series = get(&node, "/series").await;
        if series["points"].as_array().is_some_and(|points| !points.is_empty()) {
            break series;
        }
        assert!(tokio::time::Instant::now() < deadline, "no point came");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    };
    let point = &series["points"][0];
    let number = |name: &str| point[name].as_f64().expect(name);
    assert_eq!((&series["node"], number("sockets")), (&json!(node.config.node.id), 2.0));
    assert!(number("acceptedPerSecond") > 0.0 && number("deliveredPerSecond") > 0.0, "{point}");
    assert!(
        number("acceptP50Ms") > 0.0 && number("acceptP99Ms") >= number("acceptP50Ms"),
        "{point}"
    );
    assert!(number("deliverP99Ms") > 0.0, "{point}");
}

// --- what it may do --------------------------------------------------------------------

#[tokio::test]
async fn an_evicted_presence_is_closed_and_audited_and_its_peers_are_told() {
    let node = start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut b = Raw::hello(&node, &bob).await;
    let presence = presence_of(&node, "bob").await;
    let path = format!("/meshes/{}/presences/{presence}/evict", node.mesh);
    let answer = post(&node, &path).await;
    assert_eq!(answer, json!({ "presence": presence, "name": "bob", "evicted": true }));
    assert_eq!(b.closed().await, (4001, "kicked".to_owned()));
    assert_eq!(a.event("peer_left").await["eventData"]["name"], "bob");
    let again = call(&node, "POST", &path).await;
    assert_eq!((again.status, &again.json()["error"]["code"]), (404, &json!("no_presence")));

    let rows = get(&node, &format!("/meshes/{}/audit?limit=2", node.mesh)).await;
    let rows = rows["rows"].as_array().expect("rows");
    let kicked = &rows[0];
    assert_eq!((&kicked["event"], &rows[1]["event"]), (&json!("peer_kicked"), &json!("peer_left")));
    assert_eq!(kicked["actorName"], "operator");
    assert_eq!(kicked["payload"]["target"], "bob");
    let earlier = get(&node, &format!("/meshes/{}/audit?after={}", node.mesh, kicked["id"])).await;
    assert_eq!(earlier["rows"], json!([rows[1]]), "only those after it");
    let verdict = post(&node, &format!("/meshes/{}/audit/verify", node.mesh)).await;
    assert_eq!((&verdict["valid"], &verdict["brokenAt"]), (&json!(true), &Value::Null));
    let odd = call(&node, "GET", &format!("/meshes/{}/audit?after=x", node.mesh)).await;
    assert_eq!((odd.status, &odd.json()["error"]["code"]), (400, &json!("invalid")));
}

#[tokio::test]
async fn a_chain_that_was_tampered_with_is_found_out() {
    use sqlx::{ConnectOptions as _, Connection as _};
    let node = start().await;
    let alice = node.member("alice").await;
    let _a = Raw::hello(&node, &alice).await;
    let rows = get(&node, &format!("/meshes/{}/audit", node.mesh)).await;
    let first = rows["rows"][0]["id"].clone();
    let file = node.data_dir().join("broker.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
    let mut file = options.connect().await.expect("the file");
    sqlx::query("update audit_log set actor_member_id = 'someone-else' where id = ?1")
        .bind(first.as_i64())
        .execute(&mut file)
        .await
        .expect("the row");
    file.close().await.expect("closed");
    let verdict = post(&node, &format!("/meshes/{}/audit/verify", node.mesh)).await;
    assert_eq!((&verdict["valid"], &verdict["brokenAt"]), (&json!(false), &first));
}

// --- in a cluster ----------------------------------------------------------------------

async fn two_nodes() -> Cluster {
    Setup::new(2).set("ADMIN_TOKEN", TOKEN).start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_shows_all_nodes_and_evicts_what_another_holds() {
    let mut cluster = two_nodes().await;
    let [first, second] = &cluster.nodes[..] else { panic!("two nodes") };
    let bob = first.member("bob").await;
    let mut b = Raw::hello(second, &bob).await;
    let seen_by_first = async || {
        let nodes = get(first, "/nodes").await["nodes"].clone();
        nodes.as_array().expect("a list").clone()
    };
    until("the first node knows what the second has", async || {
        let nodes = seen_by_first().await;
        nodes.len() == 2
            && nodes.iter().all(|node| node["busLagMs"].is_number() && node["state"] == "ready")
            && nodes.iter().any(|node| node["id"] == "node-2" && node["sockets"] == 1)
    })
    .await;
    let presence = presence_of(first, "bob").await;
    let path = format!("/meshes/{}/presences/{presence}/evict", first.mesh);
    assert_eq!(post(first, &path).await["evicted"], true);
    assert_eq!(b.closed().await, (4001, "kicked".to_owned()));
    cluster.nodes[1].stop().await;
    let first = &cluster.nodes[0];
    until("a node that stopped is not shown", async || {
        let nodes = get(first, "/nodes").await["nodes"].clone();
        nodes.as_array().is_some_and(|nodes| nodes.len() == 1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_a_node_shows_itself_and_its_own_peers() {
    let mut cluster = two_nodes().await;
    let bob = cluster.nodes[0].member("bob").await;
    let _b = Raw::hello(&cluster.nodes[0], &bob).await;
    cluster.redis.kill();
    let first = &cluster.nodes[0];
    until("the node is degraded", async || {
        let nodes = get(first, "/nodes").await["nodes"].clone();
        nodes.as_array().is_some_and(|nodes| nodes.len() == 1)
            && nodes[0]["state"] == "degraded"
            && nodes[0]["busLagMs"].is_null()
    })
    .await;
    until("metrics say so", async || {
        crate::harness::metric(first, "broker_cluster_degraded").await == 1
    })
    .await;
    let mesh = get(first, &format!("/meshes/{}", first.mesh)).await;
    assert_eq!(mesh["peers"][0]["name"], "bob");
}
