//! How presences end, and that they stay ended.

use super::*;

pub(super) async fn a_revoked_presence_is_gone_whoever_holds_it<S: Subject>() {
    let subject = S::start(SHORT).await;
    let [first, second] = subject.nodes();
    let mesh = MeshId::generate();
    let held = enter(&*first, &session(&mesh, "a")).await;
    second.revoke(&mesh, &held.lease.presence).await.unwrap();
    second.revoke(&mesh, &held.lease.presence).await.unwrap();
    assert!(directory(&subject, &mesh).await.is_empty());
    assert!(!first.release(&held.lease, Release::Grace).await.unwrap());
    // The holder that has not heard of it does not bring it back.
    assert_eq!(
        first.renew(std::slice::from_ref(&held)).await.unwrap(),
        std::slice::from_ref(&held.lease)
    );
    assert!(directory(&subject, &mesh).await.is_empty());
    tokio::time::sleep(LATER).await;
    assert!(first.reap(10).await.unwrap().is_empty(), "whoever revokes ends it");
    // The session may enter again, as another presence.
    let again = enter(&*first, &session(&mesh, "a")).await;
    assert_ne!(again.lease.presence, held.lease.presence);
    subject.check_invariants();
}

pub(super) async fn an_ended_presence_is_not_brought_back<S: Subject>() {
    let mut subject = S::start(SHORT).await;
    let [first, second] = subject.nodes();
    let mesh = MeshId::generate();
    first.join_mesh(&mesh).await.unwrap();
    let held = enter(&*first, &session(&mesh, "a")).await;
    tokio::time::sleep(LATER).await;
    assert!(second.reap(10).await.unwrap().is_empty());
    tokio::time::sleep(LATER).await;
    assert_eq!(second.reap(10).await.unwrap().len(), 1);
    // Nobody took it over: its socket may come back, as a new presence.
    assert!(first.renew(std::slice::from_ref(&held)).await.unwrap().is_empty());
    assert!(directory(&subject, &mesh).await.is_empty());
    loop {
        let event = tokio::time::timeout(Duration::from_secs(5), subject.events_of_first().recv());
        let event = event.await.expect("an event in time").expect("an open channel");
        let ClusterEvent::Message { mesh: of, message } = event else { continue };
        let text = format!("{message:?}");
        assert!(text.starts_with("Close") && text.contains(held.lease.presence.as_str()), "{text}");
        assert_eq!(of, mesh);
        break;
    }
}

pub(super) async fn adopted_presences_wait_in_grace<S: Subject>() {
    let subject = S::start(SHORT).await;
    let [first, second] = subject.nodes();
    let mesh = MeshId::generate();
    let live = enter(&*first, &session(&mesh, "live")).await;
    let adopted = session(&mesh, "adopted");
    let records = [adopted.clone(), (*live.record).clone(), session(&mesh, "returns")];
    first.adopt(&records).await.unwrap();
    second.adopt(&records).await.unwrap();
    let rows = directory(&subject, &mesh).await;
    assert_eq!(rows.len(), 3);
    let online: Vec<_> = rows.iter().filter(|row| row.online).map(|row| row.id.clone()).collect();
    assert_eq!(
        online,
        std::slice::from_ref(&live.lease.presence),
        "adopting disturbs no live lease"
    );
    let (lease, record) = reattach(&*second, &session(&mesh, "returns")).await;
    assert_eq!(lease.presence, records[2].id);
    let back = HeldLease { lease, record: Arc::new(record) };
    tokio::time::sleep(LATER).await;
    first.renew(&[live, back]).await.unwrap();
    assert_eq!(ids(&first.reap(10).await.unwrap()), [adopted.id]);
    subject.check_invariants();
}

pub(super) async fn the_last_end_of_a_presence_counts<S: Subject>() {
    let subject = S::start(LONG).await;
    let [first, second] = subject.nodes();
    let mesh = MeshId::generate();
    // Revoked, put back, and left: nobody has replaced it.
    let old = enter(&*first, &session(&mesh, "a")).await;
    second.revoke(&mesh, &old.lease.presence).await.unwrap();
    second.adopt(&[(*old.record).clone()]).await.unwrap();
    let (lease, record) = reattach(&*first, &session(&mesh, "a")).await;
    assert_eq!(lease.presence, old.lease.presence);
    let new = HeldLease { lease, record: Arc::new(record) };
    assert!(second.release(&new.lease, Release::Now).await.unwrap());
    for held in [new, old] {
        assert!(first.renew(&[held]).await.unwrap().is_empty(), "it left");
    }
    assert!(directory(&subject, &mesh).await.is_empty());
    // Left, put back, and revoked.
    let held = enter(&*first, &session(&mesh, "b")).await;
    assert!(second.release(&held.lease, Release::Now).await.unwrap());
    second.adopt(&[(*held.record).clone()]).await.unwrap();
    second.revoke(&mesh, &held.lease.presence).await.unwrap();
    let replaced = first.renew(std::slice::from_ref(&held)).await.unwrap();
    assert_eq!(replaced, [held.lease], "it was revoked");
    assert!(directory(&subject, &mesh).await.is_empty());
    subject.check_invariants();
}
