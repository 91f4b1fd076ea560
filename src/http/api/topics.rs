//! Topics of the key's mesh: which there are, what was said in them, and posting to them.
//!
//! A topic that is not public does not exist for whoever is not in it. Only members of a
//! topic read what was said in it and post to it, as by a socket; a key that no member
//! made reads what everybody may join, and posts nothing.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;
use serde_json::json;

use super::caller::Caller;
use super::fields::optional_number;
use super::{Refused, answer, argument};
use crate::clock::Timestamp;
use crate::http::HttpState;
use crate::id::{Key, MemberId, MessageId, TopicId};
use crate::limits;
use crate::paging::{Listing, fitting};
use crate::protocol::{ApiCapability, Visibility};
use crate::store::{CalledTopic, HistoryPost, SeenTopic, StoreError, Topics};

/// The part of a path that names a topic.
pub(super) type Named = Result<Path<String>, PathRejection>;

/// The name, as far as it is text.
pub(super) fn name_of(named: Named) -> String {
    named.map(|Path(name)| name).unwrap_or_default()
}

pub(super) fn not_found(name: &str) -> Refused {
    Refused::word(StatusCode::NOT_FOUND, "topic_not_found").with("topic", name)
}

/// The topic of that name, as the key's member sees it.
pub(super) async fn seen(
    state: &HttpState,
    caller: &Caller,
    name: &str,
) -> Result<CalledTopic, Refused> {
    caller.is_for_topic(name)?;
    let calls = &state.stores.topic_calls;
    let found = calls.named(caller.mesh(), name, caller.issuer()).await?;
    found.filter(CalledTopic::is_seen).ok_or_else(|| not_found(name))
}

/// As above, where the key's member may read what is said.
pub(super) async fn read_by(
    state: &HttpState,
    caller: &Caller,
    name: &str,
) -> Result<CalledTopic, Refused> {
    let topic = seen(state, caller, name).await?;
    let may = topic.is_member || caller.issuer().is_none();
    may.then_some(topic).ok_or_else(|| not_in_it(name))
}

pub(super) fn not_in_it(name: &str) -> Refused {
    let refused = Refused::word(StatusCode::FORBIDDEN, "not_in_topic").with("topic", name);
    refused.with("hint", "join the topic first")
}

#[derive(Serialize)]
struct TopicsView {
    topics: Vec<TopicView>,
    /// Whether there are more than fit.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    more: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TopicView {
    id: TopicId,
    name: String,
    description: Option<String>,
    visibility: Visibility,
    created_at: Timestamp,
    unread: i64,
}

/// `GET /topics`: those that the key's member sees and the key is good for.
pub(super) async fn topics(
    State(state): State<Arc<HttpState>>,
    Extension(caller): Extension<Caller>,
) -> Response {
    answer(&state, |state| async move {
        caller.may(ApiCapability::Read)?;
        let (calls, rows_max) = (&state.stores.topic_calls, limits::API_TOPICS_MAX);
        let unread_max = limits::API_UNREAD_MAX;
        let found = calls.seen(caller.mesh(), caller.issuer(), rows_max + 1, unread_max).await?;
        let has_more = i64::try_from(found.len()).is_ok_and(|found| found > rows_max);
        let rows = usize::try_from(rows_max).unwrap_or(usize::MAX);
        let shown = found.into_iter().take(rows).filter(|topic| caller.sees_topic(&topic.name));
        let (topics, is_cut) = fitting(shown.map(listed));
        Ok(TopicsView { topics, more: has_more || is_cut })
    })
    .await
}

fn listed(topic: SeenTopic) -> TopicView {
    let SeenTopic { id, name, description, visibility, created_at, unread } = topic;
    TopicView { id, name, description, visibility, created_at, unread }
}

/// `PATCH /topics/{name}/read`: the key's member has read the topic up to now. Nobody
/// joins a topic by that.
pub(super) async fn mark_read(
    State(state): State<Arc<HttpState>>,
    Extension(caller): Extension<Caller>,
    named: Named,
) -> Response {
    answer(&state, |state| async move {
        caller.may(ApiCapability::Read)?;
        let name = name_of(named);
        caller.is_for_topic(&name)?;
        let member = &caller.needs_issuer()?.id;
        let topic = seen(&state, &caller, &name).await?;
        let now = Timestamp::now();
        state.stores.topics.mark_read(now, &topic.id, member).await?;
        Ok(json!({ "topic": topic.name, "topicId": topic.id, "readAt": now }))
    })
    .await
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct History {
    topic: String,
    topic_id: TopicId,
    messages: Vec<PostView>,
    /// Whether older ones that were asked for did not fit.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    more: bool,
}

/// A post, in lists and in streams.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PostView {
    pub(super) id: MessageId,
    sender_member_id: MemberId,
    sender_pubkey: Key,
    sender_name: String,
    nonce: String,
    ciphertext: String,
    body_version: i64,
    reply_to_id: Option<MessageId>,
    created_at: Timestamp,
}

impl From<HistoryPost> for PostView {
    fn from(post: HistoryPost) -> Self {
        Self {
            id: post.id,
            sender_member_id: post.sender,
            sender_pubkey: post.sender_key,
            sender_name: post.sender_name,
            nonce: post.nonce,
            ciphertext: post.ciphertext,
            body_version: post.body_version,
            reply_to_id: post.reply_to_id,
            created_at: post.created_at,
        }
    }
}

/// `GET /topics/{name}/messages`: the newest first, those before a post of the topic; one
/// that is none of it has none before it.
pub(super) async fn history(
    State(state): State<Arc<HttpState>>,
    Extension(caller): Extension<Caller>,
    named: Named,
    uri: Uri,
) -> Response {
    answer(&state, |state| async move {
        let asked = optional_number(&uri, "limit", 1..=limits::HISTORY_POSTS_MAX)?;
        let before = argument(&uri, "before").filter(|before| !before.is_empty());
        caller.may(ApiCapability::Read)?;
        let topic = read_by(&state, &caller, &name_of(named)).await?;
        let limit = asked.unwrap_or(limits::HISTORY_POSTS);
        let (before, topics) = (before.map(MessageId::from), &*state.stores.topics);
        let (messages, more) = page(topics, &topic.id, before, limit).await?;
        Ok(History { topic: topic.name, topic_id: topic.id, messages, more })
    })
    .await
}

/// As many posts as fit, the newest first, and whether some did not.
async fn page(
    topics: &dyn Topics,
    topic: &TopicId,
    before: Option<MessageId>,
    limit: i64,
) -> Result<(Vec<PostView>, bool), StoreError> {
    let mut listing = Listing::after(before, |post: &PostView| post.id.clone()).at_most(limit);
    while let Some((before, at_once)) = listing.next() {
        let found = topics.history(topic, before.as_ref(), at_once).await?;
        listing.take(found.into_iter().map(PostView::from));
    }
    let page = listing.page();
    Ok((page.rows, page.cursor.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::budget::value_bytes;
    use crate::store::MockTopics;

    /// The posts of a topic, none of which takes more bytes than such a one.
    const POSTS: usize = 10_000;

    fn post(number: usize) -> HistoryPost {
        HistoryPost {
            id: MessageId::from(format!("{number:0>32}")),
            sender: MemberId::from("m".repeat(32)),
            sender_key: Key::from("k".repeat(64)),
            sender_name: "\u{1}".repeat(limits::SHARED_NAME_BYTES_MAX),
            nonce: "n".repeat(32),
            // Of what a frame has six bytes for one.
            ciphertext: "\u{1}".repeat(32 * 1024),
            body_version: 2,
            reply_to_id: Some(MessageId::from("r".repeat(32))),
            created_at: Timestamp::from_ms(0),
        }
    }

    #[tokio::test]
    async fn an_answer_ends_at_its_bound_whatever_was_posted_and_goes_on_from_there() {
        let mut topics = MockTopics::new();
        topics.expect_history().returning(|_, before, limit| {
            let first = before.map_or(0, |id| id.as_str().parse::<usize>().expect("ours") + 1);
            let limit = usize::try_from(limit).expect("positive");
            Ok((first..POSTS).take(limit).map(post).collect())
        });
        let (mut before, mut seen) = (None, 0);
        for _ in 0..20 {
            let topic = TopicId::from("topic");
            let (posts, more) = page(&topics, &topic, before, 200).await.expect("a store");
            assert!(more && !posts.is_empty());
            assert!(value_bytes(&posts) <= limits::ANSWER_BYTES_MAX);
            assert_eq!(posts[0].id, post(seen).id);
            seen += posts.len();
            before = posts.last().map(|last| last.id.clone());
        }
        let last = Some(post(POSTS - 3).id);
        let (posts, more) = page(&topics, &TopicId::from("t"), last, 200).await.expect("a store");
        assert_eq!((posts.len(), more), (2, false));
    }
}
