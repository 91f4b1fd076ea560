//! The shared state is lost and comes back empty.

use super::*;

pub(super) async fn renewal_restores_what_was_lost<S: Subject>() {
    let mut subject = S::start(LONG).await;
    let mesh = MeshId::generate();
    let held = fill(&subject, &mesh).await;
    subject.lose_everything().await;
    let [first, second] = subject.nodes();
    assert!(directory(&subject, &mesh).await.is_empty());
    assert!(first.renew(&held[..3]).await.unwrap().is_empty());
    // What the store listed in the meantime yields to the socket that is open.
    second.adopt(&[(*held[3].record).clone()]).await.unwrap();
    assert!(first.renew(&held).await.unwrap().is_empty());
    let rows = directory(&subject, &mesh).await;
    assert_eq!(rows.len(), CAP as usize);
    assert!(rows.iter().all(|row| row.online));
    assert!(refused(&*second, &session(&mesh, "late")).await);
    assert!(first.release(&held[0].lease, Release::Now).await.unwrap());
    let (again, _) = reattach(&*second, &session(&mesh, "s1")).await;
    assert!(again.epoch > held[1].lease.epoch);
    subject.check_invariants();
}

pub(super) async fn renewal_after_a_loss_finds_out_who_took_over<S: Subject>() {
    let mut subject = S::start(LONG).await;
    let mesh = MeshId::generate();
    let old = enter(&*subject.nodes()[0], &session(&mesh, "a")).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    subject.lose_everything().await;
    let [first, second] = subject.nodes();
    let new = enter(&*second, &session(&mesh, "a")).await;
    assert!(new.lease.epoch > old.lease.epoch, "epochs grow across losses");
    assert_eq!(first.renew(std::slice::from_ref(&old)).await.unwrap(), [old.lease]);
    assert_eq!(ids(&directory(&subject, &mesh).await), [new.lease.presence]);
    subject.check_invariants();
}

pub(super) async fn a_restored_duplicate_of_a_session_is_resolved<S: Subject>() {
    let mut subject = S::start(LONG).await;
    let mesh = MeshId::generate();
    let mut newer = enter(&*subject.nodes()[0], &session(&mesh, "a")).await;
    newer.lease.epoch += 3_600_000;
    subject.lose_everything().await;
    let [first, second] = subject.nodes();
    let older = enter(&*second, &session(&mesh, "a")).await;
    assert!(first.renew(std::slice::from_ref(&newer)).await.unwrap().is_empty());
    assert_eq!(
        second.renew(std::slice::from_ref(&older)).await.unwrap(),
        std::slice::from_ref(&older.lease)
    );
    assert_eq!(ids(&second.reap(10).await.unwrap()), [older.lease.presence]);
    let rows = directory(&subject, &mesh).await;
    assert_eq!(ids(&rows), [newer.lease.presence]);
    assert!(rows[0].online);
    subject.check_invariants();
}
