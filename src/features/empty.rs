//! Answers to questions about what this broker keeps none of: one table, in the
//! shapes that older brokers gave when they had nothing.

use serde_json::{Value, json};

use super::Context;
use crate::clock::Timestamp;
use crate::protocol::ServerMessage;
use crate::protocol::empty::{EmptyRead, Named};

/// Answers, also without a `_reqId`: older brokers did.
pub fn answer(context: &Context<'_>, read: &EmptyRead) {
    let record = context.room.record(&context.session.presence);
    let is_daemon = record.is_some_and(|record| record.is_daemon());
    let shape = if is_daemon { of_daemons(read.kind) } else { None };
    let now = Timestamp::now();
    context.reply(&ServerMessage::Empty(shape.unwrap_or_else(|| shape_of(read, now))));
}

/// Daemons wait for names of their own.
fn of_daemons(kind: &str) -> Option<Value> {
    match kind {
        "get_state" => Some(json!({ "type": "state_value", "state": null })),
        "recall" => Some(json!({ "type": "memory_recall_result", "matches": [] })),
        _ => None,
    }
}

fn shape_of(EmptyRead { kind, named }: &EmptyRead, now: Timestamp) -> Value {
    let Named { key, topic } = named;
    match *kind {
        "get_state" => json!({
            "type": "state_result", "key": key, "value": null, "updatedBy": "", "updatedAt": "",
        }),
        "list_state" => json!({ "type": "state_list", "entries": [] }),
        "recall" => json!({ "type": "memory_results", "memories": [] }),
        "get_skill" => json!({ "type": "skill_data", "skill": null }),
        "list_skills" => json!({ "type": "skill_list", "skills": [] }),
        "list_tasks" => json!({ "type": "task_list", "tasks": [] }),
        "get_context" => json!({ "type": "context_results", "contexts": [] }),
        "list_contexts" => json!({ "type": "context_list", "contexts": [] }),
        "list_streams" => json!({ "type": "stream_list", "streams": [] }),
        "list_scheduled" => json!({ "type": "scheduled_list", "messages": [] }),
        "topic_list" => json!({ "type": "topic_list_response", "topics": [] }),
        "topic_members" => {
            json!({ "type": "topic_members_response", "topic": topic, "members": [] })
        }
        "topic_history" => {
            json!({ "type": "topic_history_response", "topic": topic, "messages": [] })
        }
        "apikey_list" => json!({ "type": "apikey_list_response", "keys": [] }),
        "list_webhooks" => json!({ "type": "webhook_list", "webhooks": [] }),
        "vault_list" => json!({ "type": "vault_list_result", "entries": [] }),
        "vault_get" => json!({ "type": "vault_get_result", "entries": [] }),
        "mcp_list" => json!({ "type": "mcp_list_result", "servers": [] }),
        "mcp_catalog" => json!({ "type": "mcp_catalog_result", "services": [] }),
        "list_files" => json!({ "type": "file_list", "files": [] }),
        "list_collections" => json!({ "type": "collection_list", "collections": [] }),
        "mesh_schema" => json!({ "type": "mesh_schema_result", "tables": [] }),
        "watch_list" => json!({ "type": "watch_list_result", "watches": [] }),
        // Whose clock nobody has set, it stands still.
        "get_clock" => json!({
            "type": "clock_status", "speed": 0, "paused": true, "tick": 0,
            "simTime": now, "startedAt": now,
        }),
        _ => unreachable!("only those of the list are read"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::empty::KINDS;

    #[test]
    fn each_question_has_a_shape_of_its_own() {
        let mut types: Vec<String> = Vec::new();
        for kind in KINDS {
            let read = EmptyRead { kind, named: Named::default() };
            let shape = shape_of(&read, Timestamp::default());
            let name = shape["type"].as_str().expect("a type").to_owned();
            assert!(!types.contains(&name), "{name} twice");
            types.push(name);
        }
    }
}
