//! `GET /topics/{name}/stream`: posts as they come, as server-sent events.
//!
//! A stream begins with what comes after it was opened. The node is told of posts over
//! the bus, and reads them from the store by their place in the mesh's order: so each is
//! sent once, and what a lost frame would have told is found at the next look. A look
//! also finds that the stream may not go on. A task of its own does this, since a
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

use super::Refused;
use super::caller::Caller;
use super::topics::{Named, PostView, name_of, read_by};
use crate::clock::Timestamp;
use crate::http::{HttpState, to_its_end};
use crate::id::{MemberId, MeshId, TopicId};
use crate::limits;
use crate::protocol::ApiCapability;
use crate::socket::listener::Entering;
use crate::store::StoreError;

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
    state.life.tasks.spawn(produce(Arc::clone(&state), followed, sender, place));
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
) -> Result<(Followed, Place, String), Refused> {
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
async fn produce(
    state: Arc<HttpState>,
    mut followed: Followed,
    sender: mpsc::Sender<Event>,
    _place: Place,
) {
    let stopped = state.life.stopped.clone();
    let mut last_sent = Instant::now();
    let mut is_failing = false;
    loop {
        // Before the store is read: what comes meanwhile is looked at next.
        let told = state.registry.room(&followed.mesh).map(|room| room.posts());
        match followed.next(&state).await {
            Ok(None) => return,
            Ok(Some(posts)) => {
                is_failing = false;
                for post in posts {
                    let id = post.id.to_string();
                    let Ok(event) = Event::default().event("message").json_data(&post) else {
                        continue;
                    };
                    if !send(&sender, &stopped, event.id(id)).await {
                        return;
                    }
                    last_sent = Instant::now();
                }
            }
            Err(error) if !is_failing => {
                tracing::warn!(%error, "a topic's stream waits for the database");
                is_failing = true;
                let text = json!({ "error": "the database did not answer; the stream goes on" });
                let event = Event::default().event("error").data(text.to_string());
                if !send(&sender, &stopped, event).await {
                    return;
                }
            }
            Err(_) => {}
        }
        if last_sent.elapsed() >= HEARTBEAT {
            let now = Timestamp::now().as_ms().to_string();
            if !send(&sender, &stopped, Event::default().event("heartbeat").data(now)).await {
                return;
            }
            last_sent = Instant::now();
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = posted(told) => {}
            () = sender.closed() => return,
            () = stopped.cancelled() => return,
        }
    }
}

/// Whether the reader and the node are there still.
async fn send(
    sender: &mpsc::Sender<Event>,
    stopped: &tokio_util::sync::CancellationToken,
    event: Event,
) -> bool {
    tokio::select! {
        sent = sender.send(event) => sent.is_ok(),
        () = stopped.cancelled() => false,
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
    /// What came since; `None`: the stream ends.
    async fn next(&mut self, state: &HttpState) -> Result<Option<Vec<PostView>>, StoreError> {
        let calls = &state.stores.topic_calls;
        let watched = calls.watched(&self.topic, &self.key, self.member.as_ref()).await?;
        let Some(newest) = watched else { return Ok(None) };
        let mut posts = Vec::new();
        if newest > self.seq {
            let most = i64::try_from(limits::API_STREAM_POSTS_MAX).unwrap_or(i64::MAX);
            for (seq, post) in calls.posts_since(&self.topic, self.seq, most).await? {
                self.seq = seq;
                posts.push(PostView::from(post));
            }
        }
        Ok(Some(posts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
