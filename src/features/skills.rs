//! Skills that a mesh shares: every member may add and read them; whoever shared one
//! last may remove it, and moderators any.

use super::moderators::is_moderator;
use super::shapes::{named, no_larger_than, tags};
use super::{Context, Refusal};
use crate::clock::Timestamp;
use crate::limits;
use crate::paging::{self, Listing};
use crate::protocol::budget::text_bytes;
use crate::protocol::{
    GetSkill, ListSkills, RemoveSkill, ShareSkill, Skill, SkillAck, SkillAction, SkillData,
    SkillEntry, SkillList,
};
use crate::store::{self, NewSkill, SkillRemoved};

/// Gives the mesh a skill.
pub(super) async fn share(context: &Context<'_>, ask: ShareSkill) -> Result<SkillAck, Refusal> {
    let ShareSkill { name, description, instructions, tags: given, manifest } = ask;
    named("name", &name)?;
    no_larger_than("description", text_bytes(&description), limits::DESCRIPTION_BYTES_MAX)?;
    no_larger_than("instructions", text_bytes(&instructions), limits::VALUE_BYTES_MAX)?;
    let manifest = manifest.map(|manifest| manifest.to_string());
    no_larger_than("manifest", manifest.as_ref().map_or(0, String::len), limits::VALUE_BYTES_MAX)?;
    let (author, tags) = (context.author(), tags(given)?);
    let skill = NewSkill { author, name: name.clone(), description, instructions, tags, manifest };
    context.parts.stores.skills.share(Timestamp::now(), &skill).await?;
    Ok(SkillAck { name, action: SkillAction::Shared })
}

/// A skill with its text.
pub(super) async fn get(context: &Context<'_>, ask: GetSkill) -> Result<SkillData, Refusal> {
    let found = context.parts.stores.skills.get(context.room.mesh(), &ask.name).await?;
    let skill = found.map(|store::Skill { entry, instructions, manifest }| {
        let SkillEntry { name, description, tags, author, author_session, created_at } =
            shown(entry);
        Skill {
            name,
            description,
            instructions,
            tags,
            author,
            author_session,
            manifest,
            created_at,
        }
    });
    Ok(SkillData { skill })
}

/// All skills, by name.
pub(super) async fn list(context: &Context<'_>, ask: ListSkills) -> Result<SkillList, Refusal> {
    let after = paging::from_cursor::<String>(ask.cursor.as_deref())?;
    let query = ask.query.as_deref().filter(|query| !query.is_empty());
    no_larger_than("query", query.map_or(0, str::len), limits::QUERY_BYTES_MAX)?;
    let (skills, mesh) = (&context.parts.stores.skills, context.room.mesh());
    let mut listing = Listing::after(after, |entry: &SkillEntry| entry.name.clone());
    while let Some((after, limit)) = listing.next() {
        let found = skills.list(mesh, query, after.as_deref(), limit).await?;
        listing.take(found.into_iter().map(shown));
    }
    let page = listing.page();
    Ok(SkillList { skills: page.rows, more: page.cursor.is_some(), cursor: page.cursor })
}

/// Removes a skill.
pub(super) async fn remove(context: &Context<'_>, ask: RemoveSkill) -> Result<SkillAck, Refusal> {
    let (skills, author) = (&context.parts.stores.skills, context.author());
    let anybodys = is_moderator(context);
    let action = match skills.remove(Timestamp::now(), &author, &ask.name, anybodys).await? {
        SkillRemoved::Removed => SkillAction::Removed,
        SkillRemoved::NotFound => SkillAction::NotFound,
        SkillRemoved::Anothers => {
            let text = "only owner or admin can remove a skill that another member shared";
            return Err(Refusal::new("forbidden", text));
        }
    };
    Ok(SkillAck { name: ask.name, action })
}

fn shown(entry: store::SkillEntry) -> SkillEntry {
    let store::SkillEntry { name, description, tags, author, author_session, created_at } = entry;
    let created_at = created_at.to_string();
    SkillEntry { name, description, tags, author, author_session, created_at }
}
