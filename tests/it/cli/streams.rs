//! Streams and the simulation clock, as they are typed.

use serde_json::{Value, json};

use crate::harness::program::{Place, Printing, Serving, ask_until, text};

#[test]
fn what_one_terminal_publishes_another_shows_and_both_move_the_clock() {
    let place = Place::new();
    let broker = Serving::start(&place);
    let port = broker.port.to_string();
    let command = |args: &[&str]| {
        let mut command = place.command(&[args, &["--json"]].concat());
        command.env("BROKER_PORT", &port);
        command
    };
    let types = |args: &[&str]| -> Value {
        let output = command(args).output().expect("the program starts");
        assert!(output.status.success(), "{args:?}: {output:?}");
        serde_json::from_slice(&output.stdout).expect("one object")
    };
    types(&["mesh", "create", "team"]);
    let invite = types(&["invite", "create", "team", "--max-uses", "2"]);
    for name in ["ada", "bob"] {
        types(&["peer", "join", &text(&invite["link"]), "--name", name]);
    }
    let made = types(&["peer", "stream", "create", "builds", "--as", "ada"]);
    let again = types(&["peer", "stream", "create", "builds", "--as", "bob"]);
    assert_eq!((&made["name"], &made["id"]), (&json!("builds"), &again["id"]));
    let listen = ["peer", "stream", "listen", "builds", "--count", "2", "--as", "ada"];
    let mut ada = Printing::start(command(&listen));
    ask_until("she subscribes", || {
        let list = types(&["peer", "stream", "list", "--as", "bob"]);
        list["streams"][0]["subscriberCount"] == 1
    });
    for (typed, data) in [(r#"{"ok":true}"#, json!({ "ok": true })), ("green", json!("green"))] {
        types(&["peer", "stream", "publish", "builds", typed, "--as", "bob"]);
        let told = json!({ "type": "stream_data", "stream": "builds", "data": data,
            "publishedBy": "bob" });
        assert_eq!(ada.next(), told);
    }
    assert_eq!(ada.wait().code(), Some(0), "two were enough");
    types(&["peer", "stream", "delete", "builds", "--as", "bob"]);
    assert_eq!(types(&["peer", "stream", "list", "--as", "ada"])["streams"], json!([]));

    let clock = |args: &[&str]| types(&[&["peer", "clock"], args, &["--as", "ada"]].concat());
    assert_eq!(clock(&["show"])["speed"], 0);
    let set = clock(&["set", "60"]);
    assert_eq!((&set["speed"], &set["tick"]), (&json!(60), &json!(0)));
    assert_eq!(clock(&["pause"])["paused"], true);
    assert_eq!(clock(&["show"])["startedAt"], set["startedAt"]);
}
