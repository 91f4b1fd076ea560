//! Keys that members hold in common, made and sealed by their clients.
//!
//! Who has no copy of the newest key is told of to members that have one and are here; any of
//! them seals it for it.

use std::collections::{BTreeMap, HashSet};

use rand::seq::IteratorRandom as _;
use serde_json::json;

use super::shapes::named;
use super::{Context, Refusal};
use crate::auth::{is_hex, is_public_key};
use crate::clock::Timestamp;
use crate::id::Key;
use crate::limits;
use crate::presence::members;
use crate::protocol::{
    Ack, CommonKeyResult, GetCommonKey, MakeCommonKey, ShareCommonKey, SystemEvent,
};
use crate::sealing;
use crate::store::{
    CommonKeyHolder, HeldCommonKey, KeyMaking, KeyScope, KeySharing, NewCommonKey, SharedCommonKey,
};

/// The newest key, as it is sealed for the asker.
pub(super) async fn get(
    context: &Context<'_>,
    ask: GetCommonKey,
) -> Result<CommonKeyResult, Refusal> {
    let scope = scope_of(context, ask.scope.as_deref()).await?;
    let (keys, mesh) = (&context.parts.stores.common_keys, context.room.mesh());
    let own = &context.session.member;
    if ask.renew {
        keys.drop_copy(mesh, &scope, own).await?;
    }
    let held = keys.get(mesh, &scope, own).await?;
    let holders = keys.holders(mesh, &scope, limits::COMMON_KEY_MEMBERS_LISTED).await?;
    if let Some(held) = held.as_ref().filter(|held| held.copy.is_none()) {
        tell_holders(context, &scope, held.epoch, &holders);
    }
    let (holding, wanting): (Vec<_>, Vec<_>) =
        holders.into_iter().partition(|holder| holder.has_copy);
    let of_key = |holders: Vec<CommonKeyHolder>| holders.into_iter().map(|it| it.key).collect();
    let mut result = CommonKeyResult {
        scope: scope.as_str().to_owned(),
        wanting: of_key(wanting),
        holding: of_key(holding),
        ..CommonKeyResult::default()
    };
    if let Some(HeldCommonKey { epoch, key, copy, is_stale }) = held {
        (result.epoch, result.key, result.copy, result.stale) = (epoch, Some(key), copy, is_stale);
    }
    Ok(result)
}

/// Makes the next key.
pub(super) async fn make(context: &Context<'_>, ask: MakeCommonKey) -> Result<Ack, Refusal> {
    let MakeCommonKey { scope, epoch, key, copies, leaves_out } = ask;
    let scope = scope_of(context, scope.as_deref()).await?;
    if key.maker != context.session.member_key {
        return Err(Refusal::invalid("`key.maker` is the asking member's key"));
    }
    let is_earlier =
        |text: &String| text.len() <= limits::EARLIER_KEYS_CHARS_MAX && sealing::is_base64(text);
    if !is_hex(&key.key_hash, limits::HASH_HEX_CHARS)
        || !is_hex(&key.signature, limits::SIGNATURE_HEX_CHARS)
        || !key.earlier.as_ref().is_none_or(is_earlier)
    {
        return Err(Refusal::invalid("`key` is not as a key is described"));
    }
    check_copies(&copies)?;
    if leaves_out.len() > limits::COMMON_KEY_COPIES_MAX {
        return Err(Refusal::invalid("`leavesOut` names more members than may be named"));
    }
    if !copies.contains_key(&context.session.member_key) {
        return Err(Refusal::invalid("`copies` has none for who makes the key"));
    }
    let keys = &context.parts.stores.common_keys;
    let new = NewCommonKey { epoch, key, copies, leaves_out };
    match keys.make(Timestamp::now(), &context.author(), &scope, &new).await? {
        KeyMaking::Made => Ok(context.done()),
        KeyMaking::Overtaken { epoch } => Err(overtaken(epoch)),
        KeyMaking::NotHeld => Err(not_held()),
        KeyMaking::Incomplete => {
            let text = "a member that has the newest key would have none of the next: read who \
                        has it again";
            Err(Refusal::new("incomplete", text))
        }
    }
}

/// Seals the newest key for others.
pub(super) async fn share(context: &Context<'_>, ask: ShareCommonKey) -> Result<Ack, Refusal> {
    let ShareCommonKey { scope, epoch, copies } = ask;
    let scope = scope_of(context, scope.as_deref()).await?;
    check_copies(&copies)?;
    let keys = &context.parts.stores.common_keys;
    let sealed_by = context.session.member_key.clone();
    let shared = SharedCommonKey { epoch, sealed_by, copies };
    match keys.share(Timestamp::now(), &context.author(), &scope, &shared).await? {
        KeySharing::Shared(_) => Ok(context.done()),
        KeySharing::Overtaken { epoch } => Err(overtaken(epoch)),
        KeySharing::NotHeld => Err(not_held()),
    }
}

fn overtaken(epoch: i64) -> Refusal {
    Refusal::conflict("the newest key is another: read it again", &json!({ "epoch": epoch }))
}

fn not_held() -> Refusal {
    Refusal::new("not_held", "you have no copy of the newest key, and others have")
}

fn check_copies(copies: &BTreeMap<Key, String>) -> Result<(), Refusal> {
    if copies.len() > limits::COMMON_KEY_COPIES_MAX {
        let most = limits::COMMON_KEY_COPIES_MAX;
        return Err(Refusal::invalid(format!("`copies` may have no more than {most}")));
    }
    let is_copy = |(key, copy): (&Key, &String)| {
        is_public_key(key.as_str())
            && (1..=limits::KEY_COPY_CHARS_MAX).contains(&copy.len())
            && sealing::is_base64(copy)
    };
    let all_are = copies.iter().all(is_copy);
    let text = "`copies` has a sealed key for each member's key";
    all_are.then_some(()).ok_or_else(|| Refusal::invalid(text))
}

/// For whom the key is. A topic's is for who is in it, and its existence too.
async fn scope_of(context: &Context<'_>, named_so: Option<&str>) -> Result<KeyScope, Refusal> {
    let Some(name) = named_so else { return Ok(KeyScope::Mesh) };
    named("scope", name)?;
    let (topics, mesh) = (&context.parts.stores.topics, context.room.mesh());
    let name = name.strip_prefix('#').unwrap_or(name);
    let found = topics.find(mesh, name, &context.session.member).await?;
    match found {
        Some(topic) if topic.role.is_some() => Ok(KeyScope::Topic(topic.id)),
        _ => Err(Refusal::new("topic_not_found", "you are in no topic of that name")),
    }
}

/// Tells a few of those that have the key, and are here, that the asker has not.
fn tell_holders(context: &Context<'_>, scope: &KeyScope, epoch: i64, holders: &[CommonKeyHolder]) {
    let is_here: HashSet<_> = context
        .room
        .records()
        .into_iter()
        .filter(|record| record.online && !record.visitor && record.opens_sealed)
        .map(|record| record.member.clone())
        .collect();
    let able = holders.iter().filter(|holder| holder.has_copy && is_here.contains(&holder.member));
    let told = able.choose_multiple(&mut rand::rng(), limits::COMMON_KEY_HOLDERS_TOLD);
    for holder in told {
        let event = SystemEvent {
            event: "reseal_needed".into(),
            data: json!({
                "scope": scope.as_str(), "epoch": epoch, "pubkey": context.session.member_key,
            }),
        };
        let presence = &context.parts.presence;
        members::tell(presence, context.room.mesh(), &holder.member, event);
    }
}
