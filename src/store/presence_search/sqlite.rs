//! Presences as those look for them who do not know their ids.

use async_trait::async_trait;

use super::read;
use crate::clock::Timestamp;
use crate::record::PresenceRecord;
use crate::store::sqlite::SqliteStore;
use crate::store::{PresenceSearch, Result};

#[async_trait]
impl PresenceSearch for SqliteStore {
    async fn unheard(&self, before: Timestamp) -> Result<Vec<PresenceRecord>> {
        let query = sqlx::query(
            "select p.*, m.mesh_id, m.peer_pubkey as member_key, m.display_name as member_name
             from presence p join member m on m.id = p.member_id
             where p.disconnected_at is null and p.last_ping_at < ?1
             order by p.connected_at, p.id",
        )
        .bind(before.as_ms());
        self.records(query, read).await
    }

    async fn in_folder(&self, cwd: &str, pid: i32, limit: u32) -> Result<Vec<PresenceRecord>> {
        let query = sqlx::query(
            "select p.*, m.mesh_id, m.peer_pubkey as member_key, m.display_name as member_name
             from presence p join member m on m.id = p.member_id
             where p.cwd = ?1 and p.disconnected_at is null
             order by (?2 <> 0 and p.pid = ?2) desc, p.connected_at desc, p.id desc limit 0 + ?3",
        )
        .bind(cwd)
        .bind(pid)
        .bind(limit);
        self.records(query, read).await
    }

    async fn called(&self, session_id: &str, limit: u32) -> Result<Vec<PresenceRecord>> {
        let query = sqlx::query(
            "select p.*, m.mesh_id, m.peer_pubkey as member_key, m.display_name as member_name
             from presence p join member m on m.id = p.member_id
             where p.session_id = ?1 and p.disconnected_at is null
             order by p.connected_at desc, p.id desc limit 0 + ?2",
        )
        .bind(session_id)
        .bind(limit);
        self.records(query, read).await
    }
}
