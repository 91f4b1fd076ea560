//! Reads across members and meshes in SQLite.

use async_trait::async_trait;

use super::{
    Membership, RosterLine, WorkspaceMemories, WorkspaceMemory, WorkspaceState, WorkspaceTask,
    WorkspaceTasks, Workspaces,
};
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
                 where other.mesh_id = m.mesh_id and other.revoked_at is null) as members,
                (select count(*) from topic t
                 where t.mesh_id = m.mesh_id and t.archived_at is null
                    and (t.visibility = 'public' or exists (
                        select 1 from topic_member tm
                        where tm.topic_id = t.id and tm.member_id = m.id))) as topics,
                (select count(*) from notification n
                 where n.recipient_member_id = m.id and n.read_at is null) as unread_mentions
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

    async fn tasks(
        &self,
        now: Timestamp,
        meshes: &[MeshId],
        ask: &WorkspaceTasks,
        rows_max: i64,
        bytes_max: i64,
    ) -> Result<Vec<WorkspaceTask>> {
        let query = sqlx::query(
            "select t.*, found.of_all from (
                select id, count(*) over () as of_all,
                    row_number() over (order by turn, created_at desc, id desc) as place,
                    sum(bytes) over (order by turn, created_at desc, id desc) as bytes
                from (
                    select id, created_at, octet_length(title) + octet_length(tags)
                            + coalesce(octet_length(result), 0) as bytes,
                        case when status = 'claimed' and claim_expires_at <= ?2 then 'open'
                            when status in ('claimed', 'in_progress') then 'claimed'
                            when status in ('done', 'completed') then 'done'
                            else 'open' end as word,
                        case when status = 'claimed' and claim_expires_at <= ?2 then 0
                            when status in ('claimed', 'in_progress') then 1
                            when status in ('done', 'completed') then 2
                            else 0 end as turn
                    from task
                    where mesh_id in (select value from json_each(?1))
                        and (?4 is null or completed_at is null or completed_at > ?4)
                ) where ?3 is null or word in (select value from json_each(?3))
             ) found cross join task t on t.id = found.id
             where found.place <= ?5 and found.bytes <= ?6 order by found.place",
        )
        .bind(to_json(meshes))
        .bind(now.as_ms())
        .bind(ask.words().map(|words| to_json(&words)))
        .bind(ask.done_after.map(Timestamp::as_ms))
        .bind(rows_max)
        .bind(bytes_max);
        self.records(query, |row| WorkspaceTask::read(row, now)).await
    }

    /// This database knows upper and lower case of the letters a to z only.
    async fn memories(
        &self,
        meshes: &[MeshId],
        ask: &WorkspaceMemories,
        rows_max: i64,
        bytes_max: i64,
    ) -> Result<Vec<WorkspaceMemory>> {
        let query = sqlx::query(
            "select m.*, found.of_all from (
                select number, count(*) over () as of_all,
                    row_number() over (order by remembered_at desc, number desc) as place,
                    sum(octet_length(content) + octet_length(tags))
                        over (order by remembered_at desc, number desc) as bytes
                from memory
                where mesh_id in (select value from json_each(?1))
                    and (?3 is null or remembered_at > ?3)
                    and (?2 is null or instr(lower(content), lower(?2)) > 0
                        or exists (select 1 from json_each(tags)
                            where instr(lower(value), lower(?2)) > 0))
             ) found cross join memory m on m.number = found.number
             where found.place <= ?4 and found.bytes <= ?5 order by found.place",
        )
        .bind(to_json(meshes))
        .bind(ask.text.as_deref())
        .bind(ask.after.map(Timestamp::as_ms))
        .bind(rows_max)
        .bind(bytes_max);
        self.records(query, WorkspaceMemory::read).await
    }
}
