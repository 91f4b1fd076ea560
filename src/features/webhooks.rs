//! Webhooks: addresses that other programs call, and addresses that the broker calls.

use url::Url;

use super::moderators::{is_moderator, only_moderators};
use super::shapes::{named, no_larger_than};
use super::{Context, Refusal};
use crate::id;
use crate::limits;
use crate::paging;
use crate::paging::Listing;
use crate::protocol::{
    CreateWebhook, DeleteWebhook, ListWebhooks, WebhookAck, WebhookCalls, WebhookList, WebhookRow,
};
use crate::store::{Deleted, NewWebhook, Webhook};
use crate::webhooks::{address, noted, signing};

/// What stands for a secret where it is not shown.
const HIDDEN: &str = "***";

/// Makes one.
pub(super) async fn create(
    context: &Context<'_>,
    ask: CreateWebhook,
) -> Result<WebhookAck, Refusal> {
    if ask.name.is_empty() {
        return Err(Refusal::new("invalid_webhook", "name is required"));
    }
    named("name", &ask.name)?;
    let webhooks = &context.parts.webhooks;
    if let Some(url) = &ask.url {
        only_moderators(context, "have this broker call an address")?;
        no_larger_than("url", url.len(), limits::WEBHOOK_URL_BYTES_MAX)?;
        address::check(url, webhooks.allows_private).map_err(Refusal::invalid)?;
        if ask.events.is_empty() {
            return Err(Refusal::invalid("`events` says what the address is told of"));
        }
    } else if !ask.events.is_empty() {
        return Err(Refusal::invalid("`events` go to a `url`"));
    }
    let is_signed = ask.url.is_some() || ask.signing.is_some();
    let mut events = ask.events;
    events.sort_unstable_by_key(|event| event.as_str());
    events.dedup();
    let hook = NewWebhook {
        id: id::generate(),
        author: context.author(),
        name: ask.name,
        secret: hex::encode(rand::random::<[u8; 32]>()),
        durable: ask.durable == Some(true) && ask.url.is_none(),
        signing: ask.signing.filter(|_| ask.url.is_none()),
        signing_secret: is_signed.then(signing::new_secret),
        url: ask.url,
        events,
    };
    if !webhooks.store.create(crate::clock::Timestamp::now(), &hook).await? {
        let text = format!("Webhook \"{}\" already exists in this mesh", hook.name);
        return Err(Refusal::new("webhook_exists", text));
    }
    let NewWebhook { name, secret, signing_secret, url, .. } = hook;
    if let Some(url) = url {
        // What it asked for is noted here from now on, elsewhere within a second.
        noted::refresh(webhooks).await;
        let secret = signing_secret.unwrap_or_default();
        return Ok(WebhookAck { name, url, secret, signing_secret: None });
    }
    let url = webhooks.address_of(context.room.mesh(), &secret);
    Ok(WebhookAck { name, url, secret, signing_secret })
}

/// Those of the mesh; secrets are for their makers and for moderators.
pub(super) async fn list(context: &Context<'_>, ask: ListWebhooks) -> Result<WebhookList, Refusal> {
    let after = paging::from_cursor::<String>(ask.cursor.as_deref())?;
    let (store, mesh) = (&context.parts.webhooks.store, context.room.mesh());
    let sees_all = is_moderator(context);
    let mut listing = Listing::after(after, |row: &WebhookRow| row.name.clone());
    while let Some((after, limit)) = listing.next() {
        let found = store.list(mesh, after.as_deref(), limit).await?;
        listing.take(found.into_iter().map(|hook| {
            let is_shown = sees_all || hook.created_by == context.session.member;
            shown(context, hook, is_shown)
        }));
    }
    let page = listing.page();
    Ok(WebhookList { webhooks: page.rows, more: page.cursor.is_some(), cursor: page.cursor })
}

fn shown(context: &Context<'_>, hook: Webhook, is_shown: bool) -> WebhookRow {
    let url = match &hook.url {
        Some(url) if is_shown => url.clone(),
        Some(url) => Url::parse(url).map_or_else(
            |_| HIDDEN.to_owned(),
            |url| format!("{}/{HIDDEN}", url.origin().ascii_serialization()),
        ),
        None => {
            let secret = if is_shown { &hook.secret } else { HIDDEN };
            context.parts.webhooks.address_of(context.room.mesh(), secret)
        }
    };
    let calls = hook.url.is_some().then(|| WebhookCalls {
        waiting: hook.waiting,
        dead_letters: hook.dead_letters,
        last_error: hook.last_error,
        delivered_at: hook.delivered_at.map(|at| at.to_string()),
    });
    WebhookRow {
        name: hook.name,
        url,
        active: true,
        created_at: hook.created_at.to_string(),
        durable: hook.durable,
        signing: hook.signing,
        events: hook.events,
        calls,
    }
}

/// Deletes one: one's own, or as a moderator anybody's.
pub(super) async fn delete(
    context: &Context<'_>,
    ask: DeleteWebhook,
) -> Result<WebhookAck, Refusal> {
    let webhooks = &context.parts.webhooks;
    let author = context.author();
    let only_of = (!is_moderator(context)).then_some(&context.session.member);
    let now = crate::clock::Timestamp::now();
    match webhooks.store.delete(now, &author, &ask.name, only_of).await? {
        Deleted::Done | Deleted::Absent => {
            let (url, secret) = (String::new(), String::new());
            Ok(WebhookAck { name: ask.name, url, secret, signing_secret: None })
        }
        Deleted::Foreign => {
            let text = "only its maker, an owner or an admin can delete a webhook";
            Err(Refusal::new("forbidden", text))
        }
    }
}
