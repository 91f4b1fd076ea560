//! What is shared goes back in time: a database that is an older copy of itself
//! (a failover to a standby that lagged, a restore), a Redis that starts from an
//! older dump.

use claudemesh_broker::auth::SecretKey;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::harness::postgres::connection;
use crate::harness::{Cluster, Member, Node, Raw, until};

/// Multicasts that the copy of the database does not have.
const AHEAD: usize = 60;

/// The cluster's database, by way of its server.
struct Database {
    name: String,
    server: String,
}

impl Database {
    fn of(cluster: &Cluster) -> Self {
        let (server, name) = cluster.database().rsplit_once('/').expect("a URL");
        Self { name: name.to_owned(), server: format!("{server}/postgres") }
    }

    async fn runs(&self, sql: String) -> bool {
        let mut server = connection(&self.server).await;
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut server).await.is_ok()
    }

    /// Runs it while nobody is connected.
    async fn alone(&self, sql: &str) {
        let name = &self.name;
        assert!(self.runs(format!("alter database {name} allow_connections false")).await);
        until("the database is left alone", async || {
            let end = format!(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'"
            );
            self.runs(end).await && self.runs(sql.to_owned()).await
        })
        .await;
    }

    async fn copy(&self) {
        let name = &self.name;
        self.alone(&format!("create database {name}_copy template {name}")).await;
        assert!(self.runs(format!("alter database {name} allow_connections true")).await);
    }

    /// From now on the name leads to the copy.
    async fn fail_over(&self) {
        let name = &self.name;
        self.alone(&format!("alter database {name} rename to {name}_gone")).await;
        assert!(self.runs(format!("alter database {name}_copy rename to {name}")).await);
    }
}

/// Sends until it is accepted: the first may meet a connection that has ended.
async fn send(raw: &mut Raw) -> String {
    let mut id = None;
    until("it is accepted", async || {
        let ack = raw.send("*", "now", "dGV4dA==").await;
        id = ack["messageId"].as_str().filter(|_| ack["queued"] == true).map(str::to_owned);
        id.is_some()
    })
    .await;
    id.expect("just set")
}

async fn hears(raw: &mut Raw, id: &str) {
    let push = raw.hear_where("push", |push| push["messageId"] == id).await;
    raw.confirm(&push).await;
}

/// Two per node: one that confirms, and one that never does.
async fn receivers(cluster: &Cluster) -> Vec<(usize, Member, Value)> {
    let mut all = Vec::new();
    for at in 0..cluster.nodes.len() {
        for channel in ["claudemesh-daemon", "claudemesh-cli"] {
            let member = cluster.nodes[at].member(&format!("{channel}-{at}")).await;
            all.push((at, member, json!(channel)));
        }
    }
    all
}

async fn connect(node: &Node, member: &Member, channel: &Value) -> Raw {
    Raw::hello_with(node, member, |hello| hello["channel"] = channel.clone()).await.0
}

async fn what_is_acked_after_a_failover_arrives(nodes: usize) {
    let cluster = Cluster::start(nodes).await;
    let database = Database::of(&cluster);
    let receivers = receivers(&cluster).await;
    let mut owner = Raw::hello(&cluster.nodes[0], &cluster.nodes[0].owner).await;
    let mut open = Vec::new();
    for (at, member, channel) in &receivers {
        open.push(connect(&cluster.nodes[*at], member, channel).await);
    }
    let to_all = async |owner: &mut Raw, open: &mut Vec<Raw>, count: usize| {
        for _ in 0..count {
            let id = send(owner).await;
            for raw in &mut *open {
                hears(raw, &id).await;
            }
        }
    };
    to_all(&mut owner, &mut open, 3).await;
    database.copy().await;
    to_all(&mut owner, &mut open, AHEAD).await;
    database.fail_over().await;
    to_all(&mut owner, &mut open, 5).await;
    // And to those that come back.
    drop(open);
    let mut back = Vec::new();
    for (at, member, channel) in &receivers {
        back.push(connect(&cluster.nodes[*at], member, channel).await);
    }
    to_all(&mut owner, &mut back, 5).await;
    // And when they come back once more to what was sent meanwhile.
    drop(back);
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(send(&mut owner).await);
    }
    for (at, member, channel) in &receivers {
        let mut raw = connect(&cluster.nodes[(at + 1) % nodes], member, channel).await;
        for id in &ids {
            hears(&mut raw, id).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acked_after_a_failover_to_a_lagging_database_arrives_on_one_node() {
    what_is_acked_after_a_failover_arrives(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acked_after_a_failover_to_a_lagging_database_arrives_on_three_nodes() {
    what_is_acked_after_a_failover_arrives(3).await;
}

/// Redis starts again from a dump that was taken before two peers left.
#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_forget_who_left_when_redis_comes_back_from_an_older_dump() {
    let mut cluster = Cluster::start(2).await;
    let [one, two] = &cluster.nodes[..] else { unreachable!() };
    let watcher = one.member("watcher").await;
    let (kicked, gone) = (one.member("kicked").await, one.member("gone").await);
    let mut owner = Raw::hello(one, &one.owner).await;
    let mut watcher = Raw::hello(two, &watcher).await;
    let (key, other_key) = (SecretKey::generate(), SecretKey::generate());
    let (mut first, _) = Raw::session(two, &kicked, &key).await;
    let (second, _) = Raw::session(one, &gone, &other_key).await;
    for raw in [&mut owner, &mut watcher] {
        until("both are listed", async || listed(raw).await == 4).await;
    }
    cluster.redis.query::<()>(&redis::cmd("SAVE"));
    owner.ask(json!({ "type": "kick", "target": "kicked" })).await;
    first.closed().await;
    second.goodbye().await;
    for _ in 0..2 {
        owner.event("peer_left").await;
    }
    assert_eq!(cluster.leases(), (2, 0));
    cluster.redis.kill();
    cluster.redis.start_again();
    assert_eq!(cluster.leases().0 + cluster.leases().1, 4, "they are back in Redis");
    until("their places are free", async || cluster.leases() == (2, 0)).await;
    for raw in [&mut owner, &mut watcher] {
        until("nobody lists them", async || listed(raw).await == 2).await;
    }
    let again = owner.so_far().await;
    assert!(!again.iter().any(|frame| frame["event"] == "peer_left"), "told once: {again:?}");
}

async fn listed(raw: &mut Raw) -> usize {
    let listed = raw.ask(json!({ "type": "list_peers" })).await;
    listed["peers"].as_array().expect("rows").len()
}
