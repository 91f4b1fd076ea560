//! Topics by the HTTP API: who reads and posts, and streams that say each post once.

use claudemesh_broker::clock::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{call, coded, key, refusal};
use crate::harness::http::{Reply, request};
use crate::harness::{Cluster, Member, Node, PATIENCE, Raw, Setup, until};

pub(super) async fn both_key(raw: &mut Raw) -> String {
    key(raw, json!(["read", "send"]), json!({})).await.1
}

pub(super) async fn creates(raw: &mut Raw, name: &str, visibility: &str) -> String {
    let create = json!({ "type": "topic_create", "name": name, "visibility": visibility });
    let made = raw.ask(create).await;
    made["topic"]["id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
}

pub(super) async fn joins(raw: &mut Raw, topic: &str) {
    let ack = raw.ask(json!({ "type": "topic_join", "topic": topic })).await;
    assert_eq!(ack["type"], "ack", "{ack}");
}

pub(super) async fn send(
    node: &Node,
    method: &str,
    path: &str,
    secret: &str,
    body: Value,
) -> Reply {
    let shown = format!("Bearer {secret}");
    let headers = [("authorization", shown.as_str()), ("content-type", "application/json")];
    request(node, method, &format!("/api/v1{path}"), &headers, &body.to_string()).await
}

/// Posts a text; what is answered.
pub(super) async fn posts(node: &Node, secret: &str, topic: &str, ciphertext: &str) -> Value {
    let body = json!({ "topic": topic, "ciphertext": ciphertext, "nonce": "AAAA" });
    let reply = send(node, "POST", "/messages", secret, body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

/// A topic's stream.
struct Stream {
    lines: BufReader<TcpStream>,
}

impl Stream {
    async fn open(node: &Node, topic: &str, secret: &str) -> Self {
        let mut stream = TcpStream::connect(node.address).await.expect("a connection");
        let head = format!(
            "GET /api/v1/topics/{topic}/stream HTTP/1.1\r\nhost: x\r\n\
             authorization: Bearer {secret}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("writable");
        let mut opened = Self { lines: BufReader::new(stream) };
        let (event, data, _) = opened.next().await.expect("a stream");
        assert_eq!((&*event, &data["topic"]), ("ready", &json!(topic)), "{data}");
        assert_eq!(data["connectedAt"].as_str().map(str::len), Some(24));
        opened
    }

    /// The next event: its name, data and id; `None` at the end of the stream.
    async fn next(&mut self) -> Option<(String, Value, String)> {
        let (mut event, mut data, mut id) = (String::new(), Value::Null, String::new());
        loop {
            let mut line = String::new();
            let read = timeout(PATIENCE, self.lines.read_line(&mut line)).await.expect("in time");
            // The last part of a body that comes in parts.
            if read.unwrap_or(0) == 0 || line == "0\r\n" {
                return None;
            }
            if let Some(rest) = line.strip_prefix("event: ") {
                event = rest.trim().to_owned();
            } else if let Some(rest) = line.strip_prefix("data: ") {
                data = serde_json::from_str(rest).expect("JSON");
            } else if let Some(rest) = line.strip_prefix("id: ") {
                id = rest.trim().to_owned();
            } else if line == "\n" && !event.is_empty() {
                return Some((event, data, id));
            }
        }
    }

    /// The next post.
    async fn post(&mut self) -> Value {
        let (event, data, id) = self.next().await.expect("the stream goes on");
        assert_eq!((&*event, data["id"].as_str()), ("message", Some(&*id)), "{data}");
        data
    }

    async fn ends(&mut self) {
        assert_eq!(self.next().await, None);
    }
}

#[tokio::test]
async fn answers_by_a_key_come_to_an_end_as_those_of_sessions_do() {
    let node = Node::start_with(|config| config.message.hops_max = 1).await;
    let (ada, bob) = (node.member("ada").await, node.member("bob").await);
    let (mut a, mut b) = (Raw::hello(&node, &ada).await, Raw::hello(&node, &bob).await);
    creates(&mut a, "deploys", "public").await;
    joins(&mut b, "deploys").await;
    let secrets = [both_key(&mut a).await, both_key(&mut b).await];
    let answer = async |secret: &str, to: &Value| {
        let body = json!({ "topic": "deploys", "ciphertext": "eA==", "nonce": "AAAA",
            "replyToId": to });
        send(&node, "POST", "/messages", secret, body).await
    };
    let first = posts(&node, &secrets[0], "deploys", "eA==").await["messageId"].take();
    let second = answer(&secrets[1], &first).await.json()["messageId"].take();
    let push = a.message().await;
    assert_eq!((&push["messageId"], &push["hop"]), (&second, &json!(1)));
    let refused = answer(&secrets[0], &second).await;
    let body = refused.json();
    assert_eq!((refused.status, &body["error"]), (409, &json!("loop")));
    assert!(body["message"].as_str().is_some_and(|text| text.contains("a person")), "{body}");
    assert_eq!(answer(&secrets[0], &first).await.status, 200, "to its own it is no answer");
}

#[tokio::test]
async fn a_post_by_a_key_is_one_of_its_member() {
    let node = Node::start().await;
    let (ada, bob) = (node.member("ada").await, node.member("bob").await);
    let (mut a, mut b) = (Raw::hello(&node, &ada).await, Raw::hello(&node, &bob).await);
    let topic = creates(&mut a, "deploys", "public").await;
    joins(&mut b, "deploys").await;
    let secret = both_key(&mut a).await;
    // "hi @BOB, @ada, @nobody"
    let text = "aGkgQEJPQiwgQGFkYSwgQG5vYm9keQ==";
    let posted = posts(&node, &secret, "deploys", text).await;
    let id = posted["messageId"].as_str().expect("an id").to_owned();
    let expected = json!({ "messageId": id, "historyId": id, "queueId": id, "topic": "deploys",
        "topicId": topic, "notifications": 1, "bodyVersion": 1 });
    assert_eq!((posted, id.len()), (expected, 32));
    let push = b.message().await;
    assert_eq!((&push["messageId"], &push["topic"]), (&json!(id), &json!("deploys")), "{push}");
    b.confirm(&push).await;
    assert_eq!(node.audit_count("message_sent").await, 1);

    let reply = json!({ "topic": "deploys", "ciphertext": "eA==", "nonce": "AAAA",
        "bodyVersion": 2, "mentions": ["@Bob", "eve"], "replyToId": id,
        "client_message_id": "mine" });
    let second = send(&node, "POST", "/messages", &secret, reply.clone()).await.json();
    assert_eq!((&second["replyToId"], &second["notifications"]), (&json!(id), &json!(1)));
    let again = send(&node, "POST", "/messages", &secret, reply).await.json();
    assert_eq!(again["messageId"], second["messageId"], "posted once");
    let stray = json!({ "topic": "deploys", "ciphertext": "eA==", "nonce": "AAAA",
        "replyToId": "nothing" });
    let stray = send(&node, "POST", "/messages", &secret, stray).await.json();
    assert_eq!(stray.get("replyToId"), None, "dropped");

    let history = call(&node, "/api/v1/topics/deploys/messages", &secret).await.json();
    let messages = history["messages"].as_array().expect("messages");
    let ids: Vec<_> = messages.iter().map(|post| &post["id"]).collect();
    assert_eq!(ids, [&stray["messageId"], &second["messageId"], &json!(id)]);
    let expected = json!({ "id": id, "senderMemberId": ada.id, "senderPubkey": ada.pubkey(),
        "senderName": "ada", "nonce": "AAAA", "ciphertext": text, "bodyVersion": 1,
        "replyToId": null, "createdAt": messages[2]["createdAt"] });
    assert_eq!(messages[2], expected);
    let of = async |query: &str| {
        let path = format!("/api/v1/topics/deploys/messages?{query}");
        let page = call(&node, &path, &secret).await.json();
        page["messages"].as_array().expect("messages").len()
    };
    let before = second["messageId"].as_str().expect("an id");
    assert_eq!(of("limit=2").await, 2);
    assert_eq!(of(&format!("before={before}")).await, 1);
    assert_eq!(of("before=nothing").await, 0, "it is none of the topic");

    let unread = async |secret: &str| {
        let listed = call(&node, "/api/v1/topics", secret).await.json();
        listed["topics"][0]["unread"].clone()
    };
    let reads = key(&mut b, json!(["read"]), json!({})).await.1;
    assert_eq!((unread(&secret).await, unread(&reads).await), (json!(0), json!(3)));
    let read = send(&node, "PATCH", "/topics/deploys/read", &reads, json!({})).await.json();
    assert_eq!((&read["topic"], &read["topicId"]), (&json!("deploys"), &json!(topic)));
    assert_eq!(unread(&reads).await, 0);
    let key = call(&node, "/api/v1/topics/deploys/key", &secret).await.json();
    assert!(key["encryptedKey"].is_string() && key["nonce"].is_string(), "{key}");
    assert_eq!(key["senderPubkey"].as_str().map(str::len), Some(64));
}

#[tokio::test]
async fn a_topic_is_for_those_who_are_in_it() {
    let node = Node::start().await;
    let mut a = Raw::hello(&node, &node.member("ada").await).await;
    let mut b = Raw::hello(&node, &node.member("bob").await).await;
    let id = creates(&mut a, "open", "public").await;
    creates(&mut a, "we ird/x", "private").await;
    let own = both_key(&mut a).await;
    let others = both_key(&mut b).await;
    posts(&node, &own, "we ird/x", "eA==").await;
    for tail in ["messages", "stream", "key"] {
        let path = format!("/api/v1/topics/we%20ird%2Fx/{tail}");
        let reply = call(&node, &path, &others).await;
        assert_eq!((reply.status, &reply.json()["error"]), (404, &json!("topic_not_found")));
        assert_eq!(reply.json()["topic"], "we ird/x");
        if tail != "key" {
            let path = format!("/api/v1/topics/open/{tail}");
            let reply = call(&node, &path, &others).await;
            assert_eq!((reply.status, &reply.json()["error"]), (403, &json!("not_in_topic")));
        }
    }
    for (topic, status) in [("we ird/x", 404), ("open", 403), ("nothing", 404)] {
        let body = json!({ "topic": topic, "ciphertext": "eA==", "nonce": "A" });
        assert_eq!(send(&node, "POST", "/messages", &others, body).await.status, status);
    }
    let by_id = json!({ "topic": id, "ciphertext": "eA==", "nonce": "A" });
    let by_id = send(&node, "POST", "/messages", &own, by_id).await;
    assert_eq!(by_id.status, 404, "keys are bound to names");
    let outside = json!({ "topic": "we ird/x", "ciphertext": "eA==", "nonce": "A",
        "mentions": ["bob"] });
    let outside = send(&node, "POST", "/messages", &own, outside).await.json();
    assert_eq!(outside["notifications"], 0, "he may not read it");
    let read = send(&node, "PATCH", "/topics/we%20ird%2Fx/read", &others, json!({})).await;
    assert_eq!(read.status, 404, "reading joins nothing");
    let names = async |secret: &str| {
        let listed = call(&node, "/api/v1/topics", secret).await.json();
        let topics = listed["topics"].as_array().expect("topics").clone();
        topics.iter().map(|topic| topic["name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&others).await, ["open"]);
    assert_eq!(names(&own).await, ["open", "we ird/x"]);
    let scope = json!({ "topicScopes": ["open"] });
    let (_, scoped) = key(&mut a, json!(["read", "send"]), scope).await;
    assert_eq!(names(&scoped).await, ["open"]);
    let path = "/api/v1/topics/we%20ird%2Fx/messages";
    let refused = refusal(&call(&node, path, &scoped).await, path);
    assert_eq!(refused, coded(403, "error.api_key_topic_out_of_scope"));
    let (_, reads) = key(&mut a, json!(["read"]), json!({})).await;
    let body = json!({ "topic": "open", "ciphertext": "eA==", "nonce": "A" });
    let reply = send(&node, "POST", "/messages", &reads, body).await;
    assert_eq!(refusal(&reply, "/api/v1/messages").0, 403);
    let reply = send(&node, "POST", "/messages", &reads, json!({ "topic": "open" })).await;
    let expected = coded(422, "validation:error.undefined");
    assert_eq!(refusal(&reply, "/api/v1/messages"), expected);
    assert_eq!(reply.json()["message"], "ciphertext is required");
}

/// A topic with a lead and one more member, each with a socket.
async fn two(node: &Node, topic: &str) -> (Raw, Raw, Member) {
    let (ada, bob) = (node.member("ada").await, node.member("bob").await);
    let (mut a, mut b) = (Raw::hello(node, &ada).await, Raw::hello(node, &bob).await);
    creates(&mut a, topic, "public").await;
    joins(&mut b, topic).await;
    (a, b, bob)
}

#[tokio::test]
async fn a_stream_says_each_post_once_and_ends_when_its_reader_may_no_longer() {
    let node = Node::start().await;
    let (mut a, mut b, _) = two(&node, "t").await;
    let writes = both_key(&mut a).await;
    posts(&node, &writes, "t", "b2xk").await;
    let (id, reads) = key(&mut b, json!(["read"]), json!({})).await;
    let other = key(&mut b, json!(["read"]), json!({})).await.1;
    let mut stream = Stream::open(&node, "t", &reads).await;
    let mut second = Stream::open(&node, "t", &other).await;
    for n in 0..5 {
        let posted = match n % 2 {
            0 => posts(&node, &writes, "t", "bmV3").await["messageId"].clone(),
            _ => a.sent("#t", "next", "bmV3").await.into(),
        };
        let post = stream.post().await;
        assert_eq!(post["id"], posted, "none before it was opened, and each once");
        assert_eq!((&post["senderName"], &post["ciphertext"]), (&json!("ada"), &json!("bmV3")));
        assert_eq!(second.post().await, post);
    }
    b.ask(json!({ "type": "apikey_revoke", "id": id })).await;
    stream.ends().await;
    posts(&node, &writes, "t", "bmV3").await;
    second.post().await;
    b.ask(json!({ "type": "topic_leave", "topic": "t" })).await;
    second.ends().await;
}

#[tokio::test]
async fn a_stream_outlives_its_key_and_not_its_member() {
    let node = Node::start().await;
    let (mut a, mut b, _) = two(&node, "t").await;
    let writes = both_key(&mut a).await;
    let soon = Timestamp::now().plus_ms(1500);
    let (_, reads) = key(&mut b, json!(["read"]), json!({ "expiresAt": soon })).await;
    let mut stream = Stream::open(&node, "t", &reads).await;
    until("the key has run out", async || {
        call(&node, "/api/v1/topics", &reads).await.status == 401
    })
    .await;
    posts(&node, &writes, "t", "bmV3").await;
    stream.post().await;
    let mut owner = Raw::hello(&node, &node.owner).await;
    assert_eq!(owner.ask(json!({ "type": "ban", "target": "bob" })).await["type"], "ban_ack");
    stream.ends().await;
}

#[tokio::test]
async fn a_stream_on_any_node_has_each_post_of_any_other_once() {
    let cluster = Cluster::start(3).await;
    let [one, two_, three] = &cluster.nodes[..] else { unreachable!() };
    let (mut a, mut b, _) = two(one, "t").await;
    let writes = both_key(&mut a).await;
    let reads = key(&mut b, json!(["read"]), json!({})).await.1;
    // The third node serves nobody of the mesh.
    let mut streams = Vec::new();
    for node in [one, two_, three] {
        streams.push(Stream::open(node, "t", &reads).await);
    }
    for node in [two_, one, three, three] {
        let posted = posts(node, &writes, "t", "eA==").await;
        for stream in &mut streams {
            assert_eq!(stream.post().await["id"], posted["messageId"]);
        }
        let push = b.message().await;
        assert_eq!(push["messageId"], posted["messageId"], "whoever is connected has it too");
        b.confirm(&push).await;
    }
}

#[tokio::test]
async fn what_a_killed_node_took_is_in_the_streams_of_the_others() {
    let mut cluster = Setup::new(3).start_processes().await;
    let (mut a, mut b, _) = two(&cluster.nodes[1], "t").await;
    let writes = both_key(&mut a).await;
    let reads = key(&mut b, json!(["read"]), json!({})).await.1;
    let mut stream = Stream::open(&cluster.nodes[2], "t", &reads).await;
    let first = posts(&cluster.nodes[0], &writes, "t", "eA==").await;
    cluster.processes[0].kill9().await;
    let second = posts(&cluster.nodes[1], &writes, "t", "eA==").await;
    assert_eq!(stream.post().await["id"], first["messageId"]);
    assert_eq!(stream.post().await["id"], second["messageId"]);
}
