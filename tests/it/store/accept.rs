//! Taking envelopes.

use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::id::{MemberId, PresenceId};
use claudemesh_broker::protocol::Priority;
use claudemesh_broker::store::{Accepted, NewEnvelope, Reach, Stores};
use serde_json::json;
use std::collections::HashSet;

use super::fixture::{Fixture, T0, at, changed, fresh_key};

impl Fixture {
    pub(crate) async fn accept(&self, batch: &[NewEnvelope]) -> Vec<Accepted> {
        self.store.envelopes.accept(T0, batch).await.expect("a good batch")
    }
}

/// The places of envelopes that were all taken as new.
pub(crate) fn places(answers: &[Accepted]) -> Vec<i64> {
    let place = |answer: &Accepted| match answer {
        Accepted::New { seq, .. } => *seq,
        Accepted::Duplicate { id } => panic!("{id} was there"),
    };
    answers.iter().map(place).collect()
}

pub(crate) async fn an_accepted_envelope_is_kept_whole(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let peer = here.member("ada").await;
    let sent = changed(here.direct(&here.owner, &peer.key), |envelope| {
        envelope.sender_session_key = Some(fresh_key());
        envelope.sender_name = "at that time".to_owned();
        envelope.priority = Priority::Low;
        envelope.client_message_id = Some("client-1".to_owned());
        envelope.request_fingerprint = Some("fingerprint".to_owned());
        envelope.reply_to_id = Some("reply".to_owned());
    });
    let answers =
        store.envelopes.accept(at(3), std::slice::from_ref(&sent)).await.expect("a good one");
    let [Accepted::New { seq, previous_multicast: 0, roster: 0, created_at }] = *answers else {
        panic!("{answers:?}");
    };
    assert_eq!(created_at, at(3));
    let presence = here.present(&peer).await;
    let given = store.mail.claim(at(4), &here.asks(&presence, &peer)).await.expect("readable");
    let [kept] = given.as_slice() else { panic!("{given:?}") };
    assert_eq!((&kept.id, kept.seq, kept.created_at), (&sent.id, seq, at(3)));
    assert_eq!((&kept.sender_member, &kept.sender_key), (&here.owner.id, &here.owner.key));
    assert_eq!(kept.sender_name, sent.sender_name);
    assert_eq!(kept.sender_session_key, sent.sender_session_key);
    assert_eq!((&kept.target_spec, kept.priority), (&sent.target_spec, sent.priority));
    assert_eq!((&kept.nonce, &kept.ciphertext), (&sent.nonce, &sent.ciphertext));
    assert_eq!(kept.client_message_id, sent.client_message_id);
    assert_eq!(kept.request_fingerprint, sent.request_fingerprint);
    assert_eq!(kept.reply_to_id, sent.reply_to_id);
}

pub(crate) async fn an_accepted_envelope_has_one_audit_row(store: Stores) {
    let here = Fixture::new(store).await;
    let peer = here.member("ada").await;
    let seq = here.send(at(3), &here.direct(&here.owner, &peer.key)).await;
    let rows = here.audit_of("message_sent").await;
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!(row.id, seq, "its place is its row in the chain");
    assert_eq!((row.actor.as_deref(), row.created_at), (Some(here.owner.id.as_str()), at(3)));
    assert_eq!(row.actor_name.as_deref(), Some("owner"));
    assert_eq!(row.payload, json!({"targetSpec": peer.key, "priority": "next"}));
    assert_eq!(row.mesh, here.mesh);
}

pub(crate) async fn a_batch_keeps_its_order(store: Stores) {
    let here = Fixture::new(store).await;
    let peer = here.member("ada").await;
    let batch: Vec<_> = (0..20).map(|_| here.direct(&here.owner, &peer.key)).collect();
    // The ids of the second half are older than those of the first.
    let swapped = [&batch[10..], &batch[..10]].concat();
    let places = places(&here.accept(&swapped).await);
    assert!(places.is_sorted_by(|a, b| a < b), "{places:?}");
    let presence = here.present(&peer).await;
    let given = here.claims(T0, &here.asks(&presence, &peer)).await;
    let sent: Vec<_> = swapped.iter().map(|envelope| envelope.id.clone()).collect();
    assert_eq!(given, sent);
}

pub(crate) async fn a_large_batch_is_one_transaction(store: Stores) {
    let here = Fixture::new(store).await;
    let peer = here.member("ada").await;
    let batch: Vec<_> = (0..700)
        .map(|n| {
            changed(here.direct(&here.owner, &peer.key), |envelope| {
                envelope.ciphertext = "x".repeat(1000);
                envelope.client_message_id = Some(format!("client-{n}"));
            })
        })
        .collect();
    let places = places(&here.accept(&batch).await);
    let rows = here.audit_of("message_sent").await;
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), places);
}

pub(crate) async fn a_batch_may_span_meshes(store: Stores) {
    let here = Fixture::new(store).await;
    let there = here.another().await;
    let batch: Vec<_> = [&here, &there, &here, &there, &here]
        .map(|mesh| mesh.multicast(&mesh.owner))
        .into_iter()
        .collect();
    let answers = here.accept(&batch).await;
    let places = places(&answers);
    let previous: Vec<i64> = answers
        .iter()
        .map(|answer| match answer {
            Accepted::New { previous_multicast, .. } => *previous_multicast,
            Accepted::Duplicate { .. } => panic!("new"),
        })
        .collect();
    assert_eq!(previous, [0, 0, places[0], places[1], places[2]]);
    assert_eq!(here.audit_of("message_sent").await.len(), 3);
    assert_eq!(there.audit_of("message_sent").await.len(), 2);
}

pub(crate) async fn any_text_survives(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let odd = "'; drop table x; -- \"quoted\" \\ größe 🦀 \u{1} \u{7f} \u{2028} $.a [1]";
    let sent = changed(here.multicast(&here.owner), |envelope| {
        envelope.sender_name = odd.to_owned();
        envelope.target_spec = format!("@{odd}");
        envelope.nonce = odd.to_owned();
        envelope.ciphertext = odd.to_owned();
        envelope.client_message_id = Some(odd.to_owned());
    });
    here.send(T0, &sent).await;
    let kept = store.mail.multicasts_after(&here.mesh, 0, 10).await.expect("readable");
    let [kept] = kept.as_slice() else { panic!("{kept:?}") };
    assert_eq!((&kept.sender_name, &kept.target_spec), (&sent.sender_name, &sent.target_spec));
    assert_eq!((&kept.nonce, &kept.ciphertext), (&sent.nonce, &sent.ciphertext));
    let again =
        changed(sent.clone(), |envelope| envelope.id = here.multicast(&here.owner).envelope.id);
    assert_eq!(here.accept(&[again]).await, [Accepted::Duplicate { id: sent.id.clone() }]);
    let rows = here.audit_of("message_sent").await;
    assert_eq!(rows[0].payload["targetSpec"], sent.target_spec);
}

pub(crate) async fn a_refused_batch_leaves_nothing(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let good = changed(here.direct(&here.owner, &here.owner.key), |envelope| {
        envelope.client_message_id = Some("client-1".to_owned())
    });
    let of_nobody = changed(good.clone(), |envelope| {
        envelope.id = here.multicast(&here.owner).envelope.id;
        envelope.sender_member = MemberId::generate();
    });
    let refusal =
        store.envelopes.accept(T0, &[good.clone(), of_nobody]).await.expect_err("no such member");
    assert!(!refusal.is_retryable(), "{refusal}");
    assert!(here.message(&good.id).await.is_none());
    assert!(here.audit_of("message_sent").await.is_empty());
    here.send(T0, &good).await;
    assert_eq!(here.audit_of("message_sent").await.len(), 1);
}

pub(crate) async fn an_empty_batch_is_accepted(store: Stores) {
    assert!(store.envelopes.accept(T0, &[]).await.expect("nothing").is_empty());
    store.mail.confirm(T0, &[]).await.expect("nothing");
    store.audit.append(T0, &[]).await.expect("nothing");
    store.presences.update(&[]).await.expect("nothing");
    store.mail.unclaim(&PresenceId::generate(), &[]).await.expect("nothing");
    assert!(store.mail.waiting(T0, &[]).await.expect("nothing").is_empty());
}

pub(crate) async fn a_multicast_names_the_one_before(store: Stores) {
    let here = Fixture::new(store).await;
    let multicast = || here.multicast(&here.owner);
    let direct = || here.direct(&here.owner, &here.owner.key);
    let first = here.accept(&[direct(), multicast(), direct(), multicast(), direct()]).await;
    let seq = places(&first);
    let new = |at: usize, previous_multicast| Accepted::New {
        roster: 0,
        seq: seq[at],
        previous_multicast,
        created_at: T0,
    };
    assert_eq!(first, [new(0, 0), new(1, 0), new(2, 0), new(3, seq[1]), new(4, 0)]);
    let second = here.accept(&[direct(), multicast()]).await;
    let Accepted::New { previous_multicast, .. } = second[1] else { panic!("{second:?}") };
    assert_eq!(previous_multicast, seq[3]);
}

pub(crate) async fn a_multicast_is_delivered_from_the_start(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    // Even one whose target looks like a mailbox.
    let target_spec = here.owner.key.to_string();
    let sent = changed(here.multicast(&here.owner), |envelope| envelope.target_spec = target_spec);
    here.send(at(3), &sent).await;
    let state = here.message(&sent.id).await.expect("kept");
    assert!(state.multicast);
    assert_eq!(state.delivered_at, Some(at(3)));
    let presence = here.present(&here.owner).await;
    assert!(here.claims(T0, &here.asks(&presence, &here.owner)).await.is_empty());
    assert!(store.messages.queued(&here.mesh, 10).await.expect("readable").is_empty());
}

pub(crate) async fn concurrent_batches_make_one_chain(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let peer = here.member("ada").await;
    let tasks: Vec<_> = (0..6)
        .map(|task| {
            let (here, peer) = (here.clone(), peer.clone());
            tokio::spawn(async move {
                let mut seqs = Vec::new();
                for round in 0..8 {
                    let now: Timestamp = at(task * 10 + round);
                    let batch = [
                        here.direct(&here.owner, &peer.key),
                        here.multicast(&peer),
                        NewEnvelope {
                            reach: Reach::Direct { claim: None, note: None },
                            ..here.direct(&peer, &here.owner.key)
                        },
                    ];
                    let answers = here.store.envelopes.accept(now, &batch).await.expect("writable");
                    seqs.extend(places(&answers));
                }
                seqs
            })
        })
        .collect();
    let mut seqs = Vec::new();
    for task in tasks {
        seqs.extend(task.await.expect("no panic"));
    }
    let distinct: HashSet<i64> = seqs.iter().copied().collect();
    assert_eq!(distinct.len(), 6 * 8 * 3, "every envelope has its own place");
    let rows = here.audit_of("message_sent").await;
    let chained: HashSet<i64> = rows.iter().map(|row| row.id).collect();
    assert_eq!(chained, distinct, "one audit row for every accepted envelope");
}
