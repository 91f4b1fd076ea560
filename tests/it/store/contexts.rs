//! Contexts: one for each member, the newest first.

use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::record::{Shared, SharedChange};
use claudemesh_broker::store::{ContextAt, ContextKept, NewContext, Stores};
use serde_json::json;

use super::fixture::{Fixture, Peer, T0, at};

impl Fixture {
    fn context(&self, of: &Peer, summary: &str) -> NewContext {
        NewContext {
            author: self.author(of),
            summary: summary.to_owned(),
            files_read: vec!["src/a.rs".to_owned()],
            key_findings: vec!["it is slow".to_owned()],
            tags: vec!["Auth".to_owned()],
        }
    }

    async fn says(&self, now: Timestamp, of: &Peer, summary: &str) -> ContextKept {
        let context = self.context(of, summary);
        self.store.contexts.share(now, &context).await.expect("there is room")
    }

    async fn works_on(&self, query: &str) -> Vec<String> {
        let found = self.store.contexts.find(&self.mesh, query, None, 100).await;
        found.expect("readable").into_iter().map(|context| context.summary).collect()
    }
}

pub(crate) async fn a_member_has_one_context_that_is_kept_whole(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let first = here.says(at(1), &here.owner, "on auth").await;
    let second = here.says(at(2), &here.owner, "on billing").await;
    assert_eq!(first.id, second.id);
    assert!(first.seq < second.seq);
    let found = store.contexts.find(&here.mesh, "", None, 100).await.expect("readable");
    let [context] = &found[..] else { panic!("{found:?}") };
    assert_eq!((&*context.summary, &*context.peer_name), ("on billing", "owner"));
    assert_eq!(context.peer_session.as_deref(), Some("owner's"));
    assert_eq!((&*context.files_read[0], &*context.key_findings[0]), ("src/a.rs", "it is slow"));
    assert_eq!((&*context.tags[0], context.updated_at), ("Auth", at(2)));
    let rows = here.audit_of("context_shared").await;
    assert_eq!(rows.len(), 2);
    assert_eq!((rows[1].id, &rows[1].payload), (second.seq, &json!({})));
}

pub(crate) async fn contexts_are_found_by_a_part_of_the_summary_or_a_whole_tag(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let bob = here.member("bob").await;
    here.says(at(1), &here.owner, "Die Größe, 100%").await;
    here.says(at(2), &bob, "plain_text").await;
    here.another().await.says(at(3), &here.another().await.owner, "elsewhere").await;
    for (query, found) in [
        ("größe", vec!["Die Größe, 100%"]),
        ("PLAIN", vec!["plain_text"]),
        ("%", vec!["Die Größe, 100%"]),
        ("_", vec!["plain_text"]),
        ("Auth", vec!["plain_text", "Die Größe, 100%"]),
        ("auth", vec![]),
        ("Aut", vec![]),
        ("else", vec![]),
    ] {
        assert_eq!(here.works_on(query).await, found, "{query:?}");
    }
}

pub(crate) async fn contexts_are_listed_with_the_newest_first_and_each_once(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    for n in 0..7 {
        let peer = here.member(&format!("m{n}")).await;
        // Some come at one instant.
        here.says(at(n / 2), &peer, &format!("on {n}")).await;
    }
    let (mut after, mut seen): (Option<ContextAt>, Vec<_>) = (None, Vec::new());
    loop {
        let page = store.contexts.list(&here.mesh, after.as_ref(), 2).await.expect("readable");
        let Some(last) = page.last() else { break };
        after = Some(last.at());
        seen.extend(page);
    }
    assert_eq!(seen.len(), 7);
    assert!(seen.is_sorted_by(|a, b| (a.updated_at, &a.id) > (b.updated_at, &b.id)));
    assert!(seen.iter().all(|context| context.files_read.is_empty()), "lists leave them out");
    let found =
        store.contexts.find(&here.mesh, "on", seen.get(2).map(|c| c.at()).as_ref(), 2).await;
    assert_eq!(
        found.expect("readable").iter().map(|c| &c.id).collect::<Vec<_>>(),
        [&seen[3].id, &seen[4].id]
    );
}

pub(crate) async fn a_node_that_missed_contexts_reads_what_changed(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let bob = here.member("bob").await;
    let presence = here.present(&bob).await;
    let first = here.says(T0, &here.owner, "one").await;
    let mut context = here.context(&bob, "two");
    context.author.presence = presence.clone();
    let second = store.contexts.share(T0, &context).await.expect("there is room");
    let since = async |seq: i64| store.contexts.changed_since(&here.mesh, seq, 10).await;
    let changes = since(first.seq).await.expect("readable");
    let what =
        Shared::Context { member: bob.id, name: "bob".to_owned(), summary: "two".to_owned() };
    assert_eq!(changes, [SharedChange { seq: second.seq, by: Some(presence), what }]);
    assert_eq!(since(0).await.expect("readable").len(), 2);
    assert!(since(second.seq).await.expect("readable").is_empty());
}
