//! What members say that they work on: each may say it of itself, and read it of all.

use super::shapes::{no_larger_than, tags};
use super::{Context, Refusal};
use crate::clock::Timestamp;
use crate::events::shared;
use crate::limits;
use crate::paging::{self, Listing, Page};
use crate::protocol::budget::{text_bytes, value_bytes};
use crate::protocol::{
    ContextEntry, ContextList, ContextResults, ContextShared, GetContext, ListContexts,
    PeerContext, ShareContext,
};
use crate::record::{Shared, SharedChange};
use crate::store::{self, ContextAt, ContextKept, NewContext};

/// Says what the member works on; the others hear of it.
pub(super) async fn share(
    context: &Context<'_>,
    ask: ShareContext,
) -> Result<ContextShared, Refusal> {
    let ShareContext { summary, files_read, key_findings, tags: given } = ask;
    let (files_read, key_findings) =
        (files_read.unwrap_or_default(), key_findings.unwrap_or_default());
    no_larger_than("summary", text_bytes(&summary), limits::VALUE_BYTES_MAX)?;
    no_larger_than("filesRead", value_bytes(&files_read), limits::VALUE_BYTES_MAX)?;
    no_larger_than("keyFindings", value_bytes(&key_findings), limits::VALUE_BYTES_MAX)?;
    let (author, tags) = (context.author(), tags(given)?);
    let new = NewContext { author, summary, files_read, key_findings, tags };
    let ContextKept { id, seq } =
        context.parts.stores.contexts.share(Timestamp::now(), &new).await?;
    let NewContext { author, summary, .. } = new;
    let what = Shared::Context { member: author.member, name: author.member_name, summary };
    let change = SharedChange { seq, by: Some(author.presence), what };
    shared::publish(&context.parts.presence.shared, context.room, change);
    Ok(ContextShared { id })
}

/// Whose context has some text.
pub(super) async fn find(
    context: &Context<'_>,
    ask: GetContext,
) -> Result<ContextResults, Refusal> {
    no_larger_than("query", ask.query.len(), limits::QUERY_BYTES_MAX)?;
    let after = paging::from_cursor::<ContextAt>(ask.cursor.as_deref())?;
    let (contexts, mesh) = (&context.parts.stores.contexts, context.room.mesh());
    let limit = limits::CONTEXTS_FOUND_MAX;
    let found = contexts.find(mesh, &ask.query, after.as_ref(), limit).await?;
    let Page { rows: contexts, cursor } =
        paging::page(found, store::Context::at, |found| whole(found.clone()));
    Ok(ContextResults { contexts, more: cursor.is_some(), cursor })
}

/// What all members work on.
pub(super) async fn list(context: &Context<'_>, ask: ListContexts) -> Result<ContextList, Refusal> {
    let after = paging::from_cursor::<ContextAt>(ask.cursor.as_deref())?;
    let (contexts, mesh) = (&context.parts.stores.contexts, context.room.mesh());
    let mut listing = Listing::after(after, |row: &Row| row.at.clone());
    while let Some((after, limit)) = listing.next() {
        let found = contexts.list(mesh, after.as_ref(), limit).await?;
        listing.take(found.into_iter().map(Row::of));
    }
    let Page { rows, cursor } = listing.page();
    let contexts = rows.into_iter().map(|row| row.entry).collect();
    Ok(ContextList { contexts, more: cursor.is_some(), cursor })
}

/// A row of the list, with its place in it, which is not shown.
#[derive(serde::Serialize)]
struct Row {
    #[serde(flatten)]
    entry: ContextEntry,
    #[serde(skip)]
    at: ContextAt,
}

impl Row {
    fn of(context: store::Context) -> Self {
        let at = context.at();
        let store::Context { peer_name, peer_session, summary, tags, updated_at, .. } = context;
        let updated_at = updated_at.to_string();
        Self { entry: ContextEntry { peer_name, peer_session, summary, tags, updated_at }, at }
    }
}

fn whole(context: store::Context) -> PeerContext {
    let store::Context {
        peer_name,
        peer_session,
        summary,
        files_read,
        key_findings,
        tags,
        updated_at,
        id: _,
    } = context;
    let updated_at = updated_at.to_string();
    PeerContext { peer_name, peer_session, summary, files_read, key_findings, tags, updated_at }
}
