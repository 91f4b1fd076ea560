//! Who gets a place, who keeps it, who gives it up.

use super::*;

pub(super) async fn the_cap_is_exact_under_a_burst<S: Subject>() {
    let subject = S::start(LONG).await;
    let mesh = MeshId::generate();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..40 {
        let node = subject.nodes()[number % 2].clone();
        let record = session(&mesh, &format!("s{number}"));
        tasks.spawn(async move { node.acquire(&record, CAP).await.unwrap() });
    }
    let outcomes = tasks.join_all().await;
    let admitted =
        outcomes.iter().filter(|outcome| matches!(outcome, Acquired::New { .. })).count();
    assert_eq!(admitted, CAP as usize, "{outcomes:?}");
    assert_eq!(directory(&subject, &mesh).await.len(), CAP as usize);
    subject.check_invariants();
}

pub(super) async fn a_refused_peer_learns_the_count_and_when_to_retry<S: Subject>() {
    let subject = S::start(LONG).await;
    let [node, _] = subject.nodes();
    let mesh = MeshId::generate();
    fill(&subject, &mesh).await;
    match node.acquire(&session(&mesh, "late"), CAP).await.unwrap() {
        Acquired::AtCapacity { current, retry_after_ms } => {
            assert_eq!(current, CAP);
            assert!((1..=LONG.ttl_ms).contains(&retry_after_ms), "{retry_after_ms}");
        }
        other => panic!("admitted: {other:?}"),
    }
    let elsewhere = session(&MeshId::generate(), "late");
    enter(&*node, &elsewhere).await;
}

pub(super) async fn a_reattach_keeps_the_presence_and_needs_no_place<S: Subject>() {
    let subject = S::start(LONG).await;
    let [first, second] = subject.nodes();
    let mesh = MeshId::generate();
    let held = fill(&subject, &mesh).await;
    let again = PresenceRecord { node: "other".to_owned(), ..session(&mesh, "s0") };
    let (lease, record) = reattach(&*second, &again).await;
    assert_eq!(lease.presence, held[0].lease.presence);
    assert!(lease.epoch > held[0].lease.epoch);
    assert_ne!(again.id, record.id);
    assert_eq!((record.node.as_str(), record.online), ("other", true));
    assert_eq!((record.id, record.epoch), (lease.presence.clone(), lease.epoch));
    // From grace just the same.
    assert!(first.release(&lease, Release::Grace).await.unwrap());
    let (back, _) = reattach(&*first, &session(&mesh, "s0")).await;
    assert!(back.epoch > lease.epoch);
    assert_eq!(directory(&subject, &mesh).await.len(), CAP as usize);
    subject.check_invariants();
}

pub(super) async fn an_old_epoch_can_do_nothing<S: Subject>() {
    let subject = S::start(LONG).await;
    let [first, second] = subject.nodes();
    let mesh = MeshId::generate();
    let old = enter(&*first, &session(&mesh, "a")).await;
    let (new, _) = reattach(&*second, &session(&mesh, "a")).await;
    assert!(!first.release(&old.lease, Release::Now).await.unwrap());
    assert!(!first.release(&old.lease, Release::Grace).await.unwrap());
    let stale = PresenceRecord { summary: Some("stale".to_owned()), ..(*old.record).clone() };
    first.write_record(&old.lease, &stale).await.unwrap();
    assert_eq!(first.renew(std::slice::from_ref(&old)).await.unwrap(), [old.lease]);
    let rows = directory(&subject, &mesh).await;
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].epoch, rows[0].online, &rows[0].summary), (new.epoch, true, &None));
    assert!(second.release(&new, Release::Now).await.unwrap());
}

pub(super) async fn grace_yields_oldest_first<S: Subject>() {
    let subject = S::start(LONG).await;
    let [node, _] = subject.nodes();
    let mesh = MeshId::generate();
    let held = fill(&subject, &mesh).await;
    for index in [3, 1] {
        assert!(node.release(&held[index].lease, Release::Grace).await.unwrap());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for index in [3, 1] {
        let newcomer = session(&mesh, &format!("new{index}"));
        let yielded = match node.acquire(&newcomer, CAP).await.unwrap() {
            Acquired::New { yielded, .. } => yielded,
            other => panic!("{other:?}"),
        };
        let ids: Vec<_> = yielded.iter().map(|record| record.id.clone()).collect();
        assert_eq!(ids, [held[index].lease.presence.clone()]);
        assert!(!yielded[0].online);
    }
    assert!(refused(&*node, &session(&mesh, "late")).await);
    // Those that yielded are nobody's: a return is a new presence.
    assert!(refused(&*node, &session(&mesh, "s3")).await);
    assert!(node.reap(10).await.unwrap().is_empty());
    subject.check_invariants();
}

pub(super) async fn a_silent_node_yields_its_places<S: Subject>() {
    let subject = S::start(SHORT_TTL).await;
    let [node, _] = subject.nodes();
    let mesh = MeshId::generate();
    let held = fill(&subject, &mesh).await;
    assert!(refused(&*node, &session(&mesh, "late")).await);
    tokio::time::sleep(LATER).await;
    assert!(node.renew(&held[1..]).await.unwrap().is_empty());
    let yielded = match node.acquire(&session(&mesh, "late"), CAP).await.unwrap() {
        Acquired::New { yielded, .. } => yielded,
        other => panic!("{other:?}"),
    };
    assert_eq!(yielded.len(), 1);
    assert_eq!(yielded[0].id, held[0].lease.presence);
    assert!(refused(&*node, &session(&mesh, "later")).await);
    subject.check_invariants();
}

pub(super) async fn a_release_frees_at_once_or_keeps_the_place<S: Subject>() {
    let subject = S::start(LONG).await;
    let [node, other] = subject.nodes();
    let mesh = MeshId::generate();
    let held = fill(&subject, &mesh).await;
    assert!(node.release(&held[0].lease, Release::Now).await.unwrap());
    assert!(!node.release(&held[0].lease, Release::Now).await.unwrap());
    assert_eq!(directory(&subject, &mesh).await.len(), CAP as usize - 1);
    enter(&*other, &session(&mesh, "next")).await;
    assert!(refused(&*other, &session(&mesh, "late")).await);
    // In grace it is still there, offline; releasing twice changes nothing.
    assert!(node.release(&held[1].lease, Release::Grace).await.unwrap());
    assert!(node.release(&held[1].lease, Release::Grace).await.unwrap());
    let rows = directory(&subject, &mesh).await;
    let row = rows.iter().find(|row| row.id == held[1].lease.presence).unwrap();
    assert!(!row.online);
    assert_eq!(rows.len(), CAP as usize);
    assert!(node.release(&held[1].lease, Release::Now).await.unwrap());
    assert!(node.reap(10).await.unwrap().is_empty());
    subject.check_invariants();
}

pub(super) async fn those_of_one_instant_yield_in_the_order_of_their_ids<S: Subject>() {
    let subject = S::start(LONG).await;
    let [node, _] = subject.nodes();
    let mesh = MeshId::generate();
    let mut graced: Vec<_> = (0..9).map(|number| session(&mesh, &format!("s{number}"))).collect();
    graced.sort_by(|a, b| a.id.cmp(&b.id));
    node.adopt(&graced).await.unwrap();
    match node.acquire(&session(&mesh, "newcomer"), 1).await.unwrap() {
        Acquired::New { yielded, .. } => assert_eq!(ids(&yielded), ids(&graced)),
        other => panic!("{other:?}"),
    }
}
