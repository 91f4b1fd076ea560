//! A node far from Redis and Postgres: what it costs is round trips, and few.

use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection};
use url::Url;

use crate::harness::proxy::Fault;
use crate::harness::{Raw, Setup, http};

/// One way.
const DISTANCE: Duration = Duration::from_millis(100);

/// The shortest of a few: what others do on this machine only adds.
async fn shortest<F: AsyncFnMut()>(mut act: F) -> Duration {
    let mut shortest = Duration::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        act().await;
        shortest = shortest.min(begun.elapsed());
    }
    shortest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_node_acks_within_two_round_trips() {
    let setup = Setup::new(2).behind_proxies().behind_postgres_proxies();
    let cluster = setup.set_on(1, &[("REGION", "syd")]).start().await;
    let far = &cluster.nodes[1];
    let (alice, bob) = (far.member("alice").await, far.member("bob").await);
    for proxy in [&cluster.proxies[1], &cluster.postgres_proxies[1]] {
        proxy.set(Fault::Delay(DISTANCE));
    }
    let mut sender = Raw::hello(far, &alice).await;
    let mut receiver = Raw::hello(far, &bob).await;
    let bob = bob.pubkey().to_string();
    // The first send fetches a lot of send tokens, too.
    sender.sent(&bob, "next", "Zmlyc3Q=").await;
    receiver.message().await;

    let mut by_proxy = Url::parse(cluster.database()).expect("a URL");
    let proxy = cluster.postgres_proxies[1].address;
    by_proxy.set_port(Some(proxy.port())).expect("a port");
    let mut own = PgConnection::connect(by_proxy.as_str()).await.expect("it passes");
    let round_trip = shortest(async || own.ping().await.expect("it answers")).await;
    assert!(round_trip >= 2 * DISTANCE, "the proxy delays: {round_trip:?}");

    let ack = shortest(async || {
        sender.sent(&bob, "next", "bmV4dA==").await;
    })
    .await;
    assert!(ack < round_trip * 5 / 2, "an ack took {ack:?} at a round trip of {round_trip:?}");
    for _ in 0..5 {
        receiver.message().await;
    }

    // Two peers there see each other's messages no later than the ack.
    let seen = shortest(async || {
        sender.sent(&bob, "next", "c2Vlbg==").await;
        receiver.message().await;
    })
    .await;
    assert!(seen < round_trip * 5 / 2, "a push took {seen:?} at a round trip of {round_trip:?}");

    let health = http::get(far, "/health").await.json();
    assert_eq!(health["region"], "syd", "it says where it is: {health}");
}
