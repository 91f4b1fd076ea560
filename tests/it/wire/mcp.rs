//! Servers that peers host: registered, listed, called, given up.
//!
//! What two peers do is the same on one node and on two: the stories take the node of each.

use std::time::{Duration, Instant};

use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::client::{ClientError, ClientOptions, HelloKind, Inbound};
use claudemesh_broker::codec::Codec;
use claudemesh_broker::limits;
use claudemesh_broker::protocol::{McpCall, McpRegister, McpTool};
use serde_json::{Value, json};

use crate::harness::raw::session_hello_frame;
use crate::harness::{Member, Node, Raw, Setup, until};

pub(crate) fn registration(name: &str) -> Value {
    json!({
        "type": "mcp_register", "serverName": name, "description": "d",
        "tools": [{ "name": "t", "description": "td", "inputSchema": {} }],
    })
}

pub(crate) fn call(name: &str) -> Value {
    json!({ "type": "mcp_call", "serverName": name, "toolName": "t", "args": { "a": [1, null] } })
}

pub(crate) async fn listed(raw: &mut Raw) -> Value {
    raw.ask(json!({ "type": "mcp_list" })).await["servers"].clone()
}

/// Waits until a server is listed as that online or not.
pub(crate) async fn until_online(raw: &mut Raw, name: &str, online: bool) {
    until("a server is listed so", async || {
        let servers = listed(raw).await;
        let server = servers.as_array().expect("rows").iter().find(|row| row["name"] == name);
        server.is_some_and(|row| row["online"] == online)
    })
    .await;
}

/// Asks without waiting: the answer is heard later.
pub(crate) async fn begin(raw: &mut Raw, mut request: Value, req_id: &str) {
    request["_reqId"] = json!(req_id);
    raw.say(request).await;
}

/// The answer to that, and that there is no other.
pub(crate) async fn only_answer(raw: &mut Raw, req_id: &str) -> Value {
    let answer = raw.hear_any(|frame| frame["_reqId"] == req_id).await;
    let others = raw.so_far().await;
    assert!(others.iter().all(|frame| frame["_reqId"] != req_id), "{others:?}");
    answer
}

/// Whatever came that is no event: answers, and what others ask.
pub(crate) async fn said_so_far(raw: &mut Raw) -> Vec<Value> {
    let mut heard = raw.so_far().await;
    heard.retain(|frame| frame["type"] != "push");
    heard
}

/// A session of that member.
pub(crate) async fn session(node: &Node, member: &Member) -> Raw {
    Raw::session(node, member, &SecretKey::generate()).await.0
}

/// Registered, listed, called and given up, in the frames that older brokers spoke.
pub(crate) async fn a_server_is_called(of_host: &Node, of_caller: &Node) {
    let (ada, bob) = (of_host.member("ada").await, of_host.member("bob").await);
    let mut host = session(of_host, &ada).await;
    let mut caller = session(of_caller, &bob).await;
    until("both are there", async || {
        caller.ask(json!({ "type": "list_peers" })).await["peers"].as_array().map(Vec::len)
            == Some(2)
    })
    .await;
    let ack = host.ask(registration("srv")).await;
    assert_eq!(
        ack,
        json!({ "type": "mcp_register_ack", "serverName": "srv", "toolCount": 1,
            "_reqId": ack["_reqId"] })
    );
    let told = caller.event("mcp_registered").await;
    let data =
        json!({ "serverName": "srv", "description": "d", "tools": ["t"], "hostedBy": "ada" });
    assert_eq!((&told["eventData"], &told["subtype"]), (&data, &json!("system")));
    let row = json!({ "name": "srv", "description": "d", "hostedBy": "ada",
        "tools": [{ "name": "t", "description": "td" }], "online": true });
    assert_eq!(listed(&mut caller).await, json!([row]));

    begin(&mut caller, call("srv"), "mc").await;
    let asked = host.hear("mcp_call_forward").await;
    let id = asked["callId"].clone();
    assert_eq!(
        asked,
        json!({ "type": "mcp_call_forward", "callId": id, "serverName": "srv", "toolName": "t",
            "args": { "a": [1, null] }, "callerName": "bob", "deadlineMs": 28_000 })
    );
    host.say(json!({ "type": "mcp_call_response", "callId": id, "result": { "ok": true } })).await;
    let answer = only_answer(&mut caller, "mc").await;
    let expected = json!({ "type": "mcp_call_result", "result": { "ok": true }, "_reqId": "mc" });
    assert_eq!(answer, expected);
    // An answer that comes again, or that is none, is nobody's, and is not answered.
    for said in [json!({ "callId": id, "result": 1 }), json!({ "callId": 5 }), json!({})] {
        let mut said = said;
        (said["type"], said["_reqId"]) = (json!("mcp_call_response"), json!("mc"));
        host.say(said).await;
    }
    assert_eq!(said_so_far(&mut host).await, Vec::<Value>::new());
    let missing = caller.ask(call("none")).await;
    assert_eq!(missing["error"], "MCP server \"none\" not found in mesh");

    // As older brokers: who may not give it up is told nothing, and neither is who may.
    caller.say(json!({ "type": "mcp_unregister", "serverName": "srv" })).await;
    assert_eq!(listed(&mut caller).await.as_array().map(Vec::len), Some(1), "it is ada's");
    host.say(json!({ "type": "mcp_unregister", "serverName": "srv" })).await;
    let told = caller.event("mcp_unregistered").await;
    assert_eq!(told["eventData"], json!({ "serverName": "srv", "hostedBy": "ada" }));
    assert_eq!(listed(&mut caller).await, json!([]));
    assert_eq!(said_so_far(&mut host).await, Vec::<Value>::new());
}

/// Nobody but the asked socket answers, whatever it knows of the call.
pub(crate) async fn a_false_answer_is_nobodys(of_host: &Node, of_caller: &Node, of_other: &Node) {
    let (ada, bob) = (of_host.member("ada").await, of_host.member("bob").await);
    let mut host = session(of_host, &ada).await;
    let (mut other, mut caller) = (session(of_other, &ada).await, session(of_caller, &bob).await);
    host.ask(registration("srv")).await;
    until_online(&mut caller, "srv", true).await;
    begin(&mut caller, call("srv"), "mc").await;
    let id = host.hear("mcp_call_forward").await["callId"].clone();
    let says = |text: &str| json!({ "type": "mcp_call_response", "callId": id, "result": text });
    other.say(says("false")).await;
    caller.say(says("false")).await;
    other.so_far().await;
    caller.so_far().await;
    host.say(says("true")).await;
    assert_eq!(only_answer(&mut caller, "mc").await["result"], "true");
}

/// A host that goes away is answered for at once, and is back when it comes back.
pub(crate) async fn a_host_that_returns_is_online_again(
    of_host: &Node,
    of_caller: &Node,
    of_return: &Node,
) {
    let (ada, bob) = (of_host.member("ada").await, of_host.member("bob").await);
    let key = SecretKey::generate();
    let (mut host, _) = Raw::session(of_host, &ada, &key).await;
    let mut caller = session(of_caller, &bob).await;
    host.ask(registration("srv")).await;
    until_online(&mut caller, "srv", true).await;
    begin(&mut caller, call("srv"), "mc").await;
    host.hear("mcp_call_forward").await;
    let began = Instant::now();
    drop(host);
    let answer = only_answer(&mut caller, "mc").await;
    assert_eq!(answer["error"], "MCP server \"srv\" host disconnected");
    until_online(&mut caller, "srv", false).await;
    let row = listed(&mut caller).await[0].clone();
    assert!(row["offlineSince"].is_string(), "{row}");
    let refused = caller.ask(call("srv")).await["error"].as_str().expect("a sentence").to_owned();
    let begins = "Server 'srv' is offline — hosted by ada who disconnected ";
    assert!(refused.starts_with(begins), "{refused}");
    assert!(refused.ends_with(" ago. It will restore when they reconnect."), "{refused}");
    assert!(began.elapsed() < crate::harness::PATIENCE, "long before the deadline of a call");

    let (mut host, _) = Raw::session(of_return, &ada, &key).await;
    until_online(&mut caller, "srv", true).await;
    begin(&mut caller, call("srv"), "again").await;
    let id = host.hear("mcp_call_forward").await["callId"].clone();
    host.say(json!({ "type": "mcp_call_response", "callId": id, "error": "no such tool" })).await;
    let answer = only_answer(&mut caller, "again").await;
    let expected = json!({ "type": "mcp_call_result", "error": "no such tool", "_reqId": "again" });
    assert_eq!(answer, expected);
}

/// A later registration of a name takes it over, and its end brings nobody back.
pub(crate) async fn a_name_is_taken_over(of_first: &Node, of_second: &Node) {
    let (ada, bob) = (of_first.member("ada").await, of_first.member("bob").await);
    let (mut first, mut second) = (session(of_first, &ada).await, session(of_second, &bob).await);
    first.ask(registration("srv")).await;
    until_online(&mut second, "srv", true).await;
    second.ask(registration("srv")).await;
    until("all know the later one", async || {
        let servers = listed(&mut first).await;
        servers[0]["hostedBy"] == "bob" && servers.as_array().map(Vec::len) == Some(1)
    })
    .await;
    begin(&mut first, call("srv"), "mc").await;
    let id = second.hear("mcp_call_forward").await["callId"].clone();
    second.say(json!({ "type": "mcp_call_response", "callId": id, "result": 2 })).await;
    assert_eq!(only_answer(&mut first, "mc").await["result"], 2);
    until("the first one hosts it no more", async || {
        second.ask(json!({ "type": "mcp_unregister", "serverName": "srv" })).await;
        let left = listed(&mut second).await == json!([]) && listed(&mut first).await == json!([]);
        if !left {
            second.ask(registration("srv")).await;
        }
        left
    })
    .await;
}

#[tokio::test]
async fn a_server_is_registered_listed_called_and_given_up() {
    let node = Node::start().await;
    a_server_is_called(&node, &node).await;
}

#[tokio::test]
async fn only_the_socket_that_was_asked_answers() {
    let node = Node::start().await;
    a_false_answer_is_nobodys(&node, &node, &node).await;
}

#[tokio::test]
async fn a_host_that_goes_is_answered_for_and_one_that_returns_is_online_again() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 60_000).await;
    a_host_that_returns_is_online_again(&node, &node, &node).await;
}

#[tokio::test]
async fn the_latest_registration_of_a_name_counts() {
    let node = Node::start().await;
    a_name_is_taken_over(&node, &node).await;
}

#[tokio::test]
async fn a_host_that_does_not_come_back_takes_its_servers_with_it() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 200).await;
    let (ada, bob) = (node.member("ada").await, node.member("bob").await);
    let (mut host, mut caller) = (session(&node, &ada).await, session(&node, &bob).await);
    host.ask(registration("srv")).await;
    host.goodbye().await;
    until("it is listed no more", async || listed(&mut caller).await == json!([])).await;
    let answer = caller.ask(call("srv")).await;
    assert_eq!(answer["error"], "MCP server \"srv\" not found in mesh");
}

/// A server that is to outlive its host does, and comes back with the member's next hello.
pub(crate) async fn a_server_outlives_its_host(of_host: &Node, of_caller: &Node, of_return: &Node) {
    let (ada, bob) = (of_host.member("ada").await, of_host.member("bob").await);
    let mut host = session(of_host, &ada).await;
    let mut caller = session(of_caller, &bob).await;
    let mut kept = registration("srv");
    kept["persistent"] = json!(true);
    host.ask(kept).await;
    host.ask(registration("passing")).await;
    until_online(&mut caller, "passing", true).await;
    host.goodbye().await;
    // Its grace is over, and one of the two is forgotten.
    until("its host has left", async || {
        let servers = listed(&mut caller).await;
        servers.as_array().map(Vec::len) == Some(1)
    })
    .await;
    caller.event("peer_left").await;
    let row = listed(&mut caller).await[0].clone();
    assert_eq!((&row["name"], &row["online"]), (&json!("srv"), &json!(false)));
    assert_eq!((&row["hostedBy"], row["offlineSince"].is_string()), (&json!("ada"), true));
    let refused = caller.ask(call("srv")).await["error"].as_str().expect("a sentence").to_owned();
    assert!(refused.starts_with("Server 'srv' is offline — hosted by ada who"), "{refused}");

    // Neither a command that passes by nor another member's brings it back.
    crate::wire::visitors::command(of_return, &ada, "cold").await.0.goodbye().await;
    let other = Raw::hello(of_return, &bob).await;
    assert_eq!(listed(&mut caller).await[0]["online"], false);
    let mut host = Raw::hello(of_return, &ada).await;
    let data = json!({ "serverName": "srv", "hostedBy": "ada" });
    assert_eq!(host.event("mcp_restored").await["eventData"], data, "the host is told too");
    assert_eq!(caller.event("mcp_restored").await["eventData"], data);
    begin(&mut caller, call("srv"), "mc").await;
    let id = host.hear("mcp_call_forward").await["callId"].clone();
    host.say(json!({ "type": "mcp_call_response", "callId": id, "result": 3 })).await;
    assert_eq!(only_answer(&mut caller, "mc").await["result"], 3);
    // Given up, it is gone for good.
    host.ask(json!({ "type": "mcp_unregister", "serverName": "srv" })).await;
    until("it is listed no more", async || listed(&mut caller).await == json!([])).await;
    let of = async |kind: &str| of_host.audit_count(kind).await;
    assert_eq!((of("mcp_registered").await, of("mcp_unregistered").await), (1, 1));
    drop(other);
}

#[tokio::test]
async fn a_server_that_is_to_stay_is_listed_without_its_host_and_restored() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 200).await;
    a_server_outlives_its_host(&node, &node, &node).await;
}

#[tokio::test]
async fn a_server_that_is_to_stay_outlives_the_broker() {
    let mut node = Node::start_with(|config| config.presence.lease_grace_ms = 60_000).await;
    let ada = node.member("ada").await;
    let mut host = Raw::hello(&node, &ada).await;
    let mut kept = registration("srv");
    kept["persistent"] = json!(true);
    host.ask(kept).await;
    node.restart().await;
    // The same session comes back to the presence that it had.
    let mut host = Raw::hello(&node, &ada).await;
    host.event("mcp_restored").await;
    assert_eq!(listed(&mut host).await[0]["online"], true);
    // Whoever takes the name over, and is not to stay, leaves no row behind.
    host.ask(registration("srv")).await;
    node.restart().await;
    let mut host = Raw::hello(&node, &ada).await;
    assert_eq!(listed(&mut host).await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_peers_hand_to_each_other_is_in_no_log() {
    let cluster = Setup::new(2).set("LOG", "trace").start_processes().await;
    let [one, two] = &cluster.nodes[..] else { unreachable!() };
    let (ada, canary) = (one.member("ada").await, "c4n4ry-value");
    let (mut host, mut caller) = (session(one, &ada).await, session(two, &ada).await);
    host.ask(registration("srv")).await;
    until_online(&mut caller, "srv", true).await;
    let mut asked = call("srv");
    asked["args"] = json!({ "secret": canary });
    begin(&mut caller, asked, "mc").await;
    let id = host.hear("mcp_call_forward").await["callId"].clone();
    host.say(json!({ "type": "mcp_call_response", "callId": id, "result": canary })).await;
    assert_eq!(only_answer(&mut caller, "mc").await["result"], canary);
    for process in &cluster.processes {
        until("it has logged", async || process.log().contains("TRACE")).await;
        assert!(!process.log().contains(canary));
    }
}

#[tokio::test]
async fn who_waits_for_an_answer_goes_on_meanwhile() {
    let node = Node::start().await;
    let ada = node.member("ada").await;
    let mut both = session(&node, &ada).await;
    both.ask(registration("own")).await;
    begin(&mut both, call("own"), "mc").await;
    let id = both.hear("mcp_call_forward").await["callId"].clone();
    // Its own host, it answers while it waits; and whatever else it asks is answered.
    assert_eq!(both.ask(json!({ "type": "list_peers" })).await["type"], "peers_list");
    both.say(json!({ "type": "mcp_call_response", "callId": id, "result": 1 })).await;
    assert_eq!(only_answer(&mut both, "mc").await["result"], 1);
    // Without an id, as older brokers answered; the refusal is told to nobody.
    both.say(call("own")).await;
    let id = both.hear("mcp_call_forward").await["callId"].clone();
    both.say(json!({ "type": "mcp_call_response", "callId": id, "result": 2 })).await;
    let answer = both.hear("mcp_call_result").await;
    assert_eq!(answer, json!({ "type": "mcp_call_result", "result": 2 }));
    both.say(json!({ "type": "mcp_call", "serverName": "", "toolName": "t" })).await;
    assert_eq!(said_so_far(&mut both).await, Vec::<Value>::new());
}

#[tokio::test]
async fn calls_in_flight_are_bounded_and_who_leaves_makes_room() {
    let node = Node::start().await;
    let (ada, bob) = (node.member("ada").await, node.member("bob").await);
    let (mut host, mut caller) = (session(&node, &ada).await, session(&node, &bob).await);
    host.ask(registration("srv")).await;
    let max = limits::RELAYED_PER_CALLER_MAX;
    for number in 0..max {
        begin(&mut caller, call("srv"), &format!("mc-{number}")).await;
    }
    let refused = caller.ask(call("srv")).await;
    assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!("quota")));
    assert!(refused["message"].as_str().is_some_and(|text| text.contains(&max.to_string())));
    let mut asked = Vec::new();
    for _ in 0..max {
        asked.push(host.hear("mcp_call_forward").await["callId"].clone());
    }
    let first = json!({ "type": "mcp_call_response", "callId": asked[0], "result": 0 });
    host.say(first).await;
    caller.hear("mcp_call_result").await;
    begin(&mut caller, call("srv"), "one more").await;
    host.hear("mcp_call_forward").await;
    caller.goodbye().await;
    // What it asked has no taker any more, and holds nobody up.
    for id in &asked[1..] {
        host.say(json!({ "type": "mcp_call_response", "callId": id, "result": 0 })).await;
    }
    let mut again = session(&node, &bob).await;
    begin(&mut again, call("srv"), "mc").await;
    let id = host.hear("mcp_call_forward").await["callId"].clone();
    host.say(json!({ "type": "mcp_call_response", "callId": id, "result": 9 })).await;
    assert_eq!(only_answer(&mut again, "mc").await["result"], 9);
}

#[tokio::test]
async fn what_is_registered_is_bounded_and_told_so() {
    let node = Node::start().await;
    let mut host = session(&node, &node.member("ada").await).await;
    let register = |name: &str, description: usize, tools: usize| {
        let tools: Vec<Value> = (0..tools).map(|n| json!({ "name": format!("t{n}") })).collect();
        json!({ "type": "mcp_register", "serverName": name, "description": "d".repeat(description),
            "tools": tools })
    };
    for (request, code) in [
        (register("", 0, 0), "invalid_argument"),
        (register(&"n".repeat(limits::MCP_NAME_BYTES_MAX + 1), 0, 0), "invalid_argument"),
        (register("srv", limits::MCP_BYTES_PER_PRESENCE_MAX, 0), "quota"),
        (register("srv", 0, limits::MCP_TOOLS_PER_SERVER_MAX + 1), "quota"),
        (json!({ "type": "mcp_register" }), "invalid_argument"),
    ] {
        let refused = host.ask(request).await;
        assert_eq!(refused["code"], code, "{refused}");
    }
    assert_eq!(listed(&mut host).await, json!([]));
    for number in 0..limits::MCP_SERVERS_PER_PRESENCE_MAX {
        let ack = host.ask(register(&format!("srv-{number}"), 100, 3)).await;
        assert_eq!(ack["type"], "mcp_register_ack");
    }
    assert_eq!(host.ask(register("one more", 0, 0)).await["code"], "quota");
    let names: Vec<_> = listed(&mut host)
        .await
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| row["name"].as_str().expect("a name").to_owned())
        .collect();
    let newest_first = (0..limits::MCP_SERVERS_PER_PRESENCE_MAX).rev();
    assert_eq!(names, newest_first.map(|number| format!("srv-{number}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_list_that_does_not_fit_comes_in_parts() {
    let node = Node::start_with(|config| {
        config.message.message_bytes_max = limits::MESSAGE_BYTES_MAX_CEILING;
    })
    .await;
    let ada = node.member("ada").await;
    let mut hosts = Vec::new();
    for number in 0..20 {
        let mut host = session(&node, &ada).await;
        let description = "d".repeat(limits::MCP_BYTES_PER_PRESENCE_MAX - 512);
        let ack = host
            .ask(json!({ "type": "mcp_register", "serverName": format!("srv-{number}"),
            "description": description }))
            .await;
        assert_eq!(ack["type"], "mcp_register_ack", "{ack}");
        hosts.push(host);
    }
    let (mut ask, mut names, mut pages) = (json!({ "type": "mcp_list" }), Vec::new(), 0);
    loop {
        let page = hosts[0].ask(ask.clone()).await;
        assert!(page.to_string().len() <= limits::ANSWER_BYTES_MAX);
        pages += 1;
        let rows = page["servers"].as_array().expect("rows");
        names.extend(rows.iter().map(|row| row["name"].as_str().expect("a name").to_owned()));
        if page["more"] != true {
            break;
        }
        ask["cursor"] = page["cursor"].clone();
    }
    assert_eq!(names, (0..20).rev().map(|number| format!("srv-{number}")).collect::<Vec<_>>());
    assert!(pages > 1, "{pages}");
}

#[tokio::test]
async fn a_session_with_a_name_of_its_own_is_named_beside_its_member() {
    let node = Node::start().await;
    let (ada, bob) = (node.member("ada").await, node.member("bob").await);
    let mut hello = session_hello_frame(&node.mesh, &ada, &SecretKey::generate());
    hello["displayName"] = json!("Ada's laptop");
    let (mut host, _) = Raw::greet(&node, hello).await;
    let mut hello = session_hello_frame(&node.mesh, &bob, &SecretKey::generate());
    hello["displayName"] = json!("ada");
    let (mut caller, _) = Raw::greet(&node, hello).await;
    host.ask(registration("srv")).await;
    let row = listed(&mut caller).await[0].clone();
    assert_eq!(
        (&row["hostedBy"], &row["hostedBySession"]),
        (&json!("ada"), &json!("Ada's laptop"))
    );
    begin(&mut caller, call("srv"), "mc").await;
    let asked = host.hear("mcp_call_forward").await;
    let names = (&asked["callerName"], &asked["callerSession"]);
    assert_eq!(names, (&json!("bob"), &json!("ada")), "nobody is called as another is enrolled");
}

#[tokio::test]
async fn a_client_of_either_coding_hosts_and_calls() {
    let node = Node::start().await;
    let (ada, bob) = (node.identity("ada").await, node.identity("bob").await);
    let options = |identity, codec| {
        let mut options = ClientOptions::new(identity, HelloKind::Session, "sdk");
        options.codec = codec;
        options.limits.answer_timeout = Duration::from_secs(30);
        options
    };
    let (host, mut inbox) = node.connect(options(ada, Codec::MsgPack)).await;
    let (caller, _inbox) = node.connect(options(bob, Codec::Json)).await;
    let tools = vec![McpTool { name: "t".to_owned(), description: String::new() }];
    let register = McpRegister {
        server_name: "srv".to_owned(),
        description: "d".to_owned(),
        tools,
        persistent: false,
    };
    assert_eq!(host.ask(&register).await.expect("taken").tool_count, 1);
    let call = McpCall {
        server_name: "srv".to_owned(),
        tool_name: "t".to_owned(),
        args: json!({ "text": "ü" }),
    };
    let serving = async {
        for number in 0..2 {
            let asked = loop {
                match inbox.recv().await.expect("open") {
                    Inbound::Other { kind, body } if kind == "mcp_call_forward" => break body,
                    _ => {}
                }
            };
            assert_eq!(asked["args"], json!({ "text": "ü" }));
            let mut said = json!({ "type": "mcp_call_response", "callId": asked["callId"] });
            match number {
                0 => said["result"] = json!({ "ok": [1, 2] }),
                _ => said["error"] = json!("not today"),
            }
            host.send_raw(&said).await.expect("open");
        }
    };
    let calling = async {
        let answer = caller.ask(&call).await.expect("an answer");
        assert_eq!(answer.result, Some(json!({ "ok": [1, 2] })));
        match caller.ask(&call).await {
            Err(ClientError::Rejected(why)) => assert_eq!(why.reason, "not today"),
            other => panic!("{:?}", other.map(|answer| answer.error)),
        }
    };
    tokio::join!(serving, calling);
}
