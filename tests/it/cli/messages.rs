//! How far a message is, and taking it back, as it is typed.

use serde_json::json;

use crate::harness::program::text;
use crate::harness::team::Team;

#[test]
fn a_peer_sees_how_far_its_message_is_and_takes_it_back() {
    let team = Team::of(&["ada", "bob"], &[]);
    let order = ["peer", "send", &team.keys[1], "hello", "--as", "ada"];
    let terms = ["--ttl", "60", "--expects-reply"];
    let id = text(&team.types(&[&order[..], &terms].concat())["messageId"]);
    let status = team.types(&["peer", "message", "status", &id, "--as", "ada"]);
    assert_eq!(
        (&status["delivered"], &status["recipients"][0]["stage"]),
        (&json!(false), &json!("kept"))
    );
    let shown = team.answers(&["peer", "message", "status", &id[..8], "--as", "ada"]).out;
    assert!(shown.contains("not delivered to all") && shown.contains("kept"), "{shown}");
    let withdrawn = team.types(&["peer", "message", "withdraw", &id, "--as", "ada"]);
    assert_eq!((&withdrawn["withdrawn"], &withdrawn["stage"]), (&json!(true), &json!("withdrawn")));
    let again = team.answers(&["peer", "message", "withdraw", &id, "--as", "ada"]).out;
    assert!(again.contains("nothing to take back"), "{again}");
    let (code, message) =
        team.answers(&["peer", "message", "withdraw", &id, "--as", "bob", "--json"]).failure();
    assert_eq!((code.as_str(), message.contains("no such message")), ("not_found", true));
    let refused = team.answers(&["peer", "send", &team.keys[1], "x", "--ttl", "0", "--as", "ada"]);
    assert_eq!(refused.code, 2, "a time to live is at least a second: {refused:?}");
}
