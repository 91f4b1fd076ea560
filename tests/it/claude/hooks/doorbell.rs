//! The process that waits in the background to wake an idle session.

use std::io::Write as _;
use std::process::{Child, Output};

use serde_json::json;

use super::host::{Host, Kind, User};
use super::mail::Mail;
use crate::harness::until;

/// Long enough for the other ways to have had their turn.
const LATER_MS: i64 = 20_000;

fn in_a_terminal(user: &User) -> Host<'_> {
    let mut host = user.host(Kind::Claude);
    host.env = vec![("CLAUDE_CODE_ENTRYPOINT", "cli".to_owned())];
    host
}

/// Starts one that waits.
fn started(host: &Host<'_>) -> Child {
    let mut child = host.start("wait");
    let input = json!({ "session_id": host.session, "hook_event_name": "Stop" }).to_string();
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("written");
    child
}

/// Starts one, and waits until it is the one that waits.
async fn waits(host: &Host<'_>, mail: &mut Mail) -> Child {
    let before = mail.waiter().await;
    let child = started(host);
    until("it waits", async || mail.waiter().await != before).await;
    child
}

fn ended(child: Child) -> Output {
    child.wait_with_output().expect("it ends")
}

#[tokio::test]
async fn an_idle_session_is_woken_with_names_and_no_bodies() {
    let user = User::new(&["ada"]);
    let mut host = in_a_terminal(&user);
    host.starts("startup");
    host.prompt("begin");
    let mut mail = host.mail().await;
    let waiter = waits(&host, &mut mail).await;
    assert_eq!(host.stops(false), None);
    mail.comes("m1", "next", "the body").await;
    mail.comes("m2", "low", "the body").await;
    mail.passes(LATER_MS).await;
    let rung = ended(waiter);
    assert_eq!(rung.status.code(), Some(2));
    let text = String::from_utf8(rung.stderr).expect("UTF-8");
    assert!(text.contains("2 messages") && text.contains("bob"), "{text}");
    assert!(!text.contains("body"), "{text}");
    assert!(mail.with_state("seen").await.is_empty(), "to ring is no evidence");
    // Nothing is seen: the next one does not ring, and ends with its host.
    let quiet = waits(&host, &mut mail).await;
    let next = waits(&host, &mut mail).await;
    assert!(ended(quiet).status.success(), "superseded");
    host.crashes();
    let ended = ended(next);
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
}

#[tokio::test]
async fn a_working_session_is_not_woken_and_one_that_is_not_bound_neither() {
    let user = User::new(&["ada"]);
    let mut host = in_a_terminal(&user);
    assert!(ended(started(&host)).status.success(), "nothing is known of it");
    host.starts("startup");
    host.prompt("begin");
    let mut mail = host.mail().await;
    mail.come(1, "next").await;
    mail.passes(LATER_MS).await;
    let waiter = waits(&host, &mut mail).await;
    let after = waits(&host, &mut mail).await;
    let first = ended(waiter);
    assert!(first.status.success() && first.stderr.is_empty(), "{first:?}");
    host.crashes();
    assert!(ended(after).stderr.is_empty());
}

#[tokio::test]
async fn nobody_waits_where_nobody_sits_at_the_host() {
    let user = User::new(&["ada"]);
    let mut host = in_a_terminal(&user);
    host.starts("startup");
    let mut mail = host.mail().await;
    mail.come(1, "next").await;
    mail.passes(LATER_MS).await;
    for entry in [Some("sdk-cli"), None] {
        host.env =
            entry.map(|entry| ("CLAUDE_CODE_ENTRYPOINT", entry.to_owned())).into_iter().collect();
        let ended = ended(started(&host));
        assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    }
    assert_eq!(mail.waiter().await, None);
    host.env = vec![("CLAUDE_CODE_ENTRYPOINT", "cli".to_owned())];
    assert_eq!(ended(started(&host)).status.code(), Some(2));
}
