//! Presences as those look for them who do not know their ids.

pub(super) mod postgres;
pub(super) mod sqlite;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::protocol::{PeerRole, Status, StatusSource};
use crate::record::PresenceRecord;
use crate::store::Result;
use crate::store::columns::Columns;
use crate::store::presences::Attributes;

/// Presences as those look for them who do not know their ids.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait PresenceSearch: Send + Sync + 'static {
    /// Presences that are not ended and were last heard of before that
    /// instant.
    async fn unheard(&self, before: Timestamp) -> Result<Vec<PresenceRecord>>;

    /// Open presences in that directory, of any mesh: those with that process id
    /// first (0 is no process), then the newest first.
    async fn in_folder(&self, cwd: &str, pid: i32, limit: u32) -> Result<Vec<PresenceRecord>>;

    /// Open presences of sessions that call themselves so, of any mesh, newest
    /// first.
    async fn called(&self, session_id: &str, limit: u32) -> Result<Vec<PresenceRecord>>;
}

/// A row of `presence` with its member, as of a presence in grace: the tables do not
/// know who has a socket open.
pub(in crate::store) fn read(row: &impl Columns) -> Result<PresenceRecord> {
    let attributes: Attributes = row.described("attributes")?;
    let display_name = match row.optional_text("display_name")? {
        Some(name) => name,
        None => row.text("member_name")?,
    };
    Ok(PresenceRecord {
        id: row.id("id")?,
        session_key: row.optional_id("session_pubkey")?,
        // The column is plain text, and not only ours.
        role: PeerRole::parse(row.str("role")?).unwrap_or(PeerRole::Session),
        session_id: row.text("session_id")?,
        display_name,
        status: row.word("status", Status::parse)?,
        status_source: row.word("status_source", StatusSource::parse)?,
        status_updated_at: row.time("status_updated_at")?,
        status_since: attributes.status_since,
        summary: row.optional_text("summary")?,
        groups: row.described("groups")?,
        last_seen_at: row.time("last_ping_at")?,
        cwd: row.text("cwd")?,
        pid: row.short("pid")?,
        hostname: attributes.hostname,
        peer_type: attributes.peer_type,
        channel: attributes.channel,
        model: attributes.model,
        stats: attributes.stats,
        visible: attributes.visible.unwrap_or(true),
        profile: attributes.profile.unwrap_or_default(),
        node: row.optional_text("node")?.unwrap_or_default(),
        online: false,
        ..PresenceRecord::new(
            row.id("mesh_id")?,
            row.id("member_id")?,
            row.id("member_key")?,
            row.time("connected_at")?,
        )
    })
}
