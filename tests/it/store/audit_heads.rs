//! Signed heads in the chains themselves.

use claudemesh_broker::audit::{Anchor, AuditEvent, HEAD_EVENT, HeadError, SignedHeads};
use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::id::Key;
use claudemesh_broker::store::{AuditEntry, HeadPace, Stores};
use serde_json::json;

use super::fixture::{Fixture, T0, at};
use super::other::Other;

/// After three rows, or after a minute.
fn pace(now: Timestamp) -> HeadPace {
    HeadPace { rows: 3, signed_before: now.plus_ms(-60_000) }
}

impl Fixture {
    async fn is_due(&self, now: Timestamp) -> bool {
        let due = self.store.audit_heads.due(pace(now), 1000).await.expect("readable");
        due.contains(&self.mesh)
    }

    async fn sign(&self, now: Timestamp, key: &SecretKey) -> Option<Anchor> {
        self.store.audit_heads.sign(now, &self.mesh, pace(now), key).await.expect("writable")
    }

    async fn newest(&self, since: Timestamp) -> Option<Anchor> {
        let newest = self.store.audit_heads.newest(since, 1000).await.expect("readable");
        newest.into_iter().find(|head| head.mesh_id == self.mesh)
    }

    async fn grow(&self, rows: usize) {
        for at in 0..rows {
            let entry = self.entry(&at.to_string());
            self.store.audit.append(T0, &[entry]).await.expect("writable");
        }
    }

    /// What is wrong with the heads in the chain, by these keys.
    async fn bad_head(&self, trusted: &[Key]) -> Option<(i64, HeadError)> {
        let mut heads = SignedHeads::new(&self.mesh, trusted.to_vec());
        let rows = self.store.audit.after(&self.mesh, i64::MIN, 1000).await.expect("readable");
        rows.iter().find_map(|row| heads.meet(&row.as_link()).err().map(|error| (row.id, error)))
    }
}

pub(crate) async fn a_head_is_signed_after_so_many_rows_or_so_long(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let key = SecretKey::generate();
    here.grow(1).await;
    assert!(here.is_due(T0).await, "nobody has signed any yet");
    let first = here.sign(T0, &key).await.expect("due");
    assert_eq!(first.verify(&[key.public_key()]), Ok(Some(&key.public_key())));
    assert_eq!(here.newest(T0).await, Some(first.clone()));
    assert_eq!(here.newest(at(1)).await, None);
    // The head itself is a row, and not one that another head is due for.
    let rows = here.audit().await;
    let [.., signed, head] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((signed.id, &signed.hash), (first.row_id, &first.hash));
    assert_eq!((head.event_type.as_str(), &head.prev_hash), (HEAD_EVENT, &first.hash));
    assert_eq!(head.payload["signature"], json!(first.signature));
    assert!(!here.is_due(at(1_000_000)).await, "it has not grown");
    assert_eq!(here.sign(at(1_000_000), &key).await, None);
    here.grow(2).await;
    assert!(!here.is_due(at(59)).await);
    assert_eq!(here.sign(at(59), &key).await, None);
    assert!(here.is_due(at(60)).await, "a minute is over");
    here.grow(1).await;
    assert!(here.is_due(at(59)).await, "three rows");
    let second = here.sign(at(59), &key).await.expect("due");
    assert_eq!(second.row_id, here.audit().await.iter().rev().nth(1).expect("rows").id);
    assert_eq!(here.newest(T0).await, Some(second));
    assert_eq!(here.audit_of(HEAD_EVENT).await.len(), 2);
    assert_eq!(here.bad_head(&[key.public_key()]).await, None);
}

pub(crate) async fn of_many_nodes_that_sign_a_head_at_once_one_does(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let there = here.another().await;
    let key = SecretKey::generate();
    for round in 1..=4 {
        here.grow(3).await;
        let sign = || {
            let (here, key) = (here.clone(), key.clone());
            tokio::spawn(async move { here.sign(at(round), &key).await.is_some() })
        };
        let tasks: Vec<_> = (0..6).map(|_| sign()).collect();
        let mut signed = 0;
        for task in tasks {
            signed += usize::from(task.await.expect("no panic"));
        }
        assert_eq!(signed, 1);
    }
    assert_eq!(here.audit_of(HEAD_EVENT).await.len(), 4);
    assert_eq!(here.bad_head(&[key.public_key()]).await, None);
    assert_eq!(there.audit_of(HEAD_EVENT).await.len(), 0, "each mesh has its own");
}

pub(crate) async fn a_chain_that_was_written_anew_has_heads_that_prove_nothing(
    store: Stores,
    other: Other,
) {
    let here = Fixture::new(store.clone()).await;
    let (key, stranger) = (SecretKey::generate(), SecretKey::generate());
    here.grow(2).await;
    let head = here.sign(T0, &key).await.expect("due");
    let trusted = [key.public_key()];
    assert_eq!(here.bad_head(&trusted).await, None);
    // With all hashes right, and the head as it was: what it signs is not there.
    let mesh = here.mesh.as_str();
    other.run(&format!("delete from {{schema}}audit_log where mesh_id = '{mesh}'")).await;
    here.grow(3).await;
    let kept = AuditEntry { event: AuditEvent::HeadSigned(head), ..here.entry("") };
    store.audit.append(T0, &[kept]).await.expect("writable");
    let found = here.bad_head(&trusted).await.expect("found");
    assert_eq!(found.1, HeadError::OtherRow);
    // Signed anew, by another key.
    other.run(&format!("delete from {{schema}}audit_log where id = {}", found.0)).await;
    let noted = match other {
        Other::Sqlite(_) => "audit_head",
        Other::Postgres(_) => "mesh.broker_audit_head",
    };
    other.run(&format!("delete from {noted}")).await;
    here.sign(at(1), &stranger).await.expect("due");
    let found = here.bad_head(&trusted).await.expect("found");
    assert!(matches!(found.1, HeadError::Signature(_)), "{found:?}");
    assert_eq!(here.bad_head(&[]).await, None, "that is what the key is for");
}
