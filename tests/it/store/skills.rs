//! Skills: who keeps which under a name, and how they are listed.

use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::limits;
use claudemesh_broker::store::{Kind, NewSkill, SkillRemoved, StoreError, Stores};
use serde_json::json;

use super::fixture::{Fixture, Peer, T0, at};
use super::other::Other;

impl Fixture {
    fn skill(&self, by: &Peer, name: &str) -> NewSkill {
        NewSkill {
            author: self.author(by),
            name: name.to_owned(),
            description: format!("how to {name}"),
            instructions: "step by step".to_owned(),
            tags: vec!["Größe".to_owned(), "100%".to_owned()],
            manifest: None,
        }
    }

    async fn shares(&self, now: Timestamp, skill: &NewSkill) {
        self.store.skills.share(now, skill).await.expect("there is room");
    }

    /// The names of the listed skills.
    async fn lists(&self, query: Option<&str>, after: Option<&str>, limit: i64) -> Vec<String> {
        let listed = self.store.skills.list(&self.mesh, query, after, limit).await;
        listed.expect("readable").into_iter().map(|skill| skill.name).collect()
    }
}

pub(crate) async fn a_skill_is_kept_whole_and_under_one_name(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let bob = here.member("bob").await;
    let manifest = Some(json!({ "v": [1, null] }).to_string());
    let first = NewSkill { manifest, ..here.skill(&here.owner, "deploy") };
    here.shares(at(1), &first).await;
    here.another().await.shares(at(1), &here.another().await.skill(&here.owner, "x")).await;
    let get = async || {
        let found = store.skills.get(&here.mesh, "deploy").await.expect("readable");
        found.expect("it is there")
    };
    let skill = get().await;
    assert_eq!(
        (&*skill.instructions, &skill.manifest),
        ("step by step", &Some(json!({ "v": [1, null] })))
    );
    let entry = skill.entry;
    assert_eq!((&*entry.name, &*entry.description), ("deploy", "how to deploy"));
    assert_eq!((&*entry.tags[1], entry.created_at), ("100%", at(1)));
    assert_eq!((&*entry.author, entry.author_session.as_deref()), ("owner", Some("owner's")));
    let second = NewSkill { instructions: "otherwise".to_owned(), ..here.skill(&bob, "deploy") };
    here.shares(at(2), &second).await;
    let skill = get().await;
    assert_eq!(
        (&*skill.instructions, &skill.manifest, &*skill.entry.author),
        ("otherwise", &None, "bob")
    );
    assert_eq!(skill.entry.created_at, at(1), "the first time counts");
    assert_eq!(here.lists(None, None, 100).await, ["deploy"]);
    let rows = here.audit_of("skill_shared").await;
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[1].payload, json!({ "name": "deploy" }), "what it says is not in it");
    assert_eq!(store.skills.get(&here.mesh, "other").await.expect("readable"), None);
}

pub(crate) async fn skills_are_listed_by_name_and_found_by_any_part(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    for name in ["Build", "alpha", "deploy_all", "zeta"] {
        here.shares(T0, &here.skill(&here.owner, name)).await;
    }
    let all = here.lists(None, None, 100).await;
    assert_eq!(all.len(), 4);
    let mut paged = here.lists(None, None, 2).await;
    paged.extend(here.lists(None, Some(&paged[1]), 100).await);
    assert_eq!(paged, all);
    for (query, count) in [
        ("build", 1),
        ("HOW TO", 4),
        ("größe", 4),
        ("0%", 4),
        ("%", 4),
        ("_", 1),
        ("\\", 0),
        ("x", 0),
    ] {
        assert_eq!(here.lists(Some(query), None, 100).await.len(), count, "{query:?}");
    }
    assert_eq!(here.lists(Some("deploy_"), None, 100).await, ["deploy_all"]);
}

pub(crate) async fn a_skill_is_removed_by_whom_it_belongs_to(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let bob = here.member("bob").await;
    here.shares(T0, &here.skill(&here.owner, "deploy")).await;
    let remove = async |anybodys: bool| {
        let author = here.author(&bob);
        store.skills.remove(at(1), &author, "deploy", anybodys).await.expect("writable")
    };
    assert_eq!(remove(false).await, SkillRemoved::Anothers);
    assert_eq!(here.lists(None, None, 9).await, ["deploy"]);
    assert_eq!(remove(true).await, SkillRemoved::Removed);
    assert_eq!(remove(true).await, SkillRemoved::NotFound);
    here.shares(T0, &here.skill(&bob, "deploy")).await;
    assert_eq!(remove(false).await, SkillRemoved::Removed);
    let rows = here.audit_of("skill_removed").await;
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].payload, json!({ "name": "deploy" }));
    assert_eq!(rows[0].actor.as_deref(), Some(bob.id.as_str()));
}

pub(crate) async fn a_full_mesh_takes_no_more_skills(store: Stores, other: Other) {
    let here = Fixture::new(store.clone()).await;
    here.shares(T0, &here.skill(&here.owner, "first")).await;
    other.fill(&here.mesh).await;
    let refusal = store.skills.share(T0, &here.skill(&here.owner, "second")).await;
    let Err(StoreError::Full(refused)) = refusal else { panic!("{refusal:?}") };
    let full = limits::SHARED_ROWS_MAX;
    assert_eq!((refused.kind, refused.numbers()), (Kind::Skill, (full, full + 1)));
    here.shares(T0, &here.skill(&here.owner, "first")).await;
    assert_eq!(here.lists(None, None, 9).await, ["first"]);
}
