//! Reads across members and meshes in SQLite.

use async_trait::async_trait;

use super::{Membership, RosterLine, WorkspaceState, Workspaces};
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId};
use crate::store::Result;
use crate::store::columns::Columns as _;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::row::to_json;

#[async_trait]
impl Workspaces for SqliteStore {
    async fn roster(&self, mesh: &MeshId) -> Result<Vec<RosterLine>> {
        let query = sqlx::query(
            "select id, peer_pubkey, display_name, role, user_id is not null as is_human,
                joined_at
             from member where mesh_id = ?1 and revoked_at is null order by joined_at, id",
        )
        .bind(mesh.as_str());
        self.records(query, RosterLine::read).await
    }

    async fn callers(&self, mesh: &MeshId, since: Timestamp) -> Result<Vec<MemberId>> {
        let query = sqlx::query(
            "select distinct issued_by_member_id from api_key
             where mesh_id = ?1 and revoked_at is null and last_used_at > ?2
                and issued_by_member_id is not null",
        )
        .bind(mesh.as_str())
        .bind(since.as_ms());
        self.records(query, |row| row.id("issued_by_member_id")).await
    }

    async fn memberships(&self, member: &MemberId) -> Result<Vec<Membership>> {
        let query = sqlx::query(
            "select coalesce(m.user_id, m.id) as user_id, m.mesh_id, mesh.slug, mesh.name, m.id,
                m.role, m.joined_at,
                (select count(*) from member other
                 where other.mesh_id = m.mesh_id and other.revoked_at is null) as members
             from member issuer
             join member m on m.id = issuer.id or m.user_id = issuer.user_id
             join mesh on mesh.id = m.mesh_id
             where issuer.id = ?1 and m.revoked_at is null and mesh.archived_at is null
             order by mesh.slug, mesh.id, m.id <> issuer.id, m.joined_at, m.id",
        )
        .bind(member.as_str());
        self.records(query, Membership::read).await
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
                select s.mesh_id, s.key, s.value, s.updated_by_name, s.updated_at,
                    count(*) over () as of_all,
                    sum(octet_length(s.value)) over (order by s.updated_at desc, s.id) as bytes
                from state s
                where s.mesh_id in (select value from json_each(?1))
                    and (?2 is null or s.key = ?2)
                order by s.updated_at desc, s.id limit 0 + ?3
             ) where bytes <= ?4",
        )
        .bind(to_json(meshes))
        .bind(key)
        .bind(rows_max)
        .bind(bytes_max);
        self.records(query, WorkspaceState::read).await
    }
}
