//! Streams: each name once, with one audit row, and listed in order.

use claudemesh_broker::limits;
use claudemesh_broker::store::{Author, Kind, StoreError, Stores, Stream, StreamPlace};
use futures_util::future::join_all;

use super::fixture::{Fixture, at};

/// The owner at work, by a session that calls itself otherwise.
fn owner(here: &Fixture) -> Author {
    Author {
        mesh: here.mesh.clone(),
        member: here.owner.id.clone(),
        member_name: here.owner.name.clone(),
        session_name: "at work".to_owned(),
        presence: "presence".into(),
    }
}

async fn create(here: &Fixture, seconds: i64, name: &str) -> Stream {
    let streams = &here.store.streams;
    streams.create(at(seconds), &owner(here), name).await.expect("it is there")
}

async fn list(here: &Fixture, after: Option<StreamPlace>, limit: i64) -> Vec<Stream> {
    here.store.streams.list(&here.mesh, after, limit).await.expect("readable")
}

async fn audited(here: &Fixture) -> i64 {
    audited_as(here, "stream_created").await
}

async fn audited_as(here: &Fixture, event: &str) -> i64 {
    let page = here.store.audit.page(&here.mesh, Some(event), 0, 0).await;
    page.expect("readable").1
}

async fn delete(here: &Fixture, name: &str) -> bool {
    let streams = &here.store.streams;
    streams.delete(at(9), &owner(here), name).await.expect("writable")
}

pub(crate) async fn a_stream_that_is_deleted_is_free_and_counts_no_more(store: Stores) {
    let here = Fixture::new(store).await;
    let other = here.another().await;
    create(&other, 0, "builds").await;
    let first = create(&here, 1, "builds").await;
    assert!(!delete(&here, "Builds").await);
    assert!(delete(&here, "builds").await && !delete(&here, "builds").await);
    assert_eq!(list(&here, None, 10).await, []);
    assert_eq!(list(&other, None, 10).await.len(), 1, "each mesh has its own");
    assert_eq!((audited_as(&here, "stream_deleted").await, audited(&here).await), (1, 1));
    assert_ne!(create(&here, 2, "builds").await.id, first.id);
}

pub(crate) async fn a_stream_is_made_once_whoever_asks(store: Stores) {
    let here = Fixture::new(store).await;
    let other = here.another().await;
    let elsewhere = create(&other, 0, "builds").await;
    let asking = (0..8).map(|_| create(&here, 1, "builds"));
    let answers = join_all(asking).await;
    assert!(answers.iter().all(|stream| *stream == answers[0]), "{answers:?}");
    assert_ne!(answers[0].id, elsewhere.id, "each mesh has its own");
    let stream = &answers[0];
    assert_eq!((&*stream.name, stream.created_at), ("builds", at(1)));
    assert_eq!(stream.created_by.as_deref(), Some("owner"));
    assert_eq!(stream.created_by_session.as_deref(), Some("at work"));
    assert_eq!(create(&here, 2, "builds").await, *stream);
    assert_ne!(create(&here, 2, "Builds").await.id, stream.id);
    assert_eq!((audited(&here).await, audited(&other).await), (2, 1));
}

pub(crate) async fn streams_are_listed_from_anywhere_the_oldest_first(store: Stores) {
    let here = Fixture::new(store).await;
    create(&here.another().await, 0, "elsewhere").await;
    let mut made = Vec::new();
    for number in 0..7 {
        // Some of them in one instant.
        made.push(create(&here, number / 3, &format!("s{number}")).await);
    }
    made.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
    assert_eq!(list(&here, None, 100).await, made);
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = list(&here, after, 2).await;
        let Some(last) = page.last() else { break };
        after = Some((last.created_at, last.id.clone()));
        listed.extend(page);
    }
    assert_eq!(listed, made);
}

pub(crate) async fn a_mesh_has_no_more_streams_than_it_may(store: Stores) {
    let here = Fixture::new(store).await;
    for number in 0..limits::SHARED_ROWS_MAX {
        create(&here, 1, &number.to_string()).await;
    }
    let one_more = here.store.streams.create(at(2), &owner(&here), "more").await;
    let Err(StoreError::Full(full)) = one_more else { panic!("{one_more:?}") };
    assert_eq!((full.kind, full.usage.rows), (Kind::Stream, limits::SHARED_ROWS_MAX + 1));
    let rows = limits::SHARED_ROWS_MAX;
    assert_eq!(audited(&here).await, rows, "what was refused left nothing");
    assert_eq!(list(&here, None, rows + 1).await.len(), usize::try_from(rows).expect("positive"));
    create(&here, 3, "7").await;
    assert!(delete(&here, "7").await);
    create(&here, 4, "more").await;
    create(&here.another().await, 3, "more").await;
}
