//! Topics: who is in them and what was said. Posts go the way of all sends.
//!
//! A topic that is not public does not exist for whoever is not in it, but for the one
//! question that an invitation allows, to join it.

use super::shapes::{named, no_larger_than};
use super::{Context, Refusal};
use crate::auth;
use crate::clock::Timestamp;
use crate::delivery::rosters;
use crate::id::{self, MemberId, TopicId};
use crate::limits;
use crate::paging::{self, Listing};
use crate::protocol::{
    Ack, KeyMaker, TopicCreate, TopicCreated, TopicHistory, TopicHistoryResponse, TopicInvite,
    TopicJoin, TopicLeave, TopicList, TopicListResponse, TopicListed, TopicMarkRead,
    TopicMemberListed, TopicMembers, TopicMembersResponse, TopicNamed, TopicPosted, TopicRole,
    Visibility,
};
use crate::sealing;
use crate::store::{
    HistoryPost, Joining, NewTopic, TopicMember, TopicSeal, TopicState, TopicSummary,
};

/// Makes a topic, or finds the one of that name and joins it.
pub(super) async fn create(
    context: &Context<'_>,
    ask: TopicCreate,
) -> Result<TopicCreated, Refusal> {
    named("name", &ask.name)?;
    if ask.name.contains('\0') || ask.name.starts_with('#') {
        return Err(Refusal::invalid("a topic's name begins with no `#` and has no NUL"));
    }
    let description = ask.description.as_deref().unwrap_or_default();
    no_larger_than("description", description.len(), limits::TOPIC_DESCRIPTION_BYTES_MAX)?;
    let name = ask.name.clone();
    let new = new_topic(context, ask)?;
    let topics = &context.parts.stores.topics;
    let made = topics.create(Timestamp::now(), &context.author(), &new).await?;
    if made.joining == Joining::NotInvited {
        return Err(Refusal::new("topic_taken", "that name is taken; choose another"));
    }
    if made.joining == Joining::Joined {
        tell_of_roster(context, &made.id).await;
    }
    let topic = TopicNamed { id: made.id, name, visibility: made.visibility };
    Ok(TopicCreated { topic, created: made.is_new, key_made_by: made.key_maker })
}

/// With the key that the client made, else with one that is made here, sealed for those
/// who are to read the topic, and forgotten.
fn new_topic(context: &Context<'_>, ask: TopicCreate) -> Result<NewTopic, Refusal> {
    let own = &context.session.member;
    let visibility = ask.visibility.unwrap_or_default();
    let (key_pubkey, key_maker, seals) =
        match (ask.encrypted_key_pubkey, ask.encrypted_key, ask.nonce) {
            (None, None, None) => {
                let (pubkey, seals) = seals_made_here(context, visibility);
                (pubkey, KeyMaker::Broker, seals)
            }
            (Some(pubkey), Some(encrypted_key), Some(nonce)) => {
                if !auth::is_public_key(&pubkey) {
                    let text = "`encryptedKeyPubkey` has 64 lower-case hex digits";
                    return Err(Refusal::invalid(text));
                }
                no_larger_than("encryptedKey", encrypted_key.len(), limits::SEAL_BYTES_MAX)?;
                no_larger_than("nonce", nonce.len(), limits::SHARED_NAME_BYTES_MAX)?;
                named("nonce", &nonce)?;
                let seal = TopicSeal { member: own.clone(), encrypted_key, nonce };
                (pubkey, KeyMaker::Client, vec![seal])
            }
            _ => {
                let text = "`encryptedKeyPubkey`, `encryptedKey` and `nonce` come together";
                return Err(Refusal::invalid(text));
            }
        };
    Ok(NewTopic {
        id: TopicId::from(id::random()),
        name: ask.name,
        description: ask.description.filter(|text| !text.is_empty()),
        visibility,
        key_pubkey,
        key_maker,
        seals,
    })
}

fn seals_made_here(context: &Context<'_>, visibility: Visibility) -> (String, Vec<TopicSeal>) {
    let own = context.room.member(&context.session.member);
    let mut readers: Vec<_> = own.into_iter().collect();
    if visibility == Visibility::Public {
        let others = context.room.members();
        let others = others.into_iter().filter(|member| member.id != context.session.member);
        readers.extend(others.take(limits::TOPIC_SEALS_MAX));
    }
    let key = sealing::TopicKey::generate();
    let seal = |reader: &std::sync::Arc<crate::store::Member>| {
        // Members that a dashboard enrolled may have keys that nothing can be sealed for.
        let sealing::Sealed { nonce_b64, ciphertext_b64 } = key.seal_for(&reader.key)?;
        let member = reader.id.clone();
        Some(TopicSeal { member, encrypted_key: ciphertext_b64, nonce: nonce_b64 })
    };
    let seals = readers.iter().filter_map(seal).collect();
    (key.sender_public_hex(), seals)
}

/// The topics that the asker sees.
pub(super) async fn list(
    context: &Context<'_>,
    ask: TopicList,
) -> Result<TopicListResponse, Refusal> {
    let after = paging::from_cursor::<String>(ask.cursor.as_deref())?;
    let (topics, mesh) = (&context.parts.stores.topics, context.room.mesh());
    let mut listing = Listing::after(after, |topic: &TopicListed| topic.name.clone());
    while let Some((after, limit)) = listing.next() {
        let member = &context.session.member;
        let found = topics.list(mesh, member, after.as_deref(), limit).await?;
        listing.take(found.into_iter().map(listed));
    }
    let page = listing.page();
    Ok(TopicListResponse { topics: page.rows, more: page.cursor.is_some(), cursor: page.cursor })
}

fn listed(topic: TopicSummary) -> TopicListed {
    let TopicSummary { id, name, description, visibility, members, created_at } = topic;
    TopicListed { id, name, description, visibility, member_count: members, created_at }
}

/// Joins a topic.
pub(super) async fn join(context: &Context<'_>, ask: TopicJoin) -> Result<Ack, Refusal> {
    let topic = find(context, &ask.topic).await?;
    let topics = &context.parts.stores.topics;
    // Only who makes a topic leads it.
    let role = match ask.role.unwrap_or_default() {
        TopicRole::Lead if topic.visibility != Visibility::Public => TopicRole::Member,
        role => role,
    };
    match topics.join(Timestamp::now(), &context.author(), &topic.id, role).await? {
        Joining::Joined => tell_of_roster(context, &topic.id).await,
        Joining::Already => {}
        Joining::NotInvited => return Err(not_found(&ask.topic)),
    }
    Ok(context.done())
}

/// Leaves a topic.
pub(super) async fn leave(context: &Context<'_>, ask: TopicLeave) -> Result<Ack, Refusal> {
    let topic = seen(context, &ask.topic).await?;
    let topics = &context.parts.stores.topics;
    if topics.leave(Timestamp::now(), &context.author(), &topic.id).await? {
        tell_of_roster(context, &topic.id).await;
    }
    Ok(context.done())
}

/// Lets a member join a topic that is not public.
pub(super) async fn invite(context: &Context<'_>, ask: TopicInvite) -> Result<Ack, Refusal> {
    let topic = seen(context, &ask.topic).await?;
    if topic.role != Some(TopicRole::Lead) {
        let text = "only who leads a topic may invite others to it";
        return Err(Refusal::new("forbidden", text));
    }
    let member = invited(context, &ask.member)?;
    let topics = &context.parts.stores.topics;
    topics.invite(Timestamp::now(), &context.author(), &topic.id, &member).await?;
    Ok(context.done())
}

fn invited(context: &Context<'_>, asked: &str) -> Result<MemberId, Refusal> {
    let room = context.room;
    if let Some(member) = room.member(&MemberId::from(asked)).or_else(|| room.member_by_key(asked))
    {
        return Ok(member.id.clone());
    }
    let mut named = room.members_named(&[asked.to_lowercase()]);
    match (named.pop(), named.is_empty()) {
        (Some(member), true) => Ok(member),
        (Some(_), false) => {
            let text = "several members are called so: name one by its id or its key";
            Err(Refusal::new("ambiguous_member", text))
        }
        (None, _) => Err(Refusal::new("member_not_found", "no member is called so")),
    }
}

/// Notes that the asker has read a topic up to now.
pub(super) async fn mark_read(context: &Context<'_>, ask: TopicMarkRead) -> Result<Ack, Refusal> {
    let topic = seen(context, &ask.topic).await?;
    let topics = &context.parts.stores.topics;
    topics.mark_read(Timestamp::now(), &topic.id, &context.session.member).await?;
    Ok(context.done())
}

/// Who is in a topic.
pub(super) async fn members(
    context: &Context<'_>,
    ask: TopicMembers,
) -> Result<TopicMembersResponse, Refusal> {
    let topic = seen(context, &ask.topic).await?;
    let after = paging::from_cursor::<(String, MemberId)>(ask.cursor.as_deref())?;
    let position = |row: &TopicMemberListed| (row.display_name.clone(), row.member_id.clone());
    let mut listing = Listing::after(after, position);
    while let Some((after, limit)) = listing.next() {
        let topics = &context.parts.stores.topics;
        let found = topics.members(&topic.id, after.as_ref(), limit).await?;
        listing.take(found.into_iter().map(member));
    }
    let page = listing.page();
    let more = page.cursor.is_some();
    Ok(TopicMembersResponse { topic: ask.topic, members: page.rows, more, cursor: page.cursor })
}

fn member(member: TopicMember) -> TopicMemberListed {
    let TopicMember { id, key, name, role, joined_at, last_read_at } = member;
    TopicMemberListed {
        member_id: id,
        pubkey: key,
        display_name: name,
        role,
        joined_at,
        last_read_at,
    }
}

/// What was said in a topic, newest first.
pub(super) async fn history(
    context: &Context<'_>,
    ask: TopicHistory,
) -> Result<TopicHistoryResponse, Refusal> {
    let topic = seen(context, &ask.topic).await?;
    if topic.role.is_none() {
        let text = "only members of the topic read what was said in it: join it first";
        return Err(Refusal::new("forbidden", text));
    }
    let limit = ask.limit.unwrap_or(limits::HISTORY_POSTS).clamp(1, limits::HISTORY_POSTS_MAX);
    let before = ask.before_id.filter(|id| !id.as_str().is_empty());
    let mut listing = Listing::after(before, |post: &TopicPosted| post.id.clone()).at_most(limit);
    while let Some((before, at_once)) = listing.next() {
        let topics = &context.parts.stores.topics;
        let found = topics.history(&topic.id, before.as_ref(), at_once).await?;
        listing.take(found.into_iter().map(posted));
    }
    let page = listing.page();
    let more = page.cursor.is_some();
    Ok(TopicHistoryResponse { topic: ask.topic, messages: page.rows, more })
}

fn posted(post: HistoryPost) -> TopicPosted {
    TopicPosted {
        id: post.id,
        sender_pubkey: post.sender_key,
        sender_member_id: post.sender,
        sender_name: post.sender_name,
        nonce: post.nonce,
        ciphertext: post.ciphertext,
        body_version: post.body_version,
        reply_to_id: post.reply_to_id,
        created_at: post.created_at,
        sealed: false,
    }
}

async fn find(context: &Context<'_>, named: &str) -> Result<TopicState, Refusal> {
    let topics = &context.parts.stores.topics;
    let named = named.strip_prefix('#').unwrap_or(named);
    let found = topics.find(context.room.mesh(), named, &context.session.member).await?;
    found.ok_or_else(|| not_found(named))
}

/// A topic that the asker sees.
async fn seen(context: &Context<'_>, named: &str) -> Result<TopicState, Refusal> {
    let topic = find(context, named).await?;
    let is_seen = topic.visibility == Visibility::Public || topic.role.is_some();
    is_seen.then_some(topic).ok_or_else(|| not_found(named))
}

fn not_found(named: &str) -> Refusal {
    let named: String = named.chars().take(limits::SHARED_NAME_BYTES_MAX).collect();
    Refusal::new("topic_not_found", format!("topic \"{named}\" not found"))
}

async fn tell_of_roster(context: &Context<'_>, topic: &TopicId) {
    rosters::changed_here(&context.parts.presence.delivery, context.room, topic).await;
}
