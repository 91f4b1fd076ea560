//! `GET /topics/{name}/stream`: posts as they come, as server-sent events.
//!
//! A stream begins with what comes after it was opened. The node is told of posts over
//! the bus, and reads them from the store by their place in the mesh's order: so each is
//! sent once, and what a lost frame would have told is found at the next look. A look
//! goes on until it has found all, and also finds that the stream may not go on. A task of its own does this, since a
//! request's future may be dropped at any point; the two are joined by a channel of a few
//! events, and nothing is read while it is full.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Extension, State};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::Refused;
use super::caller::Caller;
use super::topics::{Named, PostView, name_of, read_by};
use crate::clock::Timestamp;
use crate::http::{HttpState, to_its_end};
use crate::id::{MemberId, MeshId, TopicId};
use crate::limits;
use crate::protocol::ApiCapability;
use crate::socket::listener::Entering;
use crate::store::{Result, TopicCalls};

const LOOK: Duration = Duration::from_millis(limits::API_STREAM_LOOK_MS);
const HEARTBEAT: Duration = Duration::from_millis(limits::API_HEARTBEAT_MS);

/// How many streams are open on this node, of whom.
#[derive(Default)]
pub(crate) struct Streams(Arc<Mutex<HashMap<MemberId, usize>>>);

/// A stream's place among them, until it is dropped.
struct Place {
    open: Arc<Mutex<HashMap<MemberId, usize>>>,
    of: MemberId,
}

impl Streams {
    /// A place for one more of that member's; `None`: there are as many as may be.
    fn enter(&self, of: MemberId) -> Option<Place> {
        let mut open = self.0.lock();
        if open.values().sum::<usize>() >= limits::API_STREAMS_MAX {
            return None;
        }
        let own = open.entry(of.clone()).or_default();
        if *own >= limits::API_STREAMS_PER_MEMBER_MAX {
            return None;
        }
        *own += 1;
        Some(Place { open: Arc::clone(&self.0), of })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        if let Some(own) = open.get_mut(&self.of) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.of);
            }
        }
    }
}

/// `GET /topics/{name}/stream`.
pub(super) async fn posts(
    State(state): State<Arc<HttpState>>,
    Extension(caller): Extension<Caller>,
    Extension(entering): Extension<Entering>,
    named: Named,
) -> Response {
    let name = name_of(named);
    let opened = to_its_end(&state, |state| async move { open(&state, caller, &name).await });
    let (followed, place, topic) = match opened.await {
        Ok(Ok(opened)) => opened,
        Ok(Err(refused)) => return refused.into_response(),
        Err(_) => return Refused::internal().into_response(),
    };
    // No stranger, and here for long.
    entering.leave();
    let (sender, receiver) = mpsc::channel(limits::API_STREAM_POSTS_MAX);
    let ready = json!({
        "topic": topic, "topicId": followed.topic, "connectedAt": Timestamp::now(),
    });
    // There is room: nothing was sent yet.
    let _ = sender.try_send(Event::default().event("ready").data(ready.to_string()));
    let out = Out { sender, stopped: state.life.stopped.clone(), last_sent: Instant::now() };
    state.life.tasks.spawn(produce(Arc::clone(&state), followed, out, place));
    let events = stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|event: Event| (Ok::<_, Infallible>(event), receiver))
    });
    ([("x-accel-buffering", "no")], Sse::new(events)).into_response()
}

/// What a stream follows, and up to where its reader has it.
struct Followed {
    mesh: MeshId,
    topic: TopicId,
    key: String,
    member: Option<MemberId>,
    seq: i64,
}

async fn open(
    state: &HttpState,
    caller: Caller,
    name: &str,
) -> std::result::Result<(Followed, Place, String), Refused> {
    caller.may(ApiCapability::Read)?;
    let topic = read_by(state, &caller, name).await?;
    let place = state.topic_streams.enter(caller.payer()).ok_or_else(|| Refused::too_many(60))?;
    let (key, member) = (caller.key().to_owned(), caller.issuer().cloned());
    let watched = state.stores.topic_calls.watched(&topic.id, &key, member.as_ref()).await?;
    let seq = watched.ok_or_else(Refused::key_invalid)?;
    let mesh = caller.mesh().clone();
    Ok((Followed { mesh, topic: topic.id, key, member, seq }, place, topic.name))
}

/// Sends posts until the reader, the node, or the right to read is gone.
async fn produce(state: Arc<HttpState>, mut followed: Followed, mut out: Out, _place: Place) {
    let mut is_failing = false;
    loop {
        // Before the store is read: what comes meanwhile is looked at next.
        let told = state.registry.room(&followed.mesh).map(|room| room.posts());
        match followed.catch_up(&*state.stores.topic_calls, &mut out).await {
            Ok(true) => is_failing = false,
            Ok(false) => return,
            Err(error) if !is_failing => {
                tracing::warn!(%error, "a topic's stream waits for the database");
                is_failing = true;
                let text = json!({ "error": "the database did not answer; the stream goes on" });
                let event = Event::default().event("error").data(text.to_string());
                if !out.send(event).await {
                    return;
                }
            }
            Err(_) => {}
        }
        if out.last_sent.elapsed() >= HEARTBEAT {
            let now = Timestamp::now().as_ms().to_string();
            if !out.send(Event::default().event("heartbeat").data(now)).await {
                return;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = posted(told) => {}
            () = out.sender.closed() => return,
            () = out.stopped.cancelled() => return,
        }
    }
}

/// The way to a stream's reader.
struct Out {
    sender: mpsc::Sender<Event>,
    stopped: CancellationToken,
    last_sent: Instant,
}

impl Out {
    /// Sends an event; whether the reader and the node are there still.
    async fn send(&mut self, event: Event) -> bool {
        let is_sent = tokio::select! {
            sent = self.sender.send(event) => sent.is_ok(),
            () = self.stopped.cancelled() => false,
        };
        self.last_sent = Instant::now();
        is_sent
    }
}

/// Until a post may have come; never where this node is not told.
async fn posted(told: Option<watch::Receiver<()>>) {
    if let Some(mut told) = told
        && told.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

impl Followed {
    /// Sends all that came since; whether the stream goes on. Whether it may is looked at
    /// before every page.
    async fn catch_up(&mut self, calls: &dyn TopicCalls, out: &mut Out) -> Result<bool> {
        let most = i64::try_from(limits::API_STREAM_POSTS_MAX).unwrap_or(i64::MAX);
        loop {
            let watched = calls.watched(&self.topic, &self.key, self.member.as_ref()).await?;
            match watched {
                None => return Ok(false),
                Some(newest) if newest <= self.seq => return Ok(true),
                Some(_) => {}
            }
            let posts = calls.posts_since(&self.topic, self.seq, most).await?;
            let is_last = posts.len() < limits::API_STREAM_POSTS_MAX;
            for (seq, post) in posts {
                self.seq = seq;
                let id = post.id.to_string();
                let event = Event::default().event("message").json_data(PostView::from(post));
                let Ok(event) = event else { continue };
                if !out.send(event.id(id)).await {
                    return Ok(false);
                }
            }
            if is_last {
                return Ok(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Key, MessageId};
    use crate::store::{HistoryPost, MockTopicCalls};

    fn post(seq: i64) -> (i64, HistoryPost) {
        let post = HistoryPost {
            id: MessageId::from(seq.to_string()),
            sender: MemberId::from("ada"),
            sender_key: Key::from("ada-key"),
            sender_name: "ada".to_owned(),
            nonce: String::new(),
            ciphertext: "eA==".to_owned(),
            body_version: 1,
            reply_to_id: None,
            created_at: Timestamp::from_ms(0),
        };
        (seq, post)
    }

    fn followed() -> Followed {
        let (mesh, topic) = (MeshId::from("mesh"), TopicId::from("topic"));
        Followed { mesh, topic, key: "key".to_owned(), member: None, seq: 0 }
    }

    /// A way to a reader that takes its time, and the reader.
    fn out() -> (Out, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(1000);
        let stopped = CancellationToken::new();
        (Out { sender, stopped, last_sent: Instant::now() }, receiver)
    }

    #[tokio::test]
    async fn a_stream_that_is_behind_catches_up_in_one_look_and_reads_no_page_in_vain() {
        let page = i64::try_from(limits::API_STREAM_POSTS_MAX).expect("few");
        for (behind, reads) in [(0, 0), (1, 1), (page, 1), (page + 1, 2), (20 * page + 3, 21)] {
            let mut calls = MockTopicCalls::new();
            calls.expect_watched().returning(move |_, _, _| Ok(Some(behind)));
            let pages = usize::try_from(reads).expect("few");
            calls.expect_posts_since().times(pages).returning(move |_, after, limit| {
                Ok((after + 1..=behind)
                    .take(usize::try_from(limit).expect("few"))
                    .map(post)
                    .collect())
            });
            let (mut out, mut reader) = out();
            let mut followed = followed();
            assert!(followed.catch_up(&calls, &mut out).await.expect("a store"));
            assert_eq!(
                (followed.seq, reader.len()),
                (behind, usize::try_from(behind).expect("few"))
            );
            reader.close();
        }
    }

    #[tokio::test]
    async fn a_stream_that_may_not_go_on_ends_between_two_pages() {
        let mut calls = MockTopicCalls::new();
        calls.expect_watched().once().returning(|_, _, _| Ok(Some(1000)));
        calls.expect_watched().once().returning(|_, _, _| Ok(None));
        calls.expect_posts_since().once().returning(|_, after, limit| {
            Ok((after + 1..).take(usize::try_from(limit).expect("few")).map(post).collect())
        });
        let (mut out, reader) = out();
        assert!(!followed().catch_up(&calls, &mut out).await.expect("a store"));
        assert_eq!(reader.len(), limits::API_STREAM_POSTS_MAX);
    }

    #[test]
    fn a_member_has_so_many_streams_and_a_place_is_free_again() {
        let streams = Streams::default();
        let ada = || MemberId::from("ada");
        let mut places: Vec<_> = (0..limits::API_STREAMS_PER_MEMBER_MAX)
            .map(|_| streams.enter(ada()).expect("room"))
            .collect();
        assert!(streams.enter(ada()).is_none());
        assert!(streams.enter(MemberId::from("bob")).is_some());
        places.pop();
        places.push(streams.enter(ada()).expect("room again"));
        drop(places);
        assert!(streams.0.lock().is_empty());
    }
}
