//! The server under real client libraries, as hosts are made of them. `tests/run` brings
//! their packages; without those, or without Node, these tests say so and pass.

use std::path::PathBuf;
use std::process::Stdio;

use claudemesh_broker::client::ClientOptions;
use claudemesh_broker::protocol::Priority;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{ChildStdout, Command};

use super::host::User;
use crate::harness::{Node, PATIENCE, root};

/// Where `tests/run` puts the packages.
fn packages() -> Option<PathBuf> {
    let folder = root().join("target/mcp-clients");
    let node = std::process::Command::new("node").arg("--version").output();
    let has_node = node.is_ok_and(|output| output.status.success());
    let has_packages = ["sdk", "client"]
        .iter()
        .all(|name| folder.join("node_modules/@modelcontextprotocol").join(name).is_dir());
    (has_node && has_packages).then_some(folder)
}

struct Steps(Lines<BufReader<ChildStdout>>);

impl Steps {
    async fn next(&mut self, step: &str) -> Value {
        let line = tokio::time::timeout(PATIENCE, self.0.next_line()).await;
        let line = line.expect("a step in time").expect("readable").expect("a step before the end");
        let said: Value = serde_json::from_str(&line).expect("an object");
        assert_eq!(said["step"], step, "{said}");
        said["value"].clone()
    }
}

async fn plays_the_host(generation: &str, negotiated: Option<&str>) {
    let Some(packages) = packages() else {
        println!("passed over: no Node, or no packages in target/mcp-clients (see tests/run)");
        return;
    };
    let node = Node::start().await;
    let ada = node.member("ada").await;
    let user = User::new().joined(&node, &ada);
    let bob = node.identity("bob").await;
    let (bob, mut bobs) = node.connect(ClientOptions::session(bob)).await;
    let sent = bob.send(ada.pubkey().as_str(), Priority::Next, "hello from bob").await;
    let id = sent.expect("accepted").message_id;

    let program = env!("CARGO_BIN_EXE_claudemesh-broker");
    let mut command = Command::new("node");
    command
        .arg(root().join("tests/it/claude/host.mjs"))
        .arg(&packages)
        .args([generation, program, "claude", "mcp"])
        .env("CLAUDEMESH_DATA_DIR", user.path())
        .env("CLAUDE_CODE_SESSION_ID", "s1")
        .env("CLAUDEMESH_CHANNEL", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().expect("started");
    let mut steps = Steps(BufReader::new(child.stdout.take().expect("piped")).lines());

    let told = steps.next("initialized").await;
    assert!(told["experimental"]["claude/channel"].is_object(), "{told}");
    assert_eq!(told["negotiated"].as_str(), negotiated, "{told}");
    let tools = steps.next("listed").await;
    assert!(tools.as_array().is_some_and(|tools| tools.len() > 10), "{tools}");
    let pushed = steps.next("pushed").await;
    assert_eq!(pushed["meta"]["message_id"].as_str(), Some(&*id), "{pushed}");
    assert!(pushed["content"].as_str().is_some_and(|text| text.contains("hello from bob")));
    assert_eq!(steps.next("cancelled").await, true);
    let called = steps.next("called").await;
    assert_eq!(called["isError"], false, "{called}");
    let (_, text) = bobs.message().await.expect("an answer");
    assert_eq!(text.as_deref(), Some(&b"from a real client"[..]));
    assert_eq!(steps.next("ended").await["runs"], false);
}

#[tokio::test]
async fn a_client_of_the_first_generation_initializes_lists_calls_cancels_hears_and_ends() {
    plays_the_host("first", None).await;
}

#[tokio::test]
async fn a_client_that_negotiates_lands_on_the_revision_that_has_a_channel() {
    plays_the_host("second", Some("2025-11-25")).await;
}
