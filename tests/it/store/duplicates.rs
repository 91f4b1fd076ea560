//! The same `client_message_id` from the same member is the same message.

use claudemesh_broker::id::MessageId;
use claudemesh_broker::store::{Accepted, Confirm, NewEnvelope, Stores};
use std::collections::HashSet;

use super::fixture::{Fixture, T0, at, changed};

/// The same send once more, as a client repeats it.
pub(crate) fn repeat(envelope: &NewEnvelope) -> NewEnvelope {
    changed(envelope.clone(), |envelope| envelope.id = MessageId::generate())
}

fn keyed(envelope: NewEnvelope, key: &str) -> NewEnvelope {
    changed(envelope, |envelope| envelope.client_message_id = Some(key.to_owned()))
}

fn is_new(answer: &Accepted) -> bool {
    matches!(answer, Accepted::New { .. })
}

pub(crate) async fn a_repeat_in_a_batch_is_a_duplicate(store: Stores) {
    let here = Fixture::new(store).await;
    let first = keyed(here.direct(&here.owner, &here.owner.key), "k");
    let other = keyed(here.direct(&here.owner, &here.owner.key), "other");
    let batch = [first.clone(), other, repeat(&first), repeat(&first)];
    let answers = here.accept(&batch).await;
    assert!(is_new(&answers[0]) && is_new(&answers[1]), "{answers:?}");
    let duplicate = Accepted::Duplicate { id: first.id.clone() };
    assert_eq!(answers[2..], [duplicate.clone(), duplicate]);
    assert_eq!(here.audit_of("message_sent").await.len(), 2, "one row per message");
    assert!(here.message(&batch[2].id).await.is_none());
}

pub(crate) async fn a_repeat_of_a_queued_envelope_is_a_duplicate(store: Stores) {
    let here = Fixture::new(store).await;
    let first = keyed(here.direct(&here.owner, &here.owner.key), "k");
    here.send(T0, &first).await;
    let new = here.direct(&here.owner, &here.owner.key);
    let answers = here.accept(&[repeat(&first), new, repeat(&first)]).await;
    let duplicate = Accepted::Duplicate { id: first.id.clone() };
    assert_eq!((&answers[0], &answers[2]), (&duplicate, &duplicate));
    assert!(is_new(&answers[1]));
    assert_eq!(here.audit_of("message_sent").await.len(), 2);
}

pub(crate) async fn a_repeat_of_a_delivered_envelope_is_a_duplicate(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let first = keyed(here.direct(&here.owner, &here.owner.key), "k");
    here.send(T0, &first).await;
    let done = Confirm::Message {
        mesh: here.mesh.clone(),
        id: first.id.clone(),
        member_key: here.owner.key.clone(),
        session_key: None,
        is_written_only: false,
    };
    store.mail.confirm(at(1), &[done]).await.expect("writable");
    let answers = here.accept(&[repeat(&first)]).await;
    assert_eq!(answers, [Accepted::Duplicate { id: first.envelope.id }]);
}

pub(crate) async fn a_repeat_of_a_multicast_is_a_duplicate(store: Stores) {
    let here = Fixture::new(store).await;
    let first = keyed(here.multicast(&here.owner), "k");
    let seq = here.send(T0, &first).await;
    let next = here.multicast(&here.owner);
    let answers = here.accept(&[repeat(&first), next]).await;
    assert_eq!(answers[0], Accepted::Duplicate { id: first.envelope.id });
    let Accepted::New { previous_multicast, .. } = answers[1] else { panic!("{answers:?}") };
    assert_eq!(previous_multicast, seq, "a duplicate is no step in the order");
}

pub(crate) async fn concurrent_repeats_are_accepted_once(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let first = keyed(here.direct(&here.owner, &here.owner.key), "k");
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (store, again) = (store.clone(), repeat(&first));
            tokio::spawn(async move {
                match store
                    .envelopes
                    .accept(T0, std::slice::from_ref(&again))
                    .await
                    .expect("writable")[0]
                {
                    Accepted::New { .. } => (true, again.envelope.id),
                    Accepted::Duplicate { ref id } => (false, id.clone()),
                }
            })
        })
        .collect();
    let (mut taken, mut ids) = (0, HashSet::new());
    for task in tasks {
        let (new, id) = task.await.expect("no panic");
        taken += usize::from(new);
        ids.insert(id);
    }
    assert_eq!((taken, ids.len()), (1, 1), "all were told the same id");
    assert_eq!(here.audit_of("message_sent").await.len(), 1);
}

pub(crate) async fn a_key_belongs_to_its_mesh_and_member(store: Stores) {
    let here = Fixture::new(store).await;
    let there = here.another().await;
    let peer = here.member("ada").await;
    let batch = [
        keyed(here.direct(&here.owner, &peer.key), "k"),
        keyed(here.direct(&peer, &here.owner.key), "k"),
        keyed(there.direct(&there.owner, &there.owner.key), "k"),
        keyed(here.direct(&here.owner, &peer.key), "K"),
    ];
    let answers = here.accept(&batch).await;
    assert!(answers.iter().all(is_new), "{answers:?}");
    let answers = here.accept(&batch.each_ref().map(repeat)).await;
    let duplicates = batch.map(|envelope| Accepted::Duplicate { id: envelope.envelope.id });
    assert_eq!(answers, duplicates);
}

pub(crate) async fn without_a_key_nothing_is_a_duplicate(store: Stores) {
    let here = Fixture::new(store).await;
    let first = here.direct(&here.owner, &here.owner.key);
    let answers = here.accept(&[first.clone(), repeat(&first)]).await;
    assert!(answers.iter().all(is_new), "{answers:?}");
    assert!(here.accept(&[repeat(&first)]).await.iter().all(is_new));
}

pub(crate) async fn a_repeat_is_known_without_being_taken(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let named = |name: &str| {
        changed(here.direct(&here.owner, &here.owner.key), |envelope| {
            envelope.client_message_id = Some(name.to_owned())
        })
    };
    let (first, second) = (named("first"), named("second"));
    here.accept(&[first.clone(), second.clone()]).await;
    let nameless = here.direct(&here.owner, &here.owner.key);
    let asked = [repeat(&second), named("third"), nameless, repeat(&first)];
    let known = store.envelopes.repeats(&asked).await.expect("readable");
    assert_eq!(known, [Some(second.envelope.id), None, None, Some(first.envelope.id)]);
    assert_eq!(here.audit_of("message_sent").await.len(), 2);
}
