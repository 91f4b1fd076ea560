//! Presences as those look for them who do not know their ids.

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;

use crate::clock::Timestamp;
use crate::protocol::handshake::About;
use crate::protocol::{PeerRole, Status, StatusSource};
use crate::store::presences::Attributes;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::error::refused;
use crate::store::sqlite::row::{described, get, id, optional_id, time, word};
use crate::store::{OpenPresenceState, PresenceAt, PresenceSearch, Result, StoredPresence};

#[async_trait]
impl PresenceSearch for SqliteStore {
    async fn unheard(&self, before: Timestamp) -> Result<Vec<StoredPresence>> {
        let rows = sqlx::query(
            "select p.*, m.mesh_id, m.peer_pubkey as member_key, m.display_name as member_name
             from presence p join member m on m.id = p.member_id
             where p.disconnected_at is null and p.last_ping_at < ?1
             order by p.connected_at, p.id",
        )
        .bind(before.as_ms())
        .fetch_all(self.reader())
        .await
        .map_err(refused)?;
        rows.iter().map(stored).collect()
    }

    async fn in_folder(&self, cwd: &str, pid: i32, limit: u32) -> Result<Vec<PresenceAt>> {
        let rows = sqlx::query(
            "select p.id, m.mesh_id, p.member_id, p.session_id, p.cwd, p.pid, p.connected_at
             from presence p join member m on m.id = p.member_id
             where p.cwd = ?1 and p.disconnected_at is null
             order by (?2 <> 0 and p.pid = ?2) desc, p.connected_at desc, p.id desc limit 0 + ?3",
        )
        .bind(cwd)
        .bind(pid)
        .bind(limit)
        .fetch_all(self.reader())
        .await
        .map_err(refused)?;
        rows.iter().map(at).collect()
    }

    async fn called(&self, session_id: &str, limit: u32) -> Result<Vec<PresenceAt>> {
        let rows = sqlx::query(
            "select p.id, m.mesh_id, p.member_id, p.session_id, p.cwd, p.pid, p.connected_at
             from presence p join member m on m.id = p.member_id
             where p.session_id = ?1 and p.disconnected_at is null
             order by p.connected_at desc, p.id desc limit 0 + ?2",
        )
        .bind(session_id)
        .bind(limit)
        .fetch_all(self.reader())
        .await
        .map_err(refused)?;
        rows.iter().map(at).collect()
    }
}

fn at(row: &SqliteRow) -> Result<PresenceAt> {
    Ok(PresenceAt {
        id: id(row, "id")?,
        mesh: id(row, "mesh_id")?,
        member: id(row, "member_id")?,
        session_id: get(row, "session_id")?,
        cwd: get(row, "cwd")?,
        pid: get(row, "pid")?,
        connected_at: time(row, "connected_at")?,
    })
}

fn stored(row: &SqliteRow) -> Result<StoredPresence> {
    let attributes: Attributes = described(row, "attributes")?;
    let about = About {
        display_name: get(row, "display_name")?,
        session_id: get(row, "session_id")?,
        pid: get(row, "pid")?,
        cwd: get(row, "cwd")?,
        hostname: attributes.hostname,
        peer_type: attributes.peer_type,
        channel: attributes.channel,
        model: attributes.model,
        groups: None,
    };
    let opened = OpenPresenceState {
        id: id(row, "id")?,
        mesh: id(row, "mesh_id")?,
        member: id(row, "member_id")?,
        session_key: optional_id(row, "session_pubkey")?,
        role: PeerRole::parse(get(row, "role")?).unwrap_or(PeerRole::Session),
        about,
        groups: described(row, "groups")?,
        status: (
            word(row, "status", Status::parse)?,
            word(row, "status_source", StatusSource::parse)?,
            time(row, "status_updated_at")?,
        ),
        summary: get(row, "summary")?,
        visible: attributes.visible.unwrap_or(true),
        profile: attributes.profile.unwrap_or_default(),
        stats: attributes.stats,
        node: get(row, "node")?,
    };
    Ok(StoredPresence {
        opened,
        member_key: id(row, "member_key")?,
        member_name: get(row, "member_name")?,
        connected_at: time(row, "connected_at")?,
        last_ping_at: time(row, "last_ping_at")?,
    })
}
