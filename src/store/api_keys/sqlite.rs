//! API keys in SQLite.

use async_trait::async_trait;

use super::{ApiKey, ApiKeyPlace, ApiKeys, GoodApiKey, Named, NewApiKey, Revocation};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId};
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::connection::execute;
use crate::store::sqlite::error::refused;
use crate::store::sqlite::row::to_json;
use crate::store::{Author, Kind, Result};

#[async_trait]
impl ApiKeys for SqliteStore {
    async fn create(
        &self,
        now: Timestamp,
        author: &Author,
        key: &NewApiKey,
        forget_before: Timestamp,
    ) -> Result<()> {
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let query = sqlx::query(
            "delete from api_key where mesh_id = ?1 and (revoked_at < ?2 or expires_at < ?2)",
        )
        .bind(author.mesh.as_str())
        .bind(forget_before.as_ms());
        change.execute(query).await?;
        let query = sqlx::query(
            "insert into api_key (id, mesh_id, label, secret_hash, secret_prefix, capabilities,
                topic_scopes, issued_by_member_id, created_at, expires_at)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )
        .bind(&key.id)
        .bind(author.mesh.as_str())
        .bind(&key.label)
        .bind(&key.secret_hash)
        .bind(&key.secret_prefix)
        .bind(to_json(&key.capabilities))
        .bind(key.topic_scopes.as_ref().map(to_json))
        .bind(author.member.as_str())
        .bind(now.as_ms())
        .bind(key.expires_at.map(Timestamp::as_ms));
        change.execute(query).await?;
        change.append(author, &key.audit()).await?;
        change.within(&author.mesh, Kind::ApiKey).await?.commit().await
    }

    async fn list<'a>(
        &self,
        mesh: &MeshId,
        issuer: Option<&'a MemberId>,
        after: Option<&'a ApiKeyPlace>,
        limit: i64,
    ) -> Result<Vec<ApiKey>> {
        let (at, id) = after.cloned().unzip();
        let query = sqlx::query(
            "select k.*, m.display_name as issued_by
             from api_key k left join member m on m.id = k.issued_by_member_id
             where k.mesh_id = ?1 and (?2 is null or k.issued_by_member_id = ?2)
                and (?3 is null or (k.created_at, k.id) < (?3, ?4))
             order by k.created_at desc, k.id desc limit 0 + ?5",
        )
        .bind(mesh.as_str())
        .bind(issuer.map(MemberId::as_str))
        .bind(at.map(Timestamp::as_ms))
        .bind(id)
        .bind(limit);
        self.records(query, ApiKey::read).await
    }

    async fn revoke<'a>(
        &self,
        now: Timestamp,
        author: &Author,
        issuer: Option<&'a MemberId>,
        id: &str,
    ) -> Result<Revocation> {
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let query = sqlx::query(
            "select id, revoked_at is not null as is_revoked, id = ?3 as is_whole from api_key
             where mesh_id = ?1 and (?2 is null or issued_by_member_id = ?2)
                and substr(id, 1, length(?3)) = ?3
             order by is_whole desc limit 2",
        )
        .bind(author.mesh.as_str())
        .bind(issuer.map(MemberId::as_str))
        .bind(id);
        let meant = match Named::meant(change.records(query, Named::read).await?) {
            Ok(meant) => meant,
            Err(refused) => {
                change.give_up().await?;
                return Ok(refused);
            }
        };
        if meant.is_revoked {
            change.give_up().await?;
            return Ok(Revocation::Revoked(meant.id));
        }
        let query = sqlx::query("update api_key set revoked_at = ?2 where id = ?1")
            .bind(&meant.id)
            .bind(now.as_ms());
        change.execute(query).await?;
        change.append(author, &AuditEvent::ApikeyRevoked { key_id: meant.id.clone() }).await?;
        change.commit().await?;
        Ok(Revocation::Revoked(meant.id))
    }

    async fn good(&self, now: Timestamp, prefix: &str) -> Result<Vec<GoodApiKey>> {
        let query = sqlx::query(
            "select k.*, m.peer_pubkey as issuer_key, m.display_name as issuer_name,
                coalesce(m.role = 'admin' or m.peer_pubkey = mesh.owner_pubkey
                or m.user_id = mesh.owner_user_id, 0) as issuer_moderates
             from api_key k join mesh on mesh.id = k.mesh_id
             left join member m on m.id = k.issued_by_member_id
             where k.secret_prefix = ?1 and k.revoked_at is null
                and (k.expires_at is null or k.expires_at >= ?2)
                and mesh.archived_at is null and m.revoked_at is null",
        )
        .bind(prefix)
        .bind(now.as_ms());
        self.records(query, GoodApiKey::read).await
    }

    async fn note_use(&self, now: Timestamp, id: &str, since: Timestamp) -> Result<()> {
        let mut tx = self.begin_relaxed().await?;
        let query = sqlx::query(
            "update api_key set last_used_at = ?2
             where id = ?1 and (last_used_at is null or last_used_at < ?3)",
        )
        .bind(id)
        .bind(now.as_ms())
        .bind(since.as_ms());
        execute(&mut tx, query).await?;
        tx.commit().await.map_err(refused)
    }
}
