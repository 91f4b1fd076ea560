//! API keys: a member makes them for programs that call in its name.
//!
//! A key may no more than the member that makes it. Its secret is told once, and kept
//! nowhere. Members see and revoke their own keys, moderators all of the mesh.

use super::moderators::{is_moderator, only_moderators};
use super::shapes::{named, no_larger_than};
use super::{Context, Refusal};
use crate::auth::ApiKeySecret;
use crate::clock::Timestamp;
use crate::id::{self, MemberId};
use crate::limits;
use crate::paging::{Listing, from_cursor};
use crate::protocol::{
    ApiCapability, ApikeyCreate, ApikeyCreated, ApikeyList, ApikeyListResponse, ApikeyRevoke,
    ApikeyRevokeResponse, ApikeyRevoked, ListedApikey, ShownOnce,
};
use crate::store::{ApiKey, ApiKeyPlace, NewApiKey, Revocation};

/// Makes a key.
pub(super) async fn create(
    context: &Context<'_>,
    ask: ApikeyCreate,
) -> Result<ApikeyCreated, Refusal> {
    let now = Timestamp::now();
    let secret = ApiKeySecret::generate();
    let key = checked(context, ask, now, &secret)?;
    let forget_before = now.plus_ms(-limits::API_KEY_KEPT_MS);
    let store = &context.parts.stores.api_keys;
    store.create(now, &context.author(), &key, forget_before).await?;
    Ok(ApikeyCreated {
        id: key.id,
        secret: ShownOnce(secret.expose().to_owned()),
        label: key.label,
        prefix: key.secret_prefix,
        capabilities: key.capabilities,
        topic_scopes: key.topic_scopes,
        created_at: now.to_string(),
        expires_at: key.expires_at.map(|at| at.to_string()),
    })
}

/// The key that is asked for, if the asker may have it.
fn checked(
    context: &Context<'_>,
    ask: ApikeyCreate,
    now: Timestamp,
    secret: &ApiKeySecret,
) -> Result<NewApiKey, Refusal> {
    let ApikeyCreate { label, mut capabilities, topic_scopes, expires_at } = ask;
    if label.is_empty() || capabilities.is_empty() {
        return Err(Refusal::new("invalid_args", "label and at least one capability required"));
    }
    no_larger_than("label", label.len(), limits::SHARED_NAME_BYTES_MAX)?;
    capabilities.sort_by_key(|capability| capability.as_str());
    capabilities.dedup();
    if capabilities.contains(&ApiCapability::Admin) {
        only_moderators(context, "make a key with the capability `admin`")?;
    }
    for scope in topic_scopes.iter().flatten() {
        named("topicScopes", scope)?;
    }
    if topic_scopes.as_ref().is_some_and(|scopes| scopes.len() > limits::SHARED_NAMES_MAX) {
        let most = limits::SHARED_NAMES_MAX;
        return Err(Refusal::invalid(format!("`topicScopes` may have no more than {most}")));
    }
    let expires_at = expires_at.map(|text| expiry(&text, now)).transpose()?;
    Ok(NewApiKey {
        id: id::random(),
        label,
        secret_hash: secret.hash(),
        secret_prefix: secret.prefix().to_owned(),
        capabilities,
        topic_scopes,
        expires_at,
    })
}

fn expiry(text: &str, now: Timestamp) -> Result<Timestamp, Refusal> {
    let invalid = |text: &str| Refusal::new("invalid_args", text);
    let at =
        Timestamp::read(text).ok_or_else(|| invalid("`expiresAt` is no instant in ISO 8601"))?;
    (at > now).then_some(at).ok_or_else(|| invalid("`expiresAt` has passed: check the clock"))
}

/// Whose keys the asker may see and revoke: its own, or all.
fn whose<'a>(context: &'a Context<'_>) -> Option<&'a MemberId> {
    (!is_moderator(context)).then_some(&context.session.member)
}

/// Keys, the newest first.
pub(super) async fn list(
    context: &Context<'_>,
    ask: ApikeyList,
) -> Result<ApikeyListResponse, Refusal> {
    let after = from_cursor::<ApiKeyPlace>(ask.cursor.as_deref())?;
    let (keys, mesh) = (&context.parts.stores.api_keys, context.room.mesh());
    let place = |(at, key): &(Timestamp, ListedApikey)| (*at, key.id.clone());
    let mut listing = Listing::after(after, place);
    while let Some((after, limit)) = listing.next() {
        let found = keys.list(mesh, whose(context), after.as_ref(), limit).await?;
        listing.take(found.into_iter().map(|key| (key.created_at, listed(key))));
    }
    let page = listing.page();
    let keys = page.rows.into_iter().map(|(_, key)| key).collect();
    Ok(ApikeyListResponse { keys, more: page.cursor.is_some(), cursor: page.cursor })
}

fn listed(key: ApiKey) -> ListedApikey {
    let text = |at: Option<Timestamp>| at.map(|at| at.to_string());
    ListedApikey {
        id: key.id,
        label: key.label,
        prefix: key.secret_prefix,
        capabilities: key.capabilities,
        topic_scopes: key.topic_scopes,
        created_at: key.created_at.to_string(),
        last_used_at: text(key.last_used_at),
        revoked_at: text(key.revoked_at),
        expires_at: text(key.expires_at),
        issued_by: key.issued_by,
    }
}

/// Revokes a key, by its id or the beginning of it.
pub(super) async fn revoke(
    context: &Context<'_>,
    ask: ApikeyRevoke,
) -> Result<ApikeyRevokeResponse, Refusal> {
    if ask.id.is_empty() {
        return Err(Refusal::new("invalid_args", "id required"));
    }
    no_larger_than("id", ask.id.len(), limits::SHARED_NAME_BYTES_MAX)?;
    let (store, author) = (&context.parts.stores.api_keys, context.author());
    let revoked = store.revoke(Timestamp::now(), &author, whose(context), &ask.id).await?;
    let (status, id, matches) = match revoked {
        Revocation::Revoked(id) => (ApikeyRevoked::Revoked, Some(id), None),
        Revocation::Unknown => (ApikeyRevoked::NotFound, None, None),
        Revocation::Ambiguous => (ApikeyRevoked::NotUnique, None, Some(2)),
    };
    Ok(ApikeyRevokeResponse { status, id, matches })
}
