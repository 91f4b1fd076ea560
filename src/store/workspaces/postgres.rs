//! Reads across members and meshes in Postgres.

use async_trait::async_trait;

use super::{
    Membership, RosterLine, WorkspaceMemories, WorkspaceMemory, WorkspaceState, WorkspaceTask,
    WorkspaceTasks, Workspaces,
};
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
                 where other.mesh_id = m.mesh_id and other.revoked_at is null) as members,
                (select count(*) from mesh.topic t
                 where t.mesh_id = m.mesh_id and t.archived_at is null
                    and (t.visibility = 'public' or exists (
                        select from mesh.topic_member tm
                        where tm.topic_id = t.id and tm.member_id = m.id))) as topics,
                (select count(*) from mesh.notification n
                 where n.recipient_member_id = m.id and n.read_at is null) as unread_mentions
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

    async fn tasks(
        &self,
        now: Timestamp,
        meshes: &[MeshId],
        ask: &WorkspaceTasks,
        rows_max: i64,
        bytes_max: i64,
    ) -> Result<Vec<WorkspaceTask>> {
        let query = sqlx::query(
            "select t.mesh_id, t.id, t.title, t.assignee, t.priority, t.status,
                to_json(coalesce(t.tags, '{}'))::text as tags, t.result, t.created_by_name,
                t.claimed_by_name, t.claimed_by_member, t.claim_lease_ms, t.claim_expires_at,
                t.created_at, t.claimed_at, t.completed_at, found.of_all
             from (
                select id, count(*) over () as of_all,
                    row_number() over (order by turn, created_at desc, id desc) as place,
                    sum(bytes) over (order by turn, created_at desc, id desc) as bytes
                from (
                    select id, created_at, octet_length(title) + coalesce(octet_length(tags::text), 0)
                            + coalesce(octet_length(result), 0) as bytes,
                        case when status = 'claimed' and claim_expires_at <= $2 then 'open'
                            when status in ('claimed', 'in_progress') then 'claimed'
                            when status in ('done', 'completed') then 'done'
                            else 'open' end as word,
                        case when status = 'claimed' and claim_expires_at <= $2 then 0
                            when status in ('claimed', 'in_progress') then 1
                            when status in ('done', 'completed') then 2
                            else 0 end as turn
                    from mesh.task
                    where mesh_id = any ($1)
                        and ($4::timestamp is null or completed_at is null or completed_at > $4)
                ) every where $3::text[] is null or word = any ($3)
             ) found join mesh.task t on t.id = found.id
             where found.place <= $5 and found.bytes <= $6 order by found.place",
        )
        .bind(meshes.iter().map(MeshId::as_str).collect::<Vec<_>>())
        .bind(now.to_naive())
        .bind(ask.words())
        .bind(ask.done_after.map(Timestamp::to_naive))
        .bind(rows_max)
        .bind(bytes_max);
        self.pool.records(query, |row| WorkspaceTask::read(row, now)).await
    }

    async fn memories(
        &self,
        meshes: &[MeshId],
        ask: &WorkspaceMemories,
        rows_max: i64,
        bytes_max: i64,
    ) -> Result<Vec<WorkspaceMemory>> {
        let query = sqlx::query(
            "select m.mesh_id, m.id, m.content, to_json(coalesce(m.tags, '{}'))::text as tags,
                m.remembered_by_name, m.remembered_at, found.of_all
             from (
                select id, count(*) over () as of_all,
                    row_number() over (order by remembered_at desc, id desc) as place,
                    sum(octet_length(content) + coalesce(octet_length(tags::text), 0))
                        over (order by remembered_at desc, id desc) as bytes
                from mesh.memory
                where mesh_id = any ($1) and forgotten_at is null
                    and ($3::timestamp is null or remembered_at > $3)
                    and ($2::text is null or strpos(lower(content), lower($2)) > 0
                        or exists (select 1 from unnest(tags) as tag
                            where strpos(lower(tag), lower($2)) > 0))
             ) found join mesh.memory m on m.id = found.id
             where found.place <= $4 and found.bytes <= $5 order by found.place",
        )
        .bind(meshes.iter().map(MeshId::as_str).collect::<Vec<_>>())
        .bind(clean_optional(ask.text.as_deref()))
        .bind(ask.after.map(Timestamp::to_naive))
        .bind(rows_max)
        .bind(bytes_max);
        self.pool.records(query, WorkspaceMemory::read).await
    }
}
