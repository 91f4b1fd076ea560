//! What a mesh remembers: texts that every member may add, find by their words, and
//! remove.

use super::shapes::{may_begin_an_id, named, no_larger_than, tags, the_one_of};
use super::{Context, Refusal};
use crate::clock::Timestamp;
use crate::paging::{self, Page};
use crate::protocol::budget::text_bytes;
use crate::protocol::{
    Ack, Forget, Memory, MemoryRecallResult, MemoryResults, MemoryStored, Recall, Remember,
};
use crate::store::{self, NewMemory};
use crate::{id, limits};

/// Keeps a text.
pub(super) async fn remember(
    context: &Context<'_>,
    ask: Remember,
) -> Result<MemoryStored, Refusal> {
    if ask.content.is_empty() {
        return Err(Refusal::invalid("`content` is needed"));
    }
    no_larger_than("content", text_bytes(&ask.content), limits::VALUE_BYTES_MAX)?;
    let (author, id) = (context.author(), id::random());
    let memory = NewMemory { author, id: id.clone(), content: ask.content, tags: tags(ask.tags)? };
    context.parts.stores.memories.remember(Timestamp::now(), &memory).await?;
    Ok(MemoryStored { memory_id: id.clone(), id })
}

/// Finds texts by their words.
pub(super) async fn recall(context: &Context<'_>, ask: Recall) -> Result<MemoryResults, Refusal> {
    let Page { rows: memories, cursor } = found(context, ask).await?;
    Ok(MemoryResults { memories, more: cursor.is_some(), cursor })
}

/// As [`recall`], for daemons, which wait for a name of their own.
pub(super) async fn matches(
    context: &Context<'_>,
    ask: Recall,
) -> Result<MemoryRecallResult, Refusal> {
    let Page { rows: matches, cursor } = found(context, ask).await?;
    Ok(MemoryRecallResult { matches, more: cursor.is_some(), cursor })
}

async fn found(context: &Context<'_>, ask: Recall) -> Result<Page<Memory>, Refusal> {
    no_larger_than("query", ask.query.len(), limits::QUERY_BYTES_MAX)?;
    let skip = paging::from_cursor::<u32>(ask.cursor.as_deref())?.unwrap_or_default();
    let limit = ask.limit.unwrap_or(limits::RECALL_ROWS).clamp(1, limits::RECALL_ROWS_MAX);
    let (memories, mesh) = (&context.parts.stores.memories, context.room.mesh());
    let found = memories.recall(mesh, &ask.query, skip.into(), limit).await?;
    let numbered = (skip + 1..).zip(found);
    Ok(paging::page(numbered, |(number, _)| *number, |(_, memory)| shown(memory.clone())))
}

/// Removes a text.
pub(super) async fn forget(context: &Context<'_>, ask: Forget) -> Result<Ack, Refusal> {
    named("memoryId", &ask.memory_id)?;
    let (memories, author) = (&context.parts.stores.memories, context.author());
    let (now, id) = (Timestamp::now(), &ask.memory_id);
    if !memories.forget(now, &author, id).await? && may_begin_an_id(id) {
        let found = memories.beginning_with(&author.mesh, id).await?;
        if let Some(whole) = the_one_of(found, id) {
            memories.forget(now, &author, &whole).await?;
        }
    }
    let (id, message_id) = (ask.memory_id.clone(), ask.memory_id);
    Ok(Ack { id, message_id, ..Ack::default() })
}

fn shown(memory: store::Memory) -> Memory {
    let store::Memory { id, content, tags, remembered_by, remembered_by_session, remembered_at } =
        memory;
    let remembered_at = remembered_at.to_string();
    Memory { id, content, tags, remembered_by, remembered_by_session, remembered_at, sealed: false }
}
