//! Keys that members hold in common, in Postgres.

use async_trait::async_trait;

use super::{
    CommonKeyHolder, CommonKeys, HeldCommonKey, KeyMaking, KeyScope, KeySharing, NewCommonKey,
    SharedCommonKey,
};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId};
use crate::store::postgres::PostgresStore;
use crate::store::postgres::row::to_json;
use crate::store::{Author, Result};

/// Whether the scope `$2` is for the active member `m`.
macro_rules! is_for {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            " m.revoked_at is null and ($2 = 'mesh' or exists (
                select from mesh.topic_member tm where tm.topic_id = $2 and tm.member_id = m.id)) ",
            $after
        )
    };
}

const NEWEST: &str = is_for!(
    "select k.epoch, k.key_hash, k.maker_key, k.signature, k.earlier, own.sealed, own.sealed_by,
        exists (
            select from mesh.common_key_copy c join mesh.member m on m.id = c.member_id
            where c.mesh_id = $1 and c.scope = $2 and not (",
    ")) as is_stale
     from mesh.common_key k
     left join mesh.common_key_copy own
        on own.mesh_id = k.mesh_id and own.scope = k.scope and own.member_id = $3
     where k.mesh_id = $1 and k.scope = $2"
);

const HOLDERS: &str = is_for!(
    "select m.id, m.peer_pubkey, exists (
        select from mesh.common_key_copy c
        where c.mesh_id = $1 and c.scope = $2 and c.member_id = m.id) as has_copy
     from mesh.member m where m.mesh_id = $1 and",
    "order by has_copy, m.id limit $3"
);

const COPY: &str = is_for!(
    "insert into mesh.common_key_copy (mesh_id, scope, member_id, sealed, sealed_by)
     select $1, $2, m.id, copies.value, $4
     from jsonb_each_text($3::jsonb) copies
     join mesh.member m on m.mesh_id = $1 and m.peer_pubkey = copies.key
     where",
    "on conflict do nothing"
);

#[async_trait]
impl CommonKeys for PostgresStore {
    async fn get(
        &self,
        mesh: &MeshId,
        scope: &KeyScope,
        member: &MemberId,
    ) -> Result<Option<HeldCommonKey>> {
        let query =
            sqlx::query(NEWEST).bind(mesh.as_str()).bind(scope.as_str()).bind(member.as_str());
        self.pool.record(query, HeldCommonKey::read).await
    }

    async fn holders(
        &self,
        mesh: &MeshId,
        scope: &KeyScope,
        limit: i64,
    ) -> Result<Vec<CommonKeyHolder>> {
        let query = sqlx::query(HOLDERS).bind(mesh.as_str()).bind(scope.as_str()).bind(limit);
        self.pool.records(query, CommonKeyHolder::read).await
    }

    async fn make(
        &self,
        now: Timestamp,
        author: &Author,
        scope: &KeyScope,
        new: &NewCommonKey,
    ) -> Result<KeyMaking> {
        let (mesh, name) = (&author.mesh, scope.as_str());
        let mut change = self.begin_change(now, &[mesh]).await?;
        let query = sqlx::query(NEWEST).bind(mesh.as_str()).bind(name).bind(author.member.as_str());
        let held = change.record(query, HeldCommonKey::read).await?;
        let query = sqlx::query(HOLDERS).bind(mesh.as_str()).bind(name).bind(i64::MAX);
        let holders: Vec<_> = change.records(query, CommonKeyHolder::read).await?;
        if let Some(refusal) = HeldCommonKey::refusal(held.as_ref(), &holders, new) {
            change.give_up().await?;
            return Ok(refusal);
        }
        let query = sqlx::query("delete from mesh.common_key where mesh_id = $1 and scope = $2")
            .bind(mesh.as_str())
            .bind(name);
        change.execute(query).await?;
        let query = sqlx::query(
            "insert into mesh.common_key (mesh_id, scope, epoch, key_hash, maker_key, signature,
                earlier, created_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(mesh.as_str())
        .bind(name)
        .bind(new.epoch)
        .bind(&new.key.key_hash)
        .bind(new.key.maker.as_str())
        .bind(&new.key.signature)
        .bind(new.key.earlier.as_deref())
        .bind(now.to_naive());
        change.execute(query).await?;
        let query = sqlx::query(COPY)
            .bind(mesh.as_str())
            .bind(name)
            .bind(to_json(&new.copies))
            .bind(new.key.maker.as_str());
        change.execute(query).await?;
        let event = AuditEvent::CommonKeyMade { scope: name.to_owned(), epoch: new.epoch };
        change.append(author, &event).await?;
        change.commit().await?;
        Ok(KeyMaking::Made)
    }

    async fn share(
        &self,
        now: Timestamp,
        author: &Author,
        scope: &KeyScope,
        shared: &SharedCommonKey,
    ) -> Result<KeySharing> {
        let (mesh, name) = (&author.mesh, scope.as_str());
        let mut change = self.begin_change(now, &[mesh]).await?;
        let query = sqlx::query(NEWEST).bind(mesh.as_str()).bind(name).bind(author.member.as_str());
        let held = change.record(query, HeldCommonKey::read).await?;
        if let Some(refusal) = shared.refusal(held.as_ref()) {
            change.give_up().await?;
            return Ok(refusal);
        }
        let query = sqlx::query(COPY)
            .bind(mesh.as_str())
            .bind(name)
            .bind(to_json(&shared.copies))
            .bind(shared.sealed_by.as_str());
        let members = change.execute(query).await?;
        if members == 0 {
            change.give_up().await?;
            return Ok(KeySharing::Shared(0));
        }
        let (scope, epoch) = (name.to_owned(), shared.epoch);
        change.append(author, &AuditEvent::CommonKeyShared { scope, epoch, members }).await?;
        change.commit().await?;
        Ok(KeySharing::Shared(members))
    }

    async fn drop_copy(&self, mesh: &MeshId, scope: &KeyScope, member: &MemberId) -> Result<()> {
        let query = sqlx::query(
            "delete from mesh.common_key_copy where mesh_id = $1 and scope = $2 and member_id = $3",
        )
        .bind(mesh.as_str())
        .bind(scope.as_str())
        .bind(member.as_str());
        self.pool.execute(query).await?;
        Ok(())
    }
}
