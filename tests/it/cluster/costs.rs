//! What a message costs, where that is a count and does not depend on time:
//! statements and rows in Postgres, commands in Redis.

use claudemesh_broker::id::MessageId;
use claudemesh_broker::store::{Confirm, NewEnvelope, Stores};
use sqlx::{PgConnection, Row as _};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use crate::harness::postgres::{PrivatePostgres, connection, store};
use crate::harness::raw::Raw;
use crate::harness::{Cluster, until};
use crate::store::fixture::{Fixture, Peer, T0, at, changed};

/// As many as one batch of a busy node holds.
const BATCH: usize = 400;

// --- Postgres ------------------------------------------------------------------

/// What a database counts, seen from another one.
#[derive(Debug)]
struct Counts {
    statements: i64,
    rows_written: i64,
}

async fn counts(other: &mut PgConnection, database: &str) -> Counts {
    // A session counts at its end.
    until("the sessions have ended", async || {
        sqlx::query("select from pg_stat_activity where datname = $1")
            .bind(database)
            .fetch_all(&mut *other)
            .await
            .expect("readable")
            .is_empty()
    })
    .await;
    let row = sqlx::query(
        "select xact_commit + xact_rollback as statements,
            tup_inserted + tup_updated + tup_deleted as rows_written
         from pg_stat_database where datname = $1",
    )
    .bind(database)
    .fetch_one(other)
    .await
    .expect("the database is there");
    Counts { statements: row.get("statements"), rows_written: row.get("rows_written") }
}

fn confirms(here: &Fixture, peer: &Peer, batch: &[NewEnvelope]) -> Vec<Confirm> {
    let confirm = |envelope: &NewEnvelope| Confirm::Message {
        mesh: here.mesh.clone(),
        id: envelope.id.clone(),
        member_key: peer.key.clone(),
        session_key: None,
        is_written_only: false,
    };
    batch.iter().map(confirm).collect()
}

fn directs(here: &Fixture, peer: &Peer, count: usize) -> Vec<NewEnvelope> {
    let direct = |number: usize| {
        changed(here.direct(&here.owner, &peer.key), |envelope| {
            envelope.client_message_id = Some(format!("{number}-{}", MessageId::generate()))
        })
    };
    (0..count).map(direct).collect()
}

/// Outside of transactions each statement is one. A queue row, an audit row,
/// and the queue row once more when it is done.
#[tokio::test]
async fn a_batch_costs_two_statements_and_three_rows_a_message() {
    let server = PrivatePostgres::shared();
    let url = server.migrated_database().await;
    let database = url.rsplit('/').next().expect("a name").to_owned();
    let here = Fixture::new(store(&url)).await;
    let peer = here.member("ada").await;
    here.store.database.close().await;
    let mut other = connection(&server.url("postgres")).await;
    let before = counts(&mut other, &database).await;

    let node: Stores = store(&url);
    let batch = directs(&here, &peer, BATCH);
    node.envelopes.accept(T0, &batch).await.expect("a mesh");
    node.mail.confirm(at(1), &confirms(&here, &peer, &batch)).await.expect("accepted");
    node.database.close().await;

    let after = counts(&mut other, &database).await;
    let messages = i64::try_from(BATCH).expect("few");
    // The server's own housekeeping may come by meanwhile.
    let statements = after.statements - before.statements;
    assert!((2..messages / 20).contains(&statements), "{statements} for {messages} messages");
    let rows = after.rows_written - before.rows_written;
    assert!((messages * 3..messages * 3 + 300).contains(&rows), "{rows} for {messages} messages");
}

/// Index entries of the queue that were read.
async fn entries_read(url: &str) -> i64 {
    let mut other = connection(url).await;
    sqlx::query(
        "select coalesce(sum(idx_tup_read), 0)::bigint as read from pg_stat_user_indexes
         where relname = 'message_queue'",
    )
    .fetch_one(&mut other)
    .await
    .expect("readable")
    .get("read")
}

/// A plan that was made while nothing waited is kept for long.
#[tokio::test]
async fn a_confirmation_costs_the_same_however_much_waits() {
    let server = PrivatePostgres::shared();
    let url = server.migrated_database().await;
    let database = url.rsplit('/').next().expect("a name").to_owned();
    let here = Fixture::new(store(&url)).await;
    let (peer, away) = (here.member("ada").await, here.member("bob").await);
    here.store.database.close().await;
    let mut other = connection(&server.url("postgres")).await;

    let mut read = Vec::new();
    for waiting in [0, 4000] {
        let node: Stores = store(&url);
        let early = directs(&here, &peer, 1);
        node.mail.confirm(at(1), &confirms(&here, &peer, &early)).await.expect("not there");
        if waiting > 0 {
            node.envelopes.accept(T0, &directs(&here, &away, waiting)).await.expect("a mesh");
        }
        let batch = directs(&here, &peer, 100);
        node.envelopes.accept(T0, &batch).await.expect("a mesh");
        counts_settled(&mut other, &database, &node).await;
        let before = entries_read(&url).await;
        let node: Stores = store(&url);
        node.mail.confirm(at(1), &confirms(&here, &peer, &early)).await.expect("not there");
        node.mail.confirm(at(1), &confirms(&here, &peer, &batch)).await.expect("accepted");
        counts_settled(&mut other, &database, &node).await;
        read.push(entries_read(&url).await - before);
    }
    let [few, many] = read[..] else { unreachable!() };
    assert!(
        many <= few + 100,
        "{few} entries read beside an empty queue, {many} beside a long one"
    );
}

async fn counts_settled(other: &mut PgConnection, database: &str, node: &Stores) {
    node.database.close().await;
    counts(other, database).await;
}

// --- Redis ---------------------------------------------------------------------

/// Hears every command that a server gets.
pub(super) struct Monitor(BufReader<TcpStream>);

impl Monitor {
    pub(super) fn of(cluster: &Cluster) -> Self {
        let url = url::Url::parse(cluster.redis.url().expose()).expect("a URL");
        let address = (url.host_str().expect("a host"), url.port().expect("a port"));
        let mut stream = TcpStream::connect(address).expect("the server runs");
        stream.write_all(b"MONITOR\r\n").expect("it listens");
        let mut monitor = Self(BufReader::new(stream));
        assert_eq!(monitor.line(), "+OK");
        monitor
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("the server runs");
        line.trim_end().to_owned()
    }

    /// The commands until now.
    pub(super) fn commands(&mut self, cluster: &Cluster) -> Vec<String> {
        let sentinel = MessageId::generate();
        cluster.redis.query::<String>(redis::cmd("ECHO").arg(sentinel.as_str()));
        let mut heard = Vec::new();
        loop {
            let line = self.line();
            if line.contains(sentinel.as_str()) {
                return heard;
            }
            heard.push(line);
        }
    }
}

/// How many commands carry each message: nothing else names its id.
fn carriers(commands: &[String], messages: &[String]) -> Vec<usize> {
    let carriers = |id: &String| commands.iter().filter(|line| line.contains(id.as_str())).count();
    messages.iter().map(carriers).collect()
}

#[tokio::test]
async fn redis_hears_of_a_remote_message_once_and_of_a_local_one_never() {
    let cluster = Cluster::start(2).await;
    let [one, two] = &cluster.nodes[..] else { unreachable!() };
    let (alice, bob, carol) =
        (one.member("alice").await, one.member("bob").await, one.member("carol").await);
    let mut a = Raw::hello(one, &alice).await;
    let mut b = Raw::hello(one, &bob).await;
    let mut c = Raw::hello(two, &carol).await;
    for raw in [&mut a, &mut b, &mut c] {
        until("all peers are seen", async || {
            let listed = raw.ask(serde_json::json!({ "type": "list_peers" })).await;
            listed["peers"].as_array().is_some_and(|rows| rows.len() == 3)
        })
        .await;
    }
    let mut monitor = Monitor::of(&cluster);
    let (mut local, mut remote) = (Vec::new(), Vec::new());
    for number in 0..20 {
        local.push(a.sent(bob.pubkey().as_str(), "next", &format!("here {number}")).await);
        let push = b.message().await;
        b.confirm(&push).await;
        remote.push(a.sent(carol.pubkey().as_str(), "next", &format!("there {number}")).await);
        let push = c.message().await;
        c.confirm(&push).await;
    }
    let commands = monitor.commands(&cluster);
    assert_eq!(carriers(&commands, &local), [0; 20]);
    assert_eq!(carriers(&commands, &remote), [1; 20]);
}
