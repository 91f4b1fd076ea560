//! Requests drawn from the description, whole ones and ones that are broken in one place:
//! each is answered as described, none makes the broker fail, and the log keeps what was
//! sent to itself. What is drawn follows from the seed.

use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::string::string_regex;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Map, Value, json};
use url::form_urlencoded::byte_serialize;

use super::world::{ADMIN, SERVICE, World};
use crate::harness::Node;
use crate::harness::description::Description;
use crate::harness::http::request;

const SEED: u64 = 20_261_127;

/// Requests of each operation.
const REQUESTS: usize = 24;

/// Stands in every text that is sent in a body.
const MARK: &str = "zq7x";

/// Parts of paths that no route is made for.
const ODD: [&str; 8] = ["%00", "%ff%fe", "..%2f..%2f", "a%20b", "%25", "~", "'%22;--", "-1"];

struct Dice {
    rng: StdRng,
    runner: TestRunner,
}

impl Dice {
    fn new() -> Self {
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
        let runner = TestRunner::new_with_rng(Config::default(), rng);
        Self { rng: StdRng::seed_from_u64(SEED), runner }
    }

    fn once_in(&mut self, n: u32) -> bool {
        self.rng.random_range(0..n) == 0
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        all.choose(&mut self.rng).expect("some")
    }

    /// A value that the schema takes.
    fn value(&mut self, about: &Description, schema: &Value) -> Value {
        let schema = about.resolved(schema);
        if let Some(value) = schema.get("const") {
            return value.clone();
        }
        for list in ["enum", "oneOf", "anyOf"] {
            if let Some(all) = schema[list].as_array() {
                let one = self.one_of(all).clone();
                return if list == "enum" { one } else { self.value(about, &one) };
            }
        }
        let kinds = match &schema["type"] {
            Value::Array(kinds) => kinds.clone(),
            kind => vec![kind.clone()],
        };
        let kind = self.one_of(&kinds).clone();
        match kind.as_str().unwrap_or("any") {
            "string" => self.text(schema).into(),
            "integer" => {
                let least = schema["minimum"].as_i64().unwrap_or(0);
                let most = schema["maximum"].as_i64().unwrap_or(least + 1000);
                self.rng.random_range(least..=most).into()
            }
            "boolean" => self.rng.random::<bool>().into(),
            "array" => {
                let most = schema["maxItems"].as_u64().unwrap_or(3).min(3);
                let count = self.rng.random_range(0..=most);
                (0..count).map(|_| self.value(about, &schema["items"])).collect()
            }
            "object" => self.object(about, schema),
            "null" => Value::Null,
            _ => json!({ "any": [MARK, 1, null, { "deep": 1.5 }] }),
        }
    }

    fn object(&mut self, about: &Description, schema: &Value) -> Value {
        let mut object = Map::new();
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        // Mostly about something that is there.
        let is_post = schema["properties"]["ciphertext"].is_object();
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            if required.contains(&json!(name)) || self.once_in(2) {
                object.insert(name.clone(), self.value(about, field));
            }
        }
        if is_post && !self.once_in(4) {
            object.insert("topic".to_owned(), json!("general"));
        }
        let others = &schema["additionalProperties"];
        if others.is_object() {
            object.insert(World::fresh_key(), self.value(about, others));
        }
        Value::Object(object)
    }

    fn text(&mut self, schema: &Value) -> String {
        if let Some(pattern) = schema["pattern"].as_str() {
            let strategy = string_regex(pattern.trim_matches(['^', '$'])).expect("a pattern");
            return strategy.new_tree(&mut self.runner).expect("a text").current();
        }
        if schema["format"] == "date-time" {
            return "2026-11-27T12:00:00.000Z".to_owned();
        }
        let mut text = MARK.to_owned();
        let least = schema["minLength"].as_u64().unwrap_or(0);
        let most = schema["maxLength"].as_u64().unwrap_or(least + 12).max(least);
        for _ in 0..self.rng.random_range(least..=most) {
            text.push(*self.one_of(&['a', 'Z', '9', '-', ' ', 'é', '\u{1f980}', '%', '_', '"']));
        }
        text.chars().take(usize::try_from(most).unwrap_or(usize::MAX)).collect()
    }

    /// Breaks a body in one place.
    fn broken(&mut self, mut body: Value) -> String {
        let wrong = [
            Value::Null,
            json!(-1),
            json!(1e300),
            json!([[]]),
            json!({ "a": {} }),
            json!(""),
            json!("\u{0}"),
            json!("x".repeat(5000)),
            json!(true),
        ];
        let wrong = self.one_of(&wrong).clone();
        let Some(object) = body.as_object_mut().filter(|object| !object.is_empty()) else {
            return wrong.to_string();
        };
        let names: Vec<String> = object.keys().cloned().collect();
        let name = self.one_of(&names).clone();
        match self.rng.random_range(0..6) {
            0 => drop(object.remove(&name)),
            1 => return body.to_string()[1..].to_owned(),
            2 => return wrong.to_string(),
            3 => return format!("{}{}", "[".repeat(200), "]".repeat(200)),
            _ => drop(object.insert(name, wrong)),
        }
        body.to_string()
    }

    /// The address of a path, with its parts and its query filled in.
    fn address(&mut self, path: &str, operation: &Value, world: &World) -> String {
        let parts: Vec<String> = path
            .split('/')
            .map(|part| match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                None => part.to_owned(),
                Some(_) if self.once_in(4) => (*self.one_of(&ODD)).to_owned(),
                Some(_) if self.once_in(8) => "x".repeat(3000),
                Some("id") if path.starts_with("/api/my/") => world.value("mine").to_owned(),
                Some(name) => world.value(name).to_owned(),
            })
            .collect();
        let mut address = parts.join("/");
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let in_query = parameters.iter().filter(|parameter| parameter["in"] == "query");
        let mut before = '?';
        for parameter in in_query {
            let value = match self.rng.random_range(0..5) {
                0 => continue,
                1 => (*self.one_of(&ODD)).to_owned(),
                2 => String::new(),
                _ => {
                    let number = self.rng.random_range(-1..300).to_string();
                    let texts = ["all", "2026-11-27T12:00:00Z", "é%_ x", number.as_str()];
                    byte_serialize(self.one_of(&texts).as_bytes()).collect()
                }
            };
            let name = parameter["name"].as_str().expect("a name");
            address.push_str(&format!("{before}{name}={value}"));
            before = '&';
        }
        address
    }

    /// The proof of whoever may, mostly.
    fn proof(&mut self, operation: &Value, world: &World) -> Vec<(&'static str, String)> {
        if self.once_in(8) {
            return Vec::new();
        }
        if self.once_in(10) {
            let wrong = ["Bearer", "Bearer cm_0123456789abcdef", "Basic x", "Bearer a.b.c"];
            return vec![("authorization", (*self.one_of(&wrong)).to_owned())];
        }
        let schemes = operation["security"].as_array().cloned().unwrap_or_default();
        let scheme = schemes.first().and_then(|scheme| scheme.as_object()?.keys().next().cloned());
        match scheme.as_deref() {
            Some("memberSocket") => Vec::new(),
            Some(_) if schemes.len() > 1 && self.once_in(2) => {
                vec![("x-member-id", world.value("member").to_owned())]
            }
            Some(scheme) => vec![("authorization", format!("Bearer {}", world.token(scheme)))],
            None => Vec::new(),
        }
    }
}

/// A stream has no end.
fn is_stream(operation: &Value) -> bool {
    operation["responses"]["200"]["content"]["text/event-stream"].is_object()
}

#[tokio::test]
async fn no_request_makes_the_broker_fail_or_answer_otherwise_than_described() {
    let env = [("LOG", "trace"), ("SERVICE_TOKEN", SERVICE), ("ADMIN_TOKEN", ADMIN)];
    let mut world = World::new(Node::program(&env).await).await;
    world.fill().await;
    let (node, description, mut dice) = (world.node(), Description::read(), Dice::new());
    let mut failures = Vec::new();
    for ((method, path), operation) in description.operations() {
        if is_stream(operation) {
            continue;
        }
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        for _ in 0..REQUESTS {
            let address = dice.address(&path, operation, &world);
            let mut body = String::new();
            if !schema.is_null() {
                let whole = dice.value(&description, schema);
                body = if dice.once_in(2) { dice.broken(whole) } else { whole.to_string() };
            }
            let contents = ["application/json", "application/json; charset=utf-8", "text/plain"];
            let content = if dice.once_in(6) { *dice.one_of(&contents) } else { contents[0] };
            let proof = dice.proof(operation, &world);
            let mut headers = vec![("content-type", content)];
            headers.extend(proof.iter().map(|(name, value)| (*name, value.as_str())));
            let reply = request(&node, &method.to_uppercase(), &address, &headers, &body).await;
            let sent = format!("seed {SEED}: {method} {address} {content} {body}");
            if let Err(why) = description.check(&method, &path, &reply) {
                failures.push(format!("{sent}: {why}: {reply:?}"));
            }
            // Deployed clients of this hook know no other status for a bad body.
            let is_known = path == "/hook/set-status" && reply.status == 500;
            // What is refused for good is no failure.
            if reply.status >= 500 && reply.status != 501 && !is_known {
                failures.push(format!("{sent}: {reply:?}"));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    assert_eq!(request(&node, "GET", "/health/ready", &[], "").await.status, 200);
    let log = node.log();
    assert!(!log.is_empty() && !log.contains("panicked"), "{log}");
    for secret in world.secrets() {
        assert!(!log.contains(secret), "{secret}");
    }
    let told = log.lines().find(|line| line.contains(MARK));
    assert_eq!(told, None, "what a call said is in the log");
}
