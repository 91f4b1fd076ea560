//! The audit chain.

use claudemesh_broker::audit::AuditEvent;
use claudemesh_broker::id::{MeshId, PresenceId};
use claudemesh_broker::store::{AuditEntry, EndPresence, Stores};
use serde_json::json;

use super::fixture::{Fixture, T0, at};

impl Fixture {
    pub(crate) fn entry(&self, key: &str) -> AuditEntry {
        AuditEntry {
            mesh: self.mesh.clone(),
            actor: None,
            actor_name: None,
            event: AuditEvent::StateSet { key: key.to_owned() },
        }
    }

    async fn keys(&self, event: Option<&str>, offset: i64, limit: i64) -> (Vec<String>, i64) {
        let page = self.store.audit.page(&self.mesh, event, offset, limit).await;
        let (rows, total) = page.expect("readable");
        let key = |payload: &serde_json::Value| payload["key"].as_str().unwrap_or("-").to_owned();
        (rows.iter().map(|row| key(&row.payload)).collect(), total)
    }
}

pub(crate) async fn appended_rows_are_chained(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let there = here.another().await;
    let named = AuditEntry {
        actor: Some(here.owner.id.clone()),
        actor_name: Some("größe".to_owned()),
        ..here.entry("named \u{1f980} \"\\")
    };
    let batch = [here.entry("one"), there.entry("other"), named];
    store.audit.append(at(1), &batch).await.expect("two meshes");
    store.audit.append(at(2), &[here.entry("last")]).await.expect("a mesh");
    let rows = here.audit().await;
    let keys: Vec<_> = rows.iter().map(|row| row.payload["key"].clone()).collect();
    assert_eq!(keys, [json!("one"), json!("named \u{1f980} \"\\"), json!("last")]);
    assert_eq!((&rows[0].actor, &rows[0].actor_name), (&None, &None));
    assert_eq!(rows[1].actor.as_deref(), Some(here.owner.id.as_str()));
    assert_eq!(rows[1].actor_name.as_deref(), Some("größe"));
    assert_eq!(there.audit().await.len(), 1, "each mesh has its own chain");
    let nowhere = AuditEntry { mesh: MeshId::generate(), ..here.entry("x") };
    store.audit.append(T0, &[here.entry("y"), nowhere]).await.expect_err("no such mesh");
    assert_eq!(here.audit().await.len(), 3, "all or nothing");
}

pub(crate) async fn a_page_is_newest_first(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    here.another().await.store.database.ping().await.expect("open");
    for key in ["1", "2", "3", "4", "5"] {
        store.audit.append(T0, &[here.entry(key)]).await.expect("a mesh");
    }
    let page = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
    assert_eq!(here.keys(None, 0, 2).await, (page(&["5", "4"]), 6));
    assert_eq!(here.keys(None, 3, 10).await, (page(&["2", "1", "-"]), 6));
    assert_eq!(here.keys(None, 9, 10).await, (Vec::new(), 6));
    assert_eq!(here.another().await.keys(None, 0, 10).await, (page(&["-"]), 1));
}

pub(crate) async fn a_page_of_one_event_type(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let left = AuditEntry { event: AuditEvent::PeerLeft, ..here.entry("") };
    let batch = [here.entry("1"), left.clone(), here.entry("2"), left, here.entry("3")];
    store.audit.append(T0, &batch).await.expect("a mesh");
    let (keys, total) = here.keys(Some("state_set"), 1, 1).await;
    assert_eq!((keys, total), (vec!["2".to_owned()], 3));
    let (keys, total) = here.keys(Some("peer_left"), 0, 10).await;
    assert_eq!((keys.len(), total), (2, 2));
    assert_eq!(here.keys(Some("nothing"), 0, 10).await, (Vec::new(), 0));
}

pub(crate) async fn rows_before_a_row_are_newest_first(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let left = AuditEntry { event: AuditEvent::PeerLeft, ..here.entry("") };
    let batch = [here.entry("1"), left, here.entry("2"), here.entry("3")];
    store.audit.append(T0, &batch).await.expect("a mesh");
    let ids: Vec<i64> = here.audit().await.iter().map(|row| row.id).collect();
    let before = async |event, id, limit| {
        let rows = store.audit.before(&here.mesh, event, id, limit).await.expect("readable");
        rows.iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(before(None, i64::MAX, 2).await, [ids[3], ids[2]]);
    assert_eq!(before(None, ids[2], 9).await[..2], [ids[1], ids[0]]);
    assert_eq!(before(Some("state_set"), ids[3], 9).await, [ids[2], ids[0]]);
    assert_eq!(before(None, ids[0], 9).await.len(), 1, "the row that began the chain");
    assert!(before(Some("state\0set"), i64::MAX, 9).await.is_empty(), "no such type, no error");
    here.keys(Some("state\0set"), 0, 9).await;
}

pub(crate) async fn a_row_names_its_actor_by_key_and_enrolled_name(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let named = AuditEntry {
        actor: Some(here.owner.id.clone()),
        actor_name: Some("somebody else".to_owned()),
        ..here.entry("k")
    };
    let operator = AuditEntry { actor_name: Some("operator".to_owned()), ..here.entry("k") };
    let gone = AuditEntry { actor: Some("no-such-member".into()), ..named.clone() };
    store.audit.append(T0, &[named, operator, here.entry("k"), gone]).await.expect("a mesh");
    let rows = here.audit().await;
    let labels: Vec<_> = rows.iter().map(|row| row.actor_label()).collect();
    assert_eq!(labels, [here.owner.name.as_str(), "operator", "system", "no-such-member"]);
    let sessions: Vec<_> = rows.iter().map(|row| row.session_name()).collect();
    assert_eq!(sessions, [Some("somebody else"), None, None, Some("somebody else")]);
    assert_eq!(rows[0].member_key.as_deref(), Some(here.owner.key.as_str()));
    assert_eq!(rows[3].member_key, None);
    assert!(rows.iter().all(|row| row.name_hash.is_some()));
}

pub(crate) async fn a_walk_goes_on_after_a_row(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    for key in ["1", "2", "3"] {
        store.audit.append(T0, &[here.entry(key)]).await.expect("a mesh");
    }
    let all = here.audit().await;
    let after = async |id, limit| {
        let rows = store.audit.after(&here.mesh, id, limit).await.expect("readable");
        rows.iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(after(0, 3).await[1..], [all[0].id, all[1].id]);
    assert_eq!(after(all[1].id, 2).await, [all[2].id]);
    assert!(after(all[2].id, 2).await.is_empty());
}

pub(crate) async fn concurrent_writers_make_one_chain(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let tasks: Vec<_> = (0..4)
        .map(|task| {
            let here = here.clone();
            tokio::spawn(async move {
                for round in 0..6 {
                    let (store, owner) = (&here.store, &here.owner);
                    let entry = here.entry(&format!("{task}/{round}"));
                    store.audit.append(at(round), &[entry]).await.expect("writable");
                    here.send(T0, &here.direct(owner, &owner.key)).await;
                    let presence: PresenceId = here.present(owner).await;
                    let audit = vec![AuditEntry { event: AuditEvent::PeerLeft, ..here.entry("") }];
                    let end = EndPresence {
                        id: presence,
                        mesh: here.mesh.clone(),
                        member: None,
                        node: None,
                        audit,
                    };
                    store.presences.end(T0, &[end]).await.expect("writable");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    assert_eq!(here.audit().await.len(), 4 * 6 * 4);
}
