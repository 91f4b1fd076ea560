//! Presences as those look for them who do not know their ids.

use async_trait::async_trait;

use super::read;
use crate::clock::Timestamp;
use crate::record::PresenceRecord;
use crate::store::postgres::PostgresStore;
use crate::store::postgres::row::clean;
use crate::store::{PresenceSearch, Result};

/// A `select` of presences with their members, with the conditions given.
macro_rules! select_presences {
    ($conditions:literal) => {
        concat!(
            "select p.id, p.member_id, p.session_id, p.session_pubkey, p.display_name,
                p.pid, p.cwd, p.status::text as status,
                p.status_source::text as status_source, p.status_updated_at, p.summary,
                p.groups::text as groups, p.role, p.connected_at, p.last_ping_at, p.node,
                p.attributes::text as attributes, m.mesh_id, m.peer_pubkey as member_key,
                m.display_name as member_name
             from mesh.presence p join mesh.member m on m.id = p.member_id ",
            $conditions
        )
    };
}

#[async_trait]
impl PresenceSearch for PostgresStore {
    async fn unheard(&self, before: Timestamp) -> Result<Vec<PresenceRecord>> {
        let query = sqlx::query(select_presences!(
            "where p.disconnected_at is null and p.last_ping_at < $1
             order by p.connected_at, p.id"
        ));
        self.pool.records(query.bind(before.to_naive()), read).await
    }

    async fn in_folder(&self, cwd: &str, pid: i32, limit: u32) -> Result<Vec<PresenceRecord>> {
        let query = sqlx::query(select_presences!(
            "where p.cwd = $1 and p.disconnected_at is null
             order by ($2 <> 0 and p.pid = $2) desc, p.connected_at desc, p.id desc
             limit $3"
        ));
        let query = query.bind(clean(cwd)).bind(pid).bind(i64::from(limit));
        self.pool.records(query, read).await
    }

    async fn called(&self, session_id: &str, limit: u32) -> Result<Vec<PresenceRecord>> {
        let query = sqlx::query(select_presences!(
            "where p.session_id = $1 and p.disconnected_at is null
             order by p.connected_at desc, p.id desc limit $2"
        ));
        let query = query.bind(clean(session_id)).bind(i64::from(limit));
        self.pool.records(query, read).await
    }
}
