//! How much may be sent, as it is typed.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::team::Team;

#[test]
fn a_peer_sees_what_is_left_and_waits_where_that_is_short() {
    let rates = [("PAIR_RATE_PER_MINUTE", "120"), ("PAIR_BURST", "2")];
    let slow = [("MULTICAST_RATE_PER_MINUTE", "1"), ("MULTICAST_BURST", "1")];
    let team = Team::of(&["ada", "bob"], &[rates, slow].concat());
    let bob = &team.keys[1];
    let left = team.types(&["peer", "budget", bob, "--as", "ada"]);
    assert_eq!((&left["pair"]["left"], &left["pair"]["burst"]), (&json!(2), &json!(2)), "{left}");
    assert_eq!(left["multicast"]["left"], 1);

    let began = Instant::now();
    for _ in 0..5 {
        team.types(&["peer", "send", bob, "hello", "--as", "ada"]);
    }
    // Two are there, one comes each half second; what the commands take counts as well.
    assert!(began.elapsed() >= Duration::from_millis(1_000), "it waited for the limit");
    let shown = team.answers(&["peer", "budget", bob, "--as", "ada"]).out;
    for words in ["messages to that peer", "messages to many", "requests, in units"] {
        assert!(shown.contains(words), "{shown}");
    }

    team.types(&["peer", "send", "*", "hello", "--as", "ada"]);
    let refused = team.answers(&["peer", "send", "*", "hello", "--as", "ada", "--json"]);
    let (code, message) = refused.failure();
    assert_eq!(code, "rate_limit", "a minute is too long to wait");
    assert!(message.contains("groups, topics and everyone") && message.contains("again in"));
}
