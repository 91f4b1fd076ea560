//! The vault: what a member keeps for itself, sealed by its own client.
//!
//! An entry is seen by the sessions of its member and by nobody else, moderators
//! included; nobody is told of it.

use super::shapes::{named, no_larger_than};
use super::{Context, Refusal};
use crate::clock::Timestamp;
use crate::limits;
use crate::paging::{Listing, from_cursor, page};
use crate::protocol::{
    VaultAck, VaultAction, VaultDelete, VaultGet, VaultGetResult, VaultList, VaultListResult,
    VaultListed, VaultSealed, VaultSet,
};
use crate::store::VaultLine;

/// Keeps an entry.
pub(super) async fn set(context: &Context<'_>, ask: VaultSet) -> Result<VaultAck, Refusal> {
    named("key", &ask.key)?;
    for (field, text) in
        [("ciphertext", &ask.ciphertext), ("nonce", &ask.nonce), ("sealed_key", &ask.sealed_key)]
    {
        if text.is_empty() {
            return Err(Refusal::invalid(format!("`{field}` is needed")));
        }
    }
    no_larger_than("ciphertext", ask.ciphertext.len(), limits::VALUE_BYTES_MAX)?;
    let described = [
        ("nonce", Some(&ask.nonce)),
        ("sealed_key", Some(&ask.sealed_key)),
        ("mount_path", ask.mount_path.as_ref()),
        ("description", ask.description.as_ref()),
    ];
    for (field, text) in described {
        let bytes = text.map_or(0, String::len);
        no_larger_than(field, bytes, limits::VAULT_TEXT_BYTES_MAX)?;
    }
    context.parts.stores.vault.put(Timestamp::now(), &context.author(), &ask).await?;
    Ok(VaultAck { key: ask.key, action: VaultAction::Stored })
}

/// Removes an entry.
pub(super) async fn delete(context: &Context<'_>, ask: VaultDelete) -> Result<VaultAck, Refusal> {
    named("key", &ask.key)?;
    let vault = &context.parts.stores.vault;
    let action = match vault.delete(Timestamp::now(), &context.author(), &ask.key).await? {
        true => VaultAction::Deleted,
        false => VaultAction::NotFound,
    };
    Ok(VaultAck { key: ask.key, action })
}

/// What the member keeps, without what is sealed.
pub(super) async fn list(
    context: &Context<'_>,
    ask: VaultList,
) -> Result<VaultListResult, Refusal> {
    let after = from_cursor::<String>(ask.cursor.as_deref())?;
    let (vault, mesh) = (&context.parts.stores.vault, context.room.mesh());
    let mut listing = Listing::after(after, |entry: &VaultListed| entry.key.clone());
    while let Some((after, limit)) = listing.next() {
        let found = vault.list(mesh, &context.session.member, after.as_deref(), limit).await?;
        listing.take(found.into_iter().map(listed));
    }
    let page = listing.page();
    Ok(VaultListResult { entries: page.rows, more: page.cursor.is_some(), cursor: page.cursor })
}

fn listed(line: VaultLine) -> VaultListed {
    let VaultLine { key, entry_type, mount_path, description, updated_at } = line;
    VaultListed { key, entry_type, mount_path, description, updated_at: updated_at.to_string() }
}

/// Entries as they were sealed.
pub(super) async fn get(context: &Context<'_>, ask: VaultGet) -> Result<VaultGetResult, Refusal> {
    let VaultGet { mut keys, cursor } = ask;
    if keys.len() > limits::SHARED_NAMES_MAX {
        let most = limits::SHARED_NAMES_MAX;
        return Err(Refusal::invalid(format!("`keys` may have no more than {most}")));
    }
    let after = from_cursor::<String>(cursor.as_deref())?;
    keys.retain(|key| after.as_ref().is_none_or(|after| key > after));
    if keys.is_empty() {
        return Ok(VaultGetResult { entries: Vec::new(), more: false, cursor: None });
    }
    let vault = &context.parts.stores.vault;
    let mut found = vault.get(context.room.mesh(), &context.session.member, &keys).await?;
    // As the cursor compares them, whatever order the database has for texts.
    found.sort_by(|a, b| a.key.cmp(&b.key));
    let page = page(found, |entry| entry.key.clone(), VaultSealed::clone);
    Ok(VaultGetResult { entries: page.rows, more: page.cursor.is_some(), cursor: page.cursor })
}
