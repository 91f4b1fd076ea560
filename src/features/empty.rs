//! Questions that older brokers answered and this one has nothing to say to: it keeps no
//! topics, files, vectors, tables or watches. Clients wait seconds for an answer, some of
//! them at every start, and the truthful one is an empty list.
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
pub(super) struct Named {
    #[serde(default)]
    topic: Value,
}

/// All of them.
const QUESTIONS: [Question; 8] = [
    ("topic_list", "topic_list_response", |_| json!({ "topics": [] })),
    (
        "topic_members",
        "topic_members_response",
        |named| json!({ "topic": named.topic, "members": [] }),
    ),
    (
        "topic_history",
        "topic_history_response",
        |named| json!({ "topic": named.topic, "messages": [] }),
    ),
    ("mcp_catalog", "mcp_catalog_result", |_| json!({ "services": [] })),
    ("list_files", "file_list", |_| json!({ "files": [] })),
    ("list_collections", "collection_list", |_| json!({ "collections": [] })),
    ("mesh_schema", "mesh_schema_result", |_| json!({ "tables": [] })),
    ("watch_list", "watch_list_result", |_| json!({ "watches": [] })),
];

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
            let (_, kind, fields) = question;
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
        let different: BTreeSet<_> = QUESTIONS.iter().map(|question| question.1).collect();
        assert_eq!(different.len(), QUESTIONS.len());
    }
}
