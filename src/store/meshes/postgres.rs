//! Meshes, as the command line sees them.

use async_trait::async_trait;

use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{self, AccountId, MeshId};
use crate::protocol::SealingPolicy;
use crate::store::meshes::{GENERAL, differs, read_policy};
use crate::store::postgres::PostgresStore;
use crate::store::postgres::chain::Entries;
use crate::store::postgres::error::slug_taken;
use crate::store::postgres::pool::Call;
use crate::store::postgres::row::clean;
use crate::store::{Actor, AuditEntry, Mesh, MeshSummary, Meshes, NewMesh, Result, StoreError};

/// A `select` of meshes, with the conditions given.
macro_rules! select_mesh {
    ($conditions:literal) => {
        concat!(
            "select id, slug, name, owner_pubkey, owner_secret_key, root_key,
                coalesce(self_editable, '{}')::text as self_editable, sealing, created_at,
                archived_at
             from mesh.mesh ",
            $conditions
        )
    };
}

#[async_trait]
impl Meshes for PostgresStore {
    async fn get(&self, mesh: &MeshId) -> Result<Option<Mesh>> {
        let row = self
            .pool
            .fetch_optional(sqlx::query(select_mesh!("where id = $1")).bind(clean(mesh.as_str())))
            .await?;
        row.as_ref().map(Mesh::read).transpose()
    }

    async fn create(&self, now: Timestamp, mesh: &NewMesh) -> Result<()> {
        let (account, owner_secret_key, member_key) = mesh.owning();
        let mut tx = self.pool.begin().await?;
        // Slugs are not unique in the table: archived meshes keep theirs.
        let query =
            sqlx::query("select pg_advisory_xact_lock(hashtextextended('mesh slug ' || $1, 0))")
                .bind(&mesh.slug);
        tx.execute(query).await?;
        // Without an account no user of a dashboard owns it. Where one must, the table
        // says so.
        let query = sqlx::query(
            "insert into mesh.mesh (id, name, slug, owner_user_id, owner_pubkey, root_key,
                created_at, owner_secret_key)
             select $1, $2, $3, $4, $5, $6, $7, $8
             where not exists (
                select from mesh.mesh where slug = $3 and archived_at is null)",
        )
        .bind(mesh.id.as_str())
        .bind(clean(&mesh.name))
        .bind(&mesh.slug)
        .bind(account.map_or(mesh.owner_member.as_str(), AccountId::as_str))
        .bind(mesh.owner_key.as_str())
        .bind(&mesh.root_key)
        .bind(now.to_naive())
        .bind(owner_secret_key);
        let created = tx.execute(query).await?;
        if created == 0 {
            tx.rollback().await?;
            return Err(StoreError::Conflict(slug_taken()));
        }
        let query = sqlx::query(
            "insert into mesh.member (id, mesh_id, peer_pubkey, display_name, role, joined_at,
                user_id)
             values ($1, $2, $3, $4, 'admin', $5, $6)",
        )
        .bind(mesh.owner_member.as_str())
        .bind(mesh.id.as_str())
        .bind(member_key.as_str())
        .bind(clean(&mesh.owner_name))
        .bind(now.to_naive())
        .bind(account.map(AccountId::as_str));
        tx.execute(query).await?;
        if mesh.founder.is_some() {
            found_general(&mut tx, now, mesh).await?;
        }
        begin_chain(&mut tx, now, mesh).await?;
        tx.commit().await
    }

    async fn all(&self) -> Result<Vec<MeshSummary>> {
        let rows = self
            .pool
            .fetch_all(sqlx::query(
                "select mesh.id, mesh.slug, mesh.name, mesh.owner_pubkey, mesh.owner_secret_key,
                    mesh.root_key, coalesce(mesh.self_editable, '{}')::text as self_editable,
                    mesh.sealing, mesh.created_at, mesh.archived_at,
                    (select count(*) from mesh.member m
                     where m.mesh_id = mesh.id and m.revoked_at is null) as members,
                    coalesce(open.presences, 0) as presences,
                    coalesce(kept.queued, 0) as queued
                 from mesh.mesh
                 left join (
                    select m.mesh_id, count(*) as presences
                    from mesh.presence p join mesh.member m on m.id = p.member_id
                    where p.disconnected_at is null group by m.mesh_id
                 ) open on open.mesh_id = mesh.id
                 left join (
                    select q.mesh_id, count(*) as queued from mesh.message_queue q
                    where q.delivered_at is null and left(q.target_spec, 1) <> '#'
                    group by q.mesh_id
                 ) kept on kept.mesh_id = mesh.id
                 order by mesh.archived_at is not null, mesh.created_at, mesh.id",
            ))
            .await?;
        rows.iter().map(MeshSummary::read).collect()
    }

    async fn find(&self, slug_or_id: &str) -> Result<Option<Mesh>> {
        let query = sqlx::query(select_mesh!(
            "where (slug = $1 and archived_at is null) or id = $1
             order by (slug = $1 and archived_at is null) desc, created_at desc, id desc
             limit 1"
        ))
        .bind(clean(slug_or_id));
        self.pool.record(query, Mesh::read).await
    }

    async fn require_certificates(&self, mesh: &MeshId, required: bool) -> Result<bool> {
        let query = sqlx::query(
            "update mesh.mesh set certified_required = $2
             where id = $1 and certified_required <> $2",
        )
        .bind(clean(mesh.as_str()))
        .bind(required);
        Ok(self.pool.execute(query).await? > 0)
    }

    async fn archive(&self, now: Timestamp, mesh: &MeshId, by: Option<Actor>) -> Result<bool> {
        let mut change = self.begin_change(now, &[mesh]).await?;
        let query = sqlx::query(
            "update mesh.mesh set archived_at = $2 where id = $1 and archived_at is null",
        )
        .bind(clean(mesh.as_str()))
        .bind(now.to_naive());
        if change.execute(query).await? == 0 {
            let query =
                sqlx::query("select from mesh.mesh where id = $1").bind(clean(mesh.as_str()));
            let known = change.record(query, |_| Ok(())).await?;
            change.give_up().await?;
            let missing = || StoreError::NotFound("there is no such mesh".to_owned());
            return known.map(|()| false).ok_or_else(missing);
        }
        change.append_entry(&Actor::entry(by, mesh, AuditEvent::MeshArchived)).await?;
        change.commit().await?;
        Ok(true)
    }

    async fn set_sealing(
        &self,
        now: Timestamp,
        mesh: &MeshId,
        policy: SealingPolicy,
        by: Option<Actor>,
    ) -> Result<bool> {
        let mut change = self.begin_change(now, &[mesh]).await?;
        let query = sqlx::query("select sealing from mesh.mesh where id = $1 for update")
            .bind(clean(mesh.as_str()));
        let was = change.record(query, read_policy).await?;
        if !differs(was, policy)? {
            change.give_up().await?;
            return Ok(false);
        }
        let query = sqlx::query("update mesh.mesh set sealing = $2 where id = $1")
            .bind(clean(mesh.as_str()))
            .bind(policy.as_str());
        change.execute(query).await?;
        let event = AuditEvent::MeshSealingChanged { sealing: policy };
        change.append_entry(&Actor::entry(by, mesh, event)).await?;
        change.commit().await?;
        Ok(true)
    }
}

/// The first row of the mesh's audit chain, which the mesh knows by its number.
async fn begin_chain(tx: &mut Call, now: Timestamp, mesh: &NewMesh) -> Result<()> {
    let AuditEntry { actor, actor_name, event, .. } = mesh.genesis();
    let mut entries = Entries::default();
    entries.push(&mesh.id, actor.as_ref(), actor_name.as_deref(), &event);
    let append = sqlx::query(
        "with appended as materialized (
            select mesh.broker_append_v2($1, $2, $3, $4, $5, $6, $7, $8, null) as ids
         )
         update mesh.mesh set audit_genesis_id = appended.ids[1] from appended where id = $9",
    );
    tx.execute(entries.bind(append, now).bind(mesh.id.as_str())).await?;
    Ok(())
}

/// The topic that every mesh of an account has, with its owner in it.
async fn found_general(tx: &mut Call, now: Timestamp, mesh: &NewMesh) -> Result<()> {
    let (topic, (name, description)) = (id::random(), GENERAL);
    let query = sqlx::query(
        "insert into mesh.topic (id, mesh_id, name, description, created_by_member_id,
            created_at)
         values ($1, $2, $3, $4, $5, $6)",
    )
    .bind(topic.clone())
    .bind(mesh.id.as_str())
    .bind(name)
    .bind(description)
    .bind(mesh.owner_member.as_str())
    .bind(now.to_naive());
    tx.execute(query).await?;
    let query = sqlx::query(
        "insert into mesh.topic_member (topic_id, member_id, role, joined_at)
         values ($1, $2, 'lead', $3)",
    )
    .bind(topic)
    .bind(mesh.owner_member.as_str())
    .bind(now.to_naive());
    tx.execute(query).await?;
    Ok(())
}
