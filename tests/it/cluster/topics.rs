//! Topics over several nodes.

use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::id::{self, MessageId, TopicId};
use claudemesh_broker::protocol::Priority;
use claudemesh_broker::store::{Envelope, NewEnvelope, Post, Reach};
use serde_json::{Value, json};

use crate::harness::{Cluster, Member, Raw, Setup, until};

async fn joins(raw: &mut Raw, topic: &str) {
    let ack = raw.ask(json!({ "type": "topic_join", "topic": topic })).await;
    assert_eq!(ack["type"], "ack", "{ack}");
}

async fn creates(raw: &mut Raw, name: &str) -> TopicId {
    let made = raw.ask(json!({ "type": "topic_create", "name": name })).await;
    TopicId::from(made["topic"]["id"].as_str().expect("an id"))
}

async fn gets(raw: &mut Raw, id: &str) -> Value {
    let push = raw.message().await;
    assert_eq!(push["messageId"], id, "{push}");
    raw.confirm(&push).await;
    push
}

#[tokio::test]
async fn members_on_every_node_get_each_post_once_in_one_order() {
    let cluster = Cluster::start(3).await;
    let [one, two, three] = &cluster.nodes[..] else { unreachable!() };
    let mut members = Vec::new();
    for name in ["alice", "bob", "carol", "eve"] {
        members.push(one.member(name).await);
    }
    let mut a = Raw::hello(one, &members[0]).await;
    let mut b = Raw::hello(two, &members[1]).await;
    let mut c = Raw::hello(three, &members[2]).await;
    let mut e = Raw::hello(three, &members[3]).await;
    creates(&mut a, "t").await;
    let old = a.sent("#t", "next", "b2xk").await;
    joins(&mut b, "t").await;
    joins(&mut c, "t").await;
    for round in 0..5 {
        for sender in 0..3 {
            let raws = [&mut a, &mut b, &mut c];
            let mut others: Vec<&mut Raw> = Vec::new();
            let mut from = None;
            for (at, raw) in raws.into_iter().enumerate() {
                if at == sender {
                    from = Some(raw);
                } else {
                    others.push(raw);
                }
            }
            let from = from.expect("a sender");
            let id = from.sent("#t", "next", &format!("bXNn{round}A==")).await;
            for raw in others {
                let push = gets(raw, &id).await;
                assert_eq!(push["topic"], "t");
            }
        }
    }
    let broadcast = a.sent("*", "next", "YWxs").await;
    for raw in [&mut b, &mut c, &mut e] {
        gets(raw, &broadcast).await;
        assert!(raw.messages_so_far().await.is_empty(), "each once, and {old} to nobody");
    }
    joins(&mut e, "t").await;
    let id = b.sent("#t", "next", "bmV3").await;
    for raw in [&mut a, &mut c, &mut e] {
        gets(raw, &id).await;
    }
    c.ask(json!({ "type": "topic_leave", "topic": "t" })).await;
    let id = b.sent("#t", "next", "YnllIQ==").await;
    gets(&mut a, &id).await;
    gets(&mut e, &id).await;
    let marker = b.sent("*", "next", "bWFyaw==").await;
    gets(&mut c, &marker).await;
    assert!(one.audit_is_valid().await);
}

#[tokio::test]
async fn a_member_that_was_away_gets_on_another_node_what_it_missed() {
    let cluster = Setup::new(3).set("LEASE_GRACE_SECONDS", "0.2").start().await;
    let [one, two, three] = &cluster.nodes[..] else { unreachable!() };
    let (alice, bob) = (one.member("alice").await, one.member("bob").await);
    let mut a = Raw::hello(one, &alice).await;
    creates(&mut a, "t").await;
    let mut b = Raw::hello(two, &bob).await;
    joins(&mut b, "t").await;
    let first = a.sent("#t", "next", "MQ==").await;
    gets(&mut b, &first).await;
    b.so_far().await;
    b.goodbye().await;
    a.event("peer_left").await;
    let mut missed = Vec::new();
    for _ in 0..100 {
        missed.push(a.sent("#t", "next", "Mg==").await);
    }
    let mut b = Raw::hello(three, &bob).await;
    for id in &missed {
        gets(&mut b, id).await;
    }
    assert!(b.messages_so_far().await.is_empty());
}

/// As a node does that dies between the commit and telling anybody.
async fn commits(cluster: &Cluster, from: &Member, topic: &TopicId) -> NewEnvelope {
    let post = NewEnvelope {
        envelope: Envelope {
            id: MessageId::from(id::random()),
            mesh: cluster.nodes[0].mesh.clone(),
            sender_member: from.id.clone(),
            sender_name: from.name.clone(),
            sender_session_key: None,
            target_spec: format!("#{topic}"),
            priority: Priority::Next,
            nonce: "bm9uY2U=".to_owned(),
            ciphertext: "b3JwaGFu".to_owned(),
            client_message_id: Some(id::generate()),
            request_fingerprint: None,
            reply_to_id: None,
            scheduled: None,
            properties: None,
        },
        reach: Reach::Topic(Box::new(Post {
            topic: topic.clone(),
            name: "t".to_owned(),
            body_version: 1,
            mentions: Vec::new(),
        })),
    };
    let batch = std::slice::from_ref(&post);
    let store = &cluster.nodes[0].store;
    store.envelopes.accept(Timestamp::now(), batch).await.expect("it is kept");
    post
}

#[tokio::test]
async fn a_post_that_nobody_was_told_of_comes_before_the_next_and_when_it_is_sent_again() {
    let cluster = Setup::new(2).set("REDELIVERY_SECONDS", 3600).start().await;
    let [one, two] = &cluster.nodes[..] else { unreachable!() };
    let (alice, bob) = (one.member("alice").await, one.member("bob").await);
    let mut a = Raw::hello(one, &alice).await;
    let mut b = Raw::hello(two, &bob).await;
    let topic = creates(&mut a, "t").await;
    joins(&mut b, "t").await;
    let first = a.sent("#t", "next", "MQ==").await;
    gets(&mut b, &first).await;
    let orphan = commits(&cluster, &alice, &topic).await;
    let next = a.sent("*", "next", "Mg==").await;
    gets(&mut b, orphan.id.as_str()).await;
    gets(&mut b, &next).await;

    let orphan = commits(&cluster, &alice, &topic).await;
    let again = json!({
        "type": "send", "targetSpec": "#t", "priority": "next", "nonce": orphan.nonce,
        "ciphertext": orphan.ciphertext, "client_message_id": orphan.client_message_id,
    });
    assert_eq!(a.ask(again).await["messageId"], orphan.id.as_str(), "the same post");
    gets(&mut b, orphan.id.as_str()).await;
    assert!(b.messages_so_far().await.is_empty());
}

#[tokio::test]
async fn nothing_that_was_acknowledged_is_lost_with_the_node_that_took_it() {
    let mut cluster = Setup::new(2).start_processes().await;
    let (alice, bob) =
        (cluster.nodes[0].member("alice").await, cluster.nodes[0].member("bob").await);
    let mut a = Raw::hello(&cluster.nodes[0], &alice).await;
    let mut b = Raw::hello(&cluster.nodes[1], &bob).await;
    creates(&mut a, "t").await;
    joins(&mut b, "t").await;
    let mut sent = Vec::new();
    for _ in 0..20 {
        sent.push(a.sent("#t", "next", "MQ==").await);
    }
    cluster.processes[0].kill9().await;
    let mut a = Raw::hello(&cluster.nodes[1], &alice).await;
    sent.push(a.sent("#t", "next", "Mg==").await);
    for id in &sent {
        gets(&mut b, id).await;
    }
    assert!(b.messages_so_far().await.is_empty(), "each once");
}

/// A dashboard's own routes write into the shared tables.
#[tokio::test]
async fn a_post_of_another_program_reaches_the_members() {
    let cluster = Cluster::start(2).await;
    let [one, two] = &cluster.nodes[..] else { unreachable!() };
    let (alice, bob) = (one.member("alice").await, one.member("bob").await);
    let mut a = Raw::hello(one, &alice).await;
    let mut b = Raw::hello(two, &bob).await;
    let topic = creates(&mut a, "t").await;
    joins(&mut b, "t").await;
    let post = id::random();
    let (mesh, sender) = (&one.mesh, &alice.id);
    let statements = format!(
        "insert into mesh.topic_message (id, topic_id, sender_member_id, nonce, ciphertext)
         values ('{post}', '{topic}', '{sender}', 'bm9uY2U=', 'cG9zdA==');
         insert into mesh.message_queue (id, mesh_id, sender_member_id, target_spec, nonce,
            ciphertext)
         values ('{}', '{mesh}', '{sender}', '#{topic}', 'bm9uY2U=', 'cG9zdA==')",
        id::random()
    );
    let mut other = crate::harness::postgres::connection(cluster.database()).await;
    let statements = sqlx::AssertSqlSafe(statements);
    sqlx::raw_sql(statements).execute(&mut other).await.expect("good statements");
    gets(&mut b, &post).await;
    until("nothing waits", async || one.store.messages.depth().await.expect("readable") == 0).await;
    let next = a.sent("#t", "next", "bmV4dA==").await;
    gets(&mut b, &next).await;
    assert!(b.messages_so_far().await.is_empty());
}

/// Nobody was told of it: no node served the mesh.
#[tokio::test]
async fn what_another_program_posted_before_anybody_came_is_read_by_who_comes() {
    let cluster = Cluster::start(2).await;
    let [one, two] = &cluster.nodes[..] else { unreachable!() };
    let (alice, bob) = (one.member("alice").await, one.member("bob").await);
    let (topic, post) = (id::random(), id::random());
    let (mesh, sender, member) = (&one.mesh, &alice.id, &bob.id);
    let statements = format!(
        "insert into mesh.topic (id, mesh_id, name) values ('{topic}', '{mesh}', 't');
         insert into mesh.topic_member (topic_id, member_id) values ('{topic}', '{member}');
         insert into mesh.topic_message (id, topic_id, sender_member_id, nonce, ciphertext)
         values ('{post}', '{topic}', '{sender}', 'bm9uY2U=', 'cG9zdA==')"
    );
    let mut other = crate::harness::postgres::connection(cluster.database()).await;
    let statements = sqlx::AssertSqlSafe(statements);
    sqlx::raw_sql(statements).execute(&mut other).await.expect("good statements");
    let mut b = Raw::hello(two, &bob).await;
    gets(&mut b, &post).await;
}

#[tokio::test]
async fn what_is_scheduled_for_a_topic_is_posted_to_it_by_whichever_node() {
    let cluster = Cluster::start(2).await;
    let [one, two] = &cluster.nodes[..] else { unreachable!() };
    let (alice, bob) = (one.member("alice").await, one.member("bob").await);
    let mut a = Raw::hello(one, &alice).await;
    let mut b = Raw::hello(two, &bob).await;
    let topic = creates(&mut a, "t").await;
    let later = json!({ "type": "schedule", "to": "#t", "message": "hi @bob", "deliverAt": 1 });
    let refused = b.ask(later.clone()).await;
    assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!("topic")));
    joins(&mut b, "t").await;
    assert_eq!(a.ask(later).await["type"], "scheduled_ack");
    let push = b.message().await;
    assert_eq!((&push["topic"], &push["ciphertext"]), (&json!("t"), &json!("aGkgQGJvYg==")));
    b.confirm(&push).await;
    let history = a.ask(json!({ "type": "topic_history", "topic": topic })).await;
    let posts = history["messages"].as_array().expect("a list");
    assert_eq!((posts.len(), &posts[0]["id"]), (1, &push["messageId"]));
    let mentioned = "select count(*) from mesh.notification";
    let mut database = crate::harness::postgres::connection(cluster.database()).await;
    let count: i64 =
        sqlx::query_scalar(mentioned).fetch_one(&mut database).await.expect("readable");
    assert_eq!(count, 1);
}
