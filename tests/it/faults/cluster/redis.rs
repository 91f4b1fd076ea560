//! A Redis that dies, stands still, is deaf, slow, or cuts its subscribers off.

use std::time::Duration;

use serde_json::json;

use super::{AFTER, LONG, patient, settle_undisturbed, sleep};
use crate::harness::load::Load;
use crate::harness::proxy::Fault;
use crate::harness::{Cluster, Member, Raw, Setup, until};

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_killed_and_comes_back_empty() {
    let mut cluster = patient(2).start().await;
    let mut load = Load::start(&cluster).await;
    cluster.redis.kill();
    load.until_accepted(AFTER).await;
    cluster.redis.start_again();
    load.until_accepted(AFTER).await;
    load.assert_undisturbed();
    load.one_leaves().await;
    settle_undisturbed(load, &cluster).await;
}

/// A node that reads who is there in between believes a directory that lacks the others.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_read_an_emptied_redis_hears_of_those_who_are_told_to_it_again() {
    let cluster = Setup::new(2).behind_proxies().start().await;
    let node = &cluster.nodes[0];
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(node, &alice).await;
    let mut b = Raw::hello(&cluster.nodes[1], &bob).await;
    until("they see each other", async || sees(&mut a, &bob).await && sees(&mut b, &alice).await)
        .await;
    // Alice's node cannot tell Redis of her before bob's has read what is left.
    cluster.proxies[0].set(Fault::Stall);
    cluster.redis.flush_all();
    let mut cut_off = redis::cmd("CLIENT");
    cut_off.arg("KILL").arg("TYPE").arg("pubsub");
    cluster.redis.query::<()>(&cut_off);
    until("bob's node has read what Redis has", async || !sees(&mut b, &alice).await).await;
    cluster.proxies[0].set(Fault::Pass);
    until("they see each other again", async || {
        sees(&mut a, &bob).await && sees(&mut b, &alice).await
    })
    .await;
}

async fn sees(raw: &mut Raw, who: &Member) -> bool {
    let answer = raw.ask(json!({ "type": "list_peers" })).await;
    let peers = answer["peers"].as_array().expect("a list");
    peers.iter().any(|peer| peer["memberPubkey"] == who.pubkey().as_str())
}

/// Longer than any window: what is sent arrives all the same, by the store.
#[tokio::test(flavor = "multi_thread")]
async fn redis_is_away_for_a_minute() {
    let mut cluster = patient(2).start().await;
    let mut load = Load::start(&cluster).await;
    cluster.redis.kill();
    for _ in 0..4 {
        sleep(Duration::from_secs(15)).await;
        load.until_heard().await;
    }
    cluster.redis.start_again();
    load.until_accepted(AFTER).await;
    load.one_leaves().await;
    settle_undisturbed(load, &cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_stands_still() {
    let cluster = patient(2).start().await;
    let mut load = Load::start(&cluster).await;
    cluster.redis.freeze();
    load.one_leaves().await;
    sleep(LONG).await;
    cluster.redis.thaw();
    settle_undisturbed(load, &cluster).await;
}

fn all(cluster: &Cluster, fault: Fault) {
    for proxy in &cluster.proxies {
        proxy.set(fault);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_connected_and_deaf() {
    let cluster = patient(2).behind_proxies().start().await;
    let mut load = Load::start(&cluster).await;
    all(&cluster, Fault::Swallow);
    load.one_leaves().await;
    sleep(LONG).await;
    all(&cluster, Fault::Pass);
    settle_undisturbed(load, &cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_says_does_not_arrive() {
    let cluster = patient(2).behind_proxies().start().await;
    let load = Load::start(&cluster).await;
    cluster.proxies[1].set_each(Fault::Pass, Fault::Swallow);
    sleep(LONG).await;
    cluster.proxies[1].set(Fault::Pass);
    settle_undisturbed(load, &cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_slow() {
    let cluster = patient(2).behind_proxies().start().await;
    let mut load = Load::start(&cluster).await;
    all(&cluster, Fault::Delay(Duration::from_millis(100)));
    load.until_accepted(AFTER).await;
    load.one_leaves().await;
    settle_undisturbed(load, &cluster).await;
}

/// Redis closes subscribers that do not keep up; here, all at once, and again.
/// They do not read meanwhile: Valkey looks at what is left after the socket took
/// what it could, and a subscriber that reads keeps pace with any flood.
#[tokio::test(flavor = "multi_thread")]
async fn redis_cuts_its_subscribers_off() {
    let cluster = patient(2).behind_proxies().start().await;
    let mut load = Load::start(&cluster).await;
    let mut limit = redis::cmd("CONFIG");
    limit.arg("SET").arg("client-output-buffer-limit").arg("pubsub 65536 65536 1");
    cluster.redis.query::<()>(&limit);
    for _ in 0..3 {
        let before = subscribers(&cluster);
        for proxy in &cluster.proxies {
            proxy.set_each(Fault::Pass, Fault::Stall);
        }
        flood(&cluster);
        until("the subscribers are cut off", async || {
            subscribers(&cluster).iter().all(|id| !before.contains(id))
        })
        .await;
        all(&cluster, Fault::Pass);
        until("the subscribers are others", async || subscribers(&cluster).len() == before.len())
            .await;
        load.until_accepted(AFTER).await;
    }
    load.one_leaves().await;
    settle_undisturbed(load, &cluster).await;
}

/// The ids of the connections that subscribe.
fn subscribers(cluster: &Cluster) -> Vec<String> {
    let mut list = redis::cmd("CLIENT");
    list.arg("LIST").arg("TYPE").arg("pubsub");
    let list: String = cluster.redis.query(&list);
    list.lines().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
}

/// More than the sockets of a subscriber that does not read take on loopback.
const FLOOD_BYTES: usize = 32 * 1024 * 1024;

/// Something larger than the limit, on every channel.
fn flood(cluster: &Cluster) {
    let mut channels = redis::cmd("PUBSUB");
    channels.arg("CHANNELS");
    let junk = "x".repeat(FLOOD_BYTES);
    for channel in cluster.redis.query::<Vec<String>>(&channels) {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(channel).arg(&junk);
        cluster.redis.query::<()>(&publish);
    }
}
