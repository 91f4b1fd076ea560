//! Skills in SQLite.

use async_trait::async_trait;

use super::{NewSkill, Skill, SkillEntry, SkillRemoved, Skills, removed};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{self, MeshId};
use crate::store::columns::Columns as _;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::row::to_json;
use crate::store::{Author, Kind, Result};

#[async_trait]
impl Skills for SqliteStore {
    async fn share(&self, now: Timestamp, skill: &NewSkill) -> Result<()> {
        let NewSkill { author, name, description, instructions, tags, manifest } = skill;
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let words = format!("{name}\n{description}\n{}", tags.join("\n")).to_lowercase();
        let query = sqlx::query(
            "insert into skill (id, mesh_id, name, description, tags, words, author_member_id,
                author_name, author_session_name, created_at, updated_at, manifest, instructions)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10, ?11, ?12)
             on conflict (mesh_id, name) do update set description = excluded.description,
                tags = excluded.tags, words = excluded.words,
                author_member_id = excluded.author_member_id,
                author_name = excluded.author_name,
                author_session_name = excluded.author_session_name,
                updated_at = excluded.updated_at, manifest = excluded.manifest,
                instructions = excluded.instructions",
        )
        .bind(id::generate())
        .bind(author.mesh.as_str())
        .bind(name.as_str())
        .bind(description.as_str())
        .bind(to_json(tags))
        .bind(words)
        .bind(author.member.as_str())
        .bind(author.member_name.as_str())
        .bind(author.other_name())
        .bind(now.as_ms())
        .bind(manifest.as_deref())
        .bind(instructions.as_str());
        change.execute(query).await?;
        change.append(author, &AuditEvent::SkillShared { name: name.clone() }).await?;
        change.within(&author.mesh, Kind::Skill).await?.commit().await
    }

    async fn get(&self, mesh: &MeshId, name: &str) -> Result<Option<Skill>> {
        let query = sqlx::query("select * from skill where mesh_id = ?1 and name = ?2")
            .bind(mesh.as_str())
            .bind(name);
        self.record(query, Skill::read).await
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
            "select name, description, tags, author_name, author_session_name, created_at
             from skill where mesh_id = ?1 and name > ?2 and (?3 is null or instr(words, ?3) > 0)
             order by name limit 0 + ?4",
        )
        .bind(mesh.as_str())
        .bind(after.unwrap_or_default())
        .bind(query.map(str::to_lowercase))
        .bind(limit);
        self.records(query, SkillEntry::read).await
    }

    async fn remove(
        &self,
        now: Timestamp,
        author: &Author,
        name: &str,
        anybodys: bool,
    ) -> Result<SkillRemoved> {
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let query =
            sqlx::query("select author_member_id from skill where mesh_id = ?1 and name = ?2")
                .bind(author.mesh.as_str())
                .bind(name);
        let owner = change.record(query, |row| row.optional_text("author_member_id")).await?;
        let fate = removed(owner.as_ref().map(Option::as_deref), author, anybodys);
        if fate != SkillRemoved::Removed {
            change.give_up().await?;
            return Ok(fate);
        }
        let query = sqlx::query("delete from skill where mesh_id = ?1 and name = ?2")
            .bind(author.mesh.as_str())
            .bind(name);
        change.execute(query).await?;
        change.append(author, &AuditEvent::SkillRemoved { name: name.to_owned() }).await?;
        change.commit().await?;
        Ok(fate)
    }
}
