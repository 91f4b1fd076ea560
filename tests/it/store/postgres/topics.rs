//! Posts that a dashboard's own routes write into the shared tables.

use claudemesh_broker::id::{self, MemberId, TopicId};
use sqlx::AssertSqlSafe;

use super::fixture;
use crate::harness::postgres::connection;
use crate::store::fixture::{Fixture, T0};

/// As the dashboard does it: no seq, no priority, a second row in the queue.
async fn dashboard_posts(here: &Fixture, url: &str, topic: &TopicId) -> String {
    let (post, queued) = (id::random(), id::random());
    let (mesh, sender) = (&here.mesh, &here.owner.id);
    run(
        url,
        format!(
            "insert into mesh.topic_message (id, topic_id, sender_member_id, nonce, ciphertext)
             values ('{post}', '{topic}', '{sender}', 'bm9uY2U=', 'cG9zdA==');
             insert into mesh.message_queue (id, mesh_id, sender_member_id, target_spec,
                priority, nonce, ciphertext)
             values ('{queued}', '{mesh}', '{sender}', '#{topic}', 'now', 'bm9uY2U=',
                'cG9zdA==')"
        ),
    )
    .await;
    post
}

async fn run(url: &str, statements: String) {
    let mut other = connection(url).await;
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut other).await.expect("good statements");
}

async fn waiting(url: &str) -> i64 {
    sqlx::query_scalar("select count(*) from mesh.message_queue where delivered_at is null")
        .fetch_one(&mut connection(url).await)
        .await
        .expect("readable")
}

#[tokio::test]
async fn posts_of_another_program_get_their_place_and_do_not_pile_up() {
    let (here, url) = fixture().await;
    let topic = TopicId::from(id::random());
    let bob = here.member("bob").await;
    let (mesh, member) = (&here.mesh, &bob.id);
    run(
        &url,
        format!(
            "insert into mesh.topic (id, mesh_id, name) values ('{topic}', '{mesh}', 'general');
             insert into mesh.topic_member (topic_id, member_id) values ('{topic}', '{member}')"
        ),
    )
    .await;
    let first = dashboard_posts(&here, &url, &topic).await;
    let second = dashboard_posts(&here, &url, &topic).await;
    let mail = &here.store.topic_mail;
    assert!(mail.posts_after(&here.mesh, &bob.id, 0, 10).await.expect("readable").is_empty());
    assert_eq!(waiting(&url).await, 2);

    let place = mail.adopt(T0, &here.mesh, 1).await.expect("written").expect("there is one");
    let last = mail.adopt(T0, &here.mesh, 10).await.expect("written").expect("there is one");
    assert!(place < last);
    assert_eq!(mail.adopt(T0, &here.mesh, 10).await.expect("written"), None);
    assert_eq!(waiting(&url).await, 0);
    let posts = mail.posts_after(&here.mesh, &bob.id, 0, 10).await.expect("readable");
    let read = posts.iter().map(|post| (post.envelope.id.as_str(), post.envelope.seq));
    let read: Vec<_> = read.collect();
    assert_eq!(read, [(first.as_str(), place), (second.as_str(), last)]);
    assert_eq!(
        (posts[0].topic.as_str(), posts[0].envelope.ciphertext.as_str()),
        ("general", "cG9zdA==")
    );
    assert!(mail.missed_since(&here.mesh, &bob.id).await.expect("readable").is_some());
    let newest = here.store.mail.multicasts_after(&here.mesh, 0, 10).await.expect("readable");
    assert_eq!(newest.len(), 2, "they are in the mesh's order");
    let audit = here.audit().await;
    assert_eq!(audit.iter().filter(|row| row.event_type == "message_sent").count(), 2);
}

/// Whatever the clocks were: what was there before there were places is older than any
/// place, and what has none yet is newer.
#[tokio::test]
async fn a_history_is_in_the_order_of_places() {
    let (here, url) = fixture().await;
    let topic = TopicId::from(id::random());
    let (mesh, sender) = (&here.mesh, &here.owner.id);
    let newest_first =
        [("new", "null", 1), ("b", "7", 2), ("a", "5", 4), ("old2", "0", 3), ("old1", "0", 2)];
    let row = |(post, place, day): &(&str, &str, u32)| {
        format!(
            "insert into mesh.topic_message (id, topic_id, sender_member_id, nonce, ciphertext,
                seq, created_at)
             values ('{post}', '{topic}', '{sender}', 'bm9uY2U=', 'cG9zdA==', {place},
                '2026-01-0{day}');"
        )
    };
    let rows: String = newest_first.iter().map(row).collect();
    run(
        &url,
        format!(
            "insert into mesh.topic (id, mesh_id, name) values ('{topic}', '{mesh}', 't'); {rows}"
        ),
    )
    .await;
    let mut before = None;
    for (post, _, _) in newest_first {
        let topics = &here.store.topics;
        let page = topics.history(&topic, before.as_ref(), 1).await.expect("readable");
        assert_eq!(page[0].id.as_str(), post);
        before = Some(page[0].id.clone());
    }
    let rest = here.store.topics.history(&topic, before.as_ref(), 1).await.expect("readable");
    assert!(rest.is_empty());
}

#[tokio::test]
async fn a_member_that_another_program_adds_is_there_for_what_comes() {
    let (here, url) = fixture().await;
    let (topic, member) = (TopicId::from(id::random()), here.member("bob").await.id);
    let mesh = &here.mesh;
    run(
        &url,
        format!("insert into mesh.topic (id, mesh_id, name) values ('{topic}', '{mesh}', 't')"),
    )
    .await;
    dashboard_posts(&here, &url, &topic).await;
    here.store.topic_mail.adopt(T0, &here.mesh, 10).await.expect("written");
    let before = roster(&here, &topic).await;
    run(
        &url,
        format!(
            "insert into mesh.topic_member (topic_id, member_id) values ('{topic}', '{member}')"
        ),
    )
    .await;
    let (version, members) = roster(&here, &topic).await;
    assert!(version > before.0 && members == [member.clone()]);
    let missed = here.store.topic_mail.missed_since(&here.mesh, &member).await;
    assert_eq!(missed.expect("readable"), None, "nothing older");
}

async fn roster(here: &Fixture, topic: &TopicId) -> (i64, Vec<MemberId>) {
    let roster = here.store.topic_mail.roster(&here.mesh, topic).await.expect("readable");
    let roster = roster.expect("a topic");
    (roster.version, roster.members.into_keys().collect())
}
