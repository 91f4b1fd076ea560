//! The description of the routes for programs, and whether an answer fits it.

use std::collections::BTreeMap;

use claudemesh_broker::http::OPENAPI;
use jsonschema::Validator;
use serde_json::Value;

use super::http::Reply;

/// An operation's method in lower case, and its path.
pub type Operation = (String, String);

/// What an answer with a status may be: kinds of content, each with its schema.
type Contents = BTreeMap<String, Validator>;

/// `docs/openapi.json`, with the schemas of all its answers at hand.
pub struct Description {
    pub root: Value,
    answers: BTreeMap<(Operation, u16), Contents>,
}

impl Description {
    pub fn read() -> Self {
        let root: Value = serde_json::from_str(OPENAPI).expect("JSON");
        let mut answers = BTreeMap::new();
        for (operation, described) in operations(&root) {
            for (status, response) in described["responses"].as_object().expect("responses") {
                let content = resolved(&root, response)["content"].as_object();
                let contents = content
                    .into_iter()
                    .flatten()
                    .map(|(kind, content)| (kind.clone(), validator(&root, &content["schema"])));
                let status = status.parse().expect("a status");
                answers.insert((operation.clone(), status), contents.collect());
            }
        }
        Self { root, answers }
    }

    /// All that is described.
    pub fn operations(&self) -> Vec<(Operation, &Value)> {
        operations(&self.root)
    }

    /// What a reference leads to, or the value itself.
    pub fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        resolved(&self.root, value)
    }

    /// A schema of the description, to hold something else against.
    pub fn validator(&self, schema: &Value) -> Validator {
        validator(&self.root, schema)
    }

    /// Why the answer is not as the description has it.
    pub fn check(&self, method: &str, path: &str, reply: &Reply) -> Result<(), String> {
        let operation = (method.to_owned(), path.to_owned());
        let described = self.answers.get(&(operation, reply.status));
        let contents = described.ok_or_else(|| format!("no {} is described", reply.status))?;
        let kind = reply.header("content-type").unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default();
        let validator = contents.get(kind).ok_or_else(|| format!("`{kind}` is not described"))?;
        let body = match kind {
            "application/json" => serde_json::from_str(&reply.body).map_err(|e| e.to_string())?,
            _ => Value::from(reply.body.as_str()),
        };
        let errors: Vec<String> = validator
            .iter_errors(&body)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
    }
}

fn operations(root: &Value) -> Vec<(Operation, &Value)> {
    let mut all = Vec::new();
    for (path, item) in root["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            all.push(((method.clone(), path.clone()), operation));
        }
    }
    all
}

fn resolved<'a>(root: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => root.pointer(&reference[1..]).expect(reference),
        None => value,
    }
}

/// What the schema refers to lies beside it.
fn validator(root: &Value, schema: &Value) -> Validator {
    let mut whole = schema.clone();
    whole["components"] = root["components"].clone();
    jsonschema::draft202012::new(&whole).expect("a schema")
}
