//! What a mesh remembers, and how it is found.

use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::id;
use claudemesh_broker::limits;
use claudemesh_broker::store::{Kind, NewMemory, StoreError, Stores};
use serde_json::json;

use super::fixture::{Fixture, T0, at};
use super::other::Other;

impl Fixture {
    fn memory(&self, content: &str, tags: &[&str]) -> NewMemory {
        NewMemory {
            author: self.author(&self.owner),
            id: id::generate(),
            content: content.to_owned(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        }
    }

    async fn remembers(&self, now: Timestamp, content: &str, tags: &[&str]) -> String {
        let memory = self.memory(content, tags);
        self.store.memories.remember(now, &memory).await.expect("there is room");
        memory.id
    }

    /// The ids of what is found.
    async fn recalls(&self, query: &str) -> Vec<String> {
        let found = self.store.memories.recall(&self.mesh, query, 0, 100).await;
        found.expect("any query is one").into_iter().map(|memory| memory.id).collect()
    }
}

pub(crate) async fn a_memory_is_found_by_the_words_of_its_text_and_its_tags(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let there = here.another().await;
    let id = here.remembers(at(1), "The build uses bun, in Größe 3", &["tooling", "CI runs"]).await;
    there.remembers(at(1), "another build", &[]).await;
    for query in
        ["build", "BUILDS", "building bun", "größe", "the build", "tools", "ci", "ran runs bun"]
    {
        let found = here.recalls(query).await;
        let expected = if query.contains("ran ") { Vec::new() } else { vec![id.clone()] };
        assert_eq!(found, expected, "{query}");
    }
    let found = store.memories.recall(&here.mesh, "bun", 0, 20).await.expect("readable");
    let [memory] = &found[..] else { panic!("{found:?}") };
    assert_eq!(memory.content, "The build uses bun, in Größe 3");
    assert_eq!(memory.tags, ["tooling", "CI runs"]);
    assert_eq!((&*memory.remembered_by, memory.remembered_at), ("owner", at(1)));
    assert_eq!(memory.remembered_by_session.as_deref(), Some("owner's"));
    let rows = here.audit_of("memory_stored").await;
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(row.payload, json!({ "memoryId": id }), "what it says is not in it");
    assert_eq!(row.actor.as_deref(), Some(here.owner.id.as_str()));
}

pub(crate) async fn any_query_is_words(store: Stores) {
    let here = Fixture::new(store).await;
    let id = here.remembers(T0, "it is to be or not to be \"quoted\" and near", &["a:b"]).await;
    for nothing in ["", " ", "the", "to be or not to be", "*", "\"", "'", "() {}", "\0", ":", "^"] {
        assert!(here.recalls(nothing).await.is_empty(), "{nothing:?}");
    }
    for syntax in ["quoted\"", "\"quoted", "(near", "quo*", "-quoted near", "NEAR(quoted, near)"] {
        let expected = if syntax == "quo*" { Vec::new() } else { vec![id.clone()] };
        assert_eq!(here.recalls(syntax).await, expected, "{syntax:?}");
    }
    for absent in ["quoted OR absent", "content : absent", "mesh", here.mesh.as_str()] {
        assert!(here.recalls(absent).await.is_empty(), "{absent:?}");
    }
    let long: Vec<String> = (0..300).map(|n| format!("w{n}")).collect();
    assert!(here.recalls(&long.join(" ")).await.is_empty());
    let all = here.remembers(T0, &long.join(" "), &[]).await;
    assert_eq!(here.recalls(&long.join(" ")).await, [all]);
}

pub(crate) async fn the_best_memory_comes_first_and_of_equal_ones_the_newest(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let first = here.remembers(at(1), "deploy on friday", &[]).await;
    let best = here.remembers(at(2), "deploy deploy deploy", &[]).await;
    let last = here.remembers(at(3), "deploy on monday", &[]).await;
    let order = [best, last, first];
    assert_eq!(here.recalls("deploy").await, order);
    for (skip, limit) in [(0, 1), (1, 1), (1, 9), (3, 9)] {
        let found = store.memories.recall(&here.mesh, "deploy", skip, limit).await;
        let found: Vec<_> = found.expect("readable").into_iter().map(|memory| memory.id).collect();
        let expected: Vec<_> =
            order.iter().skip(skip as usize).take(limit as usize).cloned().collect();
        assert_eq!(found, expected, "{limit} after {skip}");
    }
}

pub(crate) async fn what_is_forgotten_is_found_no_more(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let there = here.another().await;
    let id = here.remembers(at(1), "the password is swordfish", &["secret"]).await;
    let kept = here.remembers(at(2), "the password is elsewhere", &["secret"]).await;
    let bob = here.member("bob").await;
    let forget = async |place: &Fixture, id: &str| {
        let author = place.author(if place.mesh == here.mesh { &bob } else { &there.owner });
        store.memories.forget(at(3), &author, id).await.expect("writable")
    };
    let beginning_with =
        async |mesh, text: &str| store.memories.beginning_with(mesh, text).await.expect("readable");
    assert_eq!(beginning_with(&here.mesh, &id[..31]).await, [id.as_str()]);
    // Made in one moment, these begin alike.
    assert_eq!(beginning_with(&here.mesh, &id[..3]).await.len(), 2);
    for (mesh, text) in [(&there.mesh, &id[..8]), (&here.mesh, "%"), (&here.mesh, "g")] {
        assert!(beginning_with(mesh, text).await.is_empty(), "{text}");
    }
    assert!(!forget(&there, &id).await, "it is another mesh's");
    assert!(!forget(&here, "nothing").await);
    assert!(forget(&here, &id).await);
    assert!(!forget(&here, &id).await, "once");
    for query in ["password", "secret"] {
        assert_eq!(here.recalls(query).await, [kept.as_str()], "{query}");
    }
    let rows = here.audit_of("memory_forgotten").await;
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(row.payload, json!({ "memoryId": id }));
    assert_eq!(row.actor.as_deref(), Some(bob.id.as_str()));
}

pub(crate) async fn a_full_mesh_remembers_no_more(store: Stores, other: Other) {
    let here = Fixture::new(store.clone()).await;
    let id = here.remembers(T0, "the first", &["x"]).await;
    other.fill(&here.mesh).await;
    let refusal = store.memories.remember(T0, &here.memory("one more", &[])).await;
    let Err(StoreError::Full(refused)) = refusal else { panic!("{refusal:?}") };
    let full = limits::SHARED_ROWS_MAX;
    assert_eq!((refused.kind, refused.numbers()), (Kind::Memory, (full, full + 1)));
    assert!(here.recalls("more").await.is_empty(), "nothing of it was kept");
    assert_eq!(here.audit_of("memory_stored").await.len(), 1);
    let author = here.author(&here.owner);
    assert!(store.memories.forget(T0, &author, &id).await.expect("writable"));
    here.remembers(T0, "one more", &[]).await;
}
