//! Meshes, as the command line sees them.

use async_trait::async_trait;

use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{self, AccountId, MeshId};
use crate::protocol::SealingPolicy;
use crate::store::columns::Columns as _;
use crate::store::meshes::{GENERAL, differs, read_policy};
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::chain::Chains;
use crate::store::sqlite::connection::{Tx, execute};
use crate::store::sqlite::error::refused;
use crate::store::{Actor, AuditEntry, Mesh, MeshSummary, Meshes, NewMesh, Result, StoreError};

#[async_trait]
impl Meshes for SqliteStore {
    async fn get(&self, mesh: &MeshId) -> Result<Option<Mesh>> {
        let query = sqlx::query("select * from mesh where id = ?1").bind(mesh.as_str());
        self.record(query, Mesh::read).await
    }

    async fn create(&self, now: Timestamp, mesh: &NewMesh) -> Result<()> {
        let (account, owner_secret_key, member_key) = mesh.owning();
        let mut tx = self.begin().await?;
        let query = sqlx::query(
            "insert into mesh (id, name, slug, owner_pubkey, root_key, created_at, owner_user_id,
                owner_secret_key)
             select ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8
             where not exists (select 1 from mesh where slug = ?3 and archived_at is null)",
        )
        .bind(mesh.id.as_str())
        .bind(&mesh.name)
        .bind(&mesh.slug)
        .bind(mesh.owner_key.as_str())
        .bind(&mesh.root_key)
        .bind(now.as_ms())
        .bind(account.map(AccountId::as_str))
        .bind(owner_secret_key);
        let created = execute(&mut tx, query).await?;
        if created == 0 {
            let sentence =
                "a mesh with this slug exists: choose another, or archive that one first";
            return Err(StoreError::Conflict(sentence.to_owned()));
        }
        let query = sqlx::query(
            "insert into member (id, mesh_id, peer_pubkey, display_name, role, joined_at, user_id)
             values (?1, ?2, ?3, ?4, 'admin', ?5, ?6)",
        )
        .bind(mesh.owner_member.as_str())
        .bind(mesh.id.as_str())
        .bind(member_key.as_str())
        .bind(&mesh.owner_name)
        .bind(now.as_ms())
        .bind(account.map(AccountId::as_str));
        execute(&mut tx, query).await?;
        if mesh.founder.is_some() {
            found_general(&mut tx, now, mesh).await?;
        }
        let AuditEntry { actor, actor_name, event, .. } = mesh.genesis();
        let mut chains = Chains::read(&mut tx, now, [&mesh.id]).await?;
        let genesis = chains.push(&mesh.id, actor.as_ref(), actor_name.as_deref(), &event);
        chains.write(&mut tx).await?;
        let query = sqlx::query("update mesh set audit_genesis_id = ?2 where id = ?1")
            .bind(mesh.id.as_str())
            .bind(genesis);
        execute(&mut tx, query).await?;
        tx.commit().await.map_err(refused)
    }

    async fn all(&self) -> Result<Vec<MeshSummary>> {
        let query = sqlx::query(
            "select mesh.*,
                (select count(*) from member m
                 where m.mesh_id = mesh.id and m.revoked_at is null) as members,
                (select count(*) from member m
                 cross join presence p on p.member_id = m.id and p.disconnected_at is null
                 where m.mesh_id = mesh.id) as presences,
                (select count(*) from message_queue q indexed by message_queue_mailbox_idx
                 where q.mesh_id = mesh.id and q.delivered_at is null
                    and q.target_spec not like '#%') as queued
             from mesh order by mesh.archived_at is not null, mesh.created_at, mesh.id",
        );
        self.records(query, MeshSummary::read).await
    }

    async fn find(&self, slug_or_id: &str) -> Result<Option<Mesh>> {
        let query = sqlx::query(
            "select * from mesh where (slug = ?1 and archived_at is null) or id = ?1
             order by (slug = ?1 and archived_at is null) desc, created_at desc, id desc limit 1",
        )
        .bind(slug_or_id);
        self.record(query, Mesh::read).await
    }

    async fn require_certificates(&self, mesh: &MeshId, required: bool) -> Result<bool> {
        let query = sqlx::query(
            "update mesh set certified_required = ?2 where id = ?1 and certified_required <> ?2",
        )
        .bind(mesh.as_str())
        .bind(required);
        Ok(self.write(query).await? > 0)
    }

    async fn archive(&self, now: Timestamp, mesh: &MeshId, by: Option<Actor>) -> Result<bool> {
        let mut change = self.begin_change(now, &[mesh]).await?;
        let query = sqlx::query("select archived_at from mesh where id = ?1").bind(mesh.as_str());
        match change.record(query, |row| row.optional_time("archived_at")).await? {
            None => return Err(StoreError::NotFound("there is no such mesh".to_owned())),
            Some(Some(_)) => return Ok(false),
            Some(None) => {}
        }
        let query = sqlx::query("update mesh set archived_at = ?2 where id = ?1")
            .bind(mesh.as_str())
            .bind(now.as_ms());
        change.execute(query).await?;
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
        let query = sqlx::query("select sealing from mesh where id = ?1").bind(mesh.as_str());
        if !differs(change.record(query, read_policy).await?, policy)? {
            return Ok(false);
        }
        let query = sqlx::query("update mesh set sealing = ?2 where id = ?1")
            .bind(mesh.as_str())
            .bind(policy.as_str());
        change.execute(query).await?;
        let event = AuditEvent::MeshSealingChanged { sealing: policy };
        change.append_entry(&Actor::entry(by, mesh, event)).await?;
        change.commit().await?;
        Ok(true)
    }
}

/// The topic that every mesh of an account has, with its owner in it.
async fn found_general(tx: &mut Tx, now: Timestamp, mesh: &NewMesh) -> Result<()> {
    let (topic, (name, description)) = (id::random(), GENERAL);
    let query = sqlx::query(
        "insert into topic (id, mesh_id, name, description, created_by_member_id, created_at)
         values (?1, ?2, ?3, ?4, ?5, ?6)",
    )
    .bind(topic.clone())
    .bind(mesh.id.as_str())
    .bind(name)
    .bind(description)
    .bind(mesh.owner_member.as_str())
    .bind(now.as_ms());
    execute(tx, query).await?;
    let query = sqlx::query(
        "insert into topic_member (topic_id, member_id, role, joined_at)
         values (?1, ?2, 'lead', ?3)",
    )
    .bind(topic)
    .bind(mesh.owner_member.as_str())
    .bind(now.as_ms());
    execute(tx, query).await?;
    Ok(())
}
