//! Meshes, as the command line sees them.

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;

use crate::clock::Timestamp;
use crate::id::MeshId;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::error::refused;
use crate::store::sqlite::row::{get, id, json, optional_id, optional_time, time};
use crate::store::{Mesh, MeshSummary, Meshes, NewMesh, Result, StoreError};

#[async_trait]
impl Meshes for SqliteStore {
    async fn get(&self, mesh: &MeshId) -> Result<Option<Mesh>> {
        let row = sqlx::query("select * from mesh where id = ?1")
            .bind(mesh.as_str())
            .fetch_optional(self.reader())
            .await
            .map_err(refused)?;
        row.as_ref().map(mesh_of).transpose()
    }

    async fn create(&self, now: Timestamp, mesh: &NewMesh) -> Result<()> {
        let mut tx = self.begin().await?;
        let created = sqlx::query(
            "insert into mesh (id, name, slug, owner_pubkey, root_key, created_at)
             select ?1, ?2, ?3, ?4, ?5, ?6
             where not exists (select 1 from mesh where slug = ?3 and archived_at is null)",
        )
        .bind(mesh.id.as_str())
        .bind(&mesh.name)
        .bind(&mesh.slug)
        .bind(mesh.owner_key.as_str())
        .bind(&mesh.root_key)
        .bind(now.as_ms())
        .execute(&mut *tx)
        .await
        .map_err(refused)?
        .rows_affected();
        if created == 0 {
            let sentence =
                "a mesh with this slug exists: choose another, or archive that one first";
            return Err(StoreError::Conflict(sentence.to_owned()));
        }
        sqlx::query(
            "insert into member (id, mesh_id, peer_pubkey, display_name, role, joined_at)
             values (?1, ?2, ?3, ?4, 'admin', ?5)",
        )
        .bind(mesh.owner_member.as_str())
        .bind(mesh.id.as_str())
        .bind(mesh.owner_key.as_str())
        .bind(&mesh.owner_name)
        .bind(now.as_ms())
        .execute(&mut *tx)
        .await
        .map_err(refused)?;
        tx.commit().await.map_err(refused)
    }

    async fn all(&self) -> Result<Vec<MeshSummary>> {
        let rows = sqlx::query(
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
        )
        .fetch_all(self.reader())
        .await
        .map_err(refused)?;
        rows.iter().map(summary).collect()
    }

    async fn find(&self, slug_or_id: &str) -> Result<Option<Mesh>> {
        let row = sqlx::query(
            "select * from mesh where (slug = ?1 and archived_at is null) or id = ?1
             order by (slug = ?1 and archived_at is null) desc, created_at desc, id desc limit 1",
        )
        .bind(slug_or_id)
        .fetch_optional(self.reader())
        .await
        .map_err(refused)?;
        row.as_ref().map(mesh_of).transpose()
    }

    async fn archive(&self, now: Timestamp, mesh: &MeshId) -> Result<bool> {
        let mut tx = self.begin().await?;
        let was_archived: Option<bool> =
            sqlx::query_scalar("select archived_at is not null from mesh where id = ?1")
                .bind(mesh.as_str())
                .fetch_optional(&mut *tx)
                .await
                .map_err(refused)?;
        match was_archived {
            None => return Err(StoreError::NotFound("there is no such mesh".to_owned())),
            Some(true) => return Ok(false),
            Some(false) => {}
        }
        sqlx::query("update mesh set archived_at = ?2 where id = ?1")
            .bind(mesh.as_str())
            .bind(now.as_ms())
            .execute(&mut *tx)
            .await
            .map_err(refused)?;
        tx.commit().await.map_err(refused)?;
        Ok(true)
    }
}

fn summary(row: &SqliteRow) -> Result<MeshSummary> {
    Ok(MeshSummary {
        mesh: mesh_of(row)?,
        members: get(row, "members")?,
        presences: get(row, "presences")?,
        queued: get(row, "queued")?,
    })
}

/// A row of `mesh`.
pub(in crate::store) fn mesh_of(row: &SqliteRow) -> Result<Mesh> {
    Ok(Mesh {
        id: id(row, "id")?,
        slug: get(row, "slug")?,
        name: get(row, "name")?,
        owner_key: optional_id(row, "owner_pubkey")?,
        owner_secret_key: get(row, "owner_secret_key")?,
        root_key: get(row, "root_key")?,
        self_editable: json(row, "self_editable")?,
        created_at: time(row, "created_at")?,
        archived_at: optional_time(row, "archived_at")?,
    })
}
