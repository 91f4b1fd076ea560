//! `claudemesh-broker top` against a broker that runs.

use std::process::Command;

use serde_json::json;

use crate::harness::program::{Answer, Place, Printing};
use crate::harness::{Node, Raw};
use crate::operators::admin::{self, TOKEN};

fn command(node: &Node, args: &[&str]) -> Command {
    let url = format!("http://{}", node.address);
    let mut command = Place::new().command(&[&["top", "--url", &url], args].concat());
    command.env("ADMIN_TOKEN", TOKEN);
    command
}

async fn run(mut command: Command) -> Answer {
    let output = tokio::task::spawn_blocking(move || command.output());
    Answer::of(&output.await.expect("no panic").expect("the program starts"), &["top"])
}

#[tokio::test(flavor = "multi_thread")]
async fn one_look_shows_nodes_meshes_and_who_is_there() {
    let node = admin::start().await;
    let bob = node.member("bob").await;
    let _b = Raw::hello(&node, &bob).await;
    let look = run(command(&node, &["--once", "--json", "--mesh", "test"])).await;
    assert_eq!((look.code, look.err.as_str()), (0, ""), "{look:?}");
    let shown = look.object();
    assert_eq!(shown["nodes"][0]["id"], node.config.node.id.as_str());
    assert_eq!(shown["nodes"][0]["state"], "ready");
    assert_eq!((&shown["meshes"][0]["slug"], &shown["meshesTotal"]), (&json!("test"), &json!(1)));
    assert_eq!(shown["mesh"]["peers"][0]["name"], "bob");
    assert_eq!(shown["mesh"]["leases"][0]["state"], "online");

    let table = run(command(&node, &["--once", "--mesh", node.mesh.as_str()])).await;
    assert_eq!(table.code, 0, "{table:?}");
    for part in ["node", "ready", "test", " of 100", "bob", "idle", "online, "] {
        assert!(table.out.contains(part), "{part} in {}", table.out);
    }
    // Of a rotation either token does, and a file is as good as a variable.
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{TOKEN},another-token-of-ours\n")).expect("written");
    let file = file.to_str().expect("UTF-8").to_owned();
    // Without a URL: where the settings say that the broker of this machine is.
    let mut by_settings = Place::new().command(&["top", "--once", "--json"]);
    by_settings.env("ADMIN_TOKEN", TOKEN).env("BROKER_BIND", node.address.ip().to_string());
    by_settings.env("BROKER_PORT", node.address.port().to_string());
    assert_eq!(run(by_settings).await.code, 0);
    let mut by_file = command(&node, &["--once", "--json", "--token-file", &file]);
    by_file.env_remove("ADMIN_TOKEN");
    assert_eq!(run(by_file).await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_in_a_sentence() {
    let node = admin::start().await;
    let mut wrong = command(&node, &["--once", "--json"]);
    wrong.env("ADMIN_TOKEN", "a-wrong-token-of-ours");
    assert_eq!(run(wrong).await.failure().0, "unauthorized");
    let mut none = command(&node, &["--once", "--json"]);
    none.env_remove("ADMIN_TOKEN");
    assert_eq!(run(none).await.failure().0, "no_token");
    let nowhere = run(command(&node, &["--once", "--json", "--mesh", "nothing"])).await;
    assert!(nowhere.failure().1.contains("no mesh"), "{nowhere:?}");
    let off = Node::start().await;
    assert_eq!(run(command(&off, &["--once", "--json"])).await.failure().0, "admin_off");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_gets_an_object_each_second() {
    let node = admin::start().await;
    let printing = command(&node, &["--json"]);
    let lines = tokio::task::spawn_blocking(move || {
        let mut printing = Printing::start(printing);
        [printing.next(), printing.next(), printing.next()]
    });
    let lines = lines.await.expect("three lines");
    assert!(lines.iter().all(|line| line["node"] == lines[0]["node"]), "{lines:?}");
    // Two in a row may show the same: who asks while it is read anew gets the last.
    assert_ne!(lines[0]["at"], lines[2]["at"]);
}
