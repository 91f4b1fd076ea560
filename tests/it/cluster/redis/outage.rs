//! Redis goes away, stays away, and comes back empty.

use super::moves::node_by;
use super::*;
use crate::harness::proxy::{Fault, Proxy};

const CAP: u32 = 10;

/// Two nodes that know of each other, with four sessions on the first.
async fn four_on_first(server: &PrivateRedis) -> (TestNode, TestNode, MeshId, Vec<HeldLease>) {
    let first = node(server, "first").await;
    let second = node(server, "second").await;
    let mesh = MeshId::generate();
    first.cluster.join_mesh(&mesh).await.unwrap();
    second.cluster.join_mesh(&mesh).await.unwrap();
    // Each has counted the nodes once both are there.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let mut held = Vec::new();
    for name in ["a", "b", "c", "d"] {
        held.push(enter(&first, &session(&mesh, name, "first"), CAP).await.unwrap());
    }
    assert_eq!(second.cluster.directory(&mesh).await.unwrap().len(), 4);
    (first, second, mesh, held)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_a_node_admits_its_share_and_redis_learns_of_it() {
    let mut server = PrivateRedis::start();
    let (mut first, mut second, mesh, mut held) = four_on_first(&server).await;
    server.kill();
    until_health(&first, ClusterHealth::Degraded).await;
    until_health(&second, ClusterHealth::Degraded).await;

    // Its four, and half of the six free places; on the other node half the cap.
    let started = Instant::now();
    for (node, name, places) in [(&first, "first", 3), (&second, "second", 5)] {
        let mut admitted = Vec::new();
        for number in 0..9 {
            let record = session(&mesh, &format!("{name} {number}"), name);
            admitted.extend(enter(node, &record, CAP).await);
        }
        assert_eq!(admitted.len(), places, "{name}");
        held.extend(admitted);
    }
    assert!(started.elapsed() < Duration::from_secs(2), "nobody waits for a dead server");

    // What is here goes on: renewals, reattaching, releases, small things.
    assert!(first.cluster.renew(&held[..4]).await.unwrap().is_empty());
    let back = enter(&first, &session(&mesh, "a", "first"), CAP).await.unwrap();
    assert_eq!(back.lease.presence, held[0].lease.presence);
    assert_eq!(first.cluster.renew(&held[..1]).await.unwrap(), [held[0].lease.clone()]);
    assert!(release(&first, &held[1], Release::Now).await);
    assert!(release(&first, &held[2], Release::Grace).await);
    assert!(first.cluster.use_once(&[1; 32], 60_000).await.unwrap());
    assert!(!first.cluster.use_once(&[1; 32], 60_000).await.unwrap());
    let draw =
        |bucket: &str, burst| Draw { bucket: bucket.to_owned(), want: 100, per_minute: 1, burst };
    let drawn = first.cluster.take_tokens("m", &[draw("a", 20), draw("b", 6)]).await.unwrap();
    assert_eq!(drawn.iter().map(|drawn| drawn.got).collect::<Vec<_>>(), [10, 3], "its part");
    first.cluster.put_pending_status(1, "/", Status::Dnd).await.unwrap();
    assert_eq!(first.cluster.take_pending_status(1, "/").await.unwrap(), Some(Status::Dnd));
    let renamed = PresenceRecord { summary: Some("new".to_owned()), ..(*held[3].record).clone() };
    first.cluster.write_record(&held[3].lease, &renamed).await.unwrap();
    assert!(first.cluster.directory(&mesh).await.is_err());
    let other = MeshId::generate();
    assert!(first.cluster.join_mesh(&other).await.unwrap().is_empty());
    first.cluster.publish(&mesh, &numbered(1));

    server.start_again();
    until_health(&first, ClusterHealth::Up).await;
    until_health(&second, ClusterHealth::Up).await;
    let mut gaps = std::collections::HashSet::new();
    while gaps.len() < 2 {
        if let ClusterEvent::Gap { mesh } = first.event().await {
            gaps.insert(mesh);
        }
    }
    second.gap(&mesh).await;

    // Twelve were let in, one left for good and one is in grace.
    until("the leases are written", async || online_in(&second, &mesh).await == 10).await;
    let rows = second.cluster.directory(&mesh).await.unwrap();
    assert_eq!(rows.len(), 11);
    let row = |held: &HeldLease| rows.iter().find(|row| row.id == held.lease.presence);
    assert!(row(&held[1]).is_none());
    assert!(!row(&held[2]).unwrap().online);
    assert_eq!(row(&held[3]).unwrap().summary.as_deref(), Some("new"));
    assert_eq!(row(&held[0]).unwrap().epoch, back.lease.epoch);
    assert!(enter(&second, &session(&mesh, "late", "second"), CAP).await.is_none());
    let again = enter(&second, &session(&mesh, "c", "second"), CAP).await.unwrap();
    assert_eq!(again.lease.presence, held[2].lease.presence, "its grace moved to Redis");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_during_a_freeze_is_written_after_it() {
    let server = PrivateRedis::start();
    let (first, second, mesh, held) = four_on_first(&server).await;
    server.freeze();
    until_health(&first, ClusterHealth::Degraded).await;
    assert!(release(&first, &held[0], Release::Now).await);
    assert!(release(&first, &held[1], Release::Grace).await);
    assert!(first.cluster.revoke(&mesh, &held[2].lease.presence).await.is_err());
    let renamed = PresenceRecord { summary: Some("new".to_owned()), ..(*held[3].record).clone() };
    first.cluster.write_record(&held[3].lease, &renamed).await.unwrap();
    server.thaw();
    until_health(&second, ClusterHealth::Up).await;
    until("the ends are written", async || {
        second.cluster.directory(&mesh).await.is_ok_and(|rows| rows.len() == 2)
            && online_in(&second, &mesh).await == 1
    })
    .await;
    until("the record is written", async || {
        let rows = second.cluster.directory(&mesh).await.unwrap();
        rows.iter().any(|row| row.summary.as_deref() == Some("new"))
    })
    .await;
}

/// The connection counts as up until the first call is not answered: the end is that
/// call, and never arrives.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_whose_call_is_lost_is_told_when_redis_is_back() {
    let server = PrivateRedis::start();
    let proxy = Proxy::start(server.address()).await;
    let first = node_by(&proxy, &server, "first").await;
    let second = node(&server, "second").await;
    let mesh = MeshId::generate();
    let held = enter(&first, &session(&mesh, "a", "first"), CAP).await.unwrap();
    assert_eq!(online_in(&second, &mesh).await, 1);
    until_health(&first, ClusterHealth::Up).await;
    proxy.set(Fault::Swallow);
    assert!(release(&first, &held, Release::Now).await);
    proxy.set(Fault::Pass);
    until("the end is written", async || second.cluster.directory(&mesh).await.unwrap().is_empty())
        .await;
}

/// Redis refuses that one call, and no connection is replaced for it.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_redis_refuses_once_is_told_soon() {
    let server = PrivateRedis::start();
    let (first, second, mesh, held) = four_on_first(&server).await;
    let scripts = |rule| {
        let mut rules = redis::cmd("ACL");
        rules.arg("SETUSER").arg("default").arg(rule);
        server.query::<()>(&rules);
    };
    scripts("-evalsha");
    assert!(release(&first, &held[0], Release::Now).await);
    scripts("+evalsha");
    until("the end is written", async || {
        second.cluster.directory(&mesh).await.is_ok_and(|rows| rows.len() == 3)
    })
    .await;
    until_health(&first, ClusterHealth::Up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_server_is_healed_by_one_renewal() {
    let server = PrivateRedis::start();
    let (first, second, mesh, held) = four_on_first(&server).await;
    server.flush_all();
    server.query::<()>(redis::cmd("SCRIPT").arg("FLUSH"));
    assert!(first.cluster.renew(&held).await.unwrap().is_empty());
    assert_eq!(online_in(&second, &mesh).await, 4);
    server.query::<()>(redis::cmd("SCRIPT").arg("FLUSH"));
    assert!(enter(&second, &session(&mesh, "e", "second"), 5).await.is_some());
    assert!(enter(&second, &session(&mesh, "f", "second"), 5).await.is_none());
    assert_eq!(first.cluster.health(), ClusterHealth::Up);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_closes_after_a_wipe_leaves_its_session_in_grace() {
    let server = PrivateRedis::start();
    let (first, second, mesh, held) = four_on_first(&server).await;
    server.flush_all();
    assert!(release(&first, &held[0], Release::Grace).await);
    assert!(release(&first, &held[1], Release::Now).await);
    assert!(first.cluster.renew(&held).await.unwrap().is_empty());
    let rows = second.cluster.directory(&mesh).await.unwrap();
    assert_eq!((rows.len(), online_in(&second, &mesh).await), (3, 2));
    let back = enter(&second, &session(&mesh, "a", "second"), CAP).await.unwrap();
    assert_eq!(back.lease.presence, held[0].lease.presence);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_moved_while_its_node_was_cut_off_is_not_taken_back() {
    let mut server = PrivateRedis::start();
    let (first, second, mesh, held) = four_on_first(&server).await;
    server.kill();
    until_health(&first, ClusterHealth::Degraded).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.start_again();
    until_health(&second, ClusterHealth::Up).await;
    until_health(&first, ClusterHealth::Up).await;
    let moved = enter(&second, &session(&mesh, "a", "second"), CAP).await.unwrap();
    assert_eq!(first.cluster.renew(&held).await.unwrap(), [held[0].lease.clone()]);
    assert!(second.cluster.renew(&[moved]).await.unwrap().is_empty());
    until("everyone is there once", async || online_in(&second, &mesh).await == 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_without_redis_and_finds_it_later() {
    let mut server = PrivateRedis::start();
    server.kill();
    let mut early = node(&server, "early").await;
    assert_eq!(early.cluster.health(), ClusterHealth::Degraded);
    let mesh = MeshId::generate();
    assert!(early.cluster.join_mesh(&mesh).await.unwrap().is_empty());
    assert!(enter(&early, &session(&mesh, "a", "early"), CAP).await.is_some());
    server.start_again();
    early.gap(&mesh).await;
    until_health(&early, ClusterHealth::Up).await;
    until("the lease is written", async || online_in(&early, &mesh).await == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_node_stops_its_work() {
    let server = PrivateRedis::start();
    let dropped = node(&server, "dropped").await;
    let clients = || -> String { server.query(redis::cmd("CLIENT").arg("LIST")) };
    assert!(clients().contains("claudemesh/dropped/test_region"), "{}", clients());
    drop(dropped);
    until("its connections are closed", async || !clients().contains("claudemesh/dropped")).await;
}
