//! A channel that is switched off without a word: its host takes each notification and shows
//! none. Nothing counts as shown for that, and the next way has the message when the
//! channel's lease is over.

use claudemesh_broker::id;
use claudemesh_broker::protocol::Priority;

use super::session::{Session, State};
use super::{PRIORITIES, Scene};
use crate::claude::hooks::host::{User, ids_of, messages_of};
use crate::claude::host::Inbox;
use crate::harness::PATIENCE;

/// Longer than the channel holds what it has not been proven to show.
const LEASE_MS: i64 = 9_000;

/// A session that was told that its channel is on.
async fn session(user: &User, inbox: Option<Inbox>) -> Session<'_> {
    Session::open(user, State::IdleWithChannel, inbox, &id::generate(), "startup").await.0
}

/// The host takes as many notifications, and drops them.
async fn drops(session: &mut Session<'_>, sent: &[String]) {
    let mut dropped = Vec::new();
    while dropped.len() < sent.len() {
        let content = session.server.channel().await["content"].as_str().expect("text").to_owned();
        dropped.extend(ids_of(&[content]));
    }
    let mut sent = sent.to_vec();
    dropped.sort();
    sent.sort();
    assert_eq!(dropped, sent, "each is pushed once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_silent_channel_was_given_comes_beside_the_next_prompt_after_its_lease() {
    for count in [1, 200] {
        let mut scene = Scene::new().await;
        let sent = scene.bob.sends(&PRIORITIES, count).await;
        let (bob, node) = (&scene.bob, &scene.node);
        let mut session = session(&scene.user, None).await;
        drops(&mut session, &sent).await;
        bob.until_all(&sent, "confirmed", &["kept", "pushed"]).await;
        if count == 1 {
            assert_eq!(session.hooks.prompt("at once"), None, "the channel holds it");
            assert!(session.hooks.turn_ends().is_empty());
        }
        assert_eq!(bob.stages(&sent).await, ["confirmed".to_owned()].into(), "nobody saw it");
        session.hooks.mail().await.passes(LEASE_MS).await;
        let first = session.hooks.prompt("later").expect("the hook shows it");
        assert!(messages_of(&first).iter().all(|message| message["maybeShownBefore"] == true));
        let mut shown = ids_of(&[first]);
        bob.until_all(&shown, "surfaced", &["confirmed"]).await;
        shown.extend(session.goes_on());
        bob.assert_once_in_order(0, &shown, "silent");
        bob.until_all(&sent, "surfaced", &["confirmed"]).await;
        assert!(session.server.notified.is_empty() && session.goes_on().is_empty(), "once");
        assert!(node.audit_is_valid().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_session_has_what_is_urgent_after_a_silent_channels_lease_between_two_tools() {
    let mut scene = Scene::new().await;
    let sent = scene.bob.sends(&[Priority::Now], 1).await;
    let bob = &scene.bob;
    let mut session = session(&scene.user, None).await;
    drops(&mut session, &sent).await;
    assert_eq!(session.hooks.tools(), None);
    session.hooks.mail().await.passes(LEASE_MS).await;
    assert_eq!(bob.stages(&sent).await, ["confirmed".to_owned()].into());
    assert_eq!(ids_of(&session.hooks.tools()), sent);
    bob.until_all(&sent, "surfaced", &["confirmed"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bell_of_an_idle_session_rings_after_a_silent_channels_lease_and_its_turn_shows_it() {
    let mut scene = Scene::new().await;
    let mut sent = scene.bob.sends(&PRIORITIES, 3).await;
    let bob = &mut scene.bob;
    let mut session = session(&scene.user, Some(Inbox::open())).await;
    drops(&mut session, &sent).await;
    let mut mail = session.hooks.mail().await;
    mail.passes(LEASE_MS).await;
    session.inbox.as_ref().expect("it has one").ring(PATIENCE).await;
    assert_eq!(bob.stages(&sent).await, ["confirmed".to_owned()].into(), "a bell shows nothing");
    assert_eq!(ids_of(&session.hooks.prompt("the bell's own words")), sent);
    bob.until_all(&sent, "surfaced", &["confirmed"]).await;
    assert!(session.hooks.turn_ends().is_empty());
    // The next one costs no lease.
    mail.passes(LEASE_MS).await;
    sent.extend(bob.sends(&[Priority::Next], 1).await);
    session.inbox.as_ref().expect("it has one").ring(PATIENCE).await;
    assert_eq!(ids_of(&session.hooks.prompt("the bell's own words")), sent[3..]);
    assert!(session.server.notified.is_empty(), "a channel that nobody hears is left alone");
}
