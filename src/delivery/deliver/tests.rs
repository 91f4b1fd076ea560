mod posts;

use std::collections::HashMap;

use super::*;
use crate::delivery::testing::{Fakes, World, blocks, delivery, frames, received, stored};
use crate::protocol::{CloseReason, Group, Status};
use crate::record::PresenceRecord;
use crate::store::Member;
use crate::store::testing::member;

fn idle(_: &mut PresenceRecord) {}

/// Ada, here, and Bob, wherever.
fn world(fakes: Fakes) -> (World, Arc<Session>) {
    let world = fakes.world();
    world.enrol(&["ada", "bob"]);
    let ada = world.enter("ada", idle);
    (world, ada)
}

fn to_bob(world: &World, ada: &Arc<Session>, presence: Option<&PresenceId>) -> Sent {
    let recipient = Recipient::One {
        key: Key::from("bob-key"),
        member: MemberId::from("bob"),
        presence: presence.cloned(),
    };
    Sent {
        room: Arc::clone(&world.room),
        sender: Arc::clone(ada),
        recipient,
        allowance: Allowance::free(),
        unsealed: Vec::new(),
    }
}

fn to_many(world: &World, ada: &Arc<Session>) -> Sent {
    let (room, sender) = (Arc::clone(&world.room), Arc::clone(ada));
    Sent {
        room,
        sender,
        recipient: Recipient::Many,
        allowance: Allowance::free(),
        unsealed: Vec::new(),
    }
}

/// The keys that other nodes were told of, and whether it is for many.
fn mail_told(world: &World) -> Vec<(Vec<Key>, bool)> {
    let told = |message| match message {
        BusMessage::MailFor { keys, many } => (keys, many),
        other => panic!("{other:?}"),
    };
    world.published().into_iter().map(told).collect()
}

fn bobs_mail() -> Vec<(Vec<Key>, bool)> {
    vec![(vec![Key::from("bob-key")], false)]
}

// --- one recipient ---------------------------------------------------------------------

#[tokio::test]
async fn a_direct_message_goes_straight_to_a_session_here() {
    let (world, ada) = world(Fakes::default());
    let bob = world.enter("bob", idle);
    let sent = to_bob(&world, &ada, Some(&bob.presence));
    deliver(&world.parts, sent, stored("one", 1, "ada", "bob-key"), 0);
    let push = &frames(&bob)[0];
    assert_eq!(
        (&push["messageId"], &push["senderMemberPubkey"]),
        (&"one".into(), &"ada-key".into())
    );
    assert_eq!(push["replyToId"], "earlier");
    world.settle().await;
    assert!(world.published().is_empty() && world.claims().is_empty());
}

#[tokio::test]
async fn a_push_between_sessions_of_one_member_leaves_its_key_out() {
    let (world, ada) = world(Fakes::default());
    let other = world.enter("ada", idle);
    let recipient = Recipient::One {
        key: Key::from("ada-key"),
        member: MemberId::from("ada"),
        presence: Some(other.presence.clone()),
    };
    let sent = Sent {
        room: Arc::clone(&world.room),
        sender: ada,
        recipient,
        allowance: Allowance::free(),
        unsealed: Vec::new(),
    };
    deliver(&world.parts, sent, stored("one", 1, "ada", "ada-key"), 0);
    let push = &frames(&other)[0];
    assert!(push.get("senderMemberPubkey").is_none());
    assert_eq!(push["senderPubkey"], "ada-key");
}

#[tokio::test]
async fn a_direct_message_for_a_socket_elsewhere_is_published_for_it() {
    let (world, ada) = world(Fakes::default());
    let bob = world.elsewhere("bob", idle);
    deliver(&world.parts, to_bob(&world, &ada, Some(&bob)), stored("one", 7, "ada", "bob-key"), 0);
    let published = world.published();
    let [BusMessage::Direct { presence, delivery }] = &published[..] else {
        panic!("{published:?}")
    };
    assert_eq!((presence, delivery.seq, delivery.resumed), (&bob, 7, false));
    assert_eq!(delivery.push.message_id.as_str(), "one");
    world.settle().await;
    assert!(world.unclaimed().is_empty(), "the claim is for the other node to give back");
}

#[tokio::test]
async fn a_claim_is_given_back_when_its_presence_went_into_grace_or_away_or_is_closing() {
    for case in ["grace", "away", "closing"] {
        let (world, ada) = world(Fakes::default());
        let presence = match case {
            "grace" => {
                let bob = world.enter("bob", idle);
                world.room.detach(&bob).expect("it was here");
                bob.presence.clone()
            }
            "away" => PresenceId::from("ended"),
            _ => {
                let bob = world.enter("bob", idle);
                bob.outbox.close(CloseReason::SESSION_REPLACED);
                bob.presence.clone()
            }
        };
        let sent = to_bob(&world, &ada, Some(&presence));
        deliver(&world.parts, sent, stored("one", 1, "ada", "bob-key"), 0);
        world.settle().await;
        assert_eq!(world.unclaimed(), [(presence, vec![MessageId::from("one")])], "{case}");
        assert_eq!(mail_told(&world), bobs_mail(), "{case}: whoever else the key addresses");
    }
}

#[tokio::test]
async fn what_nobody_took_is_looked_for_by_whoever_has_come_since() {
    let fakes =
        Fakes { directs: vec![stored("one", 1, "ada", "bob-key")], newest: 1, ..Fakes::default() };
    let (world, ada) = world(fakes);
    let bob = world.enter("bob", idle);
    deliver(&world.parts, to_bob(&world, &ada, None), stored("one", 1, "ada", "bob-key"), 0);
    world.settle().await;
    assert_eq!(received(&bob), ["one"], "read from the store");
    assert_eq!(mail_told(&world), bobs_mail());
}

#[tokio::test]
async fn the_first_message_of_a_sender_that_came_back_does_not_overtake_what_it_sent_before() {
    let fakes = Fakes {
        directs: vec![stored("lost", 1, "ada", "bob-key"), stored("next", 2, "ada", "bob-key")],
        newest: 2,
        ..Fakes::default()
    };
    let (world, ada) = world(fakes);
    let bob = world.enter("bob", idle);
    ada.resume(Instant::now() + Duration::from_secs(60), Timestamp::default());
    let sent = to_bob(&world, &ada, Some(&bob.presence));
    deliver(&world.parts, sent, stored("next", 2, "ada", "bob-key"), 0);
    world.settle().await;
    assert_eq!(received(&bob), ["lost", "next"]);
    let sent = to_bob(&world, &ada, Some(&bob.presence));
    deliver(&world.parts, sent, stored("third", 3, "ada", "bob-key"), 0);
    assert_eq!(received(&bob), ["third"], "straight, since they have met");
}

#[tokio::test]
async fn a_direct_message_does_not_overtake_a_multicast_that_waits() {
    let fakes = Fakes {
        multicasts: vec![stored("group", 1, "ada", "*"), stored("early", 2, "ada", "*")],
        directs: vec![stored("direct", 3, "ada", "bob-key")],
        newest: 3,
        ..Fakes::default()
    };
    let (world, ada) = world(fakes);
    let bob = world.enter("bob", idle);
    multicast_arrives(&world.parts, &world.room, published_multicast(2, 1, "early"));
    let sent = to_bob(&world, &ada, Some(&bob.presence));
    deliver(&world.parts, sent, stored("direct", 3, "ada", "bob-key"), 0);
    world.settle().await;
    assert_eq!(received(&bob), ["group", "early", "direct"]);
}

#[tokio::test]
async fn a_direct_message_from_another_node_reaches_its_session_or_is_given_back() {
    let (world, _ada) = world(Fakes::default());
    let bob = world.enter("bob", idle);
    let from = |id: &str| {
        let push = push::direct(stored(id, 1, "ada", "bob-key"), &MemberId::from("bob"));
        BusDelivery { seq: 1, push: Box::new(push), resumed: false }
    };
    direct_from_bus(&world.parts, &world.room, bob.presence.clone(), from("one"));
    assert_eq!(received(&bob), ["one"]);
    direct_from_bus(&world.parts, &world.room, PresenceId::from("nobody"), from("two"));
    bob.outbox.close(CloseReason::SESSION_REPLACED);
    direct_from_bus(&world.parts, &world.room, bob.presence.clone(), from("three"));
    world.settle().await;
    assert_eq!(world.unclaimed(), [(bob.presence.clone(), vec![MessageId::from("three")])]);
    assert_eq!(mail_told(&world), bobs_mail());
}

#[tokio::test]
async fn what_waits_is_left_to_an_idle_session_of_those_that_a_key_addresses() {
    let (world, _ada) = world(Fakes::default());
    let idle = world.enter("bob", |_| {});
    let daemon = world.enter("bob", |record| {
        record.role = crate::protocol::PeerRole::ControlPlane;
        record.status = Status::Idle;
    });
    drain::request_addressed(&world.parts, &world.room, &Key::from("bob-key"));
    world.settle().await;
    let by: Vec<PresenceId> = world.claims().into_iter().map(|ask| ask.presence).collect();
    assert_eq!(by, std::slice::from_ref(&idle.presence), "not {}", daemon.presence);
}

#[tokio::test]
async fn what_is_sent_again_makes_its_recipients_read_the_store() {
    let (world, ada) = world(Fakes::default());
    let bob = world.enter("bob", idle);
    deliver_again(&world.parts, to_bob(&world, &ada, Some(&bob.presence)));
    world.settle().await;
    assert_eq!(mail_told(&world), bobs_mail());
    assert_eq!(world.claims().len(), 1);
    deliver_again(&world.parts, to_many(&world, &ada));
    world.settle().await;
    assert_eq!(mail_told(&world), [(Vec::new(), true)]);
    assert_eq!(world.claims().len(), 2, "everybody here reads");
}

// --- many recipients -------------------------------------------------------------------

/// As another node would tell of it.
fn published_multicast(seq: i64, previous: i64, id: &str) -> Multicast {
    let push = Box::new(push::multicast(stored(id, seq, "ada", "*")));
    let sender = MulticastSender {
        member: MemberId::from("ada"),
        member_key: Key::from("ada-key"),
        session_key: None,
    };
    let delivery = BusDelivery { seq, push, resumed: false };
    Multicast { group: None, topic: None, sealed_keys: BTreeMap::new(), sender, previous, delivery }
}

#[tokio::test]
async fn a_multicast_goes_to_those_that_it_names_and_passes_the_others() {
    let fakes = Fakes::default();
    let (world, ada) = world(fakes);
    let deaf = Member {
        grants: HashMap::from([("ada-key".to_owned(), vec!["dm".to_owned()])]),
        ..member("deaf")
    };
    world.enrol_as(vec![member("ada"), member("bob"), blocks("dan", "ada"), deaf]);
    let group = |record: &mut PresenceRecord| {
        record.groups = vec![Group { name: "dev/core".to_owned(), role: None }];
    };
    let named = world.enter("bob", group);
    let others = [
        ("of the sender", world.enter("ada", group)),
        ("in no group", world.enter("bob", idle)),
        ("blocks", world.enter("dan", group)),
        ("takes directs alone", world.enter("deaf", group)),
        (
            "hidden",
            world.enter("bob", |record| {
                group(record);
                record.visible = false;
            }),
        ),
    ];
    deliver(&world.parts, to_many(&world, &ada), stored("news", 5, "ada", "@dev"), 0);
    let push = &frames(&named)[0];
    assert_eq!(push["messageId"], "news");
    assert_eq!(push["replyToId"], "earlier");
    assert!(push.get("client_message_id").is_none(), "the sender's own id is its own");
    for (who, session) in &others {
        assert!(received(session).is_empty(), "{who}");
        assert_eq!(session.inbox.lock().multicast_seen(), 5, "{who}: it is past it");
    }
    let published = world.published();
    let [BusMessage::Multicast(multicast)] = &published[..] else { panic!("{published:?}") };
    assert_eq!(multicast.group.as_deref(), Some("dev"));
    assert_eq!((multicast.previous, multicast.delivery.seq), (0, 5));
    let dropped = metrics_dropped(&world);
    assert_eq!(dropped, 2, "by grants");
}

fn metrics_dropped(world: &World) -> u64 {
    let cap = crate::metrics::Capability { cap: "broadcast" };
    world.parts.metrics.messages_dropped_by_grant.get_or_create(&cap).get()
}

#[tokio::test]
async fn a_visitor_gets_no_multicast_and_is_at_no_position() {
    let (world, ada) = world(Fakes::default());
    let visitor = world.enter("bob", |record| record.visitor = true);
    deliver(&world.parts, to_many(&world, &ada), stored("news", 5, "ada", "*"), 0);
    assert!(received(&visitor).is_empty());
    assert_eq!(visitor.inbox.lock().multicast_seen(), 0);
}

#[tokio::test]
async fn a_session_whose_daemon_gets_a_multicast_does_not_get_it_too() {
    let (world, ada) = world(Fakes::default());
    let on = |channel: &'static str| {
        move |record: &mut PresenceRecord| {
            record.channel = Some(channel.to_owned());
            record.hostname = Some("host".to_owned());
        }
    };
    let daemon = world.enter("bob", |record| {
        on("claudemesh-daemon")(record);
        record.role = crate::protocol::PeerRole::ControlPlane;
        record.begins_after = Some(0);
    });
    let session = world.enter("bob", on("claudemesh-session"));
    deliver(&world.parts, to_many(&world, &ada), stored("news", 5, "ada", "*"), 0);
    assert_eq!(received(&daemon), ["news"]);
    assert!(received(&session).is_empty());
}

#[tokio::test]
async fn the_first_multicast_of_a_sender_that_came_back_waits_for_what_it_sent_before() {
    let fakes = Fakes {
        multicasts: vec![stored("lost", 1, "ada", "*"), stored("next", 2, "ada", "*")],
        newest: 2,
        ..Fakes::default()
    };
    let (world, ada) = world(fakes);
    let bob = world.enter("bob", idle);
    ada.resume(Instant::now() + Duration::from_secs(60), Timestamp::default());
    deliver(&world.parts, to_many(&world, &ada), stored("next", 2, "ada", "*"), 0);
    world.settle().await;
    assert_eq!(received(&bob), ["lost", "next"]);
}

#[tokio::test]
async fn an_early_multicast_waits_for_the_one_before_it() {
    let (world, _ada) = world(Fakes::default());
    let bob = world.enter("bob", idle);
    multicast_arrives(&world.parts, &world.room, published_multicast(2, 1, "second"));
    assert!(received(&bob).is_empty());
    multicast_arrives(&world.parts, &world.room, published_multicast(1, 0, "first"));
    assert_eq!(received(&bob), ["first", "second"]);
    world.settle().await;
    assert_eq!(world.parts.metrics.bus_gaps.get(), 0, "nothing was missed");
}

#[tokio::test]
async fn a_multicast_that_does_not_come_is_read_from_the_store() {
    let fakes = Fakes {
        multicasts: vec![stored("first", 1, "ada", "*"), stored("second", 2, "ada", "*")],
        newest: 2,
        ..Fakes::default()
    };
    let (world, _ada) = world(fakes);
    let bob = world.enter("bob", idle);
    multicast_arrives(&world.parts, &world.room, published_multicast(2, 1, "second"));
    world.settle().await;
    assert_eq!(received(&bob), ["first", "second"]);
    assert_eq!(world.parts.metrics.bus_gaps.get(), 1);
}

#[tokio::test]
async fn a_session_that_is_read_for_gets_what_is_live_afterwards_in_its_order() {
    let (world, ada) = world(Fakes { newest: 3, ..Fakes::default() });
    let bob = world.enter("bob", idle);
    assert!(bob.inbox.lock().begin_drain());
    let sent = to_bob(&world, &ada, Some(&bob.presence));
    deliver(&world.parts, sent, stored("one", 1, "ada", "bob-key"), 0);
    deliver(&world.parts, to_many(&world, &ada), stored("two", 2, "ada", "*"), 0);
    bob.offer(&delivery("three", 3));
    assert!(received(&bob).is_empty(), "they wait behind the gate");
    drain::start(&world.parts, &world.room, &bob);
    world.settle().await;
    assert_eq!(received(&bob), ["one", "two", "three"]);
}
