//! Presences as those look for them who do not know their ids.

use async_trait::async_trait;
use sqlx::postgres::PgRow;

use crate::clock::Timestamp;
use crate::protocol::handshake::About;
use crate::protocol::{PeerRole, Status, StatusSource};
use crate::store::postgres::PostgresStore;
use crate::store::postgres::row::{clean, described, get, id, optional_id, time, word};
use crate::store::presences::Attributes;
use crate::store::{OpenPresenceState, PresenceAt, PresenceSearch, Result, StoredPresence};

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
        rows.iter().map(stored).collect()
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
        rows.iter().map(at).collect()
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
        rows.iter().map(at).collect()
    }
}

fn at(row: &PgRow) -> Result<PresenceAt> {
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

fn stored(row: &PgRow) -> Result<StoredPresence> {
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
        // The column is plain text, and not only ours.
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
