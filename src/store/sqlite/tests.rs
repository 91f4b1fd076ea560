//! What is true of this store alone; the rest is in the conformance suite
//! (`tests/it/store/conformance.rs`).

mod sources;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::AssertSqlSafe;
use tempfile::TempDir;

use self::sources::{LARGE, SOURCES};
use super::*;
use crate::audit::{AuditEvent, ChainVerifier};
use crate::clock::Timestamp;
use crate::id;
use crate::id::{Key, MemberId, MeshId, MessageId};
use crate::protocol::Priority;
use crate::store::*;

const NOW: Timestamp = Timestamp::from_ms(1_800_000_000_000);

/// The store in that file.
async fn open(path: &Path) -> Result<Stores> {
    Ok(Stores::of(Arc::new(SqliteStore::open(path).await?)))
}

async fn fresh() -> (Stores, TempDir) {
    let (_, store, folder) = fresh_with_db().await;
    (store, folder)
}

/// As above, with the database under the store.
async fn fresh_with_db() -> (Arc<SqliteStore>, Stores, TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let db = SqliteStore::open(&folder.path().join("broker.db")).await.expect("a new file");
    let db = Arc::new(db);
    let store = Stores::of(db.clone());
    store.database.migrate().await.expect("a new schema");
    (db, store, folder)
}

async fn mesh_in(store: &Stores) -> NewMesh {
    let mesh = NewMesh {
        id: MeshId::generate(),
        slug: id::generate(),
        name: "mesh".to_owned(),
        owner_key: Key::from("ab".repeat(32)),
        root_key: String::new(),
        owner_member: MemberId::generate(),
        owner_name: "owner".to_owned(),
        founder: None,
    };
    store.meshes.create(NOW, &mesh).await.expect("a new slug");
    mesh
}

fn envelope(mesh: &NewMesh, ciphertext_bytes: usize) -> NewEnvelope {
    NewEnvelope {
        envelope: Envelope {
            id: MessageId::generate(),
            mesh: mesh.id.clone(),
            sender_member: mesh.owner_member.clone(),
            sender_name: "owner".to_owned(),
            sender_session_key: None,
            target_spec: mesh.owner_key.to_string(),
            priority: Priority::Next,
            nonce: String::new(),
            ciphertext: "x".repeat(ciphertext_bytes),
            client_message_id: None,
            request_fingerprint: None,
            reply_to_id: None,
            scheduled: None,
            properties: None,
        },
        reach: Reach::Direct { claim: None, note: None },
    }
}

fn state_set(mesh: &NewMesh) -> AuditEntry {
    let event = AuditEvent::StateSet { key: "k".to_owned() };
    AuditEntry { mesh: mesh.id.clone(), actor: None, actor_name: None, event }
}

#[tokio::test]
async fn a_missing_file_is_made_for_its_owner_only() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("a/b/broker.db");
    let store = open(&path).await.expect("the folder is made");
    let all = [
        "0001_core",
        "0003_claims",
        "0004_audit_names",
        "0005_cluster_key",
        "0008_presence_session_id",
        "0009_state",
        "0010_streams",
        "0011_mcp_servers",
        "0012_accounts",
        "0013_memory",
        "0014_contexts",
        "0015_tasks",
        "0016_schedules",
        "0017_topics",
        "0018_api_keys",
        "0019_skills",
        "0020_webhooks",
        "0021_vault",
        "0022_overview",
        "0024_stages",
        "0025_sealing",
        "0026_common_keys",
        "0027_audit_heads",
        "0028_certificates",
    ];
    assert_eq!(store.database.pending_migrations().await.expect("readable"), all);
    store.database.migrate().await.expect("a new schema");
    mesh_in(&store).await;
    for name in ["broker.db", "broker.db-wal", "broker.db-shm"] {
        let file = path.with_file_name(name).metadata().expect("it is there");
        assert_eq!(file.permissions().mode() & 0o777, 0o600, "{name}");
    }
    store.database.close().await;
    assert!(!path.with_file_name("broker.db-wal").exists(), "folded into the file");
}

#[tokio::test]
async fn commits_are_on_disk() {
    let (db, _store, _folder) = fresh_with_db().await;
    let mut relaxed = db.begin_relaxed().await.expect("free");
    let synchronous: i64 = sqlx::query_scalar("select synchronous from pragma_synchronous")
        .fetch_one(&mut *relaxed)
        .await
        .expect("known");
    assert_eq!(synchronous, 1, "a confirmation waits for no disk");
    drop(relaxed);
    // What comes after one that did not wait does.
    let mut tx = db.begin().await.expect("free");
    for (pragma, value) in [
        ("select journal_mode = 'wal' from pragma_journal_mode", 1),
        ("select synchronous from pragma_synchronous", 2),
        ("select foreign_keys from pragma_foreign_keys", 1),
    ] {
        let found: i64 = sqlx::query_scalar(pragma).fetch_one(&mut *tx).await.expect("known");
        assert_eq!(found, value, "{pragma}");
    }
    drop(tx);
    sqlx::query("delete from mesh").execute(db.reader()).await.expect_err("it only reads");
}

#[tokio::test]
async fn a_path_that_cannot_work_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = folder.path().join("text");
    std::fs::write(&text, "no database, and longer than its header ".repeat(10)).expect("ok");
    for (path, retryable) in
        [(text.clone(), false), (folder.path().to_owned(), true), (text.join("broker.db"), true)]
    {
        let refusal = SqliteStore::open(&path).await.expect_err("it cannot work");
        assert_eq!(refusal.is_retryable(), retryable, "{refusal}");
        let named = path.parent().expect("not the root").to_string_lossy().into_owned();
        assert!(refusal.to_string().contains(&named), "{refusal}");
    }
}

#[tokio::test]
async fn opening_again_is_quick() {
    let (store, folder) = fresh().await;
    mesh_in(&store).await;
    store.database.close().await;
    let begun = Instant::now();
    let store = open(&folder.path().join("broker.db")).await.expect("it exists");
    store.database.migrate().await.expect("nothing to do");
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn programs_that_start_at_once_share_a_new_file() {
    for _ in 0..12 {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("broker.db");
        let starts: Vec<_> = (0..4)
            .map(|_| {
                let path = path.clone();
                tokio::spawn(async move {
                    let store = open(&path).await?;
                    store.database.migrate().await?;
                    Ok::<_, StoreError>(store)
                })
            })
            .collect();
        for start in starts {
            let store = start.await.expect("no panic").expect("all of them start");
            mesh_in(&store).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_programs_write_one_chain() {
    let (broker, folder) = fresh().await;
    let path = folder.path().join("broker.db");
    let other = open(&path).await.expect("another may have it open");
    let mesh = mesh_in(&broker).await;
    let tasks: Vec<_> = [broker.clone(), other.clone(), broker.clone(), other]
        .into_iter()
        .map(|store| {
            let mesh = mesh.clone();
            tokio::spawn(async move {
                for _ in 0..20 {
                    let batch = [envelope(&mesh, 10), envelope(&mesh, 10)];
                    store.envelopes.accept(NOW, &batch).await.expect("it waits for its turn");
                    store.audit.append(NOW, &[state_set(&mesh)]).await.expect("as above");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    let rows = broker.audit.after(&mesh.id, 0, i64::MAX).await.expect("readable");
    let mut verifier = ChainVerifier::new(mesh.id.as_str());
    for row in &rows {
        verifier.push(row.as_link());
    }
    let verdict = verifier.finish();
    assert_eq!((verdict.valid, verdict.entries), (true, 1 + 4 * 20 * 3));
}

/// Where the chain of the mesh breaks, after this statement of somebody who writes the
/// file.
async fn breaks_after(
    (db, store): (&SqliteStore, &Stores),
    mesh: &NewMesh,
    tampering: &'static str,
) -> Option<i64> {
    let mut tx = db.begin().await.expect("free");
    let changed = sqlx::query(tampering).execute(&mut *tx).await.expect("a statement");
    assert!(changed.rows_affected() > 0, "{tampering}");
    tx.commit().await.expect("written");
    let rows = store.audit.after(&mesh.id, i64::MIN, i64::MAX).await.expect("readable");
    let mut verifier = ChainVerifier::new(mesh.id.as_str());
    for row in &rows {
        verifier.push(row.as_link());
    }
    verifier.finish().first_bad()
}

#[tokio::test]
async fn what_the_hash_does_not_cover_by_itself_is_found_too() {
    let tamperings = [
        ("update audit_log set actor_display_name = 'bob' where id = 2", Some(2)),
        ("update audit_log set name_hash = null, actor_display_name = 'bob' where id = 2", Some(2)),
        (
            "insert into audit_log (id, mesh_id, event_type, prev_hash, hash, created_at)
             select -1, mesh_id, event_type, prev_hash, hash, created_at from audit_log
             where id = 1",
            Some(-1),
        ),
        (
            r#"update audit_log set payload = '{"priority":"now",' || substr(payload, 2)
               where id = 2"#,
            Some(2),
        ),
        ("update audit_log set name_hash = null", Some(1)),
    ];
    for (tampering, broken_at) in tamperings {
        let (db, store, _folder) = fresh_with_db().await;
        let mesh = mesh_in(&store).await;
        for _ in 0..3 {
            store.envelopes.accept(NOW, &[envelope(&mesh, 10)]).await.expect("a mesh");
        }
        assert_eq!(breaks_after((&db, &store), &mesh, tampering).await, broken_at, "{tampering}");
    }
}

#[tokio::test]
async fn commits_of_another_program_are_told() {
    let (store, folder) = fresh().await;
    let mesh = mesh_in(&store).await;
    let other = open(&folder.path().join("broker.db")).await.expect("shared");
    assert_eq!(
        store.database.changes().await.expect("open"),
        Changes::None,
        "its own do not count"
    );
    other.audit.append(NOW, &[state_set(&mesh)]).await.expect("a mesh");
    assert_eq!(store.database.changes().await.expect("open"), Changes::Unknown);
    assert_eq!(store.database.changes().await.expect("open"), Changes::None, "told once");

    // While one waits, others write.
    let watched = {
        let store = store.clone();
        tokio::spawn(async move { store.database.changes().await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    let begun = Instant::now();
    store.envelopes.accept(NOW, &[envelope(&mesh, 10)]).await.expect("the writer is free");
    assert!(begun.elapsed() < Duration::from_millis(300), "{:?}", begun.elapsed());
    other.audit.append(NOW, &[state_set(&mesh)]).await.expect("a mesh");
    assert_eq!(watched.await.expect("no panic").expect("open"), Changes::Unknown);
}

#[tokio::test]
async fn a_full_disk_is_told_and_survived() {
    let (db, store, _folder) = fresh_with_db().await;
    let mesh = mesh_in(&store).await;
    let small = envelope(&mesh, 10);
    let limit_pages = async |max_page_count: &'static str| {
        let mut tx = db.begin().await.expect("free");
        sqlx::query(max_page_count).execute(&mut *tx).await.expect("a number");
        tx.commit().await.expect("nothing to write");
    };
    limit_pages("pragma max_page_count = 1").await;
    let refusal = store
        .envelopes
        .accept(NOW, &[small.clone(), envelope(&mesh, 1_000_000)])
        .await
        .expect_err("full");
    assert!(refusal.is_retryable() && refusal.to_string().contains("full"), "{refusal}");
    limit_pages("pragma max_page_count = 1000000").await;
    store.envelopes.accept(NOW, &[small]).await.expect("there is room again, and nothing was kept");
    assert_eq!(store.messages.depth().await.expect("readable"), 1);
    assert_eq!(store.audit.after(&mesh.id, 0, 100).await.expect("readable").len(), 2);
}

#[tokio::test]
async fn a_dropped_call_does_not_keep_the_writer() {
    let (store, _folder) = fresh().await;
    let mesh = mesh_in(&store).await;
    for microseconds in (0..2000).step_by(40) {
        let batch = [envelope(&mesh, 10)];
        let limit = Duration::from_micros(microseconds);
        let _ = tokio::time::timeout(limit, store.envelopes.accept(NOW, &batch)).await;
    }
    store.envelopes.accept(NOW, &[envelope(&mesh, 10)]).await.expect("the writer is free");
    let queued = store.messages.depth().await.expect("readable");
    let rows = store.audit.after(&mesh.id, 0, 1000).await.expect("readable");
    assert_eq!(rows.len() as i64 - 1, queued, "each batch as a whole or not at all");
}

/// As after an error on which SQLite rolls back by itself.
#[tokio::test]
async fn a_transaction_that_ended_by_itself_does_not_keep_the_writer() {
    let (db, store, _folder) = fresh_with_db().await;
    let mut tx = db.begin().await.expect("free");
    sqlx::query("rollback").execute(&mut *tx).await.expect("behind the driver's back");
    drop(tx);
    mesh_in(&store).await;
}

#[tokio::test]
async fn what_was_deleted_is_counted() {
    let (store, _folder) = fresh().await;
    let mesh = mesh_in(&store).await;
    let mut batch: Vec<_> = (0..5).map(|_| envelope(&mesh, 10)).collect();
    batch[4].reach = Reach::Multicast;
    for (n, envelope) in batch.iter_mut().enumerate() {
        envelope.client_message_id = Some(n.to_string());
    }
    store.envelopes.accept(NOW, &batch).await.expect("a mesh");
    assert_eq!(store.messages.depth().await.expect("readable"), 4);
    let later = NOW.plus_ms(1);
    let limits = Retention {
        delivered_before: later,
        undelivered_before: later,
        keys_before: NOW,
        limit: 3,
    };
    let expired =
        async |limits: &Retention| store.messages.expire(later, limits).await.expect("writable");
    assert_eq!(expired(&limits).await, Expired { delivered: 1, undelivered: 3, keys: 0 });
    assert_eq!(store.messages.depth().await.expect("readable"), 1);
    assert_eq!(expired(&limits).await, Expired { delivered: 0, undelivered: 1, keys: 0 });
    let limits = Retention { keys_before: later, ..limits };
    assert_eq!(expired(&limits).await, Expired { delivered: 0, undelivered: 0, keys: 3 });
    assert_eq!(expired(&limits).await, Expired { delivered: 0, undelivered: 0, keys: 2 });
}

/// The string literals of these sources that are statements. One that ends in a space
/// is a beginning that the conditions of its source complete.
fn statements() -> Vec<String> {
    let mut statements = Vec::new();
    for source in SOURCES {
        let literals = || source.split('"').skip(1).step_by(2);
        for text in literals() {
            if !["select ", "insert ", "update ", "delete "]
                .iter()
                .any(|verb| text.starts_with(verb))
            {
                continue;
            }
            if text.ends_with(' ') {
                let conditions = literals().filter(|text| text.starts_with("where "));
                statements.extend(conditions.map(|rest| format!("{text}{rest}")));
            } else if [" from ", " into ", " set "].iter().any(|word| text.contains(word)) {
                statements.push(text.to_owned());
            }
        }
    }
    statements
}

#[tokio::test]
async fn no_statement_walks_through_a_large_table() {
    let (db, _store, _folder) = fresh_with_db().await;
    let statements = statements();
    assert!(statements.len() > 40, "only {} were found", statements.len());
    for statement in statements {
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(AssertSqlSafe(format!("explain query plan {statement}")))
                .fetch_all(db.reader())
                .await
                .unwrap_or_else(|error| panic!("{error}: {statement}"));
        for (.., step) in plan {
            let walked = step.strip_prefix("SCAN ").and_then(|rest| rest.split(' ').next());
            let is_large = |table| LARGE.split_whitespace().any(|name| name == table);
            let walks = walked.is_some_and(is_large);
            // Counting the undelivered reads the index that holds only them.
            let counts = step.ends_with("INDEX message_queue_undelivered_idx");
            assert!(!walks || counts, "{step}: {statement}");
        }
    }
}

#[test]
fn no_limit_has_its_statement_prepared_again() {
    let limited: Vec<_> =
        statements().into_iter().filter(|statement| statement.contains("limit 0 + ?")).collect();
    assert!(limited.len() > 5, "only {} were found", limited.len());
    let bare = statements().into_iter().find(|statement| statement.contains("limit ?"));
    assert_eq!(bare, None);
}

/// The end of a long mailbox is not looked at, and nothing is sorted.
#[tokio::test]
async fn a_claim_follows_its_index() {
    let (db, _store, _folder) = fresh_with_db().await;
    let claim = statements()
        .into_iter()
        .find(|statement| statement.contains("union all") && statement.contains("limit 0 + ?8"))
        .expect("the statement of `claim`");
    let plan: Vec<(i64, i64, i64, String)> =
        sqlx::query_as(AssertSqlSafe(format!("explain query plan {claim}")))
            .fetch_all(db.reader())
            .await
            .expect("a plan");
    let steps: Vec<&str> = plan.iter().map(|(.., step)| step.as_str()).collect();
    assert!(!steps.iter().any(|step| step.contains("TEMP B-TREE")), "{steps:#?}");
    let mailboxes = steps.iter().filter(|s| s.contains("message_queue_mailbox_idx")).count();
    assert_eq!(mailboxes, 2, "{steps:#?}");
}

#[tokio::test]
async fn a_wal_that_grew_under_a_reader_shrinks_when_nobody_reads() {
    let (db, store, folder) = fresh_with_db().await;
    let wal = folder.path().join("broker.db-wal");
    let size = || std::fs::metadata(&wal).expect("a WAL").len();
    let kept: u64 = connection::WAL_KEPT_BYTES.parse().expect("a number");
    let write = async |blocks: usize| {
        let mut tx = db.begin().await.expect("nobody writes");
        for _ in 0..blocks {
            sqlx::query("insert into ballast values (zeroblob(1048576))")
                .execute(&mut *tx)
                .await
                .expect("room");
        }
        tx.commit().await.expect("committed");
    };
    let mut tx = db.begin().await.expect("nobody writes");
    sqlx::query("create table ballast (bytes blob)").execute(&mut *tx).await.expect("made");
    tx.commit().await.expect("committed");
    let mut reader = db.reader().begin().await.expect("a reader");
    sqlx::query("select count(*) from ballast").fetch_one(&mut *reader).await.expect("it reads");
    for _ in 0..10 {
        write(10).await;
    }
    assert!(size() > kept, "{} bytes", size());
    reader.rollback().await.expect("it reads no more");
    // The first folds it in, the next begins it anew.
    for _ in 0..3 {
        write(1).await;
    }
    assert!(size() <= kept, "{} bytes", size());
    store.database.close().await;
}
