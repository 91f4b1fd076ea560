//! Looking at the queue.

use claudemesh_broker::id::{self, Key, MemberId, MeshId, MessageId, PresenceId};
use claudemesh_broker::limits::WAITING_BYTES_MIN;
use claudemesh_broker::protocol::Priority;
use claudemesh_broker::store::{Holder, NewEnvelope, Reach, Stores};
use std::collections::HashSet;

use super::fixture::{Fixture, T0, at, changed};

pub(crate) async fn multicasts_come_in_order_after_a_position(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let there = here.another().await;
    let mut sent = Vec::new();
    for _ in 0..4 {
        let envelope = here.multicast(&here.owner);
        let seq = here.send(T0, &envelope).await;
        sent.push((envelope.envelope.id, seq));
        here.mail(&here.owner.key, 1).await;
        there.send(T0, &there.multicast(&there.owner)).await;
    }
    let after = async |position, limit| {
        let found =
            store.mail.multicasts_after(&here.mesh, position, limit).await.expect("readable");
        found.into_iter().map(|e| (e.envelope.id, e.seq)).collect::<Vec<_>>()
    };
    assert_eq!(after(0, 100).await, sent);
    assert_eq!(after(sent[0].1, 100).await, sent[1..]);
    assert_eq!(after(sent[0].1, 2).await, sent[1..3], "the oldest first");
    assert!(after(sent[3].1, 100).await.is_empty());
    let found = store.mail.multicasts_after(&here.mesh, 0, 1).await.expect("readable");
    assert_eq!((&found[0].sender_key, found[0].sender_name.as_str()), (&here.owner.key, "owner"));
}

pub(crate) async fn the_newest_place_is_the_last_that_was_given_away(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let newest = async || store.mail.newest_seq(&here.mesh).await.expect("readable");
    let direct = here.send(T0, &here.direct(&here.owner, &here.owner.key)).await;
    assert_eq!(newest().await, direct);
    let multicast = here.send(T0, &here.multicast(&here.owner)).await;
    assert_eq!(newest().await, multicast);
    let there = here.another().await;
    there.send(T0, &there.multicast(&there.owner)).await;
    assert_eq!(newest().await, multicast, "another mesh is none of its business");
    here.present(&here.owner).await;
    assert!(newest().await > multicast, "who comes has a place too");
    let nowhere = MeshId::generate();
    assert_eq!(store.mail.newest_seq(&nowhere).await.expect("readable"), 0);
}

pub(crate) async fn a_message_is_found_by_its_beginning(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let there = here.another().await;
    let stem: String = id::generate().chars().rev().take(20).collect();
    let send = async |mesh: &Fixture, id: String| {
        let envelope = changed(mesh.direct(&mesh.owner, &mesh.owner.key), |envelope| {
            envelope.id = MessageId::from(id);
            envelope.priority = Priority::Now;
        });
        mesh.send(at(3), &envelope).await;
        envelope
    };
    let first = send(&here, format!("{stem}aa1")).await;
    send(&here, format!("{stem}aa2")).await;
    send(&here, format!("{stem}ab")).await;
    send(&there, format!("{stem}aa3")).await;
    let found = async |prefix: String| {
        let found = store.messages.find(&here.mesh, &prefix, None).await.expect("readable");
        found.into_iter().map(|state| state.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(found(format!("{stem}aa1")).await, [format!("{stem}aa1")]);
    let ends = |ends: &[&str]| ends.iter().map(|end| format!("{stem}{end}")).collect::<Vec<_>>();
    let mut all = found(stem.clone()).await;
    // Databases differ in what comes first; each goes on where it was.
    let second = MessageId::from(all[1].clone());
    let rest = store.messages.find(&here.mesh, &stem, Some(&second)).await.expect("readable");
    assert_eq!(rest.iter().map(|state| state.id.as_str()).collect::<Vec<_>>(), [&all[2]]);
    all.sort();
    assert_eq!(all, ends(&["aa1", "aa2", "ab"]));
    assert_eq!(found(format!("{stem}ab")).await, [format!("{stem}ab")]);
    assert!(found(format!("{stem}aa3")).await.is_empty(), "another mesh's");
    assert!(found(format!("{stem}AB")).await.is_empty());
    assert!(found("%".to_owned()).await.is_empty(), "no pattern");
    assert!(found(stem.replace(|c: char| c.is_ascii_digit(), "_")).await.is_empty());
    assert!(found(String::new()).await.is_empty());

    let states = store.messages.find(&here.mesh, first.id.as_str(), None).await.expect("readable");
    let [state] = states.as_slice() else { panic!("{states:?}") };
    assert_eq!((&state.sender_member, state.created_at), (&here.owner.id, at(3)));
    assert_eq!((&state.target_spec, state.priority), (&first.target_spec, Priority::Now));
    assert_eq!(state.ciphertext_bytes, first.ciphertext.len() as i64);
    assert!(!state.multicast && state.delivered_at.is_none() && state.claimed_by.is_none());
    assert!(state.seq > 0);
}

pub(crate) async fn a_message_shows_its_claim(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let presence = here.present(&here.owner).await;
    let reach = Reach::Direct { claim: Some((presence.clone(), at(30))), note: None };
    let envelope = NewEnvelope { reach, ..here.direct(&here.owner, &here.owner.key) };
    here.send(T0, &envelope).await;
    let claimed_by = here.message(&envelope.id).await.expect("queued").claimed_by;
    assert_eq!(claimed_by, Some(presence.clone()));
    store.mail.unclaim(&presence, std::slice::from_ref(&envelope.id)).await.expect("writable");
    assert_eq!(here.message(&envelope.id).await.expect("queued").claimed_by, None);
}

pub(crate) async fn what_a_presence_has_claimed_is_found(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (presence, other) = (here.present(&here.owner).await, here.present(&here.owner).await);
    let mailbox =
        |presence: &PresenceId| (here.mesh.clone(), here.owner.key.clone(), presence.clone());
    let asked = [mailbox(&presence), mailbox(&other)];
    let claimed = async || store.mail.claimed(&asked).await.expect("readable");
    here.mail(&here.owner.key, 1).await;
    assert_eq!(claimed().await, HashSet::new(), "nobody's");
    let reach = Reach::Direct { claim: Some((presence.clone(), at(30))), note: None };
    let envelope = NewEnvelope { reach, ..here.direct(&here.owner, &here.owner.key) };
    here.send(T0, &envelope).await;
    assert_eq!(claimed().await, HashSet::from([presence]));
    let elsewhere = here.another().await;
    let wrong = (elsewhere.mesh.clone(), here.owner.key.clone(), asked[0].2.clone());
    assert_eq!(store.mail.claimed(&[wrong]).await.expect("readable"), HashSet::new());
    let done = here.done(&envelope.id, &here.owner.key);
    store.mail.confirm(T0, &[done]).await.expect("writable");
    assert_eq!(claimed().await, HashSet::new(), "delivered");
}

pub(crate) async fn the_queue_lists_what_is_not_delivered(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    here.another().await.mail(&here.owner.key, 1).await;
    let mut sent = Vec::new();
    for n in 0..4 {
        let peer = here.member(&format!("peer {n}")).await;
        sent.extend(here.mail(&peer.key, 1).await);
    }
    here.send(T0, &here.multicast(&here.owner)).await;
    let delivered = here.mail(&here.owner.key, 1).await;
    let done = here.done(&delivered[0], &here.owner.key);
    store.mail.confirm(T0, &[done]).await.expect("writable");
    let listed = async |limit| {
        let queued = store.messages.queued(&here.mesh, limit).await.expect("readable");
        queued.into_iter().map(|state| state.id).collect::<Vec<_>>()
    };
    assert_eq!(listed(100).await, sent);
    assert_eq!(listed(2).await, sent[..2]);
}

/// A web application writes such rows beside its topics; nobody is to get them.
pub(crate) async fn what_is_posted_to_a_topic_does_not_wait(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let waits = here.mail(&here.owner.key, 1).await;
    let post = changed(here.direct(&here.owner, &here.owner.key), |envelope| {
        envelope.target_spec = "#topic-id".to_owned()
    });
    here.send(T0, &post).await;
    let queued = store.messages.queued(&here.mesh, 10).await.expect("readable");
    assert_eq!(queued.into_iter().map(|state| state.id).collect::<Vec<_>>(), waits);
    let meshes = store.meshes.all().await.expect("readable");
    let summary = meshes.iter().find(|summary| summary.mesh.id == here.mesh).expect("it is there");
    assert_eq!(summary.queued, 1);
    let asked = [
        (Holder::Mesh { mesh: here.mesh.clone() }, 10),
        (Holder::Sender { mesh: here.mesh.clone(), member: here.owner.id.clone() }, 10),
    ];
    let loads = store.envelopes.waiting_load(&asked).await.expect("readable");
    assert_eq!(loads.iter().map(|load| load.messages).collect::<Vec<_>>(), [1, 1]);
}

pub(crate) async fn what_waits_is_measured_for_each_holder(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (ada, bob) = (here.member("ada").await, here.member("bob").await);
    let large = changed(here.direct(&here.owner, &ada.key), |envelope| {
        envelope.nonce = "n".repeat(24);
        envelope.ciphertext = "é".repeat(5000);
    });
    here.send(T0, &large).await;
    here.mail(&ada.key, 2).await;
    here.send(T0, &here.direct(&ada, &bob.key)).await;
    here.send(T0, &here.multicast(&here.owner)).await;
    let delivered = here.mail(&ada.key, 1).await;
    store.mail.confirm(T0, &[here.done(&delivered[0], &ada.key)]).await.expect("writable");
    let mailbox = |target: &Key, most| {
        (Holder::Mailbox { mesh: here.mesh.clone(), target: target.to_string() }, most)
    };
    let sender = |member: &MemberId| {
        (Holder::Sender { mesh: here.mesh.clone(), member: member.clone() }, 100)
    };
    let asked = [
        mailbox(&bob.key, 100),
        (Holder::Mesh { mesh: here.mesh.clone() }, 100),
        mailbox(&ada.key, 100),
        sender(&here.owner.id),
        sender(&ada.id),
        sender(&bob.id),
        mailbox(&here.owner.key, 100),
    ];
    let loads = store.envelopes.waiting_load(&asked).await.expect("readable");
    let found: Vec<(u64, u64)> = loads.iter().map(|load| (load.messages, load.bytes)).collect();
    let (small, large) = (WAITING_BYTES_MIN, 10_024);
    assert_eq!(
        found,
        [
            (1, small),
            (4, large + 3 * small),
            (3, large + 2 * small),
            (3, large + 2 * small),
            (1, small),
            (0, 0),
            (0, 0),
        ]
    );
    let bounded = store.envelopes.waiting_load(&[mailbox(&ada.key, 2)]).await.expect("readable");
    assert_eq!(bounded[0].messages, 2);
    assert_eq!(store.envelopes.waiting_load(&[]).await.expect("nothing asked"), []);
}

pub(crate) async fn the_depth_counts_what_is_not_delivered(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let batch: Vec<_> = (0..40).map(|_| here.direct(&here.owner, &here.owner.key)).collect();
    here.accept(&batch).await;
    // Others may use the same database.
    assert!(store.messages.depth().await.expect("readable") >= 40);
}

pub(crate) async fn places_that_were_given_away_before_an_instant_are_known(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let before = async |at| store.mail.seq_before(&here.mesh, at).await.expect("readable");
    assert_eq!(before(T0).await, 0);
    let mut places = Vec::new();
    for second in [1, 2, 2, 5] {
        here.send(at(second), &here.multicast(&here.owner)).await;
        places.push(store.mail.newest_seq(&here.mesh).await.expect("readable"));
    }
    let there = here.another().await;
    there.send(at(3), &there.multicast(&there.owner)).await;
    assert_eq!(before(at(2)).await, places[0]);
    assert_eq!(before(at(5)).await, places[2]);
    assert_eq!(before(at(9)).await, places[3]);
}

pub(crate) async fn positions_beyond_the_newest_place_go_back(store: Stores) {
    let (here, there) = (Fixture::new(store.clone()).await, Fixture::new(store.clone()).await);
    let (ahead, behind) = (here.present(&here.owner).await, here.present(&here.owner).await);
    let elsewhere = there.present(&there.owner).await;
    for (presence, position) in [(&ahead, 900), (&behind, 500), (&elsewhere, 900)] {
        here.confirm_up_to(presence, position).await;
    }
    store.mail.rewind(&here.mesh, 500, 400).await.expect("writable");
    assert_eq!(here.position_of(&ahead).await, Some(400));
    assert_eq!(here.position_of(&behind).await, Some(500));
    assert_eq!(there.position_of(&elsewhere).await, Some(900), "another mesh");
}
