//! Presences as those look for them who do not know their ids.

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::store::postgres::PostgresStore;
use crate::store::postgres::row::clean;
use crate::store::{PresenceAt, PresenceSearch, Result, StoredPresence};

#[async_trait]
impl PresenceSearch for PostgresStore {
    async fn unheard(&self, before: Timestamp) -> Result<Vec<StoredPresence>> {
        let rows = self
            .pool
            .fetch_all(
                sqlx::query(
                    "select p.id, p.member_id, p.session_id, p.session_pubkey, p.display_name,
                        p.pid, p.cwd, p.status::text as status,
                        p.status_source::text as status_source, p.status_updated_at, p.summary,
                        p.groups::text as groups, p.role, p.connected_at, p.last_ping_at, p.node,
                        p.attributes::text as attributes, m.mesh_id, m.peer_pubkey as member_key,
                        m.display_name as member_name
                     from mesh.presence p join mesh.member m on m.id = p.member_id
                     where p.disconnected_at is null and p.last_ping_at < $1
                     order by p.connected_at, p.id",
                )
                .bind(before.to_naive()),
            )
            .await?;
        rows.iter().map(StoredPresence::read).collect()
    }

    async fn in_folder(&self, cwd: &str, pid: i32, limit: u32) -> Result<Vec<PresenceAt>> {
        let rows = self.pool
            .fetch_all(
                sqlx::query(
                    "select p.id, m.mesh_id, p.member_id, p.session_id, p.cwd, p.pid, p.connected_at
                     from mesh.presence p join mesh.member m on m.id = p.member_id
                     where p.cwd = $1 and p.disconnected_at is null
                     order by ($2 <> 0 and p.pid = $2) desc, p.connected_at desc, p.id desc
                     limit $3",
                )
                .bind(clean(cwd))
                .bind(pid)
                .bind(i64::from(limit)),
            )
            .await?;
        rows.iter().map(PresenceAt::read).collect()
    }

    async fn called(&self, session_id: &str, limit: u32) -> Result<Vec<PresenceAt>> {
        let rows = self.pool
            .fetch_all(
                sqlx::query(
                    "select p.id, m.mesh_id, p.member_id, p.session_id, p.cwd, p.pid, p.connected_at
                     from mesh.presence p join mesh.member m on m.id = p.member_id
                     where p.session_id = $1 and p.disconnected_at is null
                     order by p.connected_at desc, p.id desc limit $2",
                )
                .bind(clean(session_id))
                .bind(i64::from(limit)),
            )
            .await?;
        rows.iter().map(PresenceAt::read).collect()
    }
}
