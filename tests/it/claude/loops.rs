//! Sessions whose models answer everything, through their servers and a real broker: they
//! come to an end, are told so, and whoever can help still hears that they are stuck.

use claudemesh_broker::client::ClientOptions;
use claudemesh_broker::config::Config;
use claudemesh_broker::protocol::Priority;
use serde_json::json;

use super::hooks::host::messages_of;
use super::host::{Host, User};
use crate::harness::Node;

const HOPS_MAX: u32 = 6;
const BURST: u32 = 5;

/// Sessions of so many members, each with a server of its own.
struct Ring {
    node: Node,
    sessions: Vec<(String, Host)>,
    _users: Vec<User>,
}

impl Ring {
    async fn of(names: &[&str], adjust: impl FnOnce(&mut Config)) -> Self {
        let node = Node::start_with(adjust).await;
        let (mut sessions, mut users) = (Vec::new(), Vec::new());
        for name in names {
            let user = User::new().joined(&node, &node.member(name).await);
            sessions.push(((*name).to_owned(), user.host_apart("s1", &[]).await));
            users.push(user);
        }
        let mut ring = Self { node, sessions, _users: users };
        for (name, host) in &mut ring.sessions {
            for other in names.iter().filter(|other| *other != name) {
                host.call_until("list_peers", json!({}), other).await;
            }
        }
        ring
    }

    /// Each answers what it reads, or says as much without answering, until one may not. How
    /// many were sent, what the last was told, and who it is.
    async fn goes_round(&mut self, answers: bool) -> (u32, String, usize) {
        let to = self.sessions[1].0.clone();
        let first = json!({ "to": to, "message": "ping" });
        self.sessions[0].1.call("send_message", first).await;
        let count = self.sessions.len();
        for sent in 1..200 {
            let at = sent as usize % count;
            let next = self.sessions[(at + 1) % count].0.clone();
            let host = &mut self.sessions[at].1;
            let read = host.call_until("check_messages", json!({}), "\"body\"").await;
            let [message] = &messages_of(&read)[..] else { panic!("one: {read}") };
            let mut say = json!({ "to": next, "message": format!("pong {sent}") });
            if answers {
                say["reply_to"] = message["id"].clone();
            }
            let (said, is_error) = host.called("send_message", say).await;
            if is_error {
                return (sent, said, at);
            }
        }
        panic!("they go on for ever");
    }
}

#[tokio::test]
async fn two_models_that_answer_each_other_always_are_stopped_and_told_to_stop() {
    for names in [&["ada", "bob"][..], &["ada", "bob", "carol"][..]] {
        let mut ring = Ring::of(names, |config| config.message.hops_max = HOPS_MAX).await;
        let (sent, said, at) = ring.goes_round(true).await;
        assert_eq!(sent, HOPS_MAX + 1, "{names:?}");
        assert!(said.contains("loop: ") && said.contains("Stop answering"), "{said}");
        assert!(said.contains("your user"), "{said}");
        // Nothing else is taken from them: a new chain may begin.
        let (to, host) = (names[0], &mut ring.sessions[at].1);
        let to = if names[at] == to { names[1] } else { to };
        let said = host.call("send_message", json!({ "to": to, "message": "something new" })).await;
        assert!(said.starts_with("Sent to"), "{said}");
    }
}

#[tokio::test]
async fn two_models_that_write_each_other_always_are_slowed_and_that_they_are_stuck_gets_out() {
    let few = |config: &mut Config| {
        let message = &mut config.message;
        (message.send_rate_per_minute, message.send_burst) = (1, BURST);
        (message.pair_rate_per_minute, message.pair_burst) = (1, BURST);
    };
    let mut ring = Ring::of(&["ada", "bob"], few).await;
    let owner = ClientOptions::session(ring.node.owner.identity(&ring.node.mesh));
    let (_owner, mut heard) = ring.node.connect(owner).await;
    let (sent, said, at) = ring.goes_round(false).await;
    assert_eq!(sent, 2 * BURST, "each has sent as many as it may");
    assert!(said.contains("rate_limit: ") && said.contains("Try again in"), "{said}");
    let host = &mut ring.sessions[at].1;
    let stuck = |priority: &str| json!({ "to": "owner", "message": "stuck", "priority": priority });
    let (said, is_error) = host.called("send_message", stuck("next")).await;
    assert!(is_error && said.contains("rate_limit: "), "{said}");
    let said = host.call("send_message", stuck("now")).await;
    assert!(said.starts_with("Sent to owner"), "{said}");
    let (push, text) = heard.message().await.expect("the owner hears of it");
    assert_eq!((push.priority, text.as_deref()), (Priority::Now, Some(&b"stuck"[..])));
}
