//! Reads across members and meshes in Postgres.

use async_trait::async_trait;

use super::{Membership, RosterLine, WorkspaceState, Workspaces};
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId};
use crate::store::Result;
use crate::store::columns::Columns as _;
use crate::store::postgres::PostgresStore;
use crate::store::postgres::row::clean_optional;

#[async_trait]
impl Workspaces for PostgresStore {
    async fn roster(&self, mesh: &MeshId) -> Result<Vec<RosterLine>> {
        let query = sqlx::query(
            "select id, peer_pubkey, display_name, role::text as role,
                coalesce(user_id, dashboard_user_id) is not null as is_human, joined_at
             from mesh.member where mesh_id = $1 and revoked_at is null order by joined_at, id",
        )
        .bind(mesh.as_str());
        self.pool.records(query, RosterLine::read).await
    }

    async fn callers(&self, mesh: &MeshId, since: Timestamp) -> Result<Vec<MemberId>> {
        let query = sqlx::query(
            "select distinct issued_by_member_id from mesh.api_key
             where mesh_id = $1 and revoked_at is null and last_used_at > $2
                and issued_by_member_id is not null",
        )
        .bind(mesh.as_str())
        .bind(since.to_naive());
        self.pool.records(query, |row| row.id("issued_by_member_id")).await
    }

    async fn memberships(&self, member: &MemberId) -> Result<Vec<Membership>> {
        let query = sqlx::query(
            "with issuer as materialized (
                select id, coalesce(user_id, dashboard_user_id) as user_id
                from mesh.member where id = $1
             )
             select coalesce((select user_id from issuer), $1) as user_id, m.mesh_id,
                mesh.slug, mesh.name, m.id, m.role::text as role, m.joined_at,
                (select count(*) from mesh.member other
                 where other.mesh_id = m.mesh_id and other.revoked_at is null) as members
             from mesh.member m join mesh.mesh on mesh.id = m.mesh_id
             where (m.id = $1
                or coalesce(m.user_id, m.dashboard_user_id) = (select user_id from issuer))
                and m.revoked_at is null and mesh.archived_at is null
             order by mesh.slug, mesh.id, m.id <> $1, m.joined_at, m.id",
        )
        .bind(member.as_str());
        self.pool.records(query, Membership::read).await
    }

    async fn states<'a>(
        &self,
        meshes: &[MeshId],
        key: Option<&'a str>,
        rows_max: i64,
        bytes_max: i64,
    ) -> Result<Vec<WorkspaceState>> {
        let query = sqlx::query(
            "select * from (
                select s.mesh_id, s.key, s.value::text as value, s.updated_by_name,
                    s.updated_at, count(*) over () as of_all,
                    sum(octet_length(s.value::text)) over (order by s.updated_at desc, s.id)
                        as bytes
                from mesh.state s
                where s.mesh_id = any ($1) and ($2::text is null or s.key = $2)
                order by s.updated_at desc, s.id limit $3
             ) newest where bytes <= $4",
        )
        .bind(meshes.iter().map(MeshId::as_str).collect::<Vec<_>>())
        .bind(clean_optional(key))
        .bind(rows_max)
        .bind(bytes_max);
        self.pool.records(query, WorkspaceState::read).await
    }
}
