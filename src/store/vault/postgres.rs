//! The vault in Postgres. A shared database may hold a key twice: then the one that was
//! written last is the entry, and a write is to both.

use async_trait::async_trait;

use super::{Vault, VaultLine, read_sealed};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{self, MemberId, MeshId};
use crate::protocol::{VaultSealed, VaultSet};
use crate::store::postgres::PostgresStore;
use crate::store::postgres::row::{clean, clean_optional};
use crate::store::{Author, Kind, Result};

#[async_trait]
impl Vault for PostgresStore {
    async fn put(&self, now: Timestamp, author: &Author, entry: &VaultSet) -> Result<()> {
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let query = sqlx::query(
            "with changed as (
                update mesh.vault_entry v set ciphertext = $5, nonce = $6, sealed_key = $7,
                    entry_type = $8, mount_path = $9, description = $10, updated_at = $11
                where v.mesh_id = $2 and v.member_id = $3 and v.key = $4
                returning v.id
             )
             insert into mesh.vault_entry (id, mesh_id, member_id, key, ciphertext, nonce,
                sealed_key, entry_type, mount_path, description, created_at, updated_at)
             select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11
             where not exists (select from changed)",
        )
        .bind(id::generate())
        .bind(author.mesh.as_str())
        .bind(author.member.as_str())
        .bind(clean(&entry.key))
        .bind(clean(&entry.ciphertext))
        .bind(clean(&entry.nonce))
        .bind(clean(&entry.sealed_key))
        .bind(entry.entry_type.as_str())
        .bind(clean_optional(entry.mount_path.as_deref()))
        .bind(clean_optional(entry.description.as_deref()))
        .bind(now.to_naive());
        change.execute(query).await?;
        change.append(author, &AuditEvent::VaultSet { key: entry.key.clone() }).await?;
        change.within(&author.mesh, Kind::Vault).await?.commit().await
    }

    async fn delete(&self, now: Timestamp, author: &Author, key: &str) -> Result<bool> {
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let query = sqlx::query(
            "delete from mesh.vault_entry where mesh_id = $1 and member_id = $2 and key = $3",
        )
        .bind(author.mesh.as_str())
        .bind(author.member.as_str())
        .bind(clean(key));
        if change.execute(query).await? == 0 {
            change.give_up().await?;
            return Ok(false);
        }
        change.append(author, &AuditEvent::VaultDeleted { key: key.to_owned() }).await?;
        change.commit().await?;
        Ok(true)
    }

    async fn list<'a>(
        &self,
        mesh: &MeshId,
        member: &MemberId,
        after: Option<&'a str>,
        limit: i64,
    ) -> Result<Vec<VaultLine>> {
        // No key is empty.
        let query = sqlx::query(
            "select distinct on (key) key, entry_type, mount_path, description, updated_at
             from mesh.vault_entry where mesh_id = $1 and member_id = $2 and key > $3
             order by key, updated_at desc limit $4",
        )
        .bind(mesh.as_str())
        .bind(member.as_str())
        .bind(clean(after.unwrap_or_default()))
        .bind(limit);
        self.pool.records(query, VaultLine::read).await
    }

    async fn get(
        &self,
        mesh: &MeshId,
        member: &MemberId,
        keys: &[String],
    ) -> Result<Vec<VaultSealed>> {
        let query = sqlx::query(
            "select distinct on (key) key, ciphertext, nonce, sealed_key, entry_type, mount_path
             from mesh.vault_entry where mesh_id = $1 and member_id = $2 and key = any ($3)
             order by key, updated_at desc",
        )
        .bind(mesh.as_str())
        .bind(member.as_str())
        .bind(keys.iter().map(|key| clean(key)).collect::<Vec<_>>());
        self.pool.records(query, read_sealed).await
    }
}
