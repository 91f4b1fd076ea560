//! What is past its time is deleted.
//!
//! `expire` looks at every mesh, and others may use the same database: so all
//! of these use the same limits, years before anything else of the suite, and
//! ask only after their own rows.

use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::store::{Accepted, Expired, NewEnvelope, Retention, Stores};
use serde_json::json;

use super::duplicates::repeat;
use super::fixture::{Fixture, Peer, changed};

const NOW: Timestamp = Timestamp::from_ms(1_000_000_000_000);
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

const LIMITS: Retention = Retention {
    delivered_before: days_ago(1),
    undelivered_before: days_ago(7),
    keys_before: days_ago(9),
    limit: 1000,
};

const fn days_ago(days: i64) -> Timestamp {
    NOW.plus_ms(-days * DAY_MS)
}

impl Fixture {
    /// Expires until nothing is left to expire.
    async fn expire(&self) {
        for _ in 0..20 {
            let gone = self.store.messages.expire(NOW, &LIMITS).await.expect("writable");
            if gone == Expired::default() {
                return;
            }
        }
        panic!("it never ends");
    }

    async fn sent(&self, now: Timestamp, to: &Peer, client_id: &str) -> NewEnvelope {
        let envelope = changed(self.direct(&self.owner, &to.key), |envelope| {
            envelope.client_message_id = Some(client_id.to_owned())
        });
        self.send(now, &envelope).await;
        envelope
    }

    async fn delivered(&self, now: Timestamp, envelope: &NewEnvelope, to: &Peer) {
        let done = self.done(&envelope.id, &to.key);
        self.store.mail.confirm(now, &[done]).await.expect("writable");
    }

    async fn is_kept(&self, envelope: &NewEnvelope) -> bool {
        self.message(&envelope.id).await.is_some()
    }
}

pub(crate) async fn delivered_envelopes_are_deleted(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let peer = here.member("ada").await;
    let old = here.sent(days_ago(6), &peer, "old").await;
    here.delivered(days_ago(1).plus_ms(-1), &old, &peer).await;
    let recent = here.sent(days_ago(6), &peer, "recent").await;
    here.delivered(days_ago(1), &recent, &peer).await;
    let (old_multicast, recent_multicast) =
        (here.multicast(&here.owner), here.multicast(&here.owner));
    here.send(days_ago(2), &old_multicast).await;
    let seq = here.send(NOW, &recent_multicast).await;
    here.expire().await;
    assert!(!here.is_kept(&old).await && here.is_kept(&recent).await);
    assert!(!here.is_kept(&old_multicast).await && here.is_kept(&recent_multicast).await);
    let kept = store.mail.multicasts_after(&here.mesh, 0, 10).await.expect("readable");
    assert_eq!(kept.iter().map(|e| e.seq).collect::<Vec<_>>(), [seq]);
    assert!(here.audit_of("expired").await.is_empty(), "these were delivered");
    assert_eq!(here.audit_of("message_sent").await.len(), 4, "the chain keeps everything");
}

pub(crate) async fn undelivered_envelopes_expire_with_an_audit_row(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let peer = here.member("ada").await;
    let old = here.sent(days_ago(7).plus_ms(-1), &peer, "old").await;
    let recent = here.sent(days_ago(7), &peer, "recent").await;
    here.expire().await;
    here.expire().await;
    assert!(!here.is_kept(&old).await && here.is_kept(&recent).await);
    let rows = here.audit_of("expired").await;
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!(row.payload, json!({"messageId": old.id, "targetSpec": peer.key}));
    assert_eq!(row.actor.as_deref(), Some(here.owner.id.as_str()), "its sender");
    assert_eq!((row.actor_name.as_deref(), row.created_at), (Some("owner"), NOW));
    let presence = here.present(&peer).await;
    let given = here.claims(NOW, &here.asks(&presence, &peer)).await;
    assert_eq!(given, [recent.id]);
}

pub(crate) async fn a_key_outlives_its_envelope(store: Stores) {
    let here = Fixture::new(store).await;
    let peer = here.member("ada").await;
    let delivered = here.sent(days_ago(8), &peer, "delivered").await;
    here.delivered(days_ago(8), &delivered, &peer).await;
    let undelivered = here.sent(days_ago(8), &peer, "undelivered").await;
    let multicast = changed(here.multicast(&here.owner), |envelope| {
        envelope.client_message_id = Some("multicast".to_owned())
    });
    here.send(days_ago(8), &multicast).await;
    here.expire().await;
    let other_member =
        changed(repeat(&delivered), |envelope| envelope.sender_member = peer.id.clone());
    for sent in [&delivered, &undelivered, &multicast] {
        assert!(!here.is_kept(sent).await);
        let answers = here.accept(&[repeat(sent)]).await;
        assert_eq!(answers, [Accepted::Duplicate { id: sent.id.clone() }]);
    }
    let answers = here.accept(&[other_member]).await;
    assert!(matches!(answers[0], Accepted::New { .. }), "a key is its member's: {answers:?}");
}

pub(crate) async fn a_key_is_forgotten_in_the_end(store: Stores) {
    let here = Fixture::new(store).await;
    let peer = here.member("ada").await;
    let old = here.sent(days_ago(9).plus_ms(-1), &peer, "old").await;
    let recent = here.sent(days_ago(9), &peer, "recent").await;
    here.delivered(days_ago(2), &old, &peer).await;
    here.delivered(days_ago(2), &recent, &peer).await;
    here.expire().await;
    let answers = here.accept(&[repeat(&old), repeat(&recent)]).await;
    assert!(matches!(answers[0], Accepted::New { .. }), "{answers:?}");
    assert_eq!(answers[1], Accepted::Duplicate { id: recent.id });
}

pub(crate) async fn a_limit_bounds_each_kind(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let peer = here.member("ada").await;
    let mut sent = Vec::new();
    for n in 0..6 {
        let envelope = here.sent(days_ago(30), &peer, &format!("c{n}")).await;
        if n % 2 == 0 {
            here.delivered(days_ago(20), &envelope, &peer).await;
        }
        sent.push(envelope);
    }
    let limits = Retention { limit: 2, ..LIMITS };
    let gone = store.messages.expire(NOW, &limits).await.expect("writable");
    assert!(gone.delivered <= 2 && gone.undelivered <= 2 && gone.keys <= 2, "{gone:?}");
    here.expire().await;
    for envelope in &sent {
        assert!(!here.is_kept(envelope).await);
    }
    assert_eq!(here.audit_of("expired").await.len(), 3);
}

pub(crate) async fn what_was_posted_to_a_topic_goes_without_an_audit_row(store: Stores) {
    let here = Fixture::new(store).await;
    let peer = here.member("ada").await;
    let post = changed(here.direct(&here.owner, &peer.key), |envelope| {
        envelope.target_spec = "#topic-id".to_owned()
    });
    here.send(days_ago(8), &post).await;
    let mail = here.sent(days_ago(8), &peer, "mail").await;
    here.expire().await;
    assert!(!here.is_kept(&post).await && !here.is_kept(&mail).await);
    let rows = here.audit_of("expired").await;
    let told: Vec<_> = rows.iter().map(|row| row.payload["messageId"].clone()).collect();
    assert_eq!(told, [json!(mail.id)]);
}
