//! Topics, as they are typed.

use serde_json::{Value, json};

use crate::harness::program::{Place, Printing, Serving, ask_until, text};

#[test]
fn what_one_terminal_posts_another_follows_and_reads_again() {
    let place = Place::new();
    let broker = Serving::start(&place);
    let port = broker.port.to_string();
    let command = |args: &[&str]| {
        let mut command = place.command(&[args, &["--json"]].concat());
        command.env("BROKER_PORT", &port);
        command
    };
    let typed = |args: &[&str]| command(args).output().expect("the program starts");
    let types = |args: &[&str]| -> Value {
        let output = typed(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        serde_json::from_slice(&output.stdout).expect("one object")
    };
    types(&["mesh", "create", "team"]);
    let invite = types(&["invite", "create", "team", "--max-uses", "2"]);
    for name in ["ada", "bob"] {
        types(&["peer", "join", &text(&invite["link"]), "--name", name]);
    }
    let made = types(&["peer", "topic", "create", "deploys", "--as", "ada"]);
    assert_eq!(made["created"], true);
    let outsider = typed(&["peer", "topic", "post", "deploys", "hi", "--as", "bob"]);
    let told = String::from_utf8_lossy(&outsider.stderr).into_owned();
    assert!(!outsider.status.success() && told.contains("join #deploys"), "{told}");
    types(&["peer", "topic", "join", "deploys", "--as", "bob"]);
    let posts = |text: &str| types(&["peer", "topic", "post", "deploys", text, "--as", "bob"]);
    posts("before");
    let tail = ["peer", "topic", "tail", "deploys", "--count", "3", "--as", "ada"];
    let mut ada = Printing::start(command(&tail));
    assert_eq!(ada.next()["text"], "before");
    let ids = ["one", "two"].map(|text| posts(text)["messageId"].clone());
    for (id, text) in ids.iter().zip(["one", "two"]) {
        let next = ada.next();
        assert_eq!(
            (&next["id"], &next["text"], &next["senderName"]),
            (id, &json!(text), &json!("bob"))
        );
    }
    assert_eq!(ada.wait().code(), Some(0), "three were enough");

    let history = types(&["peer", "topic", "history", "deploys", "--limit", "2", "--as", "ada"]);
    let texts: Vec<&Value> =
        history["messages"].as_array().expect("a list").iter().map(|m| &m["text"]).collect();
    assert_eq!(texts, ["one", "two"], "the last two, the oldest first");
    types(&["peer", "topic", "read", "deploys", "--as", "ada"]);
    ask_until("she has read it", || {
        let members = types(&["peer", "topic", "members", "deploys", "--as", "bob"]);
        members["members"][0]["displayName"] == "ada"
            && members["members"][0]["lastReadAt"].is_string()
    });
    let listed = types(&["peer", "topic", "list", "--as", "bob"]);
    assert_eq!(
        (&listed["topics"][0]["name"], &listed["topics"][0]["memberCount"]),
        (&json!("deploys"), &json!(2))
    );
    types(&["peer", "topic", "leave", "deploys", "--as", "bob"]);
    let gone = typed(&["peer", "topic", "history", "deploys", "--as", "bob"]);
    assert!(String::from_utf8_lossy(&gone.stderr).contains("forbidden"), "{gone:?}");
}
