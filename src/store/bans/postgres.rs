//! Memberships that were revoked.

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::MeshId;
use crate::store::columns::Columns as _;
use crate::store::members::no_member;
use crate::store::members::postgres::select_members;
use crate::store::postgres::PostgresStore;
use crate::store::postgres::chain::Entries;
use crate::store::postgres::pool::Pool;
use crate::store::{Bans, Member, Moderation, Result};

#[async_trait]
impl Bans for PostgresStore {
    async fn ban(&self, now: Timestamp, ban: &Moderation) -> Result<bool> {
        set_revoked(&self.pool, now, ban, Some(now)).await
    }

    async fn unban(&self, now: Timestamp, unban: &Moderation) -> Result<bool> {
        set_revoked(&self.pool, now, unban, None).await
    }

    async fn banned(&self, mesh: &MeshId) -> Result<Vec<Member>> {
        let query = sqlx::query(select_members!(
            "where m.mesh_id = $1 and m.revoked_at is not null order by m.revoked_at, m.id"
        ))
        .bind(mesh.as_str());
        self.pool.records(query, Member::read).await
    }
}

/// `false`, and no audit row, if the membership was so already.
async fn set_revoked(
    pool: &Pool,
    now: Timestamp,
    change: &Moderation,
    revoked_at: Option<Timestamp>,
) -> Result<bool> {
    let Moderation { mesh, member, actor, actor_name, audit } = change;
    let mut entry = Entries::default();
    entry.push(mesh, actor.as_ref(), actor_name.as_deref(), audit);
    let query = entry
        .bind(
            sqlx::query(
                "with locked as materialized (select mesh.broker_lock_v1($3)),
         changed as (
            update mesh.member m set revoked_at = $10 from locked
            where m.id = $9 and m.mesh_id = any ($4)
                and (m.revoked_at is null) = ($10::timestamp is not null)
            returning m.id
         ),
         -- A ban ends keys for good: after an unban the member makes new ones.
         without_keys as (
            update mesh.api_key k set revoked_at = $10 from changed
            where $10::timestamp is not null and k.issued_by_member_id = changed.id
                and k.revoked_at is null
         ),
         appended as materialized (
            select mesh.broker_append_v2($1, $2, $3, $4, $5, $6, $7, $8, null)
            from changed
         )
         select (select count(*) from appended) > 0 as changed,
            exists (select from mesh.member m
                where m.id = $9 and m.mesh_id = any ($4)) as known",
            ),
            now,
        )
        .bind(member.as_str())
        .bind(revoked_at.map(Timestamp::to_naive));
    let row = pool.fetch_one(query).await?;
    if row.flag("known")? { row.flag("changed") } else { Err(no_member()) }
}
