//! Presences while they last.

use claudemesh_broker::id::{self, PresenceId};
use claudemesh_broker::protocol::{Group, PeerRole, Profile, Stats, Status, StatusSource};
use claudemesh_broker::record::PresenceRecord;
use claudemesh_broker::store::{Confirm, EndPresence, PresenceChange, ReattachPresence, Stores};

use super::fixture::{Fixture, T0, at, fresh_key, opening_with, taking_over};

impl Fixture {
    pub(crate) async fn end(&self, presence: &PresenceId) {
        let ended = EndPresence {
            id: presence.clone(),
            mesh: self.mesh.clone(),
            member: None,
            node: None,
            audit: Vec::new(),
        };
        self.store.presences.end(at(1), &[ended]).await.expect("writable");
    }

    /// Reattaches without changing more than it must.
    pub(crate) async fn position_of(&self, presence: &PresenceId) -> Option<i64> {
        let about = taking_over("node-1");
        self.store.presences.reattach(at(1), presence, &about).await.expect("writable")
    }

    pub(crate) async fn confirm_up_to(&self, presence: &PresenceId, position: i64) {
        let done = Confirm::MulticastsUpTo { presence: presence.clone(), position };
        self.store.mail.confirm(at(1), &[done]).await.expect("writable");
    }
}

fn group(name: &str) -> Group {
    Group { name: name.to_owned(), role: None }
}

pub(crate) async fn an_opened_presence_is_kept_whole(store: Stores) {
    let here = Fixture::new(store).await;
    let peer = here.member("ada").await;
    let opening = opening_with(here.opening(&peer), |record| {
        record.session_key = Some(fresh_key());
        record.role = PeerRole::Session;
        record.display_name = "it's \"ada\"".to_owned();
        (record.pid, record.cwd) = (4711, "/home/ada/größe".to_owned());
        record.hostname = Some("host".to_owned());
        record.peer_type = Some("ai".to_owned());
        record.channel = Some("claudemesh-session".to_owned());
        record.model = Some("model".to_owned());
        record.groups = vec![Group { name: "a/b".to_owned(), role: Some("lead".to_owned()) }];
        (record.status, record.status_source) = (Status::Working, StatusSource::Hook);
        record.visible = false;
        record.profile.title = Some("title".to_owned());
        record.stats = Some(Stats { tool_calls: Some(3.0), ..Stats::default() });
    });
    here.open(at(5), &opening).await;

    let stored = here.stored(&opening.record.id).await.expect("it is open");
    let expected = PresenceRecord {
        connected_at: at(5),
        last_seen_at: at(5),
        status_updated_at: at(5),
        online: false,
        ..opening.record
    };
    assert_eq!(stored, expected);
}

pub(crate) async fn opening_writes_an_audit_row(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (ada, bob) = (here.member("ada").await, here.member("bob").await);
    let both = [here.opening(&ada), here.opening(&bob)];
    let positions = store.presences.open(at(5), &both).await.expect("two good presences");
    assert_eq!(positions, [0, 0]);
    let rows = here.audit_of("peer_joined").await;
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].actor.as_deref(), Some(ada.id.as_str()));
    assert_eq!(rows[0].actor_name.as_deref(), Some("ada"));
    assert_eq!(rows[0].payload, both[0].audit.payload());
    assert_eq!(rows[0].created_at, at(5));
    assert_eq!(rows[1].actor_name.as_deref(), Some("bob"));
    assert!(store.presences.open(T0, &[]).await.expect("nothing").is_empty());
}

pub(crate) async fn a_new_presence_starts_after_the_last_multicast(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let elsewhere = here.another().await;
    here.send(T0, &here.multicast(&here.owner)).await;
    let last = here.send(T0, &here.multicast(&here.owner)).await;
    let both = [here.opening(&here.owner), elsewhere.opening(&elsewhere.owner)];
    let positions = store.presences.open(T0, &both).await.expect("two good presences");
    assert_eq!(positions, [last, 0]);
    assert_eq!(here.position_of(&both[0].record.id).await, Some(last));
}

pub(crate) async fn a_reattach_goes_on_where_it_was(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let mut opening = here.opening(&here.owner);
    opening.record.display_name = "before".to_owned();
    here.open(T0, &opening).await;
    here.confirm_up_to(&opening.record.id, 77).await;
    let mut about = ReattachPresence { cwd: "/there".to_owned(), pid: 12, ..taking_over("node-2") };
    let position =
        store.presences.reattach(at(9), &opening.record.id, &about).await.expect("writable");
    assert_eq!(position, Some(77));
    let stored = here.stored(&opening.record.id).await.expect("it is open");
    assert_eq!((stored.connected_at, stored.last_seen_at), (T0, at(9)));
    assert_eq!((stored.node.as_str(), stored.cwd.as_str(), stored.pid), ("node-2", "/there", 12));
    assert_eq!(stored.session_id, opening.record.session_id, "not named, not changed");
    assert_eq!(stored.display_name, "before", "not named, not changed");

    about.session_id = Some("other".to_owned());
    about.display_name = Some("after".to_owned());
    store.presences.reattach(at(9), &opening.record.id, &about).await.expect("writable");
    let kept = here.stored(&opening.record.id).await.expect("it is open");
    assert_eq!((kept.session_id.as_str(), kept.display_name.as_str()), ("other", "after"));
    assert_eq!(here.audit_of("peer_joined").await.len(), 1, "a reattach is silent");
}

pub(crate) async fn an_ended_presence_does_not_reattach(store: Stores) {
    let here = Fixture::new(store).await;
    let presence = here.present(&here.owner).await;
    here.end(&presence).await;
    assert_eq!(here.position_of(&presence).await, None);
    assert!(here.stored(&presence).await.is_none(), "and stays ended");
    assert_eq!(here.position_of(&PresenceId::generate()).await, None);
}

pub(crate) async fn an_id_is_one_presence_for_good(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let opening = here.opening(&here.owner);
    here.open(T0, &opening).await;
    here.end(&opening.record.id).await;
    let again = store.presences.open(at(5), std::slice::from_ref(&opening)).await;
    again.expect_err("the id has been used");
    assert!(here.stored(&opening.record.id).await.is_none(), "and it stays ended");
    assert_eq!(here.audit_of("peer_joined").await.len(), 1);
}

pub(crate) async fn a_change_changes_only_what_it_names(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let mut opening = here.opening(&here.owner);
    opening.record.groups = vec![group("a")];
    opening.record.profile = Profile { title: Some("t".to_owned()), ..Profile::default() };
    here.open(T0, &opening).await;
    let untouched = here.present(&here.owner).await;

    let nothing = PresenceChange::of(opening.record.id.clone());
    let summary = PresenceChange { summary: Some("s".to_owned()), ..nothing.clone() };
    store.presences.update(&[nothing.clone(), summary]).await.expect("writable");
    let kept = here.stored(&opening.record.id).await.expect("open");
    assert_eq!(kept.summary.as_deref(), Some("s"));
    assert_eq!((&kept.groups, kept.visible), (&opening.record.groups, true));
    assert_eq!((&kept.profile, kept.stats), (&opening.record.profile, None));
    let status = (kept.status, kept.status_source, kept.status_updated_at);
    assert_eq!(status, (Status::Idle, StatusSource::Jsonl, T0));
    assert_eq!(kept.status_since, opening.record.status_since);

    let stats = Stats { messages_in: Some(2.5), ..Stats::default() };
    let bio = Profile { bio: Some("b".to_owned()), ..Profile::default() };
    let all = PresenceChange {
        status: Some((Status::Dnd, StatusSource::Manual, at(3))),
        status_since: Some(at(2)),
        groups: Some(vec![group("b"), group("c")]),
        visible: Some(false),
        profile: Some(bio.clone()),
        stats: Some(stats),
        ..nothing
    };
    store.presences.update(&[all]).await.expect("writable");
    let kept = here.stored(&opening.record.id).await.expect("open");
    let status = (kept.status, kept.status_source, kept.status_updated_at);
    assert_eq!(status, (Status::Dnd, StatusSource::Manual, at(3)));
    assert_eq!(kept.status_since, Some(at(2)));
    assert_eq!((kept.groups, kept.visible), (vec![group("b"), group("c")], false));
    assert_eq!((kept.profile, kept.stats), (bio, Some(stats)), "replaced, not merged");
    assert_eq!(kept.summary.as_deref(), Some("s"));
    let other = here.stored(&untouched).await.expect("open");
    assert_eq!((other.last_seen_at, other.summary), (T0, None));
}

pub(crate) async fn a_touched_presence_was_heard_of(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (one, two) = (here.present(&here.owner).await, here.present(&here.owner).await);
    let untouched = here.present(&here.owner).await;
    let heard = async |id: &PresenceId| here.stored(id).await.expect("open").last_seen_at;
    store.presences.touch(at(4), &[one.clone(), two.clone()]).await.expect("writable");
    assert_eq!((heard(&one).await, heard(&two).await, heard(&untouched).await), (at(4), at(4), T0));
    store.presences.touch(at(2), std::slice::from_ref(&one)).await.expect("writable");
    assert_eq!(heard(&one).await, at(4), "the later one stays");
    store.presences.touch(at(9), &[]).await.expect("nothing to do");
}

pub(crate) async fn later_changes_of_a_batch_win(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (one, two) = (here.present(&here.owner).await, here.present(&here.owner).await);
    let says = |id: &PresenceId, text: &str| PresenceChange {
        summary: Some(text.to_owned()),
        ..PresenceChange::of(id.clone())
    };
    let hides = PresenceChange { visible: Some(false), ..PresenceChange::of(one.clone()) };
    let batch = [says(&one, "first"), says(&two, "other"), hides, says(&one, "last")];
    store.presences.update(&batch).await.expect("writable");
    let kept = here.stored(&one).await.expect("open");
    assert_eq!((kept.summary.as_deref(), kept.visible), (Some("last"), false));
    let kept = here.stored(&two).await.expect("open");
    assert_eq!((kept.summary.as_deref(), kept.visible), (Some("other"), true));
}

pub(crate) async fn an_ended_presence_does_not_change(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let key = fresh_key();
    let mut opening = here.opening(&here.owner);
    (opening.record.session_key, opening.record.role) = (Some(key.clone()), PeerRole::Session);
    here.open(T0, &opening).await;
    here.end(&opening.record.id).await;
    store.presences.touch(at(9), std::slice::from_ref(&opening.record.id)).await.expect("writable");
    let hides =
        PresenceChange { visible: Some(false), ..PresenceChange::of(opening.record.id.clone()) };
    store.presences.update(&[hides]).await.expect("writable");
    assert!(here.stored(&opening.record.id).await.is_none());
    let seen = store.members.of_session_key(&here.mesh, key.as_str(), at(9)).await;
    assert_eq!(seen.expect("readable"), None, "it was not heard of again");
}

pub(crate) async fn only_unheard_open_presences_are_listed(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let early = here.open(at(1), &here.opening(&here.owner)).await;
    let late = here.open(at(2), &here.opening(&here.owner)).await;
    let ended = here.open(at(1), &here.opening(&here.owner)).await;
    here.end(&ended).await;
    let unheard = store.presence_search.unheard(at(2)).await.expect("readable");
    let mine: Vec<&PresenceId> = unheard
        .iter()
        .map(|stored| &stored.id)
        .filter(|id| [&early, &late, &ended].contains(id))
        .collect();
    assert_eq!(mine, [&early]);
}

pub(crate) async fn a_directory_leads_to_the_newest_presence(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let cwd = format!("/{}", id::generate());
    let mut ids = Vec::new();
    for (pid, seconds) in [(1, 10), (2, 30), (3, 20), (2, 5), (0, 15)] {
        let mut opening = here.opening(&here.owner);
        (opening.record.pid, opening.record.cwd) = (pid, cwd.clone());
        if seconds == 20 || seconds == 30 {
            opening.record.session_id = cwd.clone();
        }
        ids.push(here.open(at(seconds), &opening).await);
    }
    let found = async |pid| {
        let found = store.presence_search.in_folder(&cwd, pid, 4).await.expect("readable");
        found.into_iter().map(|at| at.id).collect::<Vec<_>>()
    };
    let of = |order: [usize; 4]| order.map(|at| ids[at].clone());
    assert_eq!(found(99).await, of([1, 2, 4, 0]), "newest first, and no more than asked for");
    assert_eq!(found(0).await, of([1, 2, 4, 0]), "no process is nobody's");
    assert_eq!(found(1).await, of([0, 1, 2, 4]), "the process first");
    assert_eq!(found(2).await, of([1, 3, 2, 4]));
    here.end(&ids[1]).await;
    assert_eq!(found(2).await, of([3, 2, 4, 0]), "it has ended");
    let oldest = store.presence_search.in_folder(&cwd, 2, 1).await.expect("readable").remove(0);
    let member = &here.owner.id;
    assert_eq!((&oldest.mesh, &oldest.member, oldest.pid), (&here.mesh, member, 2));
    assert_eq!((&oldest.cwd, oldest.connected_at), (&cwd, at(5)));
    let named = store.presence_search.called(&cwd, 9).await.expect("readable");
    assert_eq!(named.into_iter().map(|at| at.id).collect::<Vec<_>>(), [ids[2].clone()]);
    assert_eq!(
        store.presence_search.in_folder("/nowhere at all", 1, 9).await.expect("readable"),
        []
    );
}
