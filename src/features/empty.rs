//! Questions that older brokers answered and this one has nothing to say to: it
//! keeps no memory, skills or tasks. Clients wait seconds for
//! an answer, some of them at every start, and the truthful one is an empty list.
//!
//! What would *write* such things is no request here, so that no client takes
//! silence, or an `ack`, for success.

use serde::Deserialize;
use serde_json::{Value, json};

use super::dispatch::{noise, pays, read};
use super::{Context, Work};
use crate::codec::Asked;
use crate::protocol::Unasked;
use crate::rates::cost;

/// A question: its type, its answer's, and the answer's fields, in the shape that
/// older brokers gave when they had nothing.
pub(super) type Question = (&'static str, &'static str, fn(&Named) -> Value);

/// What a question names, and the answer repeats.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Named {}

/// All of them.
const QUESTIONS: [Question; 14] = [
    ("recall", "memory_results", |_| json!({ "memories": [] })),
    ("get_skill", "skill_data", |_| json!({ "skill": null })),
    ("list_skills", "skill_list", |_| json!({ "skills": [] })),
    ("list_tasks", "task_list", |_| json!({ "tasks": [] })),
    ("get_context", "context_results", |_| json!({ "contexts": [] })),
    ("list_contexts", "context_list", |_| json!({ "contexts": [] })),
    ("list_scheduled", "scheduled_list", |_| json!({ "messages": [] })),
    ("list_webhooks", "webhook_list", |_| json!({ "webhooks": [] })),
    ("mcp_list", "mcp_list_result", |_| json!({ "servers": [] })),
    ("mcp_catalog", "mcp_catalog_result", |_| json!({ "services": [] })),
    ("list_files", "file_list", |_| json!({ "files": [] })),
    ("list_collections", "collection_list", |_| json!({ "collections": [] })),
    ("mesh_schema", "mesh_schema_result", |_| json!({ "tables": [] })),
    ("watch_list", "watch_list_result", |_| json!({ "watches": [] })),
];

/// Daemons wait for names of their own.
const OF_DAEMONS: [Question; 1] =
    [(QUESTIONS[0].0, "memory_recall_result", |_| json!({ "matches": [] }))];

/// The question of that type.
pub(super) fn find(kind: &str) -> Option<&'static Question> {
    QUESTIONS.iter().find(|question| question.0 == kind)
}

/// Answers, also without a `_reqId`: older brokers did.
pub(super) fn begin<'a>(
    context: Context<'a>,
    asked: &Asked<'_>,
    question: &'static Question,
) -> Option<Work<'a>> {
    let named = match read::<Named>(asked) {
        Ok(named) => named,
        Err(refusal) => return noise(&context, Unasked::Silent, refusal),
    };
    Some(Box::pin(async move {
        if pays(&context, cost::OF_NOISE).await {
            let of_daemons = || OF_DAEMONS.iter().find(|other| other.0 == question.0);
            let own = context.is_of_daemon().then(of_daemons).flatten();
            let (_, kind, fields) = own.unwrap_or(question);
            let (codec, req_id) = (context.session.codec, context.req_id.as_ref());
            context.say(codec.encode_fields(kind, &fields(&named), req_id));
        }
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_question_has_a_shape_of_its_own() {
        let types = QUESTIONS.iter().chain(&OF_DAEMONS).map(|question| question.1);
        let different: BTreeSet<_> = types.collect();
        assert_eq!(different.len(), QUESTIONS.len() + OF_DAEMONS.len());
    }

    #[test]
    fn daemons_have_names_of_their_own_for_questions_that_all_may_ask() {
        assert_eq!(OF_DAEMONS.map(|question| question.0), ["recall"]);
    }
}
