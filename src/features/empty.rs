//! Questions that older brokers answered and this one has nothing to say to: it keeps no
//! files, vectors, tables or watches. Clients wait seconds for an answer, some of them at
//! every start, and the truthful one is an empty list.
//!
//! What would *write* such things is no request here, so that no client takes
//! silence, or an `ack`, for success. Where clients wait for an answer of one type, and
//! read no `error` frame, that answer says why nothing was done.

use serde_json::{Value, json};

use super::dispatch::pays;
use super::{Context, Work};
use crate::rates::cost;

/// A question: its type, its answer's, and the answer's fields, in the shape that
/// older brokers gave when they had nothing.
pub(super) type Question = (&'static str, &'static str, fn() -> Value);

/// All of them.
const QUESTIONS: [Question; 5] = [
    ("mcp_catalog", "mcp_catalog_result", || json!({ "services": [] })),
    ("list_files", "file_list", || json!({ "files": [] })),
    ("list_collections", "collection_list", || json!({ "collections": [] })),
    ("mesh_schema", "mesh_schema_result", || json!({ "tables": [] })),
    ("watch_list", "watch_list_result", || json!({ "watches": [] })),
];

/// What is refused in an answer that the client reads. It reads it by the `_reqId`, so
/// that there is none without.
const REFUSED: [Question; 1] =
    [("watch", "watch_ack", || json!({ "error": "this broker watches no pages" }))];

/// The question of that type.
pub(super) fn find(kind: &str, has_req_id: bool) -> Option<&'static Question> {
    let refused = REFUSED.iter().filter(|_| has_req_id);
    QUESTIONS.iter().chain(refused).find(|question| question.0 == kind)
}

/// Answers; a question also without a `_reqId`: older brokers did.
pub(super) fn begin<'a>(context: Context<'a>, question: &'static Question) -> Option<Work<'a>> {
    Some(Box::pin(async move {
        if pays(&context, cost::OF_NOISE).await {
            let (_, kind, fields) = question;
            let (codec, req_id) = (context.session.codec, context.req_id.as_ref());
            context.say(codec.encode_fields(kind, &fields(), req_id));
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
