//! The vault in SQLite.

use async_trait::async_trait;

use super::{Vault, VaultLine, read_sealed};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{self, MemberId, MeshId};
use crate::protocol::{VaultSealed, VaultSet};
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::row::to_json;
use crate::store::{Author, Kind, Result};

#[async_trait]
impl Vault for SqliteStore {
    async fn put(&self, now: Timestamp, author: &Author, entry: &VaultSet) -> Result<()> {
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let query = sqlx::query(
            "insert into vault_entry (id, mesh_id, member_id, key, ciphertext, nonce, sealed_key,
                entry_type, mount_path, description, created_at, updated_at)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11)
             on conflict (mesh_id, member_id, key) do update set
                ciphertext = excluded.ciphertext, nonce = excluded.nonce,
                sealed_key = excluded.sealed_key, entry_type = excluded.entry_type,
                mount_path = excluded.mount_path, description = excluded.description,
                updated_at = excluded.updated_at",
        )
        .bind(id::generate())
        .bind(author.mesh.as_str())
        .bind(author.member.as_str())
        .bind(&entry.key)
        .bind(&entry.ciphertext)
        .bind(&entry.nonce)
        .bind(&entry.sealed_key)
        .bind(entry.entry_type.as_str())
        .bind(entry.mount_path.as_deref())
        .bind(entry.description.as_deref())
        .bind(now.as_ms());
        change.execute(query).await?;
        change.append(author, &AuditEvent::VaultSet { key: entry.key.clone() }).await?;
        change.within(&author.mesh, Kind::Vault).await?.commit().await
    }

    async fn delete(&self, now: Timestamp, author: &Author, key: &str) -> Result<bool> {
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let query = sqlx::query(
            "delete from vault_entry where mesh_id = ?1 and member_id = ?2 and key = ?3",
        )
        .bind(author.mesh.as_str())
        .bind(author.member.as_str())
        .bind(key);
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
            "select key, entry_type, mount_path, description, updated_at from vault_entry
             where mesh_id = ?1 and member_id = ?2 and key > ?3 order by key limit 0 + ?4",
        )
        .bind(mesh.as_str())
        .bind(member.as_str())
        .bind(after.unwrap_or_default())
        .bind(limit);
        self.records(query, VaultLine::read).await
    }

    async fn get(
        &self,
        mesh: &MeshId,
        member: &MemberId,
        keys: &[String],
    ) -> Result<Vec<VaultSealed>> {
        let query = sqlx::query(
            "select key, ciphertext, nonce, sealed_key, entry_type, mount_path from vault_entry
             where mesh_id = ?1 and member_id = ?2
                and key in (select value from json_each(?3)) order by key",
        )
        .bind(mesh.as_str())
        .bind(member.as_str())
        .bind(to_json(keys));
        self.records(query, read_sealed).await
    }
}
