//! Shared state: versions, conflicts, quotas, and what a node that missed some reads.

use std::collections::HashSet;

use claudemesh_broker::record::Shared;
use claudemesh_broker::store::{Author, StateWrite, StateWritten, Stores};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::fixture::{Fixture, Peer, T0, at};

impl Fixture {
    /// That member at work, by a session that calls itself otherwise.
    pub(crate) fn author(&self, peer: &Peer) -> Author {
        Author {
            mesh: self.mesh.clone(),
            member: peer.id.clone(),
            member_name: peer.name.clone(),
            session_name: format!("{}'s", peer.name),
            presence: "presence".into(),
        }
    }

    fn setting(&self, key: &str, value: &Value) -> StateWrite {
        let author = self.author(&self.owner);
        StateWrite { author, key: key.to_owned(), value: Some(value.to_string()), if_version: None }
    }

    fn removing(&self, key: &str) -> StateWrite {
        StateWrite { value: None, ..self.setting(key, &Value::Null) }
    }

    async fn writes(&self, batch: &[StateWrite]) -> Vec<StateWritten> {
        self.store.states.write(at(1), batch).await.expect("a good batch")
    }
}

/// The versions of those that were written, and nothing of any other.
fn versions(written: &[StateWritten]) -> Vec<Option<i64>> {
    let version = |written: &StateWritten| match written {
        StateWritten::Written { version, .. } => Some(*version),
        _ => None,
    };
    written.iter().map(version).collect()
}

pub(crate) async fn a_value_is_kept_whole(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    here.another().await.writes(&[here.another().await.setting("k", &json!(0))]).await;
    for value in [
        json!({"b": [1, 2.5, null, "ü\"\\\n"], "a": {}}),
        Value::Null,
        json!(9_007_199_254_740_993_i64),
        json!("\u{1f600}"),
    ] {
        here.writes(&[here.setting("k", &value)]).await;
        let entry =
            store.states.get(&here.mesh, "k").await.expect("readable").expect("it is there");
        assert_eq!((&entry.value, &*entry.updated_by), (&value, "owner"));
        assert_eq!(
            (entry.updated_by_session.as_deref(), entry.updated_at),
            (Some("owner's"), at(1))
        );
    }
    assert_eq!(store.states.get(&here.mesh, "K").await.expect("readable"), None);
}

pub(crate) async fn versions_count_and_decide(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let only_if = |write: StateWrite, version| StateWrite { if_version: Some(version), ..write };
    let set = here.setting("k", &json!(1));
    let written = here.writes(&[only_if(set.clone(), 0), only_if(set.clone(), 0)]).await;
    assert_eq!(versions(&written), [Some(1), None]);
    assert_eq!(written[1], StateWritten::Conflict { version: 1 });
    let written = here.writes(&[set.clone(), only_if(set.clone(), 2)]).await;
    assert_eq!(versions(&written), [Some(2), Some(3)], "each builds on the one before");
    let written = here.writes(&[only_if(here.removing("k"), 2)]).await;
    assert_eq!(written, [StateWritten::Conflict { version: 3 }]);
    let written = here.writes(&[here.removing("k"), here.removing("k")]).await;
    assert_eq!(written[1], StateWritten::Absent);
    assert_eq!(store.states.get(&here.mesh, "k").await.expect("readable"), None);
    let written = here.writes(&[only_if(set, 0)]).await;
    assert_eq!(versions(&written), [Some(1)], "what comes to be again counts anew");
}

pub(crate) async fn each_change_has_one_audit_row_without_the_value(store: Stores) {
    let here = Fixture::new(store).await;
    let ada = here.member("ada").await;
    let mut set = here.setting("k", &json!("canary"));
    set.author = here.author(&ada);
    let written = here.writes(&[set.clone(), set, here.removing("none"), here.removing("k")]).await;
    let rows = here.audit_of("state_set").await;
    let seqs: Vec<i64> = written
        .iter()
        .filter_map(|written| match written {
            StateWritten::Written { seq, .. } => Some(*seq),
            _ => None,
        })
        .collect();
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), seqs[..2]);
    assert_eq!(
        (&rows[0].payload, rows[0].actor_name.as_deref()),
        (&json!({"key": "k"}), Some("ada's"))
    );
    let removed = here.audit_of("state_removed").await;
    assert_eq!((removed.len(), removed[0].id), (1, seqs[2]));
    let all = format!("{:?}", here.audit().await);
    assert!(!all.contains("canary"), "{all}");
}

pub(crate) async fn one_of_many_writers_with_the_same_version_wins(store: Stores) {
    let here = Fixture::new(store).await;
    here.writes(&[here.setting("k", &json!(0))]).await;
    let writers = (1..=20).map(|n| {
        let write = StateWrite { if_version: Some(1), ..here.setting("k", &json!(n)) };
        let here = here.clone();
        async move { here.writes(&[write]).await.remove(0) }
    });
    let written = join_all(writers).await;
    assert_eq!(versions(&written).iter().flatten().count(), 1);
    let lost = |written: &&StateWritten| matches!(written, StateWritten::Conflict { version: 2 });
    assert_eq!(written.iter().filter(lost).count(), 19);
}

pub(crate) async fn values_are_listed_by_key_from_anywhere(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let keys: Vec<String> = (0..10).map(|n| format!("k{n}")).collect();
    let batch: Vec<_> = keys.iter().rev().map(|key| here.setting(key, &json!(key))).collect();
    here.writes(&batch).await;
    let listed = async |after: Option<&str>, limit| {
        let listed = store.states.list(&here.mesh, after, limit).await.expect("readable");
        listed.into_iter().map(|entry| entry.key).collect::<Vec<_>>()
    };
    assert_eq!(listed(None, 100).await, keys);
    assert_eq!(listed(Some("k3"), 2).await, ["k4", "k5"]);
    assert_eq!(listed(Some("k9"), 2).await, Vec::<String>::new());
}

pub(crate) async fn who_missed_changes_reads_the_last_of_each(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    here.writes(&[here.setting("old", &json!(1)), here.setting("gone", &json!(1))]).await;
    let place = here.audit().await.last().expect("rows").id;
    let batch = [
        here.setting("a", &json!(1)),
        here.removing("gone"),
        here.setting("a", &json!(2)),
        here.setting("b", &Value::Null),
    ];
    here.writes(&batch).await;
    let since = async |seq, limit| {
        store.states.changed_since(&here.mesh, seq, limit).await.expect("readable")
    };
    let changes = since(place, 100).await;
    let shown: Vec<_> = changes
        .iter()
        .filter_map(|change| {
            let Shared::State { key, value, version, .. } = &change.what else { return None };
            Some((key.as_str(), value.clone(), *version))
        })
        .collect();
    let expected =
        [("gone", Value::Null, None), ("a", json!(2), Some(2)), ("b", Value::Null, Some(1))];
    assert_eq!(shown, expected);
    assert!(changes.is_sorted_by_key(|change| change.seq));
    assert_eq!(since(place, 1).await, changes[..1]);
    assert_eq!(since(changes[0].seq, 100).await, changes[1..]);
    assert!(store.states.forget_removed(at(2)).await.expect("writable") > 0);
    assert_eq!(since(place, 100).await, changes[1..], "nobody needs it any more");
}

pub(crate) async fn a_mesh_keeps_no_more_than_it_may(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let large = json!("x".repeat(1 << 20));
    let batch: Vec<_> = (0..70).map(|n| here.setting(&n.to_string(), &large)).collect();
    let mut written = Vec::new();
    for some in batch.chunks(10) {
        written.extend(here.writes(some).await);
    }
    let full: HashSet<usize> = (63..70).collect();
    for (at, written) in written.iter().enumerate() {
        let StateWritten::Full(refused) = written else {
            assert!(!full.contains(&at), "{at}: {written:?}");
            continue;
        };
        assert!(full.contains(&at), "{at}");
        let (limit, would) = refused.numbers();
        assert!(limit == 64 << 20 && would > limit, "{refused:?}");
    }
    // What is smaller, or goes, is always taken, and makes room.
    let smaller = [here.setting("1", &json!(1)), here.removing("2"), here.setting("n", &large)];
    assert!(versions(&here.writes(&smaller).await).iter().all(Option::is_some));
    let another = here.another().await;
    assert_eq!(versions(&another.writes(&[another.setting("k", &large)]).await), [Some(1)]);
}

pub(crate) async fn a_batch_may_hold_any_text(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let odd = ["a\u{0}b", "%_'\"\\", "ключ", "\u{1f600}"];
    let batch: Vec<_> = odd.iter().map(|key| here.setting(key, &json!({*key: *key}))).collect();
    assert_eq!(versions(&here.writes(&batch).await), [Some(1); 4]);
    for key in &odd[1..] {
        let entry =
            store.states.get(&here.mesh, key).await.expect("readable").expect("it is there");
        assert_eq!(entry.value, json!({*key: *key}));
    }
    assert!(store.states.get(&here.mesh, odd[0]).await.expect("readable").is_some());
    assert!(store.states.write(T0, &[]).await.expect("nothing to do").is_empty());
}
