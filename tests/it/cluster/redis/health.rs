//! Each thing that a node needs of Redis is looked at for itself: by the node,
//! and by who examines a Redis before.

use claudemesh_broker::cluster::Cluster;
use claudemesh_broker::cluster::redis::Need;

use super::*;

/// As that user, who may do what `rules` say.
fn settings_as(server: &PrivateRedis, user: &str, rules: &[&str]) -> RedisSettings {
    let mut set = redis::cmd("ACL");
    set.arg("SETUSER").arg(user).arg("on").arg(">pw").arg(rules);
    server.query::<()>(&set);
    RedisSettings { url: server.url_as(user), ..settings(server, user) }
}

async fn start(settings: RedisSettings) -> TestNode {
    let (cluster, events) = RedisCluster::connect(settings).await.unwrap();
    TestNode { cluster, events }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_does_not_hear_itself_is_degraded() {
    let server = PrivateRedis::start();
    let deaf: [(&str, &[&str]); 3] = [
        // What Redis 7 gives to a new user.
        ("channelless", &["~*", "+@all", "resetchannels"]),
        ("dumb", &["~*", "&*", "+@all", "-publish"]),
        ("deaf", &["~*", "&*", "+@all", "-subscribe"]),
    ];
    for (user, rules) in deaf {
        let settings = settings_as(&server, user, rules);
        let node = start(settings.clone()).await;
        until_health(&node, ClusterHealth::Degraded).await;
        until("its leases are kept", async || {
            node.cluster.trouble().is_some_and(|trouble| trouble.contains("does not come back"))
        })
        .await;
        let facts = examine(&settings).await.unwrap();
        assert_eq!(facts.refusals.len(), 1, "{user}: {facts:?}");
        assert_eq!(facts.refusals[0].0, Need::Bus, "{user}");
        assert_eq!(node.cluster.bus_lag(), None);
    }
    // And is not, once it may.
    let node = start(settings_as(&server, "late", &["~*", "+@all", "resetchannels"])).await;
    assert_eq!(node.cluster.health(), ClusterHealth::Degraded);
    server.query::<()>(redis::cmd("ACL").arg("SETUSER").arg("late").arg("&*"));
    until_health(&node, ClusterHealth::Up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_a_name_or_a_look_at_the_server_works() {
    let server = PrivateRedis::start();
    let rules = ["~test:*", "&test:*", "+@all", "-client", "-info"];
    let settings = settings_as(&server, "plain", &rules);
    let node = start(settings.clone()).await;
    assert_eq!(node.cluster.trouble(), None);
    let facts = examine(&settings).await.unwrap();
    assert!(facts.refusals.is_empty(), "{facts:?}");
    assert_eq!(facts.version, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_examines_a_redis_tries_what_nodes_do() {
    let server = PrivateRedis::start();
    let needs = |facts: &claudemesh_broker::cluster::redis::RedisFacts| -> Vec<Need> {
        facts.refusals.iter().map(|(need, _)| *need).collect()
    };
    let facts = examine(&settings(&server, "n")).await.unwrap();
    assert_eq!((needs(&facts), facts.memory), (Vec::new(), None));
    let scriptless = settings_as(&server, "s", &["~*", "&*", "+@all", "-@scripting"]);
    assert_eq!(needs(&examine(&scriptless).await.unwrap()), [Need::Scripts]);
    let mut full = redis::cmd("CONFIG");
    full.arg("SET").arg("maxmemory").arg(1);
    server.query::<()>(&full);
    let facts = examine(&settings(&server, "n")).await.unwrap();
    assert_eq!(needs(&facts), [Need::Scripts, Need::Writes], "{facts:?}");
    assert!(facts.memory.is_some_and(|(used, max)| used > max));
    let keys: Vec<String> = server.query(redis::cmd("KEYS").arg("*"));
    assert!(keys.is_empty(), "nothing stays: {keys:?}");
    let cluster = PrivateRedis::start_cluster();
    let settings = RedisSettings { cluster_mode: true, ..settings(&cluster, "n") };
    let facts = examine(&settings).await.unwrap();
    assert_eq!(needs(&facts), [], "{facts:?}");
}

/// Takes no more writes, in each of the ways that one call brings about.
fn refusals() -> [(&'static str, &'static str, &'static str); 2] {
    [("maxmemory", "1", "0"), ("min-replicas-to-write", "1", "0")]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_takes_no_writes_is_as_one_that_is_away() {
    for (setting, on, off) in refusals() {
        let server = PrivateRedis::start();
        let (first, second) = (node(&server, "first").await, node(&server, "second").await);
        let mesh = MeshId::generate();
        first.cluster.join_mesh(&mesh).await.unwrap();
        second.cluster.join_mesh(&mesh).await.unwrap();
        let held = enter(&first, &session(&mesh, "ada", "first"), 100).await.unwrap();
        server.query::<()>(redis::cmd("CONFIG").arg("SET").arg(setting).arg(on));
        for node in [&first, &second] {
            until_health(node, ClusterHealth::Degraded).await;
            assert_eq!(node.cluster.trouble(), Some("Redis takes no writes"), "{setting}");
        }
        // Reading goes on, and does not make it whole.
        assert_eq!(second.cluster.directory(&mesh).await.unwrap().len(), 1);
        assert_eq!(second.cluster.health(), ClusterHealth::Degraded);
        // Newcomers, and one who comes back on the other node.
        let mut entered = Vec::new();
        for (node, name) in [(&first, "first"), (&second, "second")] {
            for number in 0..10 {
                let record = session(&mesh, &format!("{name} {number}"), name);
                entered.push((node, enter(node, &record, 100).await.unwrap()));
            }
        }
        let back = enter(&second, &session(&mesh, "ada", "second"), 100).await.unwrap();
        assert!(back.lease.epoch > held.lease.epoch);
        entered.push((&second, back));
        for (node, held) in &entered {
            let written = node.cluster.write_record(&held.lease, &held.record).await.unwrap();
            assert!(written, "{setting}: a lease that this node gave is held");
            let renewed = node.cluster.renew(std::slice::from_ref(held)).await.unwrap();
            assert!(renewed.is_empty());
        }
        let (leaver, leaving) = entered.pop().unwrap();
        assert!(release(leaver, &leaving, Release::Grace).await, "{setting}");
        server.query::<()>(redis::cmd("CONFIG").arg("SET").arg(setting).arg(off));
        for node in [&first, &second] {
            until_health(node, ClusterHealth::Up).await;
        }
        until("the newcomers are written", async || online_in(&first, &mesh).await >= 20).await;
    }
}
