//! Messages that are sent later: each once, in the transaction that takes it from its row.

use std::sync::Arc;

use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::id::{self, MessageId};
use claudemesh_broker::protocol::Priority;
use claudemesh_broker::store::{
    Due, Envelope, Fate, Fired, Firing, Marks, NewEnvelope, NewSchedule, Reach, Scheduled,
    StoreError, Stores,
};
use tokio::sync::Barrier;

use super::fixture::{Fixture, Peer, at};

/// An instant of each property's own: what is due is due in all meshes of a database.
fn early(seconds: i64) -> Timestamp {
    at(seconds - 900_000_000)
}

impl Fixture {
    fn new_schedule(&self, deliver_at: Timestamp, to: &str) -> NewSchedule {
        NewSchedule {
            id: id::random(),
            to: to.to_owned(),
            message: "grüße \u{1f980}".to_owned(),
            nonce: None,
            deliver_at,
            cron: None,
            timezone: None,
            subtype: Some("reminder".to_owned()),
            reply_to_id: Some("asked".to_owned()),
            hop: 3,
        }
    }

    async fn schedule(&self, deliver_at: Timestamp, to: &str) -> String {
        let new = self.new_schedule(deliver_at, to);
        let author = self.author(&self.owner);
        self.store.schedules.schedule(early(0), &author, &new).await.expect("room");
        new.id
    }

    /// What is due of this mesh.
    async fn due(&self, now: Timestamp) -> Vec<Due> {
        let due = self.store.schedules.due(now, 10_000).await.expect("readable");
        due.into_iter().filter(|due| due.mesh == self.mesh).collect()
    }

    async fn scheduled(&self, peer: &Peer) -> Vec<Scheduled> {
        let list = self.store.schedules.list(&self.mesh, &peer.id, None, 100).await;
        list.expect("readable")
    }

    async fn events(&self, kind: &str) -> usize {
        self.audit().await.iter().filter(|row| row.event_type == kind).count()
    }
}

fn send(due: &Due, next: Option<Timestamp>) -> Firing {
    let many = due.scheduled.to == "*";
    let envelope = Envelope {
        id: MessageId::generate(),
        mesh: due.mesh.clone(),
        sender_member: due.member.clone(),
        sender_name: due.member_name.clone(),
        sender_session_key: None,
        target_spec: due.scheduled.to.clone(),
        priority: Priority::Now,
        nonce: String::new(),
        ciphertext: due.scheduled.message.clone(),
        client_message_id: None,
        request_fingerprint: None,
        reply_to_id: None,
        scheduled: Some(Marks { subtype: due.scheduled.subtype.clone(), late: true }),
        properties: None,
    };
    let reach = if many { Reach::Multicast } else { Reach::Direct { claim: None, note: None } };
    let envelope = Box::new(NewEnvelope { envelope, reach });
    Firing { due: due.clone(), fate: Fate::Send { envelope, next } }
}

fn is_sent(fired: &Fired) -> bool {
    matches!(fired, Fired::Sent { .. })
}

pub(crate) async fn what_is_due_says_whether_its_mesh_is_archived(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    here.schedule(early(10), "*").await;
    assert!(!here.due(early(11)).await[0].is_archived);
    assert!(store.meshes.archive(at(0), &here.mesh, None).await.expect("writable"));
    assert!(here.due(early(11)).await[0].is_archived);
}

pub(crate) async fn what_is_due_is_accepted_and_gone_in_one_transaction(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let bob = here.member("bob").await;
    let to = bob.key.to_string();
    let id = here.schedule(early(10), &to).await;
    here.schedule(early(11), "*").await;
    assert!(here.due(early(9)).await.is_empty());
    assert!(store.schedules.next_due().await.expect("readable").is_some_and(|at| at <= early(10)));
    let due = here.due(early(11)).await;
    let [direct, many] = &due[..] else { panic!("{due:?}") };
    assert_eq!((&direct.scheduled.id, direct.due_at), (&id, early(10)));
    assert_eq!((direct.member_name.as_str(), &direct.member_key), ("owner", &here.owner.key));
    assert_eq!(direct.scheduled.message, "grüße \u{1f980}");
    assert_eq!((direct.scheduled.reply_to_id.as_deref(), direct.scheduled.hop), (Some("asked"), 3));
    let listed = here.scheduled(&here.owner).await;
    assert!(listed.contains(&direct.scheduled), "{listed:?}");
    let firings = [send(direct, None), send(many, None)];
    let fired = store.schedules.fire(at(1), &firings).await.expect("answers");
    assert!(fired.iter().all(is_sent), "{fired:?}");
    assert!(here.due(at(9)).await.is_empty() && here.scheduled(&here.owner).await.is_empty());
    assert_eq!((here.events("message_sent").await, here.events("schedule_created").await), (2, 2));
    // As it was delivered live, so it comes from the queue.
    let Fired::Sent { seq, .. } = fired[1] else { panic!("it was sent") };
    let mail = store.mail.multicasts_after(&here.mesh, 0, 10).await.expect("readable");
    let marks = Some(Marks { subtype: Some("reminder".to_owned()), late: true });
    assert_eq!((mail[0].seq, &mail[0].scheduled), (seq, &marks));
    let presence = here.present(&bob).await;
    let ask = here.asks(&presence, &bob);
    let mine = store.mail.claim(at(2), &ask).await.expect("a good request");
    assert_eq!((mine.len(), &mine[0].scheduled), (1, &marks));
    let again = store.schedules.fire(at(3), &firings).await.expect("answers");
    assert_eq!(again, [Fired::Elsewhere, Fired::Elsewhere]);
    assert_eq!(here.events("message_sent").await, 2);
}

pub(crate) async fn of_those_who_fire_at_once_one_sends(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    for second in 0..40 {
        here.schedule(early(second), "*").await;
    }
    let due = here.due(early(100)).await;
    let barrier = Arc::new(Barrier::new(6));
    let nodes: Vec<_> = (0..6)
        .map(|_| {
            let (store, due, barrier) = (store.clone(), due.clone(), Arc::clone(&barrier));
            tokio::spawn(async move {
                barrier.wait().await;
                let mut sent = 0;
                for some in due.chunks(10) {
                    let firings: Vec<_> = some.iter().map(|due| send(due, None)).collect();
                    let fired = store.schedules.fire(at(1), &firings).await.expect("answers");
                    sent += fired.iter().filter(|fired| is_sent(fired)).count();
                }
                sent
            })
        })
        .collect();
    let mut sent = 0;
    for node in nodes {
        sent += node.await.expect("no panic");
    }
    assert_eq!((sent, here.events("message_sent").await), (40, 40));
    assert!(here.due(at(9)).await.is_empty());
    let mail = store.mail.multicasts_after(&here.mesh, 0, 100).await.expect("readable");
    assert_eq!(mail.len(), 40, "each is in the queue once");
}

pub(crate) async fn one_that_repeats_moves_on_and_one_that_is_put_off_stays(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let author = here.author(&here.owner);
    let repeats = NewSchedule {
        cron: Some("0 9 * * *".to_owned()),
        timezone: Some("Europe/Berlin".to_owned()),
        ..here.new_schedule(early(10), "*")
    };
    store.schedules.schedule(early(0), &author, &repeats).await.expect("room");
    let once = here.schedule(early(11), "*").await;
    let due = here.due(early(20)).await;
    let put_off = Firing { due: due[1].clone(), fate: Fate::PutOff { until: early(40) } };
    let firings = [send(&due[0], Some(early(30))), put_off];
    let fired = store.schedules.fire(early(21), &firings).await.expect("answers");
    assert!(is_sent(&fired[0]) && fired[1] == Fired::Settled, "{fired:?}");
    let list = here.scheduled(&here.owner).await;
    let of = |id: &str| list.iter().find(|row| row.id == id).expect("it is there");
    assert_eq!((of(&repeats.id).deliver_at, of(&repeats.id).fired_count), (early(30), 1));
    assert_eq!(of(&repeats.id).timezone.as_deref(), Some("Europe/Berlin"));
    assert_eq!(of(&once).deliver_at, early(11), "when it was to be stays known");
    assert_eq!(here.due(early(39)).await.len(), 1);
    let due = here.due(early(40)).await;
    let skip = Firing { due: due[0].clone(), fate: Fate::Skip { next: early(50) } };
    let fired = store.schedules.fire(early(41), &[skip]).await.expect("answers");
    assert_eq!(fired, [Fired::Settled]);
    let list = here.scheduled(&here.owner).await;
    let repeats = list.iter().find(|row| row.cron.is_some()).expect("it is there");
    assert_eq!((repeats.deliver_at, repeats.fired_count), (early(50), 1));
}

pub(crate) async fn what_cannot_be_sent_is_dropped_with_an_audit_row(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let dropped = here.schedule(early(1), "*").await;
    here.schedule(early(2), "*").await;
    let due = here.due(early(5)).await;
    let drop = Firing { due: due[0].clone(), fate: Fate::Drop { reason: "revoked" } };
    let fired = store.schedules.fire(early(6), &[drop, send(&due[1], None)]).await;
    assert!(matches!(fired.expect("answers")[..], [Fired::Settled, Fired::Sent { .. }]));
    let rows = here.audit().await;
    let row = rows.iter().find(|row| row.event_type == "schedule_dropped").expect("a row");
    assert_eq!(row.payload["scheduleId"], dropped);
    assert_eq!(row.payload["reason"], "revoked");
    assert_eq!(here.events("message_sent").await, 1);
    assert!(here.due(at(1)).await.is_empty());
}

pub(crate) async fn only_who_scheduled_it_takes_it_back(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let bob = here.member("bob").await;
    let id = here.schedule(early(10), "*").await;
    assert!(here.scheduled(&bob).await.is_empty());
    let cancel = async |by: &Peer| {
        let author = here.author(by);
        store.schedules.cancel(early(1), &author, &id).await.expect("answers")
    };
    assert!(!cancel(&bob).await);
    assert!(cancel(&here.owner).await && !cancel(&here.owner).await);
    assert!(here.due(at(1)).await.is_empty() && here.scheduled(&here.owner).await.is_empty());
    assert_eq!(here.events("schedule_cancelled").await, 1);
}

pub(crate) async fn what_is_cancelled_while_it_is_sent_is_one_of_both(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    for round in 0..20 {
        let id = here.schedule(early(round), "*").await;
        let due = here.due(early(30)).await;
        let firing = [send(&due[0], None)];
        let (author, schedules) = (here.author(&here.owner), &store.schedules);
        let (fired, cancelled) =
            tokio::join!(schedules.fire(at(1), &firing), schedules.cancel(at(1), &author, &id));
        let (fired, cancelled) = (fired.expect("answers"), cancelled.expect("answers"));
        assert_ne!(is_sent(&fired[0]), cancelled, "{fired:?}");
    }
}

pub(crate) async fn a_mesh_schedules_no_more_than_it_may(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let author = here.author(&here.owner);
    let large = NewSchedule { message: "x".repeat(40 << 20), ..here.new_schedule(early(1), "*") };
    store.schedules.schedule(early(0), &author, &large).await.expect("room");
    let more = NewSchedule { id: id::random(), ..large.clone() };
    let refused = store.schedules.schedule(early(0), &author, &more).await;
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    assert!(store.schedules.cancel(early(0), &author, &large.id).await.expect("answers"));
    store.schedules.schedule(early(0), &author, &more).await.expect("what went made room");
}
