//! How presences end, and what follows when members change; with fakes behind it.

use std::sync::Arc;

use parking_lot::Mutex;

use super::changes::{self, Ending};
use super::fakes::{Fakes, Told, entered, record};
use super::members;
use crate::clock::Timestamp;
use crate::cluster::BusMessage;
use crate::id::PresenceId;
use crate::protocol::CloseReason;
use crate::record::PresenceRecord;
use crate::store::testing::{admission, member, unavailable};
use crate::store::{Admission, Member, StoreError};

fn bob() -> Member {
    member("bob")
}

fn ids(records: &[Arc<PresenceRecord>]) -> Vec<&str> {
    records.iter().map(|record| record.id.as_str()).collect()
}

/// Each end that the nodes were told of: which, how its socket closes, and whether its
/// peers are told.
fn ends(told: &Mutex<Vec<Told>>) -> Vec<(String, Option<String>, bool)> {
    let told = told.lock();
    let ended = told.iter().filter_map(|told| match told {
        Told::Frame(BusMessage::Ended { presence, close, event }) => {
            Some((presence.to_string(), close.clone(), event.is_some()))
        }
        _ => None,
    });
    ended.collect()
}

// --- ends --------------------------------------------------------------------------------

#[tokio::test]
async fn peers_hear_of_an_end_from_whoever_ended_the_row_and_of_a_hidden_one_not_at_all() {
    let visible = record(&bob());
    let hidden = PresenceRecord { visible: false, ..visible.clone() };
    let visitor = PresenceRecord { visitor: true, ..visible.clone() };
    for (record, is_won, is_told) in [
        (&visible, true, true),
        (&visible, false, false),
        (&hidden, true, false),
        (&visitor, false, false),
    ] {
        let mut fakes = Fakes::new();
        let ended = if is_won { vec![record.id.clone()] } else { Vec::new() };
        fakes.stores.presences.expect_end().times(1).return_once(move |_, _| Ok(ended));
        let over = vec![(record.id.clone(), Some(Timestamp::default()))];
        fakes.stores.presences.expect_ended().returning(move |_| Ok(over.clone()));
        let (told, parts) = (Arc::clone(&fakes.told), fakes.parts());
        let ending = Ending::of(record, None);
        changes::end(&parts, &record.mesh, &[ending]).await.expect("the store answers");
        // Every node forgets it, whoever ended it.
        assert_eq!(ends(&told), [("bob".to_owned(), None, is_told)], "{is_won} {record:?}");
    }
}

#[tokio::test]
async fn a_presence_that_another_node_holds_by_now_is_not_ended_for_it() {
    let mut fakes = Fakes::new();
    fakes.has(vec![bob()], vec![record(&bob())]);
    fakes.stores.presences.expect_end().return_once(|_, _| Ok(Vec::new()));
    fakes.stores.presences.expect_ended().return_once(|_| Ok(Vec::new()));
    let (told, parts) = (Arc::clone(&fakes.told), fakes.parts());
    let room = entered(&parts).await;
    let ending = Ending::of(&record(&bob()), None);
    changes::end(&parts, room.mesh(), &[ending]).await.expect("the store answers");
    assert!(ends(&told).is_empty(), "the node that holds it speaks to others");
    assert!(room.records().is_empty());
}

#[tokio::test]
async fn an_end_whose_answer_was_lost_is_asked_for_until_it_is_known_and_told_once() {
    let mut fakes = Fakes::new();
    let at = Arc::new(Mutex::new(Timestamp::default()));
    let called_at = Arc::clone(&at);
    fakes.stores.presences.expect_end().times(1).returning(move |now, _| {
        *called_at.lock() = now;
        Err(StoreError::Unknown("it broke off".to_owned()))
    });
    fakes.stores.presences.expect_ended().times(1).returning(|_| Err(unavailable()));
    fakes
        .stores
        .presences
        .expect_ended()
        .times(1)
        .returning(move |ids| Ok(vec![(ids[0].clone(), Some(*at.lock()))]));
    let (told, parts) = (Arc::clone(&fakes.told), fakes.parts());
    let ending = Ending::of(&record(&bob()), Some(CloseReason::DISCONNECTED));
    let lost = changes::end(&parts, &ending.record.mesh, std::slice::from_ref(&ending)).await;
    assert!(matches!(lost, Err(StoreError::Unknown(_))));
    changes::settle_ends(&parts).await;
    assert!(ends(&told).is_empty(), "nobody knows yet");
    for _ in 0..2 {
        changes::settle_ends(&parts).await;
        let close = CloseReason::DISCONNECTED.reason.to_owned();
        assert_eq!(ends(&told), [("bob".to_owned(), Some(close), true)]);
    }
}

#[tokio::test]
async fn what_is_removed_is_told_why_before_its_lease_is_gone() {
    let mut fakes = Fakes::new();
    fakes.stores.presences.expect_end().return_once(|_, _| Ok(vec![PresenceId::from("bob")]));
    let (told, parts) = (Arc::clone(&fakes.told), fakes.parts());
    let ending = Ending::of(&record(&bob()), Some(CloseReason::BANNED));
    let mesh = ending.record.mesh.clone();
    changes::remove(&parts, &mesh, &[ending]).await.expect("the store answers");
    let told = told.lock();
    let [Told::Frame(BusMessage::Ended { close, .. }), Told::Revoked(presence)] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(close.as_deref(), Some(CloseReason::BANNED.reason));
    assert_eq!(presence.as_str(), "bob");
}

/// Its end is known, and not why it came: nobody is to stay away for that.
#[tokio::test]
async fn a_socket_whose_presence_is_found_to_have_ended_may_come_again() {
    let mut fakes = Fakes::new();
    fakes.has(vec![bob()], vec![record(&bob())]);
    let over = |ids: &[PresenceId]| Ok(vec![(ids[0].clone(), Some(Timestamp::default()))]);
    fakes.stores.presences.expect_ended().times(1).returning(over);
    let (told, parts) = (Arc::clone(&fakes.told), fakes.parts());
    let room = entered(&parts).await;
    changes::forget_ended(&parts, &room).await;
    let close = CloseReason::TRY_AGAIN_LATER.reason.to_owned();
    assert_eq!(ends(&told), [("bob".to_owned(), Some(close), false)]);
    assert!(room.records().is_empty());
}

// --- members -----------------------------------------------------------------------------

#[tokio::test]
async fn a_ban_ends_its_members_presences_however_often_the_store_does_not_answer() {
    let mut fakes = Fakes::new();
    let ada = member("ada");
    fakes.has(vec![ada.clone(), bob()], vec![record(&ada), record(&bob())]);
    fakes.stores.members.expect_active().times(1).return_once(|_| Err(unavailable()));
    let left = ada.clone();
    fakes.stores.members.expect_active().returning(move |_| Ok(vec![left.clone()]));
    fakes.stores.members.expect_admit().times(1).return_once(|_, _, _| Err(unavailable()));
    fakes
        .stores
        .members
        .expect_admit()
        .times(1..)
        .withf(|_, _, member| member == "bob")
        .returning(|_, _, _| Ok(Admission::Revoked { mesh_label: "mesh".to_owned() }));
    fakes.stores.presences.expect_end().times(1).return_once(|_, _| Err(unavailable()));
    fakes
        .stores
        .presences
        .expect_end()
        .times(1)
        .return_once(|_, rows| Ok(vec![rows[0].id.clone()]));
    let (told, parts) = (Arc::clone(&fakes.told), fakes.parts());
    let room = entered(&parts).await;
    members::refresh(&parts, &room).await;
    assert_eq!(ids(&room.records()), ["ada", "bob"]);
    parts.life.settled().await;
    assert_eq!(ids(&room.records()), ["ada"]);
    let banned = CloseReason::BANNED.reason.to_owned();
    assert_eq!(ends(&told), [("bob".to_owned(), Some(banned), true)]);
}

#[tokio::test]
async fn who_joined_since_the_members_were_read_stays() {
    let mut fakes = Fakes::new();
    fakes.has(vec![bob()], vec![record(&bob())]);
    fakes.stores.members.expect_active().times(1).return_once(|_| Ok(Vec::new()));
    fakes.stores.members.expect_admit().times(1).return_once(|_, _, _| Ok(admission(bob())));
    let parts = fakes.parts();
    let room = entered(&parts).await;
    members::refresh(&parts, &room).await;
    assert_eq!(ids(&room.records()), ["bob"]);
}
