//! Files of peers: who may ask, who is asked, and whose answer counts.

use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::id::Key;
use claudemesh_broker::limits;
use serde_json::{Value, json};

use crate::harness::{Member, Node, Raw, until};
use crate::wire::mcp::{begin, only_answer, said_so_far, session};

fn file(target: &Key) -> Value {
    json!({ "type": "peer_file_request", "targetPubkey": target, "filePath": "/x" })
}

async fn lets_read(node: &Node, member: &Member, reader: &Key, capabilities: Option<&[&str]>) {
    let given = capabilities
        .map(|given| given.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>());
    let granted = node.store.members.set_grant(&member.id, reader.as_str(), given.as_deref()).await;
    granted.expect("the store answers");
}

/// Asked, answered and matched, in the frames that older brokers spoke.
pub(crate) async fn a_file_is_read(of_host: &Node, of_reader: &Node) {
    let ada = of_host.member("ada").await;
    let (key, own) = (SecretKey::generate(), SecretKey::generate());
    let (mut host, _) = Raw::session(of_host, &ada, &key).await;
    let (mut reader, _) = Raw::session(of_reader, &ada, &own).await;
    until("both are there", async || {
        reader.ask(json!({ "type": "list_peers" })).await["peers"].as_array().map(Vec::len)
            == Some(2)
    })
    .await;
    let requester = own.public_key();
    begin(&mut reader, file(&key.public_key()), "pf").await;
    assert_eq!(
        host.hear("peer_file_request_forward").await,
        json!({ "type": "peer_file_request_forward", "requesterPubkey": requester,
            "filePath": "/x", "_reqId": "pf" })
    );
    // Neither another id, nor another asker, nor anybody else.
    let says = |requester: &Key, req_id: &str, content: &str| {
        json!({ "type": "peer_file_response", "requesterPubkey": requester, "filePath": "/x",
            "content": content, "_reqId": req_id })
    };
    host.say(says(&requester, "other", "bm8=")).await;
    host.say(says(&key.public_key(), "pf", "bm8=")).await;
    reader.say(says(&requester, "pf", "bm8=")).await;
    reader.so_far().await;
    host.say(says(&requester, "pf", "aGk=")).await;
    assert_eq!(
        only_answer(&mut reader, "pf").await,
        json!({ "type": "peer_file_response_forward", "filePath": "/x", "content": "aGk=",
            "_reqId": "pf" })
    );
    assert_eq!(said_so_far(&mut host).await, Vec::<Value>::new(), "an answer is not answered");

    // In parts, where both can.
    let mut part = file(&key.public_key());
    (part["offset"], part["length"]) = (json!(4096), json!(512));
    begin(&mut reader, part, "part").await;
    let asked = host.hear("peer_file_request_forward").await;
    assert_eq!((&asked["offset"], &asked["length"]), (&json!(4096), &json!(512)));
    let mut said = says(&requester, "part", "aGk=");
    (said["offset"], said["totalBytes"]) = (json!(4096), json!(4098));
    host.say(said).await;
    let answer = only_answer(&mut reader, "part").await;
    assert_eq!((&answer["offset"], &answer["totalBytes"]), (&json!(4096), &json!(4098)));

    let folder = json!({ "type": "peer_dir_request", "targetPubkey": key.public_key(),
        "dirPath": "/d", "pattern": "*.rs" });
    begin(&mut reader, folder, "pd").await;
    assert_eq!(
        host.hear("peer_dir_request_forward").await,
        json!({ "type": "peer_dir_request_forward", "requesterPubkey": requester,
            "dirPath": "/d", "pattern": "*.rs", "_reqId": "pd" })
    );
    host.say(json!({ "type": "peer_dir_response", "requesterPubkey": requester, "dirPath": "/d",
        "entries": ["a.rs"], "_reqId": "pd" }))
        .await;
    assert_eq!(
        only_answer(&mut reader, "pd").await,
        json!({ "type": "peer_dir_response_forward", "dirPath": "/d", "entries": ["a.rs"],
            "_reqId": "pd" })
    );

    // A host that goes away is answered for.
    begin(&mut reader, file(&key.public_key()), "gone").await;
    host.hear("peer_file_request_forward").await;
    host.goodbye().await;
    assert_eq!(
        only_answer(&mut reader, "gone").await,
        json!({ "type": "peer_file_response_forward", "filePath": "/x",
            "error": "the peer has disconnected", "_reqId": "gone" })
    );
    let mut refused = Value::Null;
    until("its node has told the others", async || {
        refused = reader.ask(file(&key.public_key())).await;
        refused["type"] == "error"
    })
    .await;
    let expected = json!({ "type": "error", "code": "peer_not_found",
        "message": "target peer not connected", "_reqId": refused["_reqId"] });
    assert_eq!(refused, expected);
}

#[tokio::test]
async fn a_file_and_a_folder_are_read_by_those_of_the_same_member() {
    let node = Node::start().await;
    a_file_is_read(&node, &node).await;
}

#[tokio::test]
async fn others_read_by_an_entry_alone() {
    let node = Node::start().await;
    let (ada, bob) = (node.member("ada").await, node.member("bob").await);
    let (mut host, mut reader) = (session(&node, &ada).await, session(&node, &bob).await);
    let ask = || file(&ada.pubkey());
    let refused = reader.ask(ask()).await;
    assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!("forbidden")));
    lets_read(&node, &ada, &bob.pubkey(), Some(&["dm", "read"])).await;
    assert_eq!(reader.ask(ask()).await["code"], "forbidden");
    // Without an id nothing strays.
    reader.say(ask()).await;
    assert_eq!(said_so_far(&mut reader).await, Vec::<Value>::new());
    lets_read(&node, &ada, &bob.pubkey(), Some(&["file-read"])).await;
    until("the grant is known", async || {
        begin(&mut reader, ask(), "pf").await;
        let told = reader.hear_any(|frame| frame["_reqId"] == "pf");
        let asked = host.hear("peer_file_request_forward");
        tokio::select! {
            told = told => {
                assert_eq!(told["code"], "forbidden");
                false
            }
            _ = asked => true,
        }
    })
    .await;
    assert_eq!(said_so_far(&mut host).await, Vec::<Value>::new());
    lets_read(&node, &ada, &bob.pubkey(), None).await;
    until("the grant is gone", async || {
        begin(&mut reader, ask(), "pf").await;
        let told = reader.hear_any(|frame| frame["code"] == "forbidden");
        let asked = tokio::select! {
            _ = told => return true,
            asked = host.hear("peer_file_request_forward") => asked,
        };
        host.say(json!({ "type": "peer_file_response", "filePath": "/x", "_reqId": "pf",
            "requesterPubkey": asked["requesterPubkey"], "content": "" }))
            .await;
        reader.hear("peer_file_response_forward").await;
        false
    })
    .await;
}

#[tokio::test]
async fn of_a_members_connections_a_session_is_asked_and_not_the_asker() {
    let node = Node::start().await;
    let ada = node.member("ada").await;
    let mut daemon = Raw::hello(&node, &ada).await;
    let (mut old, mut new) = (session(&node, &ada).await, session(&node, &ada).await);
    begin(&mut daemon, file(&ada.pubkey()), "a").await;
    new.hear("peer_file_request_forward").await;
    begin(&mut new, file(&ada.pubkey()), "b").await;
    old.hear("peer_file_request_forward").await;
    old.goodbye().await;
    // A daemon is asked where there is nobody else.
    until("the daemon is asked", async || {
        begin(&mut new, file(&ada.pubkey()), "c").await;
        new.so_far().await;
        let heard = daemon.so_far().await;
        heard.iter().any(|frame| frame["type"] == "peer_file_request_forward")
    })
    .await;
}

#[tokio::test]
async fn a_file_as_large_as_a_frame_comes_through() {
    let node = Node::start_with(|config| {
        config.message.message_bytes_max = limits::MESSAGE_BYTES_MAX_CEILING;
    })
    .await;
    let ada = node.member("ada").await;
    let (mut host, mut reader) = (session(&node, &ada).await, session(&node, &ada).await);
    let content = "a".repeat(limits::MESSAGE_BYTES_MAX_CEILING - 512);
    for number in 0..3 {
        begin(&mut reader, file(&ada.pubkey()), &format!("pf-{number}")).await;
    }
    for _ in 0..3 {
        let asked = host.hear("peer_file_request_forward").await;
        host.say(json!({ "type": "peer_file_response", "filePath": "/x", "content": content,
            "requesterPubkey": asked["requesterPubkey"], "_reqId": asked["_reqId"] }))
            .await;
    }
    for number in 0..3 {
        let req_id = format!("pf-{number}");
        let answer = reader.hear_any(|frame| frame["_reqId"] == req_id.as_str()).await;
        assert_eq!(answer["content"].as_str().map(str::len), Some(content.len()));
    }
}

#[tokio::test]
async fn a_path_that_is_none_is_refused() {
    let node = Node::start().await;
    let mut reader = session(&node, &node.member("ada").await).await;
    for path in [String::new(), "x".repeat(limits::PEER_PATH_BYTES_MAX + 1)] {
        for (kind, field) in [("peer_file_request", "filePath"), ("peer_dir_request", "dirPath")] {
            let refused =
                reader.ask(json!({ "type": kind, "targetPubkey": "k", field: path })).await;
            assert_eq!(refused["code"], "invalid_argument", "{refused}");
        }
    }
}
