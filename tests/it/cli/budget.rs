//! How much may be sent, as it is typed.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::program::{Answer, Place, Serving, text};

#[test]
fn a_peer_sees_what_is_left_and_waits_where_that_is_short() {
    let place = Place::new();
    let rates = [("PAIR_RATE_PER_MINUTE", "120"), ("PAIR_BURST", "2")];
    let slow = [("MULTICAST_RATE_PER_MINUTE", "1"), ("MULTICAST_BURST", "1")];
    let broker = Serving::start_with(&place, &[rates, slow].concat());
    let port = broker.port.to_string();
    let answers = |args: &[&str]| {
        let mut command = place.command(args);
        let output = command.env("BROKER_PORT", &port).output().expect("the program starts");
        Answer::of(&output, args)
    };
    let types = |args: &[&str]| -> Value {
        let answer = answers(&[args, &["--json"]].concat());
        assert_eq!(answer.code, 0, "{args:?}: {answer:?}");
        answer.object()
    };
    types(&["mesh", "create", "team"]);
    let invite = types(&["invite", "create", "team", "--max-uses", "2"]);
    for name in ["ada", "bob"] {
        types(&["peer", "join", &text(&invite["link"]), "--name", name]);
    }
    let bob = text(&types(&["peer", "list", "--all", "--as", "bob"])["peers"][0]["memberPubkey"]);
    let left = types(&["peer", "budget", &bob, "--as", "ada"]);
    assert_eq!((&left["pair"]["left"], &left["pair"]["burst"]), (&json!(2), &json!(2)), "{left}");
    assert_eq!(left["multicast"]["left"], 1);

    let began = Instant::now();
    for _ in 0..5 {
        types(&["peer", "send", &bob, "hello", "--as", "ada"]);
    }
    // Two are there, one comes each half second; what the commands take counts as well.
    assert!(began.elapsed() >= Duration::from_millis(1_000), "it waited for the limit");
    let shown = answers(&["peer", "budget", &bob, "--as", "ada"]).out;
    for words in ["messages to that peer", "messages to many", "requests, in units"] {
        assert!(shown.contains(words), "{shown}");
    }

    types(&["peer", "send", "*", "hello", "--as", "ada"]);
    let refused = answers(&["peer", "send", "*", "hello", "--as", "ada", "--json"]);
    let (code, message) = refused.failure();
    assert_eq!(code, "rate_limit", "a minute is too long to wait");
    assert!(message.contains("groups, topics and everyone") && message.contains("again in"));
}
