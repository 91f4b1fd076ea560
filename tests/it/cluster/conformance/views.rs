//! What operators are shown.

use claudemesh_broker::cluster::{LeaseState, LeaseView, MeshLoad, NodeRecord, NodeState};

use super::*;

fn node_record(id: &str, sockets: u64) -> NodeRecord {
    NodeRecord {
        id: NodeId::from(id),
        region: Some("fra".to_owned()),
        version: "1.2.3".to_owned(),
        state: NodeState::Draining,
        seen_at: Timestamp::now(),
        uptime_seconds: 7,
        sockets,
        meshes: 1,
        bus_lag_ms: Some(0.5),
        accepted_per_second: 1.5,
        delivered_per_second: 2.5,
        loads: vec![MeshLoad {
            mesh: MeshId::from("m"),
            sockets: 3,
            accepted_per_second: 1.5,
            delivered_per_second: 2.5,
        }],
    }
}

pub(super) async fn nodes_are_known_for_as_long_as_they_say<S: Subject>() {
    let subject = S::start(LONG).await;
    let [first, second] = subject.nodes();
    let early = node_record("a", 1);
    first.announce_node(&early, 60_000).await.unwrap();
    assert_eq!(second.nodes().await.unwrap(), [early]);
    // Said again, it replaces what was said before.
    let record = node_record("a", 2);
    first.announce_node(&record, 60_000).await.unwrap();
    assert_eq!(first.nodes().await.unwrap(), std::slice::from_ref(&record));
    assert_eq!(second.nodes().await.unwrap(), [record]);
    first.announce_node(&node_record("a", 3), 50).await.unwrap();
    tokio::time::sleep(Duration::from_millis(120)).await;
    assert_eq!(second.nodes().await.unwrap(), [], "it went silent");
}

pub(super) async fn nodes_are_heard_for_as_long_as_their_word_holds<S: Subject>() {
    let subject = S::start(LONG).await;
    let [first, second] = subject.nodes();
    assert!(first.nodes_heard().await.unwrap().is_empty(), "nobody has said anything");
    first.announce_node(&node_record("a", 1), 60_000).await.unwrap();
    for node in [&first, &second] {
        let heard: Vec<_> = node.nodes_heard().await.unwrap().into_iter().collect();
        assert_eq!(heard, [NodeId::from("a")]);
    }
    first.announce_node(&node_record("a", 2), 50).await.unwrap();
    tokio::time::sleep(Duration::from_millis(120)).await;
    assert!(second.nodes_heard().await.unwrap().is_empty(), "it went silent");
}

fn only(leases: Vec<LeaseView>) -> LeaseView {
    assert_eq!(leases.len(), 1, "{leases:?}");
    leases.into_iter().next().unwrap()
}

pub(super) async fn a_lease_is_shown_as_it_stands<S: Subject>() {
    let subject = S::start(SHORT_TTL).await;
    let [first, second] = subject.nodes();
    let mesh = MeshId::generate();
    assert!(second.leases(&mesh).await.unwrap().is_empty());
    let held = enter(&*first, &session(&mesh, "a")).await;
    let seen = only(second.leases(&mesh).await.unwrap());
    assert_eq!((seen.state, seen.record.epoch), (LeaseState::Online, held.lease.epoch));
    assert_eq!((&seen.record.id, seen.record.online), (&held.lease.presence, true));
    tokio::time::sleep(Duration::from_millis(20)).await;
    first.renew(std::slice::from_ref(&held)).await.unwrap();
    let renewed = only(second.leases(&mesh).await.unwrap());
    assert!(renewed.expires_at > seen.expires_at, "{renewed:?} {seen:?}");
    tokio::time::sleep(LATER).await;
    assert!(first.reap(10).await.unwrap().is_empty(), "silent, in grace");
    assert_eq!(only(second.leases(&mesh).await.unwrap()).state, LeaseState::Lost);
    first.renew(std::slice::from_ref(&held)).await.unwrap();
    assert!(first.release(&held.lease, Release::Grace).await.unwrap());
    let released = only(second.leases(&mesh).await.unwrap());
    assert_eq!((released.state, released.record.online), (LeaseState::Released, false));
    assert!(released.expires_at > renewed.expires_at, "the grace is longer");
    first.revoke(&mesh, &held.lease.presence).await.unwrap();
    assert!(second.leases(&mesh).await.unwrap().is_empty());
}
