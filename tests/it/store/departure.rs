//! Presences that lose their socket, and presences that end.

use claudemesh_broker::audit::AuditEvent;
use claudemesh_broker::id::{MeshId, PresenceId};
use claudemesh_broker::protocol::{Group, Profile, RestoredStats};
use claudemesh_broker::store::{
    Admission, AuditEntry, EndPresence, PeerState, ReattachPresence, Stores, SuspendPresence,
};

use super::fixture::{Fixture, Peer, T0, at, fresh_key, opening_with, taking_over};

impl Fixture {
    pub(crate) fn closing(&self, presence: &PresenceId, peer: &Peer) -> SuspendPresence {
        SuspendPresence {
            id: presence.clone(),
            mesh: self.mesh.clone(),
            member: peer.id.clone(),
            member_key: peer.key.clone(),
            multicast_position: 0,
            state: PeerState { visible: true, ..PeerState::default() },
        }
    }

    async fn saved(&self, peer: &Peer) -> Option<PeerState> {
        match self.store.members.admit(&self.mesh, peer.key.as_str(), "").await.expect("readable") {
            Admission::Member(admitted) => admitted.saved,
            other => panic!("not admitted: {other:?}"),
        }
    }

    pub(super) fn ending(&self, presence: &PresenceId, peer: &Peer) -> EndPresence {
        let left = AuditEntry {
            mesh: self.mesh.clone(),
            actor: Some(peer.id.clone()),
            actor_name: Some(peer.name.clone()),
            event: AuditEvent::PeerLeft,
        };
        EndPresence {
            id: presence.clone(),
            mesh: self.mesh.clone(),
            member: None,
            node: None,
            audit: vec![left],
        }
    }
}

fn state(summary: &str) -> PeerState {
    PeerState {
        groups: vec![Group { name: "a/b".to_owned(), role: Some("lead".to_owned()) }],
        profile: Profile { bio: Some(summary.to_owned()), ..Profile::default() },
        visible: false,
        last_summary: Some(summary.to_owned()),
        last_display_name: Some("name".to_owned()),
        stats: RestoredStats { messages_in: 1.0, messages_out: 2.0, tool_calls: 3.5, errors: 4.0 },
        last_seen_at: Some(at(8)),
    }
}

pub(crate) async fn a_suspended_presence_leaves_its_state(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (peer, other) = (here.member("ada").await, here.member("bob").await);
    let presence = here.present(&peer).await;
    let mut closed = here.closing(&presence, &peer);
    closed.state = state("first");
    store.presences.suspend(at(9), &closed).await.expect("writable");
    assert_eq!(here.saved(&peer).await, Some(closed.state));
    assert_eq!(here.saved(&other).await, None);
}

pub(crate) async fn a_later_state_replaces_an_earlier_one(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let presence = here.present(&here.owner).await;
    let mut closed = here.closing(&presence, &here.owner);
    closed.state = state("first");
    store.presences.suspend(at(9), &closed).await.expect("writable");
    closed.state = PeerState { last_summary: None, visible: true, ..state("second") };
    closed.state.stats.errors = 5.0;
    store.presences.suspend(at(19), &closed).await.expect("writable");
    assert_eq!(here.saved(&here.owner).await, Some(closed.state.clone()));
    closed.state.last_seen_at = None;
    store.presences.suspend(at(29), &closed).await.expect("writable");
    let saved = here.saved(&here.owner).await.expect("saved");
    assert_eq!(saved.last_seen_at, Some(at(29)), "its end, unless another instant is given");
}

pub(crate) async fn a_suspended_presence_keeps_only_its_own_mail(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (peer, session_key) = (here.member("ada").await, fresh_key());
    let (leaving, staying) = (here.present(&peer).await, here.present(&peer).await);
    let to_member = here.mail(&peer.key, 1).await;
    let to_session = here.mail(&session_key, 1).await;
    let mut ask = here.asks(&leaving, &peer);
    ask.session_key = Some(session_key);
    assert_eq!(here.claims(T0, &ask).await.len(), 2);
    let held_by_other = here.mail(&peer.key, 1).await;
    assert_eq!(here.claims(T0, &here.asks(&staying, &peer)).await, held_by_other);

    store.presences.suspend(at(1), &here.closing(&leaving, &peer)).await.expect("writable");
    let claimed_by = async |id| here.message(id).await.expect("still queued").claimed_by;
    assert_eq!(claimed_by(&to_member[0]).await, None, "another session may have it");
    assert_eq!(claimed_by(&to_session[0]).await, Some(leaving), "nobody else may");
    assert_eq!(claimed_by(&held_by_other[0]).await, Some(staying.clone()));
    let third = here.present(&peer).await;
    assert_eq!(here.claims(at(2), &here.asks(&third, &peer)).await, to_member);
}

pub(crate) async fn suspending_moves_the_position_only_forward(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let presence = here.present(&here.owner).await;
    for (given, kept) in [(50, 50), (40, 50), (60, 60)] {
        let mut closed = here.closing(&presence, &here.owner);
        closed.multicast_position = given;
        store.presences.suspend(T0, &closed).await.expect("writable");
        assert_eq!(here.position_of(&presence).await, Some(kept));
    }
}

pub(crate) async fn grace_counts_from_the_suspension(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let presence = here.present(&here.owner).await;
    store.presences.suspend(at(40), &here.closing(&presence, &here.owner)).await.expect("ok");
    let stored = here.stored(&presence).await.expect("a presence in grace is not ended");
    assert_eq!(stored.last_seen_at, at(40));
}

pub(crate) async fn a_presence_ends_once(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (one, two) = (here.present(&here.owner).await, here.present(&here.owner).await);
    let calls: Vec<_> = (0..6)
        .map(|_| {
            let store = store.clone();
            let batch = [here.ending(&one, &here.owner), here.ending(&two, &here.owner)];
            tokio::spawn(async move { store.presences.end(at(9), &batch).await })
        })
        .collect();
    let mut ended = Vec::new();
    for call in calls {
        ended.extend(call.await.expect("no panic").expect("writable"));
    }
    ended.sort();
    let mut both = vec![one, two];
    both.sort();
    assert_eq!(ended, both, "each by one call");
    let rows = here.audit_of("peer_left").await;
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].created_at, at(9));
    assert_eq!(rows[0].actor.as_deref(), Some(here.owner.id.as_str()));
}

pub(crate) async fn a_presence_that_came_back_elsewhere_is_not_ended_from_where_it_was(
    store: Stores,
) {
    let here = Fixture::new(store.clone()).await;
    let peer = here.member("ada").await;
    let presence = here.present(&peer).await;
    store.presences.reattach(at(2), &presence, &taking_over("elsewhere")).await.expect("writable");
    let by =
        |node: &str| EndPresence { node: Some(node.to_owned()), ..here.ending(&presence, &peer) };
    let ended = store.presences.end(at(3), &[by("where it was")]).await.expect("writable");
    assert_eq!(ended, []);
    let ended = store.presences.end(at(4), &[by("elsewhere")]).await.expect("writable");
    assert_eq!(ended, [presence]);
}

/// Who a presence is, its row says, whatever a record of it says.
pub(crate) async fn nobody_ends_or_takes_over_somebody_elses_presence(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (peer, other) = (here.member("ada").await, here.member("eve").await);
    let there = here.another().await;
    let presence = here.present(&peer).await;
    for ending in [
        EndPresence { member: Some(other.id.clone()), ..here.ending(&presence, &other) },
        EndPresence { mesh: there.mesh.clone(), ..here.ending(&presence, &peer) },
    ] {
        assert_eq!(store.presences.end(at(3), &[ending]).await.expect("writable"), []);
    }
    assert!(here.audit_of("peer_left").await.is_empty());
    let about = |member: &Peer| ReattachPresence {
        member: Some(member.id.clone()),
        ..taking_over("elsewhere")
    };
    let taken = store.presences.reattach(at(4), &presence, &about(&other)).await;
    assert_eq!(taken.expect("writable"), None);
    let kept = store.presences.reattach(at(4), &presence, &about(&peer)).await;
    assert!(kept.expect("writable").is_some());
    let own = EndPresence { member: Some(peer.id.clone()), ..here.ending(&presence, &peer) };
    assert_eq!(store.presences.end(at(5), &[own]).await.expect("writable"), [presence]);
}

pub(crate) async fn which_presences_have_ended_is_known(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (open, over) = (here.present(&here.owner).await, here.present(&here.owner).await);
    store.presences.end(at(7), &[here.ending(&over, &here.owner)]).await.expect("writable");
    let unknown = PresenceId::generate();
    let asked = [open, over.clone(), unknown.clone()];
    let mut ended = store.presences.ended(&asked).await.expect("readable");
    ended.sort();
    let mut expected = [(over, Some(at(7))), (unknown, None)];
    expected.sort();
    assert_eq!(ended, expected);
    assert!(store.presences.ended(&[]).await.expect("nothing").is_empty());
}

pub(crate) async fn a_presence_named_twice_ends_once(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let presence = here.present(&here.owner).await;
    let unknown = here.ending(&PresenceId::generate(), &here.owner);
    let ending = here.ending(&presence, &here.owner);
    let batch = [unknown, ending.clone(), ending];
    let ended = store.presences.end(at(9), &batch).await.expect("writable");
    assert_eq!(ended, [presence]);
    assert_eq!(here.audit_of("peer_left").await.len(), 1);
    assert!(store.presences.end(at(9), &[]).await.expect("nothing").is_empty());
    let nowhere = EndPresence {
        id: PresenceId::generate(),
        mesh: MeshId::generate(),
        member: None,
        node: None,
        audit: Vec::new(),
    };
    assert!(store.presences.end(at(9), &[nowhere]).await.expect("nothing").is_empty());
}

pub(crate) async fn an_ended_presence_lets_go_of_all_its_mail(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (peer, session_key) = (here.member("ada").await, fresh_key());
    let opening = || {
        opening_with(here.opening(&peer), |record| record.session_key = Some(session_key.clone()))
    };
    let (leaving, staying) = (here.open(T0, &opening()).await, here.open(T0, &opening()).await);
    let mut mail = here.mail(&peer.key, 1).await;
    mail.extend(here.mail(&session_key, 1).await);
    let mut ask = here.asks(&leaving, &peer);
    ask.session_key = Some(session_key.clone());
    assert_eq!(here.claims(T0, &ask).await, mail);
    let batch = [here.ending(&leaving, &peer)];
    store.presences.end(at(1), &batch).await.expect("writable");
    let mut ask = here.asks(&staying, &peer);
    ask.session_key = Some(session_key);
    assert_eq!(here.claims(at(2), &ask).await, mail);
    store.presences.end(at(3), &batch).await.expect("writable");
    let state = here.message(&mail[0]).await.expect("queued");
    assert_eq!(state.claimed_by, Some(staying), "an old end takes nothing back");
}
