//! What is kept for all members, sealed under a key that they hold in common.

use std::sync::Arc;

use claudemesh_broker::client::{
    Client, ClientError, ClientOptions, CommonKeyError, Inbound, Outgoing, RESEAL_NEEDED, Secrecy,
};
use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::protocol::{
    Ban, CompleteTask, CreateTask, GetCommonKey, GetState, ListState, ListTasks, Priority, Recall,
    Remember, Schedule, SetState, StateResult, TargetRequest, TopicCreate, TopicHistory,
    TopicInvite, TopicJoin, TopicLeave, Visibility,
};
use serde_json::json;
use tokio::sync::mpsc;

use crate::harness::{Cluster, Member, Node, Raw, until};

/// What no file of the broker may hold in any form.
pub(crate) const CANARY: &str = "canary: the launch codes are 8861";

/// A session that does what a program should with what comes in.
pub(crate) struct Peer {
    pub(crate) client: Client,
    pub(crate) texts: mpsc::Receiver<(Option<String>, bool)>,
}

pub(crate) async fn peer(node: &Node, member: &Member) -> Peer {
    let options = ClientOptions::session(member.identity(&node.mesh));
    let (client, mut inbox) = node.connect(options).await;
    let (told, texts) = mpsc::channel(64);
    let own = client.clone();
    tokio::spawn(async move {
        while let Some(inbound) = inbox.recv().await {
            match own.opened(inbound).await {
                Inbound::Event { event, data } if event == RESEAL_NEEDED => {
                    own.hand_on_keys_beside(Some(data));
                }
                Inbound::Message { plaintext, is_sealed, .. } => {
                    let text = plaintext.map(|text| String::from_utf8(text).expect("text"));
                    let _ = told.send((text, is_sealed)).await;
                }
                _ => {}
            }
        }
    });
    Peer { client, texts }
}

fn set(key: &str, value: &str) -> SetState {
    SetState { key: key.to_owned(), value: json!(value), if_version: None }
}

async fn value(client: &Client, key: &str) -> (serde_json::Value, bool) {
    let ask = GetState { key: key.to_owned() };
    let StateResult(entry) = client.ask_opened(&ask).await.expect("answered");
    (entry.value, entry.sealed)
}

async fn epoch(client: &Client) -> i64 {
    client.ask(&GetCommonKey::default()).await.expect("answered").epoch
}

fn topic(name: &str, visibility: Visibility) -> TopicCreate {
    TopicCreate {
        name: name.to_owned(),
        description: None,
        visibility: Some(visibility),
        encrypted_key_pubkey: None,
        encrypted_key: None,
        nonce: None,
    }
}

/// Both are in a topic that is public and in one that is not, and can be seen.
pub(crate) async fn in_both_topics(a: &Peer, b: &Peer, bob: &Member) {
    a.client.ask(&topic("open", Visibility::Public)).await.expect("made");
    a.client.ask(&topic("closed", Visibility::Private)).await.expect("made");
    let member = bob.pubkey().to_string();
    a.client.ask(&TopicInvite { topic: "closed".to_owned(), member }).await.expect("invited");
    for topic in ["open", "closed"] {
        let ask = TopicJoin { topic: topic.to_owned(), role: None };
        b.client.ask(&ask).await.expect("joined");
    }
    until("both are seen", async || {
        let members = a.client.list_members().await.expect("members");
        members.iter().filter(|member| member.online && member.sealed).count() == 2
    })
    .await;
}

/// One says it all, in every way, sealed.
pub(crate) async fn says_it_all(client: &Client, text: &str) {
    let sealed = Secrecy::Sealed;
    assert_eq!(client.keep(set("plan", text)).await.expect("kept").1, sealed);
    let memory = Remember { content: text.to_owned(), tags: Some(vec!["tag".to_owned()]) };
    assert_eq!(client.keep(memory).await.expect("kept").1, sealed);
    let task = CreateTask { title: text.to_owned(), ..CreateTask::default() };
    let (task, how) = client.keep(task).await.expect("kept");
    assert_eq!(how, sealed);
    let done = CompleteTask { task_id: task.id, result: Some(text.to_owned()) };
    assert_eq!(client.keep(done).await.expect("kept").1, sealed);
    for target in ["*", "#open", "#closed"] {
        let message = Outgoing::new(target, Priority::Next, text);
        assert_eq!(client.send_sealed(message).await.expect("taken").secrecy, sealed, "{target}");
    }
    let (kept, how) = client.seal_for_later("*", text).await.expect("sealed");
    let kept = kept.expect("sealed");
    assert_eq!(how, sealed);
    let schedule = Schedule {
        to: "*".to_owned(),
        nonce: Some(kept.nonce_b64),
        ciphertext: Some(kept.ciphertext_b64),
        deliver_at: Some(Timestamp::now().as_ms()),
        ..Schedule::default()
    };
    client.ask(&schedule).await.expect("scheduled");
}

/// Another reads it all.
pub(crate) async fn reads_it_all(peer: &mut Peer, text: &str) {
    for _ in 0..4 {
        let (said, is_sealed) = peer.texts.recv().await.expect("a message");
        assert_eq!((said.as_deref(), is_sealed), (Some(text), true));
    }
    let client = &peer.client;
    assert_eq!(value(client, "plan").await, (json!(text), true));
    let state = client.ask_opened(&ListState::default()).await.expect("a list");
    assert!(state.entries.iter().all(|entry| entry.sealed), "{state:?}");
    let words = Recall { query: "Codes LAUNCH".to_owned(), ..Recall::default() };
    let found = client.recall(&words).await.expect("found").memories;
    assert_eq!(found.iter().map(|memory| &*memory.content).collect::<Vec<_>>(), [text]);
    let none = Recall { query: "nothing of the kind".to_owned(), ..Recall::default() };
    assert_eq!(client.recall(&none).await.expect("found").memories, []);
    let tasks = client.ask_opened(&ListTasks::default()).await.expect("a list").tasks;
    assert_eq!((&*tasks[0].title, tasks[0].result.as_deref()), (text, Some(text)));
    for topic in ["open", "closed"] {
        let ask = TopicHistory { topic: topic.to_owned(), limit: None, before_id: None };
        let posts = client.ask_opened(&ask).await.expect("a history").messages;
        assert!(posts[0].sealed, "{topic}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_kept_for_all_every_member_reads_on_one_node_and_on_three() {
    for count in [1, 3] {
        let cluster = Cluster::start(count).await;
        let node = |at: usize| &cluster.nodes[at % count];
        let (ada, bob) = (node(0).member("ada").await, node(0).member("bob").await);
        let a = peer(node(0), &ada).await;
        let mut b = peer(node(1), &bob).await;
        in_both_topics(&a, &b, &bob).await;
        says_it_all(&a.client, CANARY).await;
        reads_it_all(&mut b, CANARY).await;
        assert!(node(0).audit_is_valid().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_later_is_given_the_key_by_who_is_there_and_waits_where_nobody_is() {
    for count in [1, 3] {
        let cluster = Cluster::start(count).await;
        let node = |at: usize| &cluster.nodes[at % count];
        let (ada, owner) = (node(0).member("ada").await, &node(0).owner);
        let a = peer(node(0), &ada).await;
        a.client.keep(set("plan", "before")).await.expect("kept");
        let late = node(0).member("late").await;
        let l = peer(node(1), &late).await;
        assert_eq!(value(&l.client, "plan").await, (json!("before"), true));
        l.client.keep(set("plan", "after")).await.expect("kept");
        assert_eq!(epoch(&l.client).await, 1, "it is the same key");
        assert_eq!(value(&a.client, "plan").await, (json!("after"), true));
        // The owner was a member from the beginning: its copy was made while it was away.
        let o = peer(node(2), owner).await;
        assert_eq!(value(&o.client, "plan").await, (json!("after"), true));
        for peer in [a, l, o] {
            peer.client.close().await;
        }
        let last = node(0).member("last").await;
        let n = peer(node(0), &last).await;
        let (unread, sealed) = value(&n.client, "plan").await;
        assert!(sealed && unread.as_str().is_some_and(|text| text.contains("cannot open")));
        let error = n.client.keep(set("plan", "blind")).await.expect_err("it has no key");
        assert!(
            matches!(error, ClientError::CommonKey(CommonKeyError::NotHandedOn)),
            "what others read is not put out of their reach: {error}"
        );
        let _back = peer(node(2), &ada).await;
        until("it is handed on", async || value(&n.client, "plan").await == (json!("after"), true))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_ban_what_is_kept_is_under_a_key_that_the_banned_member_never_had() {
    for count in [1, 3] {
        let cluster = Cluster::start(count).await;
        let node = |at: usize| &cluster.nodes[at % count];
        let (ada, eve) = (node(0).member("ada").await, node(0).member("eve").await);
        let a = peer(node(0), &ada).await;
        let e = peer(node(1), &eve).await;
        e.client.keep(set("plan", "with her")).await.expect("kept");
        let o = peer(node(2), &node(0).owner).await;
        o.client
            .ask(&Ban(TargetRequest { target: Some("eve".to_owned()), reason: None }))
            .await
            .expect("banned");
        assert!(o.client.ask(&GetCommonKey::default()).await.expect("answered").stale);
        a.client.keep(set("next", "without her")).await.expect("kept");
        assert_eq!(epoch(&a.client).await, 2);
        let shown = o.client.ask(&GetCommonKey::default()).await.expect("answered");
        assert!(!shown.stale && !shown.holding.contains(&eve.pubkey()), "{shown:?}");
        for (key, text) in [("plan", "with her"), ("next", "without her")] {
            assert_eq!(value(&o.client, key).await, (json!(text), true), "{key}");
        }
        // She comes back under another key: it is given the newest, which brings the others.
        let again = node(0).member("eve again").await;
        let g = peer(node(1), &again).await;
        assert_eq!(value(&g.client, "plan").await, (json!("with her"), true));
        assert_eq!(epoch(&g.client).await, 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_not_public_has_a_key_of_its_own_and_a_new_one_once_somebody_left() {
    let node = Node::start().await;
    let (ada, bob, eve) =
        (node.member("ada").await, node.member("bob").await, node.member("eve").await);
    let (a, b, e) = (peer(&node, &ada).await, peer(&node, &bob).await, peer(&node, &eve).await);
    a.client.ask(&topic("closed", Visibility::Private)).await.expect("made");
    let of_topic = || GetCommonKey { scope: Some("#closed".to_owned()), renew: false };
    let joins = async |peer: &Peer, member: &Member| {
        let member = member.pubkey().to_string();
        a.client.ask(&TopicInvite { topic: "closed".to_owned(), member }).await.expect("invited");
        let join = TopicJoin { topic: "closed".to_owned(), role: None };
        peer.client.ask(&join).await.expect("joined");
    };
    joins(&b, &bob).await;
    let posts = async |text: &str| {
        let message = Outgoing::new("#closed", Priority::Next, text);
        assert_eq!(a.client.send_sealed(message).await.expect("taken").secrecy, Secrecy::Sealed);
    };
    posts("between us").await;
    let outsider = e.client.ask(&of_topic()).await.expect_err("she is not in it");
    assert_eq!(outsider.code(), Some("topic_not_found"));
    b.client.ask(&TopicLeave { topic: "closed".to_owned() }).await.expect("left");
    posts("without bob").await;
    let key = a.client.ask(&of_topic()).await.expect("answered");
    assert_eq!((key.epoch, &key.holding[..]), (2, &[ada.pubkey()][..]));
    joins(&e, &eve).await;
    let ask = TopicHistory { topic: "closed".to_owned(), limit: None, before_id: None };
    let read = e.client.ask_opened(&ask).await.expect("a history").messages;
    assert!(read.iter().all(|posted| posted.sealed), "she is handed the key, and reads it all");
    assert_eq!(epoch(&a.client).await, 0, "the mesh's key is another, which nobody needed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_make_the_first_key_at_once_end_up_with_one() {
    let cluster = Cluster::start(3).await;
    let mut peers = Vec::new();
    for n in 0..6 {
        let node = &cluster.nodes[n % 3];
        let member = cluster.nodes[0].member(&format!("m{n}")).await;
        peers.push(Arc::new(peer(node, &member).await));
    }
    let writing = peers.iter().enumerate().map(|(n, peer)| {
        let peer = Arc::clone(peer);
        tokio::spawn(async move {
            peer.client.keep(set(&format!("k{n}"), &format!("v{n}"))).await.expect("kept")
        })
    });
    for written in writing.collect::<Vec<_>>() {
        assert_eq!(written.await.expect("no panic").1, Secrecy::Sealed);
    }
    for peer in &peers {
        assert_eq!(epoch(&peer.client).await, 1);
        for n in 0..6 {
            let expected = (json!(format!("v{n}")), true);
            assert_eq!(value(&peer.client, &format!("k{n}")).await, expected);
        }
    }
}

#[tokio::test]
async fn an_old_client_among_new_ones_keeps_and_reads_in_clear_and_all_see_which_is_which() {
    let node = Node::start().await;
    let (ada, old) = (node.member("ada").await, node.member("old").await);
    let a = peer(&node, &ada).await;
    a.client.keep(set("before", "sealed")).await.expect("kept");
    let mut o = Raw::hello(&node, &old).await;
    let (_, how) = a.client.keep(set("plan", "for all")).await.expect("kept");
    assert_eq!(how, Secrecy::InClear { because_of: vec!["old".to_owned()] });
    let shown = o.ask(json!({ "type": "get_state", "key": "plan" })).await;
    let shown = &shown["state"];
    assert_eq!((&shown["value"], shown.get("sealed")), (&json!("for all"), None));
    assert_eq!(value(&a.client, "plan").await, (json!("for all"), false));
    let shown = o.ask(json!({ "type": "get_state", "key": "before" })).await;
    let text = shown["state"]["value"].as_str();
    assert!(text.is_some_and(|text| text.starts_with("sealed:1:")), "{shown}");
    let posted = json!({ "type": "set_state", "key": "his", "value": { "a": 1 } });
    o.ask(posted).await;
    assert_eq!(value(&a.client, "his").await, (json!({ "a": 1 }), false));
}
