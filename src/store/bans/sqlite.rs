//! Memberships that were revoked.

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::MeshId;
use crate::store::members::no_member;
use crate::store::members::sqlite::select_members;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::chain::append_one;
use crate::store::sqlite::connection::{execute, fetch_optional};
use crate::store::sqlite::error::refused;
use crate::store::{Bans, Member, Moderation, Result};

#[async_trait]
impl Bans for SqliteStore {
    async fn ban(&self, now: Timestamp, ban: &Moderation) -> Result<bool> {
        set_revoked(self, now, ban, Some(now)).await
    }

    async fn unban(&self, now: Timestamp, unban: &Moderation) -> Result<bool> {
        set_revoked(self, now, unban, None).await
    }

    async fn banned(&self, mesh: &MeshId) -> Result<Vec<Member>> {
        let query = sqlx::query(select_members!(
            "where m.mesh_id = ?1 and m.revoked_at is not null order by m.revoked_at, m.id"
        ))
        .bind(mesh.as_str());
        self.records(query, Member::read).await
    }
}

/// `false`, and no audit row, if the membership was so already.
async fn set_revoked(
    db: &SqliteStore,
    now: Timestamp,
    change: &Moderation,
    revoked_at: Option<Timestamp>,
) -> Result<bool> {
    let Moderation { mesh, member, actor, actor_name, audit } = change;
    let mut tx = db.begin().await?;
    let query = sqlx::query(
        "update member set revoked_at = ?3
         where id = ?1 and mesh_id = ?2 and (revoked_at is null) = (?3 is not null)",
    )
    .bind(member.as_str())
    .bind(mesh.as_str())
    .bind(revoked_at.map(Timestamp::as_ms));
    let changed = execute(&mut tx, query).await?;
    if changed == 0 {
        let query = sqlx::query("select 1 from member where id = ?1 and mesh_id = ?2")
            .bind(member.as_str())
            .bind(mesh.as_str());
        let known = fetch_optional(&mut tx, query).await?;
        return known.map(|_| false).ok_or_else(no_member);
    }
    if revoked_at.is_some() {
        // A ban ends keys for good: after an unban the member makes new ones.
        let query = sqlx::query(
            "update api_key set revoked_at = ?2
             where issued_by_member_id = ?1 and revoked_at is null",
        )
        .bind(member.as_str())
        .bind(now.as_ms());
        execute(&mut tx, query).await?;
    }
    append_one(&mut tx, now, mesh, actor.as_ref(), actor_name.as_deref(), audit).await?;
    tx.commit().await.map_err(refused)?;
    Ok(true)
}
