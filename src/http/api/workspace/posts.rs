//! What was said in all meshes of the user behind a key: mentions, what others said of
//! late, and a search. Of sealed posts nothing is searched or shown in plain.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::Uri;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Value, json};

use super::Meshes;
use crate::clock::Timestamp;
use crate::http::HttpState;
use crate::http::api::caller::Caller;
use crate::http::api::mentions::since;
use crate::http::api::{Refused, answer, argument, cut_at};
use crate::id::{MemberId, MeshId, MessageId, TopicId};
use crate::limits::{self, DAY_MS};
use crate::paging::fitting;
use crate::store::{AskedMentions, AskedPosts, MembersPost, MembersTopic};

/// As many characters of base64 as hold a snippet in any language, in whole groups.
const SNIPPET_CHARS: i64 = 1280;

/// A post, wherever it was said.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PostView {
    message_id: MessageId,
    topic_id: TopicId,
    topic_name: String,
    mesh_id: MeshId,
    mesh_slug: String,
    sender_name: String,
    snippet: Option<String>,
    body_version: i64,
    created_at: Timestamp,
    #[serde(flatten)]
    more: More,
}

/// What some lists have beside it.
#[derive(Serialize)]
#[serde(untagged)]
enum More {
    Found {},
    #[serde(rename_all = "camelCase")]
    Said {
        mesh_name: String,
        sender_member_id: MemberId,
        ciphertext: Option<String>,
    },
    #[serde(rename_all = "camelCase")]
    Mention {
        mesh_name: String,
        notification_id: String,
        ciphertext: Option<String>,
        read: bool,
        read_at: Option<Timestamp>,
    },
}

fn view(post: MembersPost, meshes: &Meshes, more: More) -> PostView {
    PostView {
        snippet: snippet(&post),
        message_id: post.id,
        topic_id: post.topic,
        topic_name: post.topic_name,
        mesh_slug: meshes.slug(&post.mesh),
        mesh_id: post.mesh,
        sender_name: post.sender_name,
        body_version: post.body_version,
        created_at: post.created_at,
        more,
    }
}

/// The beginning of a post that is not sealed.
fn snippet(post: &MembersPost) -> Option<String> {
    if post.body_version != 1 {
        return None;
    }
    let chars = usize::try_from(SNIPPET_CHARS).unwrap_or(usize::MAX);
    let text = post.ciphertext.get(..chars).unwrap_or(&post.ciphertext);
    let bytes = STANDARD.decode(text).unwrap_or_default();
    let (text, mut units) = (String::from_utf8_lossy(&bytes), 0);
    let fits = |letter: &char| {
        units += letter.len_utf16();
        units <= limits::API_SNIPPET_UNITS
    };
    Some(text.chars().take_while(fits).collect())
}

/// What is sealed is shown as it is.
fn sealed(post: &MembersPost) -> Option<String> {
    (post.body_version != 1).then(|| post.ciphertext.clone())
}

/// `GET /me/notifications`.
pub(in crate::http::api) async fn mentions(
    State(state): State<Arc<HttpState>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Response {
    answer(&state, |state| async move {
        let meshes = Meshes::of(&state, &caller).await?;
        let ask = AskedMentions {
            since: since(&uri, 7 * DAY_MS)?,
            unread_only: argument(&uri, "include").as_deref() != Some("all"),
            archived_too: false,
            limit: limits::API_MY_MENTIONS_MAX,
        };
        let found = state.stores.topic_reads.mentions(&meshes.members, &ask).await?;
        let unread: Vec<bool> = found.iter().map(|mention| mention.read_at.is_none()).collect();
        let (shown, more) = fitting(found.into_iter().map(|mention| {
            let more = More::Mention {
                mesh_name: meshes.name(&mention.post.mesh),
                notification_id: mention.id,
                ciphertext: sealed(&mention.post),
                read: mention.read_at.is_some(),
                read_at: mention.read_at,
            };
            view(mention.post, &meshes, more)
        }));
        let unread = unread.iter().take(shown.len()).filter(|unread| **unread).count();
        let totals = json!({ "unread": unread, "total": shown.len() });
        Ok(cut_at(json!({ "notifications": shown, "totals": totals }), more))
    })
    .await
}

/// `GET /me/activity`: what others said.
pub(in crate::http::api) async fn activity(
    State(state): State<Arc<HttpState>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Response {
    answer(&state, |state| async move {
        let meshes = Meshes::of(&state, &caller).await?;
        let ask = AskedPosts {
            since: since(&uri, DAY_MS)?,
            own_too: false,
            plain_chars: None,
            limit: limits::API_ACTIVITY_MAX,
        };
        let found = state.stores.topic_reads.posts(&meshes.members, &ask).await?;
        let (shown, more) = fitting(found.into_iter().map(|post| {
            let more = More::Said {
                mesh_name: meshes.name(&post.mesh),
                sender_member_id: post.sender.clone(),
                ciphertext: sealed(&post),
            };
            view(post, &meshes, more)
        }));
        let totals = json!({ "events": shown.len() });
        Ok(cut_at(json!({ "activity": shown, "totals": totals }), more))
    })
    .await
}

/// `GET /me/search`: topics by name, and posts that have the text in their beginning, or in
/// the name of their sender or topic.
pub(in crate::http::api) async fn search(
    State(state): State<Arc<HttpState>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Response {
    let query = argument(&uri, "q").unwrap_or_default().trim().to_owned();
    let limit = argument(&uri, "limit").and_then(|text| text.trim().parse::<i64>().ok());
    let limit = limit.filter(|limit| *limit != 0).unwrap_or(limits::HISTORY_POSTS);
    let limit = usize::try_from(limit.clamp(1, limits::API_FOUND_MAX)).unwrap_or(1);
    answer(&state, |state| async move {
        let meshes = Meshes::of(&state, &caller).await?;
        if query.chars().count() < 2 {
            return Ok(found(&query, Vec::new()));
        }
        let (payer, cost) = (caller.payer(), limits::API_SEARCH_COST);
        let may = state.rates.may_ask(&*state.cluster, &payer, cost).await;
        may.map_err(|wait| Refused::too_many(wait.as_secs().max(1)))?;
        let (reads, wanted) = (&state.stores.topic_reads, query.to_lowercase());
        let has = |text: &str| text.to_lowercase().contains(&wanted);
        let topics = reads.topics(&meshes.members, limits::API_TOPICS_MAX, 1).await?;
        let topics = topics.iter().filter(|topic| has(&topic.name)).take(limit);
        let topics = topics.map(|topic| Found::Topic(topic_view(topic, &meshes)));
        let ask = AskedPosts {
            since: Timestamp::now().plus_ms(-limits::API_RECENT_MS),
            own_too: true,
            plain_chars: Some(SNIPPET_CHARS),
            limit: limits::API_SEARCHED_MAX,
        };
        let posts = reads.posts(&meshes.members, &ask).await?;
        let fits = |post: &MembersPost| {
            let begins = snippet(post).is_some_and(|text| has(&text));
            begins || has(&post.sender_name) || has(&post.topic_name)
        };
        let posts = posts.into_iter().filter(fits).take(limit);
        let posts = posts.map(|post| Found::Post(Box::new(view(post, &meshes, More::Found {}))));
        Ok(found(&query, topics.chain(posts)))
    })
    .await
}

/// What a search finds.
#[derive(Serialize)]
#[serde(untagged)]
enum Found {
    Topic(Value),
    Post(Box<PostView>),
}

fn found(query: &str, found: impl IntoIterator<Item = Found>) -> Value {
    let (found, more) = fitting(found);
    let is_topic = |found: &Found| matches!(found, Found::Topic(_));
    let (topics, messages): (Vec<_>, Vec<_>) = found.into_iter().partition(is_topic);
    let totals = json!({ "topics": topics.len(), "messages": messages.len() });
    let body = json!({ "query": query, "topics": topics, "messages": messages, "totals": totals });
    cut_at(body, more)
}

fn topic_view(topic: &MembersTopic, meshes: &Meshes) -> Value {
    json!({
        "id": topic.id,
        "name": topic.name,
        "description": topic.description,
        "meshId": topic.mesh,
        "meshSlug": meshes.slug(&topic.mesh),
        "meshName": meshes.name(&topic.mesh),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(text: &str, body_version: i64) -> MembersPost {
        MembersPost {
            id: MessageId::from("p"),
            topic: TopicId::from("t"),
            topic_name: "t".to_owned(),
            mesh: MeshId::from("mesh"),
            sender: MemberId::from("ada"),
            sender_name: "ada".to_owned(),
            ciphertext: STANDARD.encode(text),
            body_version,
            created_at: Timestamp::from_ms(0),
        }
    }

    #[test]
    fn a_snippet_is_the_beginning_of_what_is_not_sealed() {
        assert_eq!(snippet(&post("hello", 1)).as_deref(), Some("hello"));
        assert_eq!(snippet(&post("hello", 2)), None);
        let long = "\u{1f980}".repeat(500);
        assert_eq!(snippet(&post(&long, 1)), Some("\u{1f980}".repeat(120)));
        let thick = "語".repeat(5000);
        assert_eq!(snippet(&post(&thick, 1)), Some("語".repeat(240)));
        let odd = MembersPost { ciphertext: "no base64!".to_owned(), ..post("", 1) };
        assert_eq!(snippet(&odd).as_deref(), Some(""));
    }
}
