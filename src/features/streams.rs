//! Streams: data that peers publish to whoever subscribes, now.
//!
//! Any member may make, delete, publish and subscribe. A subscription is part of the
//! presence, so it is kept when the session comes back, on whichever node.

use super::shapes::{named, no_larger_than};
use super::{Context, Refusal};
use crate::clock::Timestamp;
use crate::cluster::BusMessage;
use crate::cluster::bus::Published;
use crate::events::streams;
use crate::limits;
use crate::paging::{self, Listing};
use crate::presence::changes;
use crate::protocol::budget::value_bytes;
use crate::protocol::{
    Ack, CreateStream, DeleteStream, ListStreams, Publish, StreamCreated, StreamData, StreamInfo,
    StreamList, Subscribe, Subscribed, Unsubscribe,
};
use crate::record::PresenceRecord;
use crate::store::{Stream, StreamPlace};

/// Makes a stream, unless there is one of that name.
pub(super) async fn create(
    context: &Context<'_>,
    ask: CreateStream,
) -> Result<StreamCreated, Refusal> {
    named("name", &ask.name)?;
    let streams = &context.parts.stores.streams;
    let stream = streams.create(Timestamp::now(), &context.author(), &ask.name).await?;
    Ok(StreamCreated { id: stream.id, name: stream.name })
}

/// Deletes a stream, whoever made it: streams are the mesh's.
pub(super) async fn delete(context: &Context<'_>, ask: DeleteStream) -> Result<Ack, Refusal> {
    named("name", &ask.name)?;
    let streams = &context.parts.stores.streams;
    streams.delete(Timestamp::now(), &context.author(), &ask.name).await?;
    Ok(context.done())
}

/// The streams that were made, the oldest first.
pub(super) async fn list(context: &Context<'_>, ask: ListStreams) -> Result<StreamList, Refusal> {
    let after = paging::from_cursor::<StreamPlace>(ask.cursor.as_deref())?;
    let (streams, mesh) = (&context.parts.stores.streams, context.room.mesh());
    let counts = context.room.subscriber_counts();
    let shown = |stream: Stream| StreamInfo {
        subscriber_count: counts.get(&stream.name).copied().unwrap_or_default(),
        id: stream.id,
        name: stream.name,
        created_by: stream.created_by.unwrap_or_default(),
        created_by_session: stream.created_by_session,
        created_at: stream.created_at,
    };
    let place = |stream: &StreamInfo| (stream.created_at, stream.id.clone());
    let mut listing = Listing::after(after, place);
    while let Some((after, limit)) = listing.next() {
        let found = streams.list(mesh, after, limit).await?;
        listing.take(found.into_iter().map(shown));
    }
    let page = listing.page();
    Ok(StreamList { streams: page.rows, more: page.cursor.is_some(), cursor: page.cursor })
}

/// From now on the session is told what others publish there.
pub(super) async fn subscribe(
    context: &Context<'_>,
    ask: Subscribe,
) -> Result<Subscribed, Refusal> {
    named("stream", &ask.stream)?;
    let (mut is_full, stream) = (false, ask.stream.clone());
    change(context, |record| {
        let is_known = record.streams.contains(&stream);
        is_full = !is_known && record.streams.len() >= limits::STREAMS_PER_PRESENCE_MAX;
        let changes = !is_known && !is_full;
        record.streams.extend(changes.then_some(stream));
        changes
    })
    .await;
    if is_full {
        let max = limits::STREAMS_PER_PRESENCE_MAX;
        let text = format!("a session subscribes to {max} streams at most: unsubscribe from one");
        return Err(Refusal::new("quota", text));
    }
    Ok(Subscribed { stream: ask.stream })
}

/// From now on the session is told nothing of it.
pub(super) async fn unsubscribe(context: &Context<'_>, ask: Unsubscribe) -> Result<Ack, Refusal> {
    change(context, |record| {
        let before = record.streams.len();
        record.streams.retain(|known| *known != ask.stream);
        record.streams.len() < before
    })
    .await;
    Ok(context.done())
}

/// Changes the subscriptions of the session, here and in the directory of all nodes.
async fn change(context: &Context<'_>, edit: impl FnOnce(&mut PresenceRecord) -> bool) {
    let Context { parts, room, session, .. } = context;
    if let Some(record) = room.update(session, edit) {
        changes::tell_others(&parts.presence, &session.lease, &record, None).await;
    }
}

/// Tells whoever subscribes, on all nodes. Of one publisher in the order of its requests.
pub(super) async fn publish(context: &Context<'_>, ask: Publish) -> Result<Ack, Refusal> {
    named("stream", &ask.stream)?;
    no_larger_than("data", value_bytes(&ask.data), limits::VALUE_BYTES_MAX)?;
    let author = context.author();
    let data = StreamData {
        stream: ask.stream,
        data: ask.data,
        published_by_session: author.other_name().map(str::to_owned),
        published_by: author.member_name,
    };
    let published = Published { by: author.presence, data: Box::new(data) };
    let message = BusMessage::Published(published);
    context.parts.cluster.publish(context.room.mesh(), &message);
    if let BusMessage::Published(published) = message {
        streams::tell(context.room, published);
    }
    Ok(context.done())
}
