//! Skills in Postgres. A shared database may hold a name twice: then all of its rows are
//! the skill.

use async_trait::async_trait;

use super::{NewSkill, Skill, SkillEntry, SkillRemoved, Skills, removed};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{self, MeshId};
use crate::store::columns::Columns as _;
use crate::store::postgres::PostgresStore;
use crate::store::postgres::row::{clean, clean_json, clean_optional};
use crate::store::{Author, Kind, Result};

#[async_trait]
impl Skills for PostgresStore {
    async fn share(&self, now: Timestamp, skill: &NewSkill) -> Result<()> {
        let NewSkill { author, name, description, instructions, tags, manifest } = skill;
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let query = sqlx::query(
            "with changed as (
                update mesh.skill set description = $4, instructions = $5, tags = $6,
                    manifest = $7::jsonb, author_member_id = $8, author_name = $9,
                    author_session_name = $10, updated_at = $11
                where mesh_id = $2 and name = $3
                returning id
             )
             insert into mesh.skill (id, mesh_id, name, description, instructions, tags, manifest,
                author_member_id, author_name, author_session_name, created_at, updated_at)
             select $1, $2, $3, $4, $5, $6, $7::jsonb, $8, $9, $10, $11, $11
             where not exists (select from changed)",
        )
        .bind(id::generate())
        .bind(author.mesh.as_str())
        .bind(clean(name))
        .bind(clean(description))
        .bind(clean(instructions))
        .bind(tags.iter().map(|tag| clean(tag)).collect::<Vec<_>>())
        .bind(manifest.as_deref().map(clean_json))
        .bind(author.member.as_str())
        .bind(clean(&author.member_name))
        .bind(clean_optional(author.other_name()))
        .bind(now.to_naive());
        change.execute(query).await?;
        change.append(author, &AuditEvent::SkillShared { name: name.clone() }).await?;
        change.within(&author.mesh, Kind::Skill).await?.commit().await
    }

    async fn get(&self, mesh: &MeshId, name: &str) -> Result<Option<Skill>> {
        let query = sqlx::query(
            "select name, description, instructions, to_json(tags)::text as tags,
                manifest::text as manifest, author_name, author_session_name, created_at
             from mesh.skill where mesh_id = $1 and name = $2 order by updated_at desc limit 1",
        )
        .bind(mesh.as_str())
        .bind(clean(name));
        self.pool.record(query, Skill::read).await
    }

    async fn list<'a>(
        &self,
        mesh: &MeshId,
        query: Option<&'a str>,
        after: Option<&'a str>,
        limit: i64,
    ) -> Result<Vec<SkillEntry>> {
        // No name is empty.
        let query = sqlx::query(
            "select name, description, to_json(tags)::text as tags, author_name,
                author_session_name, created_at
             from mesh.skill
             where mesh_id = $1 and name > $2
                and ($3::text is null or strpos(lower(concat_ws(e'\\n', name, description,
                    array_to_string(tags, e'\\n'))), lower($3)) > 0)
             order by name limit $4",
        )
        .bind(mesh.as_str())
        .bind(clean(after.unwrap_or_default()))
        .bind(clean_optional(query))
        .bind(limit);
        self.pool.records(query, SkillEntry::read).await
    }

    async fn remove(
        &self,
        now: Timestamp,
        author: &Author,
        name: &str,
        anybodys: bool,
    ) -> Result<SkillRemoved> {
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let query = sqlx::query(
            "select author_member_id from mesh.skill where mesh_id = $1 and name = $2
             order by updated_at desc limit 1",
        )
        .bind(author.mesh.as_str())
        .bind(clean(name));
        let owner = change.record(query, |row| row.optional_text("author_member_id")).await?;
        let fate = removed(owner.as_ref().map(Option::as_deref), author, anybodys);
        if fate != SkillRemoved::Removed {
            change.give_up().await?;
            return Ok(fate);
        }
        let query = sqlx::query("delete from mesh.skill where mesh_id = $1 and name = $2")
            .bind(author.mesh.as_str())
            .bind(clean(name));
        change.execute(query).await?;
        change.append(author, &AuditEvent::SkillRemoved { name: name.to_owned() }).await?;
        change.commit().await?;
        Ok(fate)
    }
}
