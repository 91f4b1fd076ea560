//! Two releases side by side: what a later one writes is no obstacle to this
//! one. The later release is played by the test, on the same Redis and Postgres.

use claudemesh_broker::client::{ClientOptions, Inbound};
use claudemesh_broker::cluster::BusMessage;
use claudemesh_broker::cluster::redis::seals::Seals;
use claudemesh_broker::protocol::Priority;
use claudemesh_broker::record::PresenceRecord;
use serde::Deserialize;
use serde_bytes::ByteBuf;
use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::harness::frames::Stranger;
use crate::harness::postgres::{PrivatePostgres, connection};
use crate::harness::program::{Answer, Place, Printing, text};
use crate::harness::{Cluster, Setup, until};

/// With fields that no release has today, at every level.
fn later(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        for field in fields.values_mut() {
            *field = later(field.take());
        }
        fields.insert("laterField".to_owned(), json!({ "nested": [1, null, "x"] }));
    }
    value
}

/// The one key of that kind.
fn key(cluster: &Cluster, pattern: &str) -> String {
    let mut command = redis::cmd("KEYS");
    command.arg(pattern);
    let keys: Vec<String> = cluster.redis.query(&command);
    assert_eq!(keys.len(), 1, "{pattern}: {keys:?}");
    keys.into_iter().next().expect("one")
}

#[tokio::test]
async fn frames_and_records_of_a_later_release_are_understood() {
    let cluster = Setup::new(2).start().await;
    let [one, two] = [&cluster.nodes[0], &cluster.nodes[1]];
    let (ada, mut ada_inbox) = one.connect(ClientOptions::session(one.identity("ada").await)).await;

    // What the later release keeps about a presence has more fields.
    let records = key(&cluster, "*:records");
    let mut get = redis::cmd("HGETALL");
    get.arg(&records);
    let kept: Vec<(String, Vec<u8>)> = cluster.redis.query(&get);
    assert_eq!(kept.len(), 1, "ada's");
    let key_of_nodes = cluster.key().await;
    let seals = Seals::new(&key_of_nodes);
    let place = [one.mesh.as_str(), &kept[0].0];
    let record = seals.open("record", &place, &kept[0].1).expect("signed");
    let record: PresenceRecord = rmp_serde::from_slice(record).expect("a record");
    let newer = later(serde_json::to_value(&record).expect("plain"));
    let mut set = redis::cmd("HSET");
    let newer = rmp_serde::to_vec_named(&newer).expect("plain");
    set.arg(&records).arg(&kept[0].0).arg(seals.seal("record", &place, &newer));
    cluster.redis.query::<i64>(&set);

    // A node that reads it now, for its first peer, knows ada by it.
    let (bob, _bob_inbox) = two.connect(ClientOptions::session(two.identity("bob").await)).await;
    let sent = bob.send(ada.pubkey().as_str(), Priority::Now, "to whom they know").await;
    assert!(sent.expect("accepted").queued);
    next_text(&mut ada_inbox, "to whom they know").await;

    // A presence of the later release is announced, then something that only it
    // knows, then another presence: the stranger between them costs nothing.
    let channel = format!("{}:{{{}}}:bus", cluster.prefix, one.mesh);
    let reason = Some(json!({ "reason": "a test" }));
    let later_node = Stranger { node: "later-node", incarnation: 7, version: 2, later: reason };
    for (seq, name) in [(1, Some("cid")), (2, None), (3, Some("dan"))] {
        let body = match name {
            Some(name) => later(announcement(&record, name)),
            None => json!({ "kind": "telepathy", "laterField": 1 }),
        };
        let said = (Some(&body), None);
        let heard = later_node.says(&cluster.redis, &channel, seq, said, Some(&key_of_nodes));
        assert!(heard >= 2, "both nodes listen");
    }
    for name in ["cid", "dan"] {
        until("a peer of the later release is listed", async || {
            let peers = bob.list_peers().await.expect("an answer");
            peers.iter().any(|peer| peer.display_name == name)
        })
        .await;
    }
    let sent = bob.send(ada.pubkey().as_str(), Priority::Now, "still").await;
    assert!(sent.expect("accepted").queued);
    next_text(&mut ada_inbox, "still").await;
}

async fn next_text(inbox: &mut claudemesh_broker::client::Inbox, wanted: &str) {
    let reading = async {
        loop {
            let inbound = inbox.recv().await.expect("connected");
            if matches!(&inbound, Inbound::Message { .. }) && inbound.text() == Some(wanted) {
                return;
            }
        }
    };
    tokio::time::timeout(crate::harness::PATIENCE, reading).await.expect("the message");
}

/// Another presence like `record`, of a session of its own.
fn announcement(record: &PresenceRecord, name: &str) -> Value {
    let mut record = record.clone();
    record.id = claudemesh_broker::id::PresenceId::generate();
    record.session_key = Some(claudemesh_broker::auth::SecretKey::generate().public_key());
    record.display_name = name.to_owned();
    record.node = "later-node".to_owned();
    record.online = true;
    record.epoch = 1;
    let message = BusMessage::Presence { record: Box::new(record), event: None };
    serde_json::to_value(&message).expect("plain")
}

/// The frame of today's release has what the test's has, or the test is void.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TodaysFrame {
    v: u32,
    node: String,
    incarnation: u64,
    seq: u64,
    #[serde(default)]
    first: bool,
    #[serde(default)]
    body: Option<ByteBuf>,
    #[serde(default)]
    control: Option<ByteBuf>,
    signature: ByteBuf,
}

#[tokio::test]
async fn todays_frames_have_the_fields_that_the_test_plays_with() {
    let cluster = Setup::new(2).start().await;
    let client = redis::Client::open(cluster.redis.url().expose()).expect("a URL");
    let mut listener = client.get_async_pubsub().await.expect("connected");
    listener.psubscribe("claudemesh:*:bus").await.expect("subscribed");
    // With peers on both nodes: a node alone in a mesh keeps its frames.
    let [one, two] = [&cluster.nodes[0], &cluster.nodes[1]];
    let (_ada, _inbox) = one.connect(ClientOptions::session(one.identity("ada").await)).await;
    let (_bob, _inbox) = two.connect(ClientOptions::session(two.identity("bob").await)).await;
    let mut frames = listener.on_message();
    let reading = futures_util::StreamExt::next(&mut frames);
    let message = tokio::time::timeout(crate::harness::PATIENCE, reading).await;
    let message = message.expect("in time").expect("a frame");
    let frame: TodaysFrame = rmp_serde::from_slice(message.get_payload_bytes()).expect("a frame");
    assert_eq!((frame.v, frame.signature.len()), (1, 32));
    assert!(frame.body.is_some() != frame.control.is_some());
    assert!(!frame.node.is_empty() && frame.incarnation > 0);
    assert!(!frame.first || frame.seq <= 1, "it counts from one");
}

#[tokio::test]
async fn a_schema_that_a_later_release_has_widened_is_up_to_date() {
    let postgres = PrivatePostgres::shared().migrated_database().await;
    let widened = "insert into mesh.broker_migration values (900, 'later', 'x');
        alter table mesh.message_queue add column later_field text;
        alter table mesh.presence add column later_field text not null default '';
        create table mesh.later_table (id text primary key)";
    sqlx::raw_sql(widened).execute(&mut connection(&postgres).await).await.expect("additive");
    is_served(&[("DATABASE_URL", &postgres)]);

    let place = Place::new();
    place.json(&["migrate"]);
    let file = place.path().join("broker.db");
    let url = format!("sqlite://{}", file.display());
    let mut sqlite = sqlx::SqliteConnection::connect(&url).await.expect("a file");
    let widened = "insert into _sqlx_migrations
            (version, description, success, checksum, execution_time)
            values (900, 'later', 1, x'00', 0);
        alter table message_queue add column later_field text;
        create table later_table (id text primary key)";
    sqlx::raw_sql(widened).execute(&mut sqlite).await.expect("additive");
    sqlite.close().await.expect("closed");
    is_served(&[("DATABASE_URL", &url)]);
}

/// The program finds nothing to migrate, starts, and keeps what it is given.
fn is_served(env: &[(&str, &str)]) {
    let place = Place::new();
    let run = |args: &[&str]| {
        let output = place.command(args).envs(env.iter().copied()).output().expect("it starts");
        Answer::of(&output, args)
    };
    let check = run(&["migrate", "--check", "--json"]);
    assert_eq!((check.code, &check.object()["pending"]), (0, &json!([])), "{check:?}");
    let mut command = place.command(&["--json"]);
    command.envs(env.iter().copied()).env("BROKER_PORT", "0");
    let mut child = Printing::start(command);
    let port = child.next()["port"].as_u64().expect("it listens").to_string();
    assert_eq!(run(&["mesh", "create", "team", "--json"]).code, 0);
    let link =
        text(&run(&["invite", "create", "team", "--max-uses", "2", "--json"]).object()["link"]);
    let broker = format!("ws://127.0.0.1:{port}/ws");
    for name in ["ada", "bob"] {
        let join = ["peer", "join", &link, "--name", name, "--broker", &broker, "--json"];
        assert_eq!(run(&join).code, 0, "{name}");
    }
    let sent = run(&["peer", "send", "bob", "hello", "--as", "ada", "--json"]);
    assert_eq!(sent.code, 0, "{sent:?}");
    child.signal(rustix::process::Signal::TERM);
    assert!(child.wait().success());
    assert_eq!(run(&["audit", "verify", "team", "--json"]).object()["valid"], true);
}
