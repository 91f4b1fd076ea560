//! Shared state: values under keys, which every member may read and write.

use std::sync::Arc;

use super::shapes::{named, no_larger_than};
use super::{Context, Refusal};
use crate::events::shared;
use crate::limits;
use crate::paging;
use crate::paging::Listing;
use crate::protocol::{
    Ack, DeleteState, GetState, ListState, SetState, StateEntry, StateList, StateResult, StateValue,
};
use crate::record::{Shared, SharedChange};
use crate::store::{self, StateWrite, StateWritten};

/// Writes a value.
pub(super) async fn set(context: &Context<'_>, ask: SetState) -> Result<Ack, Refusal> {
    named("key", &ask.key)?;
    let text = ask.value.to_string();
    no_larger_than("value", text.len(), limits::VALUE_BYTES_MAX)?;
    write(context, ask.key, Some((ask.value, text)), ask.if_version).await
}

/// Removes a value.
pub(super) async fn delete(context: &Context<'_>, ask: DeleteState) -> Result<Ack, Refusal> {
    named("key", &ask.key)?;
    write(context, ask.key, None, ask.if_version).await
}

async fn write(
    context: &Context<'_>,
    key: String,
    value: Option<(serde_json::Value, String)>,
    if_version: Option<i64>,
) -> Result<Ack, Refusal> {
    let (author, parts) = (context.author(), context.parts);
    let (by, updated_by) = (Some(author.presence.clone()), author.member_name.clone());
    let (value, text) = value.unzip();
    let write = StateWrite { author, key: key.clone(), value: text, if_version };
    let (room, told_of) = (Arc::clone(context.room), Arc::clone(&parts.presence.shared));
    let of_key = key.clone();
    let tell = move |written: &StateWritten| {
        if let StateWritten::Written { seq, version } = *written {
            let version = value.is_some().then_some(version);
            let value = value.unwrap_or_default();
            let what = Shared::State { key: of_key, value, version, updated_by };
            shared::publish(&told_of, &room, SharedChange { seq, by, what });
        }
    };
    match parts.states.write_then(write, tell).await? {
        StateWritten::Written { .. } | StateWritten::Absent => Ok(context.done()),
        StateWritten::Full(full) => Err(Refusal::full(&full)),
        StateWritten::Conflict { version } => {
            let present = entry_of(context, key).await?;
            let text = match version {
                0 => "there is no value under that key".to_owned(),
                version => format!("the value under that key has version {version}"),
            };
            Err(Refusal::conflict(text + ": read it again and decide anew", &present))
        }
    }
}

/// The value under a key.
pub(super) async fn get(context: &Context<'_>, ask: GetState) -> Result<StateResult, Refusal> {
    Ok(StateResult(entry_of(context, ask.key).await?))
}

/// As [`get`], for daemons, which wait for a name of their own.
pub(super) async fn value(context: &Context<'_>, ask: GetState) -> Result<StateValue, Refusal> {
    let entry = entry_of(context, ask.key).await?;
    Ok(StateValue { state: entry.version.is_some().then_some(entry) })
}

async fn entry_of(context: &Context<'_>, key: String) -> Result<StateEntry, Refusal> {
    let found = context.parts.stores.states.get(context.room.mesh(), &key).await?;
    Ok(found.map_or_else(|| StateEntry { key, ..StateEntry::default() }, shown))
}

/// All values, by key.
pub(super) async fn list(context: &Context<'_>, ask: ListState) -> Result<StateList, Refusal> {
    let after = paging::from_cursor::<String>(ask.cursor.as_deref())?;
    let (states, mesh) = (&context.parts.stores.states, context.room.mesh());
    let mut listing = Listing::after(after, |entry: &StateEntry| entry.key.clone());
    while let Some((after, limit)) = listing.next() {
        let found = states.list(mesh, after.as_deref(), limit).await?;
        listing.take(found.into_iter().map(shown));
    }
    let page = listing.page();
    Ok(StateList { entries: page.rows, more: page.cursor.is_some(), cursor: page.cursor })
}

fn shown(entry: store::StateEntry) -> StateEntry {
    let store::StateEntry { key, value, version, updated_by, updated_by_session, updated_at } =
        entry;
    let (version, updated_at) = (Some(version), updated_at.to_string());
    StateEntry { key, value, version, updated_by, updated_by_session, updated_at, sealed: false }
}
