//! Meshes as the accounts of their members and owners see and change them.

use async_trait::async_trait;
use serde_json::Value;

use super::slug_taken;
use crate::clock::Timestamp;
use crate::id::{self, AccountId, MemberId, MeshId};
use crate::store::postgres::PostgresStore;
use crate::store::postgres::row::{clean, to_json};
use crate::store::{AccountMesh, AuditEntry, Ownership, Permissions, Result, StoreError};

#[async_trait]
impl Ownership for PostgresStore {
    async fn meshes_of(&self, account: &AccountId) -> Result<Vec<AccountMesh>> {
        let query = sqlx::query(
            "select mesh.id, mesh.slug, mesh.name, mesh.owner_pubkey, mesh.owner_secret_key,
                mesh.root_key, coalesce(mesh.self_editable, '{}')::text as self_editable,
                mesh.sealing, mesh.created_at, mesh.archived_at,
                coalesce(mesh.owner_user_id = $1, false) as is_owner,
                coalesce(own.is_admin, false) as is_admin, own.first_joined_at,
                (select count(*) from mesh.member m
                 where m.mesh_id = mesh.id and m.revoked_at is null) as members,
                (select count(*) from mesh.presence p join mesh.member m on m.id = p.member_id
                 where m.mesh_id = mesh.id and p.disconnected_at is null) as presences
             from (
                select mesh_id from mesh.member where user_id = $1 and revoked_at is null
                union select mesh_id from mesh.member
                where dashboard_user_id = $1 and revoked_at is null
                union select id from mesh.mesh where owner_user_id = $1
             ) mine
             join mesh.mesh on mesh.id = mine.mesh_id and mesh.archived_at is null
             left join (
                select mesh_id, bool_or(role = 'admin') as is_admin,
                    min(joined_at) as first_joined_at
                from mesh.member
                where (user_id = $1 or dashboard_user_id = $1) and revoked_at is null
                group by mesh_id
             ) own on own.mesh_id = mesh.id
             order by mesh.slug, mesh.id",
        )
        .bind(account.as_str());
        self.pool.records(query, AccountMesh::read).await
    }

    async fn rename(&self, now: Timestamp, audit: &AuditEntry, slug: &str) -> Result<()> {
        let mesh = &audit.mesh;
        let mut change = self.begin_change(now, &[mesh]).await?;
        let query =
            sqlx::query("select pg_advisory_xact_lock(hashtextextended('mesh slug ' || $1, 0))")
                .bind(slug);
        change.execute(query).await?;
        let query = sqlx::query(
            "update mesh.mesh set slug = $2, name = $2
             where id = $1 and archived_at is null and not exists (
                select from mesh.mesh where slug = $2 and id <> $1 and archived_at is null)",
        )
        .bind(clean(mesh.as_str()))
        .bind(slug);
        if change.execute(query).await? == 0 {
            let query = sqlx::query("select from mesh.mesh where id = $1 and archived_at is null")
                .bind(clean(mesh.as_str()));
            let known = change.record(query, |_| Ok(())).await?;
            change.give_up().await?;
            return Err(match known {
                Some(_) => slug_taken(slug),
                None => StoreError::NotFound("there is no such mesh".to_owned()),
            });
        }
        change.append_entry(audit).await?;
        change.commit().await
    }

    async fn set_self_editable(
        &self,
        now: Timestamp,
        audit: &AuditEntry,
        policy: &Value,
    ) -> Result<()> {
        let mesh = &audit.mesh;
        let mut change = self.begin_change(now, &[mesh]).await?;
        let query = sqlx::query("update mesh.mesh set self_editable = $2::jsonb where id = $1")
            .bind(clean(mesh.as_str()))
            .bind(to_json(policy));
        change.execute(query).await?;
        change.append_entry(audit).await?;
        change.commit().await
    }

    async fn permissions(&self, mesh: &MeshId) -> Result<Vec<(MemberId, Permissions)>> {
        let query = sqlx::query("select * from mesh.permission where mesh_id = $1")
            .bind(clean(mesh.as_str()));
        self.pool.records(query, Permissions::read).await
    }

    /// Not by the unique index, which an old installation may lack.
    async fn set_permissions(
        &self,
        now: Timestamp,
        audit: &AuditEntry,
        member: &MemberId,
        permissions: &Permissions,
    ) -> Result<()> {
        let mesh = &audit.mesh;
        // Whoever sets those of one member waits for the mesh's chain.
        let mut change = self.begin_change(now, &[mesh]).await?;
        let query =
            sqlx::query("delete from mesh.permission where member_id = $1 and mesh_id = $2")
                .bind(clean(member.as_str()))
                .bind(clean(mesh.as_str()));
        change.execute(query).await?;
        let query = sqlx::query(
            "insert into mesh.permission (id, mesh_id, member_id, can_invite, can_deploy_mcp,
                can_manage_files, can_manage_vault, can_manage_watches, can_manage_webhooks,
                can_write_state, can_send, can_use_tools, can_delete_mesh,
                can_manage_permissions, updated_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        )
        .bind(id::generate())
        .bind(clean(mesh.as_str()))
        .bind(clean(member.as_str()));
        let query = permissions.flags().into_iter().fold(query, |query, flag| query.bind(flag));
        change.execute(query.bind(now.to_naive())).await?;
        change.append_entry(audit).await?;
        change.commit().await
    }
}
