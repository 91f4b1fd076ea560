//! What time does to leases.

use super::*;

pub(super) async fn a_late_renewal_does_not_undo_a_release<S: Subject>() {
    let subject = S::start(SHORT).await;
    let [node, _] = subject.nodes();
    let mesh = MeshId::generate();
    let held = enter(&*node, &session(&mesh, "a")).await;
    assert!(node.release(&held.lease, Release::Grace).await.unwrap());
    assert!(node.renew(std::slice::from_ref(&held)).await.unwrap().is_empty());
    assert!(!directory(&subject, &mesh).await[0].online);
    tokio::time::sleep(LATER).await;
    assert_eq!(ids(&node.reap(10).await.unwrap()), [held.lease.presence]);
}

pub(super) async fn a_presence_is_reaped_exactly_once<S: Subject>() {
    let subject = S::start(SHORT).await;
    let [node, _] = subject.nodes();
    let mut expected = HashSet::new();
    for mesh in [MeshId::generate(), MeshId::generate(), MeshId::generate()] {
        for held in fill(&subject, &mesh).await {
            node.release(&held.lease, Release::Grace).await.unwrap();
            expected.insert(held.lease.presence);
        }
    }
    assert!(node.reap(100).await.unwrap().is_empty(), "grace is not over");
    tokio::time::sleep(LATER).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..16 {
        let node = subject.nodes()[number % 2].clone();
        tasks.spawn(async move { node.reap(4).await.unwrap() });
    }
    let mut reaped: Vec<_> = tasks.join_all().await.iter().flat_map(|ended| ids(ended)).collect();
    while let rest @ [_, ..] = &node.reap(4).await.unwrap()[..] {
        assert!(rest.len() <= 4);
        reaped.extend(ids(rest));
    }
    assert_eq!(reaped.len(), expected.len());
    assert_eq!(reaped.into_iter().collect::<HashSet<_>>(), expected);
    subject.check_invariants();
}

pub(super) async fn a_silent_node_gets_its_grace_first<S: Subject>() {
    let subject = S::start(SHORT).await;
    let [first, second] = subject.nodes();
    let mesh = MeshId::generate();
    let gone = enter(&*first, &session(&mesh, "gone")).await;
    let back = enter(&*first, &session(&mesh, "back")).await;
    let slept = enter(&*first, &session(&mesh, "slept")).await;
    tokio::time::sleep(LATER).await;
    assert!(second.reap(10).await.unwrap().is_empty(), "not before its grace");
    assert!(directory(&subject, &mesh).await.iter().all(|row| !row.online));
    // One comes back through another node, one node wakes up.
    let (lease, _) = reattach(&*second, &session(&mesh, "back")).await;
    assert_eq!(lease.presence, back.lease.presence);
    let taken = first.renew(&[back.clone(), slept.clone()]).await.unwrap();
    assert_eq!(taken, std::slice::from_ref(&back.lease));
    let online = directory(&subject, &mesh).await.iter().filter(|row| row.online).count();
    assert_eq!(online, 2);
    tokio::time::sleep(LATER).await;
    let held = HeldLease { lease, record: back.record };
    assert!(second.renew(&[held, slept]).await.unwrap().is_empty());
    assert_eq!(ids(&second.reap(10).await.unwrap()), [gone.lease.presence]);
    subject.check_invariants();
}

pub(super) async fn a_renewal_keeps_leases_alive<S: Subject>() {
    let subject = S::start(SHORT).await;
    let [node, other] = subject.nodes();
    let mesh = MeshId::generate();
    let held = fill(&subject, &mesh).await;
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(90)).await;
        assert!(node.renew(&held).await.unwrap().is_empty());
        assert!(other.reap(10).await.unwrap().is_empty());
    }
    assert!(refused(&*other, &session(&mesh, "late")).await);
    assert!(directory(&subject, &mesh).await.iter().all(|row| row.online));
}

/// Many meshes, so that newcomers meet the reaping of their mesh.
pub(super) async fn who_enters_during_a_reaping_is_reaped_in_turn<S: Subject>() {
    const MESHES: usize = 200;
    let subject = S::start(SHORT).await;
    let [first, second] = subject.nodes();
    let mut meshes: Vec<MeshId> = (0..MESHES).map(|_| MeshId::generate()).collect();
    meshes.sort();
    for mesh in &meshes {
        let held = enter(&*first, &session(mesh, "gone")).await;
        assert!(first.release(&held.lease, Release::Grace).await.unwrap());
    }
    tokio::time::sleep(LATER).await;
    let entering = async {
        let mut entered = HashSet::new();
        for mesh in &meshes {
            entered.insert(enter(&*first, &session(mesh, "new")).await.lease.presence);
        }
        entered
    };
    let (entered, reaped) = tokio::join!(entering, second.reap(2 * MESHES));
    let mut reaped = reaped.unwrap();
    assert!(reaped.len() >= MESHES);
    // Their node says nothing more: they are lost, then gone.
    for _ in 0..2 {
        tokio::time::sleep(LATER).await;
        reaped.extend(second.reap(2 * MESHES).await.unwrap());
    }
    let reaped: HashSet<_> = ids(&reaped).into_iter().collect();
    let left_over: Vec<_> = entered.difference(&reaped).collect();
    assert!(left_over.is_empty(), "{left_over:?}");
    subject.check_invariants();
}
