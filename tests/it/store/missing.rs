//! Rows of an audit chain that are not there, by what other tables keep.

use claudemesh_broker::audit::{GENESIS, GENESIS_EVENT};
use claudemesh_broker::id::MeshId;
use claudemesh_broker::store::{AuditEntry, MissingRows, Stores};

use super::fixture::{Fixture, T0, at};
use super::other::Other;

impl Fixture {
    async fn missing(&self) -> MissingRows {
        self.store.audit.missing(&self.mesh).await.expect("readable")
    }
}

/// What the broker does leaves no row out, also to whom looks in the middle of it.
pub(crate) async fn nothing_is_missing_while_others_write(store: Stores, _: Other) {
    let here = Fixture::new(store.clone()).await;
    assert_eq!(here.missing().await, MissingRows::default(), "nobody has been there");
    let topic = here.topic("t").await;
    let tasks: Vec<_> = (0..3)
        .map(|_| {
            let (here, topic) = (here.clone(), topic.clone());
            tokio::spawn(async move {
                let owner = here.owner.clone();
                for round in 0..8 {
                    let direct = here.direct(&owner, &owner.key);
                    here.send(at(round), &direct).await;
                    here.send(at(round), &here.multicast(&owner)).await;
                    here.posts(&owner, &topic).await;
                    here.present(&owner).await;
                    let done = here.done(&direct.envelope.id, &owner.key);
                    here.store.mail.confirm(at(round), &[done]).await.expect("writable");
                    // Takes a number, and gives it back.
                    let nowhere = AuditEntry { mesh: MeshId::generate(), ..here.entry("x") };
                    let refused = here.store.audit.append(T0, &[here.entry("y"), nowhere]).await;
                    refused.expect_err("no such mesh");
                }
            })
        })
        .collect();
    while !tasks.iter().all(tokio::task::JoinHandle::is_finished) {
        assert_eq!(here.missing().await, MissingRows::default());
    }
    for task in tasks {
        task.await.expect("no panic");
    }
    assert_eq!(here.missing().await, MissingRows::default());
}

pub(crate) async fn an_end_that_was_cut_off_is_known_by_what_was_sent(store: Stores, other: Other) {
    let here = Fixture::new(store.clone()).await;
    let there = here.another().await;
    there.mail(&there.owner.key, 1).await;
    let topic = here.topic("t").await;
    here.mail(&here.owner.key, 2).await;
    let first = here.send(T0, &here.direct(&here.owner, &here.owner.key)).await;
    here.posts(&here.owner, &topic).await;
    store.audit.append(T0, &[here.entry("last")]).await.expect("writable");
    other.run(&format!("delete from {{schema}}audit_log where id >= {first}")).await;
    assert_eq!(here.audit().await.len(), 3, "what is left is whole: the topic, and two");
    let numbers = if matches!(other, Other::Sqlite(_)) { 3 } else { 0 };
    let found = MissingRows { messages: 2, first: Some(first), numbers, ..MissingRows::default() };
    assert_eq!(here.missing().await, found);
    assert_eq!(there.missing().await, MissingRows { numbers, ..MissingRows::default() });
    // Rows that follow do not hide it.
    here.mail(&here.owner.key, 1).await;
    assert_eq!(here.missing().await, found);
}

pub(crate) async fn a_chain_that_was_emptied_is_known_by_who_has_been_there(
    store: Stores,
    other: Other,
) {
    let here = Fixture::new(store.clone()).await;
    here.present(&here.owner).await;
    assert_eq!(here.missing().await, MissingRows::default());
    other.run("delete from {schema}audit_log").await;
    let numbers = if matches!(other, Other::Sqlite(_)) { 2 } else { 0 };
    let found = MissingRows { all: true, genesis: true, numbers, ..MissingRows::default() };
    assert_eq!(here.missing().await, found);
}

pub(crate) async fn a_chain_without_the_row_that_began_it_is_known(store: Stores, other: Other) {
    let here = Fixture::new(store.clone()).await;
    let there = here.another().await;
    let rows = store.audit.after(&here.mesh, i64::MIN, 10).await.expect("readable");
    let [begin] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((begin.event_type.as_str(), begin.prev_hash.as_str()), (GENESIS_EVENT, GENESIS));
    assert_eq!(begin.actor.as_deref(), Some(here.owner.id.as_str()));
    let mesh = here.mesh.as_str();
    other.run(&format!("delete from {{schema}}audit_log where mesh_id = '{mesh}'")).await;
    assert!(here.missing().await.genesis, "an empty chain is not the one that was begun");
    here.mail(&here.owner.key, 2).await;
    assert_eq!(here.audit().await.len(), 2, "what follows is whole in itself");
    assert!(here.missing().await.genesis && !there.missing().await.genesis);
    // A mesh of an earlier release or another program was begun without.
    other.run("update {schema}mesh set audit_genesis_id = null").await;
    assert!(!here.missing().await.genesis);
}

/// An installation's messages and presences from before this broker have no place here.
pub(crate) async fn what_other_programs_wrote_has_no_row_to_miss(store: Stores, other: Other) {
    let here = Fixture::new(store.clone()).await;
    let Other::Postgres(_) = other else { return };
    let (mesh, member) = (&here.mesh, &here.owner.id);
    other
        .run(&format!(
            "set session_replication_role = replica;
             insert into {{schema}}message_queue (id, mesh_id, sender_member_id, target_spec,
                nonce, ciphertext) values ('old-{mesh}', '{mesh}', '{member}', '*', 'n', 'c');
             insert into {{schema}}presence (id, member_id, session_id, pid, cwd)
                values ('old-{mesh}', '{member}', 's', 1, '/')"
        ))
        .await;
    assert_eq!(here.missing().await, MissingRows::default());
}
