//! How far a message is, and taking it back, as it is typed.

use serde_json::{Value, json};

use crate::harness::program::{Answer, Place, Serving, text};

#[test]
fn a_peer_sees_how_far_its_message_is_and_takes_it_back() {
    let place = Place::new();
    let broker = Serving::start(&place);
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
    let mut keys = Vec::new();
    for name in ["ada", "bob"] {
        let joined = types(&["peer", "join", &text(&invite["link"]), "--name", name]);
        keys.push(text(&joined["pubkey"]));
    }
    let order = ["peer", "send", &keys[1], "hello", "--as", "ada"];
    let terms = ["--ttl", "60", "--expects-reply"];
    let id = text(&types(&[&order[..], &terms].concat())["messageId"]);
    let status = types(&["peer", "message", "status", &id, "--as", "ada"]);
    assert_eq!(
        (&status["delivered"], &status["recipients"][0]["stage"]),
        (&json!(false), &json!("kept"))
    );
    let shown = answers(&["peer", "message", "status", &id[..8], "--as", "ada"]).out;
    assert!(shown.contains("not delivered to all") && shown.contains("kept"), "{shown}");
    let withdrawn = types(&["peer", "message", "withdraw", &id, "--as", "ada"]);
    assert_eq!((&withdrawn["withdrawn"], &withdrawn["stage"]), (&json!(true), &json!("withdrawn")));
    let again = answers(&["peer", "message", "withdraw", &id, "--as", "ada"]).out;
    assert!(again.contains("nothing to take back"), "{again}");
    let (code, message) =
        answers(&["peer", "message", "withdraw", &id, "--as", "bob", "--json"]).failure();
    assert_eq!((code.as_str(), message.contains("no such message")), ("not_found", true));
    let refused = answers(&["peer", "send", &keys[1], "x", "--ttl", "0", "--as", "ada"]);
    assert_eq!(refused.code, 2, "a time to live is at least a second: {refused:?}");
}
