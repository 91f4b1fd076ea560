//! Streams, where the handler decides something.

use super::*;
use crate::limits;
use crate::store::{Stream, StreamPlace};

#[tokio::test]
async fn streams_are_paged_with_the_oldest_first_and_each_once() {
    const STREAMS: i64 = 3_000;
    let mut fakes = MockStores::default();
    fakes.streams.expect_list().returning(|_, after: Option<StreamPlace>, limit| {
        let stream = |at: i64| Stream {
            id: format!("{at:05}"),
            name: format!("{at:0>250}"),
            created_by: None,
            created_by_session: None,
            created_at: Timestamp::from_ms(at / 2),
        };
        let is_after = |stream: &Stream| {
            let place = (stream.created_at, stream.id.clone());
            after.as_ref().is_none_or(|after| place > *after)
        };
        let rows = (0..STREAMS).map(stream).filter(is_after);
        Ok(rows.take(usize::try_from(limit).expect("positive")).collect())
    });
    let scene = Scene::new(fakes).await;
    let (bob, eve) = (scene.session("bob"), scene.session("eve"));
    for session in [&bob, &eve] {
        let seventh = format!("{:0>250}", 7);
        scene.room.update(session, |record| {
            record.streams.push(seventh);
            true
        });
    }
    let (mut ask, mut counts, mut pages) = (json!({ "type": "list_streams" }), Vec::new(), 0);
    loop {
        let page = scene.asks(&bob, ask.clone()).await;
        assert!(page.to_string().len() <= limits::ANSWER_BYTES_MAX);
        pages += 1;
        for row in page["streams"].as_array().expect("rows") {
            assert_eq!((&row["createdBy"], row.get("createdBySession")), (&json!(""), None));
            counts.push((row["id"].clone(), row["subscriberCount"].clone()));
        }
        assert_eq!(page.get("more"), page.get("cursor").map(|_| &json!(true)));
        let Some(cursor) = page.get("cursor") else { break };
        ask["cursor"] = cursor.clone();
    }
    let count = |at| if at == 7 { 2 } else { 0 };
    let all: Vec<_> =
        (0..STREAMS).map(|at| (json!(format!("{at:05}")), json!(count(at)))).collect();
    assert!(pages > 1 && counts == all, "{pages} pages, {} rows", counts.len());
}
