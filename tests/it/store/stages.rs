//! How far messages are, what they say of themselves, and those that never come.

use std::sync::Arc;

use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::id::{Key, MemberId, MessageId, PresenceId};
use claudemesh_broker::protocol::{PeerRole, Reached, Stage};
use claudemesh_broker::store::sqlite::SqliteStore;
use claudemesh_broker::store::{
    Answered, Confirm, NewEnvelope, Properties, StoredEnvelope, Stores, Surfaced, Wished,
    Withdrawal,
};

use tempfile::TempDir;

use super::fixture::{Fixture, Peer, T0, at, changed, fresh_key, opening_with};
use crate::harness::postgres::{self, PrivatePostgres};

impl Fixture {
    fn saying(&self, from: &Peer, to: &Peer, properties: Properties) -> NewEnvelope {
        changed(self.direct(from, &to.key), |envelope| envelope.properties = properties.said())
    }

    /// How far a direct message is.
    async fn stage(&self, id: &MessageId) -> Stage {
        self.message(id).await.expect("kept").stage(at(50)).0
    }

    fn surfaced(&self, presence: &Peer, messages: &[&MessageId]) -> Surfaced {
        Surfaced {
            mesh: self.mesh.clone(),
            presence: presence.id.as_str().into(),
            member_key: presence.key.clone(),
            session_key: None,
            messages: messages.iter().map(ToString::to_string).collect(),
        }
    }

    /// What the peer would be given now.
    async fn mailbox(&self, peer: &Peer) -> Vec<StoredEnvelope> {
        let presence = self.present(peer).await;
        self.store.mail.claim(at(100), &self.asks(&presence, peer)).await.expect("readable")
    }
}

pub(crate) async fn what_a_message_says_of_itself_is_kept(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let ada = here.member("ada").await;
    let said = Properties {
        seal: None,
        thread_id: Some("thread".to_owned()),
        expects_reply: true,
        supersedes: Some("none of it".to_owned()),
        receipt: Some(Reached::Surfaced),
        hop: 3,
        expires_at: Some(at(1000)),
    };
    let full = here.saying(&here.owner, &ada, said.clone());
    let plain = here.direct(&here.owner, &ada.key);
    let batch = [full.clone(), plain.clone()];
    store.envelopes.accept(T0, &batch).await.expect("good envelopes");
    let many = changed(here.multicast(&here.owner), |many| many.properties = said.clone().said());
    here.send(T0, &many).await;
    let mail = here.mailbox(&ada).await;
    assert_eq!(mail.iter().map(|one| &one.id).collect::<Vec<_>>(), [&full.id, &plain.id]);
    assert_eq!(mail[0].properties.as_deref(), Some(&said));
    assert!(mail[1].properties.is_none() && !mail[1].was_claimed);
    let read = store.mail.multicasts_after(&here.mesh, 0, 10).await.expect("readable");
    assert_eq!(read[0].properties.as_deref(), Some(&said));

    let answered =
        Answered { sender: here.owner.id.clone(), target_spec: ada.key.to_string(), hop: 3 };
    let found = store.stages.answered(&here.mesh, &full.id).await.expect("readable");
    assert_eq!(found, Some(answered));
    let elsewhere = here.another().await;
    let found = store.stages.answered(&elsewhere.mesh, &full.id).await.expect("readable");
    assert_eq!(found, None, "each mesh for itself");
}

pub(crate) async fn each_stage_is_told_as_what_it_is(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let ada = here.member("ada").await;
    let [first, second, third] =
        here.mail(&ada.key, 3).await.try_into().expect("as many as asked for");
    assert_eq!(here.stage(&first).await, Stage::Kept);
    store.stages.pushed(at(1), &[first.clone(), second.clone()]).await.expect("writable");
    assert_eq!(here.stage(&first).await, Stage::Pushed);
    let confirm = |id: &MessageId, is_written_only| Confirm::Message {
        mesh: here.mesh.clone(),
        id: id.clone(),
        member_key: ada.key.clone(),
        session_key: None,
        is_written_only,
    };
    let done = [confirm(&first, false), confirm(&second, true)];
    store.mail.confirm(at(2), &done).await.expect("writable");
    assert_eq!(here.stage(&first).await, Stage::Confirmed);
    assert_eq!(here.stage(&second).await, Stage::Pushed, "its client says nothing");
    // Surfaced says that the client has it, whether or not that was said before.
    let surfaced = here.surfaced(&ada, &[&first, &third]);
    store.stages.surface(at(3), &surfaced).await.expect("writable");
    let state = here.message(&first).await.expect("kept");
    assert_eq!(state.stage(at(4)), (Stage::Surfaced, Some(at(3))));
    assert_eq!(state.delivered_at, Some(at(2)));
    assert_eq!(here.stage(&third).await, Stage::Surfaced);
    let stranger = here.member("bob").await;
    let [other] = here.mail(&ada.key, 1).await.try_into().expect("one");
    let surfaced = here.surfaced(&stranger, &[&other]);
    store.stages.surface(at(3), &surfaced).await.expect("writable");
    assert_eq!(here.stage(&other).await, Stage::Kept, "only a recipient says so");
}

/// A host crashes with mail in its spool, and its user begins another session.
pub(crate) async fn another_session_of_the_member_shows_what_one_that_is_gone_had(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (ada, bob) = (here.member("ada").await, here.member("bob").await);
    let key = fresh_key();
    let with_key = |peer: &Peer, role, key: &Key| {
        opening_with(here.opening(peer), |record| {
            (record.role, record.session_key) = (role, Some(key.clone()));
        })
    };
    here.open(T0, &with_key(&ada, PeerRole::Session, &key)).await;
    let [had, waiting] = here.mail(&key, 2).await.try_into().expect("as many as asked for");
    let confirm = Confirm::Message {
        mesh: here.mesh.clone(),
        id: had.clone(),
        member_key: ada.key.clone(),
        session_key: Some(key.clone()),
        is_written_only: false,
    };
    store.mail.confirm(at(1), &[confirm]).await.expect("writable");
    // Whoever names a key has not proven it.
    let claiming = here.open(T0, &with_key(&bob, PeerRole::ControlPlane, &key)).await;
    let other = here.open(T0, &with_key(&ada, PeerRole::Session, &fresh_key())).await;
    let shows = async |presence: PresenceId, peer: &Peer, now| {
        let surfaced = Surfaced { presence, ..here.surfaced(peer, &[&had, &waiting]) };
        store.stages.surface(at(now), &surfaced).await.expect("writable");
    };
    shows(claiming, &bob, 2).await;
    assert_eq!(here.stage(&had).await, Stage::Confirmed);
    shows(other, &ada, 3).await;
    assert_eq!(here.stage(&had).await, Stage::Surfaced);
    assert_eq!(here.stage(&waiting).await, Stage::Kept, "what no session has is shown by none");
}

pub(crate) async fn who_wished_it_is_told_once_that_a_message_surfaced(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let ada = here.member("ada").await;
    let presence = here.present(&ada).await;
    let receipt = |receipt| Properties { receipt: Some(receipt), ..Properties::default() };
    let wished = changed(here.saying(&here.owner, &ada, receipt(Reached::Surfaced)), |envelope| {
        envelope.client_message_id = Some("own id".to_owned());
    });
    let confirmed_only = here.saying(&here.owner, &ada, receipt(Reached::Confirmed));
    let many = changed(here.multicast(&here.owner), |many| {
        many.properties = receipt(Reached::Surfaced).said();
    });
    for envelope in [&wished, &confirmed_only, &many] {
        here.send(T0, envelope).await;
    }
    let all = [&wished.id, &confirmed_only.id, &many.id];
    let surfaced = Surfaced { presence: presence.clone(), ..here.surfaced(&ada, &all) };
    let told = store.stages.surface(at(1), &surfaced).await.expect("writable");
    let of = |envelope: &NewEnvelope| Wished {
        message: envelope.id.clone(),
        client_message_id: envelope.client_message_id.clone(),
        sender: here.owner.id.clone(),
    };
    assert_eq!(told, [of(&wished), of(&many)]);
    let told = store.stages.surface(at(2), &surfaced).await.expect("writable");
    assert_eq!(told, [], "once");
    let progress = store.stages.places(std::slice::from_ref(&presence)).await.expect("readable");
    let progress = progress[&presence];
    assert!(progress.surfaced > 0 && progress.surfaced_at == Some(at(2)), "{progress:?}");
}

pub(crate) async fn a_message_is_taken_back_as_long_as_nobody_has_it(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (ada, bob) = (here.member("ada").await, here.member("bob").await);
    let [kept, confirmed] = here.mail(&ada.key, 2).await.try_into().expect("two");
    store.mail.confirm(at(1), &[here.done(&confirmed, &ada.key)]).await.expect("writable");
    let withdraw = async |sender: &MemberId, id: &MessageId| {
        store.stages.withdraw(at(2), &here.mesh, sender, id).await.expect("writable")
    };
    assert_eq!(withdraw(&bob.id, &kept).await, None, "only its sender");
    let of = |is_done, stage| Withdrawal {
        is_done,
        stage,
        target_spec: ada.key.to_string(),
        client_message_id: None,
    };
    assert_eq!(withdraw(&here.owner.id, &confirmed).await, Some(of(false, Stage::Confirmed)));
    assert_eq!(withdraw(&here.owner.id, &kept).await, Some(of(true, Stage::Withdrawn)));
    assert_eq!(withdraw(&here.owner.id, &kept).await, Some(of(false, Stage::Withdrawn)));
    assert_eq!(here.stage(&kept).await, Stage::Withdrawn);
    assert!(here.mailbox(&ada).await.is_empty(), "it never comes");
    assert_eq!(here.audit_of("message_withdrawn").await.len(), 1);

    let many = here.multicast(&here.owner);
    here.send(at(3), &many).await;
    let found = withdraw(&here.owner.id, &many.id).await.expect("its own");
    assert!(found.is_done, "{found:?}");
    let read = store.mail.multicasts_after(&here.mesh, 0, 10).await.expect("readable");
    assert!(read.is_empty(), "nobody gets it any more");
}

pub(crate) async fn a_newer_message_takes_the_place_of_what_nobody_has(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let ada = here.member("ada").await;
    let named = |client_id: &str, supersedes: Option<&str>| {
        let said =
            Properties { supersedes: supersedes.map(str::to_owned), ..Properties::default() };
        changed(here.saying(&here.owner, &ada, said), |envelope| {
            envelope.client_message_id = Some(client_id.to_owned());
        })
    };
    let (first, second) = (named("first", None), named("second", Some("first")));
    here.send(T0, &first).await;
    here.send(at(1), &second).await;
    assert_eq!(here.stage(&first.id).await, Stage::Withdrawn);
    // In one transaction as well; and not what a client has.
    let (third, fourth) = (named("third", Some("second")), named("fourth", Some("third")));
    store.envelopes.accept(at(2), &[third.clone(), fourth.clone()]).await.expect("good");
    assert_eq!(here.stage(&second.id).await, Stage::Withdrawn);
    assert_eq!(here.stage(&third.id).await, Stage::Withdrawn);
    store.mail.confirm(at(3), &[here.done(&fourth.id, &ada.key)]).await.expect("writable");
    let fifth = named("fifth", Some("fourth"));
    here.send(at(4), &fifth).await;
    assert_eq!(here.stage(&fourth.id).await, Stage::Confirmed);
    // Another's id of the same name is not touched, and a repeat does nothing twice.
    let bob = here.member("bob").await;
    let of_bob = changed(here.direct(&bob, &ada.key), |envelope| {
        envelope.client_message_id = Some("fourth".to_owned());
    });
    here.send(at(5), &of_bob).await;
    store.envelopes.accept(at(6), std::slice::from_ref(&fifth)).await.expect("a repeat");
    assert_eq!(here.stage(&of_bob.id).await, Stage::Kept);
    let ids: Vec<_> = here.mailbox(&ada).await.into_iter().map(|one| one.id.clone()).collect();
    assert_eq!(ids, [fifth.id.clone(), of_bob.id.clone()]);
    assert_eq!(here.audit_of("message_withdrawn").await.len(), 3);
}

/// Before anything of the other properties, and after those that delete by age: every
/// mesh is looked at.
const EARLY: Timestamp = Timestamp::from_ms(1_200_000_000_000);

pub(crate) async fn who_asked_is_told_of_what_is_too_old(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (ada, bob) = (here.member("ada").await, here.member("bob").await);
    store.stages.tell_of_ends(&bob.id).await.expect("writable");
    let expiring = |from: &Peer| {
        let expires_at = Some(EARLY.plus_ms(10));
        here.saying(from, &ada, Properties { expires_at, ..Properties::default() })
    };
    let (of_bob, of_owner) = (expiring(&bob), expiring(&here.owner));
    for envelope in [&of_bob, &of_owner] {
        here.send(EARLY, envelope).await;
    }
    let end = async |ms| {
        let no_age = Timestamp::from_ms(0);
        let told = store.stages.end_overdue(EARLY.plus_ms(ms), no_age, 10).await;
        told.expect("writable")
    };
    assert!(end(9).await.is_empty(), "not before its time");
    assert_eq!(end(10).await, [(here.mesh.clone(), bob.key.clone())], "who asked, alone");
    assert!(end(11).await.is_empty(), "once");
    for id in [&of_bob.id, &of_owner.id] {
        assert_eq!(here.stage(id).await, Stage::Expired);
    }
    assert_eq!(here.audit_of("expired").await.len(), 2);
    is_notice(&here, &bob).await;
}

/// The one thing that waits for the member is a notice.
async fn is_notice(here: &Fixture, member: &Peer) {
    let mail = here.mailbox(member).await;
    let subtypes: Vec<_> = mail
        .iter()
        .map(|notice| notice.scheduled.as_ref().and_then(|marks| marks.subtype.as_deref()))
        .collect();
    assert_eq!(subtypes, [Some("system")]);
}

pub(crate) async fn who_asked_is_told_of_what_grants_keep_away(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (ada, bob) = (here.member("ada").await, here.member("bob").await);
    store.stages.tell_of_ends(&bob.id).await.expect("writable");
    let (blocked, done) = (here.direct(&bob, &ada.key), here.direct(&bob, &ada.key));
    here.send(T0, &blocked).await;
    here.send(T0, &done).await;
    store.mail.confirm(at(1), &[here.done(&done.id, &ada.key)]).await.expect("writable");
    let ids = [blocked.id.clone(), done.id.clone()];
    let told = store.stages.block(at(2), &here.mesh, &ids).await.expect("writable");
    assert_eq!(told, [(here.mesh.clone(), bob.key.clone())]);
    assert_eq!(here.stage(&blocked.id).await, Stage::Blocked);
    assert_eq!(here.stage(&done.id).await, Stage::Confirmed, "who has it has it");
    assert!(here.mailbox(&ada).await.is_empty());
    assert_eq!(here.audit_of("message_blocked").await.len(), 1);
    is_notice(&here, &bob).await;
}

/// In a database of its own: every mesh is looked at.
async fn what_waits_for_too_long_ends_and_notices_end_in_silence(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (ada, bob) = (here.member("ada").await, here.member("bob").await);
    store.stages.tell_of_ends(&bob.id).await.expect("writable");
    let old = here.direct(&bob, &ada.key);
    here.send(T0, &old).await;
    let recent = here.direct(&bob, &ada.key);
    here.send(at(10), &recent).await;
    let end = async |now, before| {
        store.stages.end_overdue(at(now), at(before), 10).await.expect("writable")
    };
    assert_eq!(end(20, 5).await, [(here.mesh.clone(), bob.key.clone())]);
    assert_eq!(here.stage(&old.id).await, Stage::Expired);
    assert_eq!(here.stage(&recent.id).await, Stage::Kept);
    is_notice(&here, &bob).await;
    assert_eq!(end(40, 15).await.len(), 1, "of the recent one");
    assert_eq!(end(99, 50).await, [], "nobody is told of a notice");
    assert!(here.mailbox(&bob).await.is_empty());
}

#[tokio::test]
async fn in_sqlite_what_waits_for_too_long_ends() {
    let folder = TempDir::new().expect("a folder");
    let store = SqliteStore::open(&folder.path().join("broker.db")).await.expect("a new file");
    let store = Stores::of(Arc::new(store));
    store.database.migrate().await.expect("a new schema");
    what_waits_for_too_long_ends_and_notices_end_in_silence(store).await;
}

#[tokio::test]
async fn in_postgres_what_waits_for_too_long_ends() {
    let url = PrivatePostgres::shared().migrated_database().await;
    what_waits_for_too_long_ends_and_notices_end_in_silence(postgres::store(&url)).await;
}

pub(crate) async fn what_is_too_old_is_given_to_nobody(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let ada = here.member("ada").await;
    let said = Properties { expires_at: Some(at(99)), ..Properties::default() };
    here.send(T0, &here.saying(&here.owner, &ada, said)).await;
    let box_of_ada = [(here.mesh.clone(), ada.key.clone())];
    let waiting = store.mail.waiting(at(98), &box_of_ada).await.expect("readable");
    assert_eq!(waiting, box_of_ada);
    let waiting = store.mail.waiting(at(99), &box_of_ada).await.expect("readable");
    assert!(waiting.is_empty());
    assert!(here.mailbox(&ada).await.is_empty(), "before anybody has ended it, too");
}
