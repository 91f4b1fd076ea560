//! Deliveries that are done.

use claudemesh_broker::id::{Key, MeshId, MessageId};
use claudemesh_broker::store::{Confirm, Stores};

use super::fixture::{Fixture, T0, at, changed, fresh_key};

impl Fixture {
    pub(crate) fn done(&self, id: &MessageId, member_key: &Key) -> Confirm {
        Confirm::Message {
            mesh: self.mesh.clone(),
            id: id.clone(),
            member_key: member_key.clone(),
            session_key: None,
            is_written_only: false,
        }
    }

    pub(crate) fn done_by_client_id(
        &self,
        client_id: &str,
        member_key: &Key,
        session_key: Option<&Key>,
    ) -> Confirm {
        Confirm::ClientMessage {
            mesh: self.mesh.clone(),
            client_message_id: client_id.to_owned(),
            member_key: member_key.clone(),
            session_key: session_key.cloned(),
        }
    }

    /// Confirms all that is queued for a key.
    pub(crate) async fn confirm_all(&self, key: &Key) {
        let queued = self.store.messages.queued(&self.mesh, 1000).await.expect("readable");
        let done: Vec<_> = queued.iter().map(|state| self.done(&state.id, key)).collect();
        self.store.mail.confirm(at(1), &done).await.expect("writable");
    }

    async fn is_delivered(&self, id: &MessageId) -> bool {
        self.message(id).await.expect("kept").delivered_at.is_some()
    }
}

pub(crate) async fn a_confirmed_envelope_is_done(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let peer = here.member("ada").await;
    let (one, two) = (here.present(&peer).await, here.present(&peer).await);
    let sent = here.mail(&peer.key, 2).await;
    assert_eq!(here.claims(T0, &here.asks(&one, &peer)).await, sent);
    store.mail.confirm(at(5), &[here.done(&sent[0], &peer.key)]).await.expect("writable");
    let state = here.message(&sent[0]).await.expect("kept for a while");
    assert_eq!((state.delivered_at, state.claimed_by), (Some(at(5)), None));
    assert_eq!(here.claims(at(6), &here.asks(&one, &peer)).await, sent[1..]);
    assert_eq!(here.claims(at(99), &here.asks(&two, &peer)).await, sent[1..], "for anyone");
}

pub(crate) async fn only_a_recipient_confirms(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let there = here.another().await;
    let (peer, session_key) = (here.member("ada").await, fresh_key());
    let to_member = here.mail(&peer.key, 1).await.remove(0);
    let to_session = here.mail(&session_key, 1).await.remove(0);
    let by_session = |mesh: &MeshId, id: &MessageId, session_key: &Key| Confirm::Message {
        mesh: mesh.clone(),
        id: id.clone(),
        member_key: peer.key.clone(),
        session_key: Some(session_key.clone()),
        is_written_only: false,
    };
    let strangers = [
        here.done(&to_member, &here.owner.key),
        there.done(&to_member, &peer.key),
        here.done(&to_session, &peer.key),
        by_session(&here.mesh, &to_session, &fresh_key()),
        by_session(&there.mesh, &to_session, &session_key),
        here.done(&MessageId::generate(), &peer.key),
    ];
    store.mail.confirm(at(1), &strangers).await.expect("writable");
    assert!(!here.is_delivered(&to_member).await && !here.is_delivered(&to_session).await);
    let own = [here.done(&to_member, &peer.key), by_session(&here.mesh, &to_session, &session_key)];
    store.mail.confirm(at(1), &own).await.expect("writable");
    assert!(here.is_delivered(&to_member).await && here.is_delivered(&to_session).await);
}

pub(crate) async fn a_senders_own_id_confirms(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (peer, session_key) = (here.member("ada").await, fresh_key());
    let send = async |to: &Key, client_id: &str| {
        let client_message_id = Some(client_id.to_owned());
        let envelope = changed(here.direct(&here.owner, to), |envelope| {
            envelope.client_message_id = client_message_id
        });
        here.send(T0, &envelope).await;
        envelope.envelope.id
    };
    let mine = send(&peer.key, "c1").await;
    let session = send(&session_key, "c2").await;
    let of_other = send(&here.owner.key, "c3").await;
    let there = here.another().await;
    let done = |at: &Fixture, client_id: &str, session_key: Option<&Key>| {
        at.done_by_client_id(client_id, &peer.key, session_key)
    };
    let strangers = [
        done(&here, "c2", None),
        done(&here, "c3", Some(&session_key)),
        done(&there, "c1", None),
        done(&here, "c", None),
    ];
    store.mail.confirm(at(1), &strangers).await.expect("writable");
    for id in [&mine, &session, &of_other] {
        assert!(!here.is_delivered(id).await);
    }
    let own = [done(&here, "c1", None), done(&here, "c2", Some(&session_key))];
    store.mail.confirm(at(2), &own).await.expect("writable");
    assert!(here.is_delivered(&mine).await && here.is_delivered(&session).await);
    assert!(!here.is_delivered(&of_other).await);
}

pub(crate) async fn the_first_confirmation_counts(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let envelope = changed(here.direct(&here.owner, &here.owner.key), |envelope| {
        envelope.client_message_id = Some("c".to_owned())
    });
    here.send(T0, &envelope).await;
    let done = here.done(&envelope.id, &here.owner.key);
    let by_client_id = here.done_by_client_id("c", &here.owner.key, None);
    store.mail.confirm(at(1), &[done.clone(), done.clone()]).await.expect("writable");
    store.mail.confirm(at(2), &[done, by_client_id]).await.expect("writable");
    let state = here.message(&envelope.id).await.expect("kept");
    assert_eq!(state.delivered_at, Some(at(1)));
}

pub(crate) async fn a_multicast_row_is_not_confirmed(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let sent = changed(here.multicast(&here.owner), |envelope| {
        envelope.target_spec = here.owner.key.to_string();
        envelope.client_message_id = Some("c".to_owned());
    });
    let seq = here.send(T0, &sent).await;
    let presence = here.present(&here.owner).await;
    let by_client_id = here.done_by_client_id("c", &here.owner.key, None);
    let up_to = Confirm::MulticastsUpTo { presence, position: seq };
    let batch = [here.done(&sent.id, &here.owner.key), by_client_id, up_to];
    store.mail.confirm(at(5), &batch).await.expect("writable");
    assert_eq!(here.message(&sent.id).await.expect("kept").delivered_at, Some(T0));
    let kept = store.mail.multicasts_after(&here.mesh, 0, 10).await.expect("readable");
    assert_eq!(kept.len(), 1, "others have not seen it");
}

pub(crate) async fn positions_move_only_forward(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (one, two) = (here.present(&here.owner).await, here.present(&here.owner).await);
    let up_to = |presence: &_, position| Confirm::MulticastsUpTo {
        presence: Clone::clone(presence),
        position,
    };
    let batch = [up_to(&one, 5), up_to(&one, 9), up_to(&two, 3), up_to(&one, 7)];
    store.mail.confirm(T0, &batch).await.expect("writable");
    assert_eq!(here.position_of(&one).await, Some(9), "the furthest of a batch");
    assert_eq!(here.position_of(&two).await, Some(3));
    here.confirm_up_to(&one, 8).await;
    assert_eq!(here.position_of(&one).await, Some(9));
    here.confirm_up_to(&one, 10).await;
    assert_eq!(here.position_of(&one).await, Some(10));
    assert_eq!(here.position_of(&two).await, Some(3));
}

pub(crate) async fn one_batch_confirms_many(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let peer = here.member("ada").await;
    let presence = here.present(&peer).await;
    let batch: Vec<_> = (0..500).map(|_| here.direct(&here.owner, &peer.key)).collect();
    here.accept(&batch).await;
    let done: Vec<_> = batch[..499].iter().map(|e| here.done(&e.id, &peer.key)).collect();
    store.mail.confirm(at(1), &done).await.expect("writable");
    let left = here.claims(at(2), &here.asks(&presence, &peer)).await;
    assert_eq!(left, [batch[499].id.clone()]);
}
