//! The pieces of a message's way, one by one: `cargo bench`.
//!
//! What whole runs cost is measured by `claudemesh-broker bench`; this is for
//! telling which piece has become slower, or faster. The lease scripts run on
//! the Redis that `REDIS_URL` names, under keys of their own, and are left out
//! without it.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use claudemesh_broker::audit::{GENESIS, entry_hash, message_sent_payload};
use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::cluster::books::LeaseTimes;
use claudemesh_broker::cluster::redis::seals::ClusterKey;
use claudemesh_broker::cluster::redis::{RedisCluster, RedisSettings};
use claudemesh_broker::cluster::single::SingleCluster;
use claudemesh_broker::cluster::{Acquired, Cluster, HeldLease, LeaseRef, Release};
use claudemesh_broker::codec::{ClientMessage, Codec, SharedFrame};
use claudemesh_broker::config::SecretUrl;
use claudemesh_broker::delivery::policy::Target;
use claudemesh_broker::id::{Key, MemberId, MeshId, MessageId, NodeId, PresenceId};
use claudemesh_broker::protocol::{Ack, Blob, Priority, Push, Send, ServerMessage};
use claudemesh_broker::record::PresenceRecord;
use claudemesh_broker::store::sqlite::SqliteStore;
use claudemesh_broker::store::{Envelope, NewEnvelope, NewMesh, Reach, Stores};
use divan::{Bencher, black_box};
use tokio::runtime::Runtime;

const CODECS: [Codec; 2] = [Codec::Json, Codec::MsgPack];
/// Envelopes of one commit.
const BATCH: usize = 200;
/// Base64 of 200 bytes sealed.
const CIPHERTEXT_CHARS: usize = 288;

fn main() {
    divan::main();
}

fn send_frame(codec: Codec) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Frame<'a> {
        r#type: &'static str,
        #[serde(flatten)]
        send: Send<'a>,
    }
    let send = Send {
        id: Some(Cow::Borrowed("17")),
        target_spec: Cow::Owned("ab".repeat(32)),
        priority: Priority::Next,
        nonce: Blob::from_text("A".repeat(32)),
        ciphertext: Blob::from_text("A".repeat(CIPHERTEXT_CHARS)),
        client_message_id: Some(Cow::Borrowed("0123456789abcdef-17")),
        request_fingerprint: None,
        reply_to_id: None,
        body_version: None,
        mentions: None,
        ttl_ms: None,
        thread_id: None,
        expects_reply: None,
        supersedes: None,
        receipt: None,
        sealed_keys: None,
        signature: None,
    };
    codec.write(&Frame { r#type: "send", send }).expect("a frame")
}

fn decoded(codec: Codec, frame: &[u8]) -> Send<'_> {
    match codec.decode(frame).expect("a request").message {
        ClientMessage::Send(send) => send,
        other => panic!("a send was written: {other:?}"),
    }
}

fn push(send: Send<'_>) -> Push {
    Push {
        message_id: MessageId::generate(),
        mesh_id: MeshId::from("0123456789abcdef0123456789abcdef"),
        sender_pubkey: Key::from("cd".repeat(32)),
        sender_member_pubkey: Some(Key::from("ef".repeat(32))),
        sender_member_id: Some(MemberId::from("0123456789abcdef0123456789abcdef")),
        sender_name: Some("ada".to_owned()),
        priority: send.priority,
        nonce: Blob::from_text(send.nonce.into_text()),
        ciphertext: Blob::from_text(send.ciphertext.into_text()),
        created_at: Timestamp::from_ms(1_700_000_000_000),
        client_message_id: send.client_message_id.map(Cow::into_owned),
        request_fingerprint: None,
        target_spec: None,
        reply_to_id: None,
        seq: Some(1),
        age_ms: Some(0),
        expires_at: None,
        thread_id: None,
        expects_reply: false,
        supersedes: None,
        newer_from_sender: Some(0),
        hop: Some(0),
        receipt: None,
        redelivered: false,
        topic: None,
        body_version: None,
        subtype: None,
        event: None,
        event_data: None,
        late: false,
        signature: None,
        sealed_key: None,
    }
}

#[divan::bench(args = CODECS)]
fn decode_a_send(bencher: Bencher<'_, '_>, codec: Codec) {
    let frame = send_frame(codec);
    bencher.bench(|| decoded(codec, black_box(&frame)).target_spec.len());
}

/// A send from its bytes to the bytes of its push and of its ack.
#[divan::bench(args = CODECS)]
fn decode_route_and_encode(bencher: Bencher<'_, '_>, codec: Codec) {
    let frame = send_frame(codec);
    bencher.bench(|| {
        let send = decoded(codec, black_box(&frame));
        let is_direct = matches!(Target::parse(&send.target_spec), Target::Key(_));
        assert!(is_direct);
        let id = send.id.as_deref().unwrap_or_default().to_owned();
        let push = push(send);
        let message_id = push.message_id.to_string();
        let ack = Ack { id, message_id, queued: true, ..Ack::default() };
        let shared = SharedFrame::new(ServerMessage::Push(Box::new(push)));
        (shared.bytes(codec), codec.encode(&ServerMessage::Ack(ack), None))
    });
}

/// What each further recipient of a multicast costs the codec: nothing but a
/// reference.
#[divan::bench(args = CODECS)]
fn share_a_push(bencher: Bencher<'_, '_>, codec: Codec) {
    let frame = send_frame(codec);
    let push = push(decoded(codec, &frame));
    let shared = SharedFrame::new(ServerMessage::Push(Box::new(push)));
    bencher.bench(|| black_box(&shared).bytes(codec));
}

#[divan::bench]
fn audit_hash(bencher: Bencher<'_, '_>) {
    let payload = message_sent_payload(&"ab".repeat(32), "next");
    let at = Timestamp::from_ms(1_700_000_000_000);
    let (mesh, actor) = ("0".repeat(32), "1".repeat(32));
    bencher.bench(|| {
        entry_hash(black_box(GENESIS), &mesh, "message_sent", Some(&actor), &payload, at)
    });
}

/// A lease taken and let go, on this node's books: a mesh of 100 has room.
#[divan::bench]
fn lease_on_the_books(bencher: Bencher<'_, '_>) {
    let runtime = runtime();
    let (cluster, _events) = SingleCluster::new(TIMES);
    bench_lease(bencher, &runtime, &*cluster);
}

/// The same by the scripts on Redis: two round trips.
#[divan::bench]
fn lease_by_the_scripts(bencher: Bencher<'_, '_>) {
    let runtime = runtime();
    match runtime.block_on(redis()) {
        Some(cluster) => bench_lease(bencher, &runtime, &*cluster),
        None => eprintln!("REDIS_URL is not set: left out"),
    }
}

/// The renewal of 1,000 leases by the scripts: one command for each 1,000.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn renewal_of_1000_by_the_scripts(bencher: Bencher<'_, '_>) {
    let runtime = runtime();
    let Some(cluster) = runtime.block_on(redis()) else {
        return eprintln!("REDIS_URL is not set: left out");
    };
    let mesh = MeshId::generate();
    let mut held = Vec::with_capacity(1000);
    for number in 0..1000 {
        let record = presence(&mesh, number);
        let lease = runtime.block_on(take(&*cluster, &record));
        held.push(HeldLease { lease, record: Arc::new(record) });
    }
    bencher
        .counter(divan::counter::ItemsCount::new(held.len()))
        .bench_local(|| runtime.block_on(cluster.renew(&held)).expect("Redis answers"));
    for one in &held {
        let released = runtime.block_on(cluster.release(&one.lease, Release::Now));
        assert!(released.expect("Redis answers"), "still held");
    }
    runtime.block_on(cluster.close());
}

const TIMES: LeaseTimes = LeaseTimes { ttl_ms: 60_000, grace_ms: 60_000 };

fn runtime() -> Runtime {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.expect("a runtime")
}

async fn redis() -> Option<Arc<RedisCluster>> {
    let settings = RedisSettings {
        url: SecretUrl::parse(&std::env::var("REDIS_URL").ok()?).expect("a URL"),
        cluster_mode: false,
        ca_file: None,
        node: NodeId::from("bench"),
        region: None,
        lease_grace_ms: TIMES.grace_ms,
        lease_ttl_ms: TIMES.ttl_ms,
        key_prefix: "claudemesh-bench".to_owned(),
        cluster_key: ClusterKey {
            id: "bench".to_owned(),
            secret: b"bench".to_vec(),
            others: Vec::new(),
        },
    };
    Some(RedisCluster::connect(settings).await.expect("Redis at REDIS_URL").0)
}

fn bench_lease(bencher: Bencher<'_, '_>, runtime: &Runtime, cluster: &dyn Cluster) {
    let mesh = MeshId::generate();
    for number in 0..100 {
        runtime.block_on(take(cluster, &presence(&mesh, number)));
    }
    let mut number = 100;
    bencher
        .with_inputs(|| {
            number += 1;
            presence(&mesh, number)
        })
        .bench_local_values(|record| {
            runtime.block_on(async {
                let lease = take(cluster, &record).await;
                cluster.release(&lease, Release::Now).await.expect("an answer")
            })
        });
}

async fn take(cluster: &dyn Cluster, record: &PresenceRecord) -> LeaseRef {
    match cluster.acquire(record, 100_000).await.expect("an answer") {
        Acquired::New { lease, .. } => lease,
        other => panic!("every session is new: {other:?}"),
    }
}

fn presence(mesh: &MeshId, number: u32) -> PresenceRecord {
    let member = MemberId::from(format!("{number:032x}"));
    let key = Key::from(format!("{number:064x}"));
    PresenceRecord {
        session_id: "one".to_owned(),
        display_name: "ada".to_owned(),
        cwd: "/home/ada/project".to_owned(),
        pid: 1,
        node: "bench".to_owned(),
        ..PresenceRecord::new(mesh.clone(), member, key, Timestamp::now())
    }
}

/// Queue row and audit row of 200 envelopes, in one transaction, on disk.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn group_commit_of_200_on_sqlite(bencher: Bencher<'_, '_>) {
    let runtime = runtime();
    let folder = tempfile::tempdir().expect("a folder");
    let (store, mesh, member) = runtime.block_on(store(&folder.path().join("broker.db")));
    bencher
        .counter(divan::counter::ItemsCount::new(BATCH))
        .with_inputs(|| (0..BATCH).map(|_| envelope(&mesh, &member)).collect::<Vec<_>>())
        .bench_local_values(|batch| {
            runtime.block_on(store.envelopes.accept(Timestamp::now(), &batch)).expect("accepted")
        });
    runtime.block_on(store.database.close());
}

async fn store(path: &Path) -> (Stores, MeshId, MemberId) {
    let store = Stores::of(Arc::new(SqliteStore::open(path).await.expect("a store")));
    store.database.migrate().await.expect("migrated");
    let (mesh, member) = (MeshId::generate(), MemberId::generate());
    let new = NewMesh {
        id: mesh.clone(),
        slug: "bench".to_owned(),
        name: "bench".to_owned(),
        owner_key: Key::from("ab".repeat(32)),
        root_key: "cm9vdA".to_owned(),
        owner_member: member.clone(),
        owner_name: "owner".to_owned(),
        founder: None,
    };
    store.meshes.create(Timestamp::now(), &new).await.expect("a mesh");
    (store, mesh, member)
}

fn envelope(mesh: &MeshId, member: &MemberId) -> NewEnvelope {
    let id = MessageId::generate();
    NewEnvelope {
        envelope: Envelope {
            client_message_id: Some(id.to_string()),
            id,
            mesh: mesh.clone(),
            sender_member: member.clone(),
            sender_name: "ada".to_owned(),
            sender_session_key: Some(Key::from("cd".repeat(32))),
            target_spec: "ef".repeat(32),
            priority: Priority::Next,
            nonce: "A".repeat(32),
            ciphertext: "A".repeat(CIPHERTEXT_CHARS),
            request_fingerprint: None,
            reply_to_id: None,
            scheduled: None,
            properties: None,
        },
        reach: Reach::Direct {
            claim: Some((PresenceId::generate(), Timestamp::now().plus_ms(30_000))),
            note: None,
        },
    }
}
