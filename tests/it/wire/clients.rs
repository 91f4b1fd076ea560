//! What each existing client says, replayed: `tests/fixtures/clients/*.json`.
//!
//! A step is a frame that the client (or its peer `bob`) says, and exactly
//! the frames that the client and the peer hear because of it, each with the
//! fields that this client reads. In frames, `${name}` is filled in. In what
//! is expected, fields that are not named may be there, and these stand for
//! what differs each time: `<text>`, `<bool>`, `<id>`, `<iso>`, `<absent>`,
//! and `<as:name>`, an id that later frames call `${name}`.

use std::collections::{BTreeMap, BTreeSet};

use claudemesh_broker::auth::{SecretKey, sign_attestation, sign_hello, sign_session_hello};
use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::store::Role;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::harness::{Member, Node, Raw, root, text_of};

/// What clients say, of what this broker serves. (`audit_query` and
/// `audit_verify` are said by none.)
const SPOKEN: [&str; 18] = [
    "hello",
    "session_hello",
    "send",
    "client_ack",
    "list_peers",
    "set_status",
    "set_summary",
    "set_visible",
    "set_profile",
    "set_stats",
    "join_group",
    "leave_group",
    "message_status",
    "kick",
    "disconnect",
    "ban",
    "unban",
    "list_bans",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    client: String,
    #[serde(default)]
    role: Option<String>,
    hello: Value,
    hello_ack: Value,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    #[serde(default)]
    say: Option<Value>,
    #[serde(default)]
    peer_says: Option<Value>,
    hear: Vec<Value>,
    #[serde(default)]
    peer_hears: Vec<Value>,
}

fn read(name: &str) -> Fixture {
    let text = text_of(&format!("tests/fixtures/clients/{name}.json"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The values of this run.
struct Names(BTreeMap<String, Value>);

impl Names {
    fn of(node: &Node, alice: &Member, session: &SecretKey) -> Self {
        let now = Timestamp::now();
        let expires_at = now.plus_ms(12 * 3_600_000);
        let session_key = session.public_key();
        let own = alice.pubkey();
        let values = [
            ("mesh", json!(node.mesh)),
            ("member", json!(alice.id)),
            ("pubkey", json!(own)),
            ("session", json!(session_key)),
            ("timestamp", json!(now.as_ms())),
            ("signature:hello", json!(sign_hello(&alice.key, &node.mesh, &alice.id, now))),
            ("signature:session_hello", json!(sign_session_hello(session, &node.mesh, &own, now))),
            ("attestation:expiresAt", json!(expires_at.as_ms())),
            (
                "attestation:signature",
                json!(sign_attestation(&alice.key, &session_key, expires_at)),
            ),
        ];
        Self(values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    fn fill(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.fill_text(text),
            Value::Array(items) => items.iter().map(|item| self.fill(item)).collect(),
            Value::Object(fields) => Value::Object(
                fields.iter().map(|(name, value)| (name.clone(), self.fill(value))).collect(),
            ),
            other => other.clone(),
        }
    }

    fn fill_text(&self, text: &str) -> Value {
        let Some(name) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) else {
            assert!(!text.contains("${"), "only whole values are filled in: {text}");
            return json!(text);
        };
        self.0.get(name).cloned().unwrap_or_else(|| panic!("{text} stands for nothing"))
    }

    /// Whether what was heard is what was expected; learns ids by name.
    fn fits(&mut self, expected: &Value, heard: Option<&Value>) -> bool {
        let text = heard.and_then(Value::as_str);
        match expected {
            Value::String(mark) if mark.starts_with('<') => match mark.as_str() {
                "<absent>" => heard.is_none(),
                "<text>" => text.is_some_and(|text| !text.is_empty()),
                "<bool>" => heard.is_some_and(Value::is_boolean),
                "<id>" => text.is_some_and(is_id),
                "<iso>" => text.is_some_and(|text| text.len() == 24 && text.ends_with('Z')),
                other => {
                    let name = other.strip_prefix("<as:").and_then(|name| name.strip_suffix('>'));
                    let name = name.unwrap_or_else(|| panic!("{other} means nothing"));
                    self.0.insert(name.to_owned(), heard.cloned().unwrap_or_default());
                    text.is_some_and(is_id)
                }
            },
            Value::Object(fields) => fields.iter().all(|(name, expected)| {
                self.fits(expected, heard.and_then(|frame| frame.get(name)))
            }),
            Value::Array(items) => heard.and_then(Value::as_array).is_some_and(|heard| {
                items.len() == heard.len()
                    && items.iter().zip(heard).all(|(item, heard)| self.fits(item, Some(heard)))
            }),
            // 60 and 60.0 are one number to a client.
            Value::Number(number) => heard.and_then(Value::as_f64) == number.as_f64(),
            other => heard == Some(other),
        }
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Hears exactly these, in this order, and nothing else.
async fn hears(raw: &mut Raw, names: &mut Names, expected: &[Value], what: &str) {
    for expected in expected {
        let kind = expected["type"].as_str().expect("every expected frame has a type");
        let expected = names.fill(expected);
        let heard = raw.hear_where(kind, |frame| frame["subtype"] != "system").await;
        assert!(names.fits(&expected, Some(&heard)), "{what}: expected {expected}, heard {heard}");
    }
    let mut rest = raw.so_far().await;
    rest.retain(|frame| frame["subtype"] != "system");
    assert!(rest.is_empty(), "{what}: nothing else was expected: {rest:?}");
}

async fn replay(name: &str) {
    let fixture = read(name);
    let node = Node::start().await;
    let role =
        fixture.role.as_deref().map_or(Role::Member, |role| Role::parse(role).expect("a role"));
    let alice = node.member_as("alice", role).await;
    let (bob, mallory) = (node.member("bob").await, node.member("mallory").await);
    let mut peer = Raw::hello(&node, &bob).await;
    let mut names = Names::of(&node, &alice, &SecretKey::generate());
    names.0.insert("bob".to_owned(), json!(bob.pubkey()));
    names.0.insert("mallory".to_owned(), json!(mallory.pubkey()));

    let mut client = Raw::connect(&node).await;
    client.say(names.fill(&fixture.hello)).await;
    let ack = client.hear("hello_ack").await;
    let expected = names.fill(&fixture.hello_ack);
    assert!(names.fits(&expected, Some(&ack)), "{}: {expected}: {ack}", fixture.client);
    for step in &fixture.steps {
        let (speaker, said) = match (&step.say, &step.peer_says) {
            (Some(said), None) => (&mut client, said),
            (None, Some(said)) => (&mut peer, said),
            _ => panic!("{name}: a step is one frame"),
        };
        let what = format!("{name}: {said}");
        speaker.say(names.fill(said)).await;
        if step.peer_says.is_some() {
            assert_eq!(peer.hear("ack").await["queued"], true, "{what}");
            // Whatever it caused is queued before the next send's answer.
            peer.sent("@nobody", "now", "").await;
        }
        hears(&mut client, &mut names, &step.hear, &what).await;
        hears(&mut peer, &mut names, &step.peer_hears, &what).await;
    }
}

#[test]
fn the_fixtures_say_everything_that_clients_say() {
    let mut said = BTreeSet::new();
    let mut clients = Vec::new();
    for entry in std::fs::read_dir(root().join("tests/fixtures/clients")).expect("the fixtures") {
        let path = entry.expect("readable").path();
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
        let fixture = read(&name);
        let frames = fixture.steps.iter().filter_map(|step| step.say.as_ref());
        for frame in frames.chain([&fixture.hello]) {
            said.insert(frame["type"].as_str().expect("a type").to_owned());
        }
        clients.push(fixture.client[..1].to_owned());
    }
    for kind in SPOKEN {
        assert!(said.contains(kind), "no client says {kind}");
    }
    clients.sort();
    assert_eq!(clients.concat(), "ABCEFGHJ", "D and I open no socket");
}

macro_rules! replayed {
    ($($test:ident: $fixture:literal,)*) => {
        $(
            #[tokio::test]
            async fn $test() {
                replay($fixture).await;
            }
        )*
    };
}

replayed! {
    one_shot_commands_of_the_cli: "a-cold-cli",
    the_daemons_member_connection: "b-daemon",
    the_daemons_session_connection: "c-session",
    the_sdk: "e-sdk",
    the_slack_connector: "f-slack",
    the_telegram_connector: "g-telegram",
    the_telegram_bridge: "h-telegram-bridge",
    the_first_published_cli: "j-cli-0.1.4",
}
