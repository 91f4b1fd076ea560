//! Mentions of the member that made the key, in its mesh.
//!
//! A key that is good for some topics only is told of mentions in these.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::{Value, json};

use super::caller::Caller;
use super::fields::Fields;
use super::{Refused, answer, argument, cut_at};
use crate::clock::Timestamp;
use crate::http::HttpState;
use crate::id::{Key, MessageId, TopicId};
use crate::limits::{self, DAY_MS};
use crate::paging::fitting;
use crate::protocol::ApiCapability;
use crate::store::{AskedMentions, Mention};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MentionView {
    id: MessageId,
    notification_id: String,
    topic_id: TopicId,
    topic_name: String,
    sender_name: String,
    sender_pubkey: Key,
    ciphertext: String,
    body_version: i64,
    kind: String,
    read_at: Option<Timestamp>,
    created_at: Timestamp,
}

impl From<Mention> for MentionView {
    fn from(Mention { id, kind, read_at, sender_key, post }: Mention) -> Self {
        Self {
            id: post.id,
            notification_id: id,
            topic_id: post.topic,
            topic_name: post.topic_name,
            sender_name: post.sender_name,
            sender_pubkey: sender_key,
            ciphertext: post.ciphertext,
            body_version: post.body_version,
            kind,
            read_at,
            created_at: post.created_at,
        }
    }
}

/// An instant of the query; so long ago where none is given.
pub(super) fn since(uri: &Uri, default_ms: i64) -> Result<Timestamp, Refused> {
    match argument(uri, "since").filter(|text| !text.is_empty()) {
        None => Ok(Timestamp::now().plus_ms(-default_ms)),
        Some(text) => Timestamp::read(&text)
            .ok_or_else(|| Refused::word(StatusCode::BAD_REQUEST, "invalid_since")),
    }
}

/// `GET /notifications`.
pub(super) async fn list(
    State(state): State<Arc<HttpState>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Response {
    answer(&state, |state| async move {
        let asked_since = since(&uri, DAY_MS);
        caller.may(ApiCapability::Read)?;
        let since = asked_since?;
        let Ok(member) = caller.needs_issuer() else { return Ok(json!({ "notifications": [] })) };
        let ask = AskedMentions {
            since,
            unread_only: argument(&uri, "unread").as_deref() == Some("1"),
            archived_too: true,
            limit: limits::API_MENTIONS_MAX,
        };
        let reads = &state.stores.topic_reads;
        let found = reads.mentions(std::slice::from_ref(&member.id), &ask).await?;
        let seen = found.into_iter().filter(|one| caller.sees_topic(&one.post.topic_name));
        let (shown, is_cut) = fitting(seen.map(MentionView::from));
        let body = json!({ "notifications": shown, "since": since, "mentionedAs": member.name });
        Ok(cut_at(body, is_cut))
    })
    .await
}

/// What is to be marked as read.
enum Marked {
    These(Vec<String>),
    Until(Option<String>),
}

/// `POST /notifications/read`.
pub(super) async fn mark(
    State(state): State<Arc<HttpState>>,
    Extension(caller): Extension<Caller>,
    fields: Fields,
) -> Response {
    let marked = match marked(&fields) {
        Ok(marked) => marked,
        Err(refused) => return refused.into_response(),
    };
    answer(&state, |state| async move {
        caller.may(ApiCapability::Read)?;
        let (member, now) = (&caller.needs_issuer()?.id, Timestamp::now());
        let reads = &state.stores.topic_reads;
        Ok(match marked {
            Marked::These(ids) => {
                reads.mark_mentions(now, member, &ids).await?;
                json!({ "marked": ids.len(), "readAt": now })
            }
            Marked::Until(before) => {
                let invalid = || Refused::word(StatusCode::BAD_REQUEST, "invalid_before");
                let before = match before {
                    None => now,
                    Some(text) => Timestamp::read(&text).ok_or_else(invalid)?,
                };
                reads.mark_mentions_until(now, member, before).await?;
                json!({ "marked": "all", "before": before })
            }
        })
    })
    .await
}

/// `{ids}` or `{all: true, before?}`.
fn marked(fields: &Fields) -> Result<Marked, Refused> {
    let ids = fields.optional_texts("ids", limits::API_MARKED_MAX, 0..=usize::MAX);
    if let Ok(Some(ids)) = ids
        && !ids.is_empty()
    {
        return Ok(Marked::These(ids));
    }
    if fields.value("all") == Some(&Value::Bool(true)) {
        return fields.optional_text("before", 0..=usize::MAX).map(Marked::Until);
    }
    Err(Refused::argument("validation:error.union", "Invalid input".to_owned()))
}
