//! API keys in Postgres.

use async_trait::async_trait;

use super::{ApiKey, ApiKeyPlace, ApiKeys, GoodApiKey, Named, NewApiKey, Revocation};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId};
use crate::store::postgres::PostgresStore;
use crate::store::postgres::row::{clean, to_json};
use crate::store::{Author, Kind, Result};

#[async_trait]
impl ApiKeys for PostgresStore {
    async fn create(
        &self,
        now: Timestamp,
        author: &Author,
        key: &NewApiKey,
        forget_before: Timestamp,
    ) -> Result<()> {
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let query = sqlx::query(
            "delete from mesh.api_key where mesh_id = $1 and least(revoked_at, expires_at) < $2",
        )
        .bind(author.mesh.as_str())
        .bind(forget_before.to_naive());
        change.execute(query).await?;
        let query = sqlx::query(
            "insert into mesh.api_key (id, mesh_id, label, secret_hash, secret_prefix,
                capabilities, topic_scopes, issued_by_member_id, created_at, expires_at)
             values ($1, $2, $3, $4, $5, $6::jsonb, $7::jsonb, $8, $9, $10)",
        )
        .bind(&key.id)
        .bind(author.mesh.as_str())
        .bind(clean(&key.label))
        .bind(&key.secret_hash)
        .bind(&key.secret_prefix)
        .bind(to_json(&key.capabilities))
        .bind(key.topic_scopes.as_ref().map(to_json))
        .bind(author.member.as_str())
        .bind(now.to_naive())
        .bind(key.expires_at.map(Timestamp::to_naive));
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
        // Other programs write instants that are finer than those of a place.
        let query = sqlx::query(
            "select k.id, k.label, k.secret_prefix, k.capabilities::text as capabilities,
                k.topic_scopes::text as topic_scopes, m.display_name as issued_by,
                date_trunc('milliseconds', k.created_at) as created_at, k.last_used_at,
                k.revoked_at, k.expires_at
             from mesh.api_key k left join mesh.member m on m.id = k.issued_by_member_id
             where k.mesh_id = $1 and ($2::text is null or k.issued_by_member_id = $2)
                and ($3::timestamp is null
                    or (date_trunc('milliseconds', k.created_at), k.id) < ($3, $4))
             order by 7 desc, k.id desc limit $5",
        )
        .bind(mesh.as_str())
        .bind(issuer.map(MemberId::as_str))
        .bind(at.map(Timestamp::to_naive))
        .bind(id.as_deref().map(clean))
        .bind(limit);
        self.pool.records(query, ApiKey::read).await
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
            "select id, revoked_at is not null as is_revoked, id = $3 as is_whole
             from mesh.api_key
             where mesh_id = $1 and ($2::text is null or issued_by_member_id = $2)
                and left(id, length($3)) = $3
             order by id = $3 desc limit 2",
        )
        .bind(author.mesh.as_str())
        .bind(issuer.map(MemberId::as_str))
        .bind(clean(id));
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
        let query = sqlx::query("update mesh.api_key set revoked_at = $2 where id = $1")
            .bind(&meant.id)
            .bind(now.to_naive());
        change.execute(query).await?;
        change.append(author, &AuditEvent::ApikeyRevoked { key_id: meant.id.clone() }).await?;
        change.commit().await?;
        Ok(Revocation::Revoked(meant.id))
    }

    async fn good(&self, now: Timestamp, prefix: &str) -> Result<Vec<GoodApiKey>> {
        let query = sqlx::query(
            "select k.id, k.mesh_id, k.secret_hash, k.capabilities::text as capabilities,
                k.topic_scopes::text as topic_scopes, k.issued_by_member_id, k.last_used_at,
                m.peer_pubkey as issuer_key, m.display_name as issuer_name,
                coalesce(m.role = 'admin' or m.peer_pubkey = mesh.owner_pubkey
                    or m.user_id = mesh.owner_user_id, false) as issuer_moderates
             from mesh.api_key k join mesh.mesh on mesh.id = k.mesh_id
             left join mesh.member m on m.id = k.issued_by_member_id
             where k.secret_prefix = $1 and k.revoked_at is null
                and (k.expires_at is null or k.expires_at >= $2)
                and mesh.archived_at is null and m.revoked_at is null",
        )
        .bind(prefix)
        .bind(now.to_naive());
        self.pool.records(query, GoodApiKey::read).await
    }

    async fn note_use(&self, now: Timestamp, id: &str, since: Timestamp) -> Result<()> {
        let query = sqlx::query(
            "update mesh.api_key set last_used_at = $2
             where id = $1 and (last_used_at is null or last_used_at < $3)",
        )
        .bind(id)
        .bind(now.to_naive())
        .bind(since.to_naive());
        self.pool.execute(query).await?;
        Ok(())
    }
}
