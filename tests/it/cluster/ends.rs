//! Presences that are ended while their sessions come back: the row goes first,
//! the socket is closed, the lease goes last.

use std::collections::HashMap;
use std::sync::Arc;

use claudemesh_broker::audit::AuditEvent;
use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::cluster::Cluster as _;
use claudemesh_broker::cluster::redis::{RedisCluster, RedisSettings};
use claudemesh_broker::id::{MeshId, NodeId, PresenceId};
use claudemesh_broker::store::{AuditEntry, EndPresence};
use futures_util::future::join_all;
use serde_json::json;

use crate::harness::raw::{hello_frame, session_hello_frame};
use crate::harness::{Cluster, Raw, until};

/// Another way into the cluster's shared state.
async fn shared_state(cluster: &Cluster) -> Arc<RedisCluster> {
    let settings = RedisSettings {
        url: cluster.redis.url(),
        cluster_mode: false,
        ca_file: None,
        node: NodeId::from("beside"),
        region: None,
        lease_grace_ms: 6_000,
        lease_ttl_ms: 3_000,
        key_prefix: "claudemesh".to_owned(),
        cluster_key: cluster.key().await,
    };
    RedisCluster::connect(settings).await.expect("Redis is there").0
}

async fn expiries(shared: &RedisCluster, mesh: &MeshId) -> HashMap<PresenceId, Timestamp> {
    let leases = shared.leases(mesh).await.expect("Redis is there");
    leases.into_iter().map(|lease| (lease.record.id, lease.expires_at)).collect()
}

/// Waits until every lease has been renewed twice: by then each node has learned
/// which of its leases are gone.
async fn until_renewed_twice(shared: &RedisCluster, mesh: &MeshId) {
    for _ in 0..2 {
        let before = expiries(shared, mesh).await;
        until("all leases are renewed", async || {
            let now = expiries(shared, mesh).await;
            before.iter().all(|(presence, at)| now.get(presence).is_some_and(|now| now > at))
        })
        .await;
    }
}

#[tokio::test]
async fn a_late_revocation_does_not_hit_who_came_back() {
    let cluster = Cluster::start(2).await;
    let [one, two] = &cluster.nodes[..] else { unreachable!() };
    let shared = shared_state(&cluster).await;
    let bob = one.member("bob").await;
    let mut owner = Raw::hello(one, &one.owner).await;
    let key = SecretKey::generate();
    let (_old, before) = Raw::session(two, &bob, &key).await;
    owner.event("peer_joined").await;
    let presence = PresenceId::from(before["presenceId"].as_str().expect("an id"));
    let left = AuditEntry {
        mesh: one.mesh.clone(),
        actor: Some(bob.id.clone()),
        actor_name: Some(bob.name.clone()),
        event: AuditEvent::PeerLeft,
    };
    let end = EndPresence {
        id: presence.clone(),
        mesh: one.mesh.clone(),
        member: None,
        node: None,
        audit: vec![left],
    };
    one.store.presences.end(Timestamp::now(), &[end]).await.expect("it ends");
    let (mut back, after) = Raw::session(one, &bob, &key).await;
    assert_ne!(after["presenceId"], before["presenceId"], "its peers were told that it left");
    owner.event("peer_joined").await;
    shared.revoke(&one.mesh, &presence).await.expect("Redis is there");
    until_renewed_twice(&shared, &one.mesh).await;
    back.so_far().await;
    assert_eq!(cluster.leases(), (2, 0));
    assert_eq!(one.audit_count("peer_left").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_returns_at_once_from_a_disconnect_stays() {
    const SESSIONS: usize = 20;
    let cluster = Cluster::start(2).await;
    let one = &cluster.nodes[0];
    let shared = shared_state(&cluster).await;
    let bob = one.member("bob").await;
    let mut owner = Raw::hello(one, &one.owner).await;
    let arrivals = (0..SESSIONS).map(async |number| {
        let key = SecretKey::generate();
        (number, Raw::session(&cluster.nodes[number % 2], &bob, &key).await.0, key)
    });
    let sessions = join_all(arrivals).await;
    for _ in 0..SESSIONS {
        owner.event("peer_joined").await;
    }
    let returns = sessions.into_iter().map(async |(number, mut raw, key)| {
        assert_eq!(raw.closed().await, (1000, "disconnected".to_owned()));
        Raw::session(&cluster.nodes[(number + 1) % 2], &bob, &key).await.0
    });
    let asked = owner.ask(json!({ "type": "disconnect", "all": true }));
    let (answer, mut back) = tokio::join!(asked, join_all(returns));
    assert_eq!(answer["affected"].as_array().map(Vec::len), Some(SESSIONS), "{answer}");
    for event in ["peer_left", "peer_joined"] {
        for _ in 0..SESSIONS {
            owner.event(event).await;
        }
    }
    until_renewed_twice(&shared, &one.mesh).await;
    for raw in &mut back {
        raw.so_far().await;
    }
    assert_eq!(cluster.leases(), (SESSIONS + 1, 0));
    let more = owner.so_far().await;
    assert!(!more.iter().any(|frame| frame["type"] == "push"), "{more:?}");
    assert_eq!(one.audit_count("peer_left").await, 20);
}

/// Two hellos of one session at the same moment, on two nodes: whichever way they
/// meet, one place and one row are left.
#[tokio::test(flavor = "multi_thread")]
async fn two_hellos_of_a_session_at_once_leave_one_presence() {
    const ROUNDS: usize = 12;
    let cluster = Cluster::start(2).await;
    let [one, two] = &cluster.nodes[..] else { unreachable!() };
    let shared = shared_state(&cluster).await;
    let bob = one.member("bob").await;
    let mut owner = Raw::hello(one, &one.owner).await;
    let mut open = Vec::new();
    for _ in 0..ROUNDS {
        let key = SecretKey::generate();
        let hello = || session_hello_frame(&one.mesh, &bob, &key);
        let both = tokio::join!(Raw::greet(one, hello()), Raw::greet(two, hello()));
        open.push(both);
    }
    until_renewed_twice(&shared, &one.mesh).await;
    let joined = one.audit_count("peer_joined").await;
    assert_eq!(joined - one.audit_count("peer_left").await, 13);
    until("each is listed once", async || {
        let listed = owner.ask(json!({ "type": "list_peers" })).await;
        listed["peers"].as_array().map(Vec::len) == Some(ROUNDS + 1)
    })
    .await;
    assert_eq!(cluster.leases(), (ROUNDS + 1, 0));
}

/// One names a session key in its `hello`, the other proves it, at the same moment
/// on two nodes: whichever way they meet, the proven one is left, and mail for the
/// key is for nobody else. A claim that hears that it was ended before it hears why may
/// be told something else, and hears it when it comes again.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_does_not_survive_a_proof_on_another_node() {
    const ROUNDS: usize = 12;
    let cluster = Cluster::start(2).await;
    let [one, two] = &cluster.nodes[..] else { unreachable!() };
    let (ada, eve) = (one.member("ada").await, one.member("eve").await);
    let mut owner = Raw::hello(one, &one.owner).await;
    let claim = |number: usize, key: &SecretKey| {
        let mut hello = hello_frame(&one.mesh, &eve);
        hello["sessionPubkey"] = json!(key.public_key());
        hello["sessionId"] = json!(format!("claim {number}"));
        hello
    };
    let (mut proven, mut claims) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let key = SecretKey::generate();
        let nodes = if round % 2 == 0 { [one, two] } else { [two, one] };
        let named = Raw::greet(nodes[0], claim(round, &key));
        let (named, proof) = tokio::join!(named, Raw::session(nodes[1], &ada, &key));
        claims.push((nodes[0], named.0));
        proven.push((proof.0, key));
    }
    for (round, (node, raw)) in claims.iter_mut().enumerate() {
        let because = (1008, "bad_session_pubkey".to_owned());
        if raw.closed().await != because {
            let again = Raw::refused(node, claim(round, &proven[round].1)).await;
            assert_eq!(again.1, because, "{}", again.0);
        }
    }
    until("the claims are gone", async || {
        let listed = owner.ask(json!({ "type": "list_peers" })).await;
        listed["peers"].as_array().map(Vec::len) == Some(ROUNDS + 1)
    })
    .await;
    for (raw, key) in &mut proven {
        let id = owner.sent(key.public_key().as_str(), "now", "Zm9yIGhlcg==").await;
        assert_eq!(raw.message().await["messageId"], id.as_str());
    }
}
