//! A chain has one end, whoever writes.

use claudemesh_broker::audit::{AuditEvent, ChainVerifier, ROW_HASH_BYTES};
use claudemesh_broker::store::{Accepted, AuditEntry, EndPresence, NewEnvelope, Reach};
use sqlx::AssertSqlSafe;

use super::{another_node, fixture, seen_by};
use crate::harness::postgres::connection;
use crate::harness::text_of;
use crate::store::fixture::{Fixture, Peer, T0, at, changed};

const NODES: usize = 4;
const ROUNDS: usize = 12;

/// What one node does: batches of directs and multicasts over both meshes,
/// presences that come and go, rows that stand for themselves. Returns the
/// seqs of its envelopes in `here`.
async fn work(here: Fixture, there: Fixture, peer: Peer) -> Vec<i64> {
    let mut seqs = Vec::new();
    for round in 0..ROUNDS {
        let mut batch = Vec::new();
        for n in 0..8 {
            let mesh = if n % 3 == 0 { &there } else { &here };
            let direct = mesh.direct(&mesh.owner, &peer.key);
            let reach = if n % 2 == 0 { Reach::Multicast } else { direct.reach.clone() };
            batch.push(NewEnvelope { reach, ..direct });
        }
        let accepted = here.store.envelopes.accept(T0, &batch).await.expect("two meshes");
        for (envelope, accepted) in batch.iter().zip(accepted) {
            let Accepted::New { seq, .. } = accepted else { panic!("{accepted:?}") };
            if envelope.mesh == here.mesh {
                seqs.push(seq);
            }
        }
        let presence = here.open(T0, &here.opening(&peer)).await;
        let entry = |mesh: &Fixture| AuditEntry {
            mesh: mesh.mesh.clone(),
            actor: None,
            actor_name: None,
            event: AuditEvent::StateSet { key: round.to_string() },
        };
        here.store.audit.append(at(1), &[entry(&there), entry(&here)]).await.expect("meshes");
        let audit = vec![entry(&here), entry(&there)];
        let ending =
            EndPresence { id: presence, mesh: here.mesh.clone(), member: None, node: None, audit };
        let ended = here.store.presences.end(at(2), &[ending]).await.expect("open");
        assert_eq!(ended.len(), 1);
    }
    seqs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_nodes_write_one_chain() {
    let (here, url) = fixture().await;
    let there = here.another().await;
    let peer = here.member("ada").await;
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        let node = another_node(&url);
        let (here, there) = (seen_by(&node, &here), seen_by(&node, &there));
        nodes.push(tokio::spawn(work(here, there, peer.clone())));
    }
    let mut seqs = Vec::new();
    for node in nodes {
        let of_node = node.await.expect("no panic");
        assert!(of_node.is_sorted(), "a node's batches commit in its order");
        seqs.extend(of_node);
    }
    // `audit` checks the chains.
    let (rows, others) = (here.audit().await, there.audit().await);
    let rounds = NODES * ROUNDS;
    // Per round: five envelopes of eight, a join, an entry, an end; `ada` joined.
    assert_eq!(rows.len(), rounds * (5 + 3) + 1);
    assert_eq!(others.len(), rounds * (3 + 2));
    let sent = rows.iter().filter(|row| row.event_type == "message_sent");
    seqs.sort_unstable();
    assert_eq!(sent.map(|row| row.id).collect::<Vec<_>>(), seqs, "a seq is its audit row's id");
    multicasts_are_linked(&here).await;
    multicasts_are_linked(&there).await;
}

/// Nobody committed a multicast before one that others had seen.
async fn multicasts_are_linked(here: &Fixture) {
    let kept = here.store.mail.multicasts_after(&here.mesh, 0, 10_000).await.expect("readable");
    assert!(kept.is_sorted_by_key(|multicast| multicast.seq));
    let next = NewEnvelope { reach: Reach::Multicast, ..here.multicast(&here.owner) };
    let accepted = here.store.envelopes.accept(at(3), &[next]).await.expect("a mesh");
    let last = kept.last().map_or(0, |multicast| multicast.seq);
    assert!(matches!(accepted[0], Accepted::New { previous_multicast, .. }
        if previous_multicast == last));
}

#[tokio::test]
async fn a_database_that_isolates_more_does_not_fork_it() {
    let (here, url) = fixture().await;
    let name = url.rsplit('/').next().expect("a name");
    let mut other = connection(&url).await;
    sqlx::raw_sql(AssertSqlSafe(format!(
        "alter database {name} set default_transaction_isolation = 'repeatable read'"
    )))
    .execute(&mut other)
    .await
    .expect("the owner may");
    let nodes = [another_node(&url), another_node(&url)];
    let tasks = nodes.map(|node| {
        let here = seen_by(&node, &here);
        tokio::spawn(async move { here.mail(&here.owner.key, 20).await })
    });
    for task in tasks {
        task.await.expect("no panic");
    }
    assert_eq!(here.audit().await.len(), 40);
}

#[tokio::test]
async fn a_transaction_that_would_read_the_past_is_refused() {
    let (_here, url) = fixture().await;
    let mut other = connection(&url).await;
    let locked = sqlx::raw_sql(
        "begin isolation level repeatable read; select mesh.broker_lock_v1(array[1::bigint])",
    )
    .execute(&mut other)
    .await;
    let error = locked.expect_err("it reads an old end").to_string();
    assert!(error.contains("read committed"), "{error}");
}

/// A chain that the release before began, over the migration: its nodes go on writing.
#[tokio::test]
async fn a_chain_goes_over_to_the_second_kind_for_good() {
    let (here, url) = fixture().await;
    let mut database = connection(&url).await;
    let [before, after] = ["0004_audit_names", "0027_audit_heads"]
        .map(|folder| text_of(&format!("migrations/postgres/{folder}/2_chain.sql")));
    let old = "delete from mesh.audit_log; update mesh.mesh set audit_genesis_id = null";
    let mut kinds = Vec::new();
    for (functions, seconds, kind) in [
        (old, 0, 0),
        (&before, 0, 32),
        (&after, 1, 33),
        // A statement that had begun before the functions were others.
        (&before, 30, 32),
        (&after, 31, 33),
        (&before, 3600, 32),
        (&after, 3601, 33),
    ] {
        sqlx::raw_sql(AssertSqlSafe(functions)).execute(&mut database).await.expect("it runs");
        if kind > 0 {
            here.store.audit.append(at(seconds), &[here.entry("k")]).await.expect("a mesh");
            kinds.push(kind);
        }
    }
    let rows = here.store.audit.after(&here.mesh, i64::MIN, 100).await.expect("readable");
    let written = rows.iter().map(|row| row.name_hash.as_ref().map_or(0, Vec::len));
    assert_eq!(written.collect::<Vec<_>>(), kinds);
    let mut verifier = ChainVerifier::new(here.mesh.as_str());
    rows.iter().for_each(|row| _ = verifier.push(row.as_link()));
    let found = verifier.finish();
    assert_eq!((found.broken_at, found.downgraded_at), (None, Some(rows[4].id)));
}

/// Two releases write one chain during an upgrade: the older one knows no second hash.
#[tokio::test]
async fn an_older_nodes_rows_leave_the_chain_whole() {
    let (here, url) = fixture().await;
    let mut older = connection(&url).await;
    let append = format!(
        "select mesh.broker_append_v1('2026-01-01', '2026-01-01T00:00:00.000Z', '{{1}}', \
         array['{}'], array[null]::text[], array['an older node'], array['state_set'], \
         array['{{\"key\":\"k\"}}'], null)",
        here.mesh
    );
    for _ in 0..3 {
        here.mail(&here.owner.key, 2).await;
        sqlx::raw_sql(AssertSqlSafe(append.clone())).execute(&mut older).await.expect("a row");
    }
    here.mail(&here.owner.key, 1).await;
    // `audit` checks the chain.
    let rows = here.audit().await;
    let kinds = rows.iter().map(|row| row.name_hash.as_ref().map_or(0, Vec::len));
    assert_eq!(kinds.collect::<Vec<_>>(), [ROW_HASH_BYTES; 10], "it writes what it does not know");
    let broken_at = async |id: i64, tampering: &str| {
        let text = format!("begin; update mesh.audit_log set {tampering} where id = {id}; commit");
        let mut other = connection(&url).await;
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut other).await.expect("a statement");
        let rows = here.store.audit.after(&here.mesh, i64::MIN, 100).await.expect("readable");
        let mut verifier = ChainVerifier::new(here.mesh.as_str());
        for row in &rows {
            verifier.push(row.as_link());
        }
        verifier.finish().broken_at
    };
    let (first, second) = (rows[0].id, rows[1].id);
    assert_eq!(broken_at(second, "actor_display_name = 'bob'").await, Some(second));
    assert_eq!(broken_at(first, "actor_display_name = null").await, Some(first));
}

#[tokio::test]
async fn nul_is_stored_as_a_replacement() {
    let (here, _url) = fixture().await;
    let peer = here.member("a\0da").await;
    let odd = changed(here.direct(&peer, &peer.key), |envelope| {
        envelope.nonce = "n\0".to_owned();
        envelope.ciphertext = "\0".to_owned();
        envelope.client_message_id = Some("c\0".to_owned());
        envelope.target_spec = "@\\\0u".to_owned();
        envelope.reach = Reach::Multicast;
    });
    here.send(T0, &odd).await;
    let kept = here.store.mail.multicasts_after(&here.mesh, 0, 10).await.expect("readable");
    assert_eq!(kept[0].target_spec, "@\\\u{fffd}u");
    assert_eq!(kept[0].sender_name, "a\0da".replace('\0', "\u{fffd}"));
    let again =
        changed(odd.clone(), |envelope| envelope.id = here.direct(&peer, &peer.key).envelope.id);
    let answers = here.store.envelopes.accept(T0, &[again]).await.expect("a mesh");
    assert_eq!(answers, [Accepted::Duplicate { id: odd.envelope.id }]);
    let rows = here.audit_of("message_sent").await;
    assert_eq!(rows[0].payload["targetSpec"], "@\\\u{fffd}u");
    let mut opening = here.opening(&peer);
    opening.record.cwd = "/\0".to_owned();
    let presence = here.open(T0, &opening).await;
    let found = here.store.presence_search.in_folder("/\0", 0, 1).await.expect("readable");
    assert_eq!(found[0].id, presence);
}
