use std::collections::HashMap;

use serde_json::Value;

use crate::cluster::{BusMessage, TopicNote};
use crate::delivery::deliver;
use crate::delivery::testing::{Fakes, World, blocks, frames, received, stored};
use crate::id::{MemberId, TopicId};
use crate::protocol::PeerRole;
use crate::store::testing::member;
use crate::store::{Roster, TopicPost};

fn topic() -> TopicId {
    TopicId::from("topic")
}

fn roster(version: i64, members: &[&str]) -> Roster {
    let members: HashMap<_, _> =
        members.iter().map(|member| (MemberId::from(*member), 0)).collect();
    Roster { version, members }
}

fn post(id: &str, seq: i64, sender: &str) -> TopicPost {
    let envelope = stored(id, seq, sender, "#topic");
    TopicPost { envelope, topic: "deploys".to_owned(), body_version: 1 }
}

/// A post arrives, under that version of the roster.
fn arrives(world: &World, id: &str, seq: i64, previous: i64, roster: i64) {
    arrives_as(world, post(id, seq, "ada"), previous, roster);
}

fn arrives_as(world: &World, post: TopicPost, previous: i64, roster: i64) {
    let sender = world.enter("ada", |record| record.visible = false);
    let sent = deliver::Sent {
        room: std::sync::Arc::clone(&world.room),
        sender,
        recipient: deliver::Recipient::Many,
        allowance: crate::delivery::allowance::Allowance::free(),
        unsealed: Vec::new(),
    };
    let TopicPost { envelope, topic: name, body_version } = post;
    let reach = crate::store::Post { topic: topic(), name, body_version, mentions: Vec::new() };
    deliver::post(&world.parts, &sent, envelope, reach, roster, previous);
}

#[tokio::test]
async fn a_post_goes_to_the_members_of_its_topic_hidden_ones_too() {
    let world = Fakes::default().world();
    world.enrol(&["ada", "bob", "carol", "eve"]);
    world.room.set_roster(&topic(), roster(3, &["ada", "bob", "carol"]));
    let bob = world.enter("bob", |_| {});
    let carol = world.enter("carol", |record| record.visible = false);
    let eve = world.enter("eve", |_| {});
    let own = world.enter("ada", |_| {});
    let visitor = world.enter("bob", |record| record.visitor = true);
    arrives(&world, "m1", 1, 0, 3);
    assert_eq!((received(&bob), received(&carol)), (vec!["m1".into()], vec!["m1".into()]));
    for session in [eve, own, visitor] {
        assert!(received(&session).is_empty());
    }
    let published = world.published();
    let [BusMessage::Multicast(multicast)] = &published[..] else { panic!("{published:?}") };
    assert_eq!(multicast.topic, Some(TopicNote { id: topic(), roster: 3 }));
    assert_eq!(multicast.group.as_deref(), Some("#topic"), "nobody's group");
    let push = &multicast.delivery.push;
    assert_eq!((push.topic.as_deref(), push.body_version), (Some("deploys"), None));
    assert_eq!(push.reply_to_id.as_deref(), Some("earlier"));
}

#[tokio::test]
async fn who_joined_after_a_post_and_who_blocks_its_sender_do_not_get_it() {
    let world = Fakes::default().world();
    world.enrol_as(vec![member("ada"), member("bob"), blocks("carol", "ada")]);
    let mut late = roster(3, &["ada", "carol"]);
    late.members.insert(MemberId::from("bob"), 1);
    world.room.set_roster(&topic(), late);
    let (bob, carol) = (world.enter("bob", |_| {}), world.enter("carol", |_| {}));
    arrives(&world, "m1", 1, 0, 2);
    assert!(received(&bob).is_empty(), "it was posted before he joined");
    arrives(&world, "m2", 2, 1, 3);
    assert_eq!(received(&bob), ["m2"]);
    assert!(received(&carol).is_empty());
}

#[tokio::test]
async fn where_the_roster_is_old_everybody_reads_the_store() {
    let mut fakes = Fakes { newest: 1, posts: vec![post("m1", 1, "ada")], ..Fakes::default() };
    let known = roster(4, &["ada", "bob"]);
    fakes.topics.expect_roster().once().return_once(move |_, _| Ok(Some(known)));
    let world = fakes.world();
    world.enrol(&["ada", "bob"]);
    world.room.set_roster(&topic(), roster(3, &["ada"]));
    let bob = world.enter("bob", |_| {});
    arrives(&world, "m1", 1, 0, 4);
    world.settle().await;
    assert_eq!(received(&bob), ["m1"]);
    arrives(&world, "m2", 2, 1, 4);
    assert_eq!(received(&bob), ["m2"], "the roster was read meanwhile");
}

#[tokio::test]
async fn a_daemon_has_the_posts_of_its_sessions() {
    let world = Fakes::default().world();
    world.enrol(&["ada", "bob"]);
    world.room.set_roster(&topic(), roster(1, &["bob"]));
    let session = world.enter("bob", |record| {
        record.channel = Some("claudemesh-session".to_owned());
        record.hostname = Some("host".to_owned());
    });
    arrives(&world, "m1", 1, 0, 1);
    assert_eq!(received(&session), ["m1"], "while there is no daemon");
    let daemon = world.enter("bob", |record| {
        record.role = PeerRole::ControlPlane;
        record.channel = Some("claudemesh-daemon".to_owned());
        record.hostname = Some("host".to_owned());
        record.begins_after = Some(1);
    });
    arrives(&world, "m2", 2, 1, 1);
    assert_eq!(received(&daemon), ["m2"]);
    assert!(received(&session).is_empty());
}

#[tokio::test]
async fn programs_that_cannot_open_a_sealed_post_get_a_sentence() {
    let world = Fakes::default().world();
    world.enrol(&["ada", "bob", "carol"]);
    world.room.set_roster(&topic(), roster(1, &["bob", "carol"]));
    let plain = world.enter("bob", |_| {});
    let daemon = world.enter("carol", |record| {
        record.role = PeerRole::ControlPlane;
        record.channel = Some("claudemesh-daemon".to_owned());
    });
    let sealed = TopicPost { body_version: 2, ..post("m1", 1, "ada") };
    arrives_as(&world, sealed, 0, 1);
    let push = &frames(&plain)[0];
    assert_eq!((&push["bodyVersion"], &push["ciphertext"]), (&2.into(), &"c2VhbGVk".into()));
    let push = &frames(&daemon)[0];
    assert_eq!(push["bodyVersion"], Value::Null);
    let text = crate::sealing::open_plain(push["ciphertext"].as_str().expect("text"));
    assert!(text.expect("readable").contains("#deploys"));
}

#[tokio::test]
async fn a_session_reads_what_its_member_missed_and_nothing_else_from_before() {
    let mut broadcasts = vec![stored("b1", 2, "ada", "*"), stored("b2", 9, "ada", "*")];
    // The place of a post in the mesh's order.
    broadcasts.insert(1, stored("m2", 4, "ada", "#topic"));
    let posts = vec![post("m1", 3, "ada"), post("m2", 4, "ada"), post("own", 5, "bob")];
    let world = Fakes { newest: 9, multicasts: broadcasts, posts, ..Fakes::default() }.world();
    world.enrol(&["ada", "bob"]);
    let record = crate::store::testing::record(&member("bob"));
    let bob = crate::delivery::testing::session(&record);
    {
        let mut inbox = crate::session::inbox::Inbox::new(6, false);
        inbox.follow_topics(Some(2));
        *bob.inbox.lock() = inbox;
    }
    assert!(!world.room.attach(record, std::sync::Arc::clone(&bob), || {}).is_refused);
    crate::delivery::drain::start(&world.parts, &world.room, &bob);
    world.settle().await;
    assert_eq!(received(&bob), ["m1", "m2", "b2"]);
    for seq in [3, 4, 9] {
        bob.inbox.lock().wrote_multicast(seq, 0);
    }
    let done = bob.inbox.lock().done();
    assert_eq!((done.position, done.posts), (Some(9), Some(6)), "as far as it spoke of posts");
}
