//! Presences while they last: opening, changing, finding them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;

use super::accept::multicast_positions;
use super::audit::Chains;
use super::connection::{Db, Tx};
use super::error::refused;
use super::row::{described, get, id, optional_id, time, to_json, word};
use crate::clock::Timestamp;
use crate::id::{MemberId, PresenceId};
use crate::protocol::handshake::About;
use crate::protocol::{PeerRole, Profile, Stats, Status, StatusSource};
use crate::store::{
    OpenPresence, OpenPresenceState, PresenceAt, PresenceChange, ReattachPresence, Result,
    StoredPresence,
};

/// The column `attributes`.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Attributes {
    hostname: Option<String>,
    peer_type: Option<String>,
    channel: Option<String>,
    model: Option<String>,
    visible: Option<bool>,
    profile: Option<Profile>,
    stats: Option<Stats>,
}

/// A row of `presence` to be written.
#[derive(Serialize)]
struct Row<'a> {
    id: &'a PresenceId,
    member_id: &'a MemberId,
    session_id: &'a str,
    session_pubkey: Option<&'a str>,
    display_name: Option<&'a str>,
    pid: i32,
    cwd: &'a str,
    status: &'static str,
    status_source: &'static str,
    groups: String,
    role: &'static str,
    multicast_position: i64,
    node: &'a str,
    attributes: String,
}

pub(super) async fn open(db: &Db, now: Timestamp, opened: &[OpenPresence]) -> Result<Vec<i64>> {
    if opened.is_empty() {
        return Ok(Vec::new());
    }
    let mut tx = db.begin().await?;
    let kept = multicast_positions(&mut tx, opened.iter().map(|p| &p.mesh)).await?;
    let positions: Vec<i64> =
        opened.iter().map(|p| kept.get(&p.mesh).copied().unwrap_or_default()).collect();
    let mut chains = Chains::read(&mut tx, now, opened.iter().map(|p| &p.mesh)).await?;
    for presence in opened {
        let OpenPresence { mesh, member, actor_name, audit, .. } = presence;
        chains.push(mesh, Some(member), Some(actor_name), audit);
    }
    chains.write(&mut tx).await?;
    let rows: Vec<Row<'_>> =
        opened.iter().zip(&positions).map(|(presence, at)| row(presence, *at)).collect();
    insert(&mut tx, now, &rows).await?;
    tx.commit().await.map_err(refused)?;
    Ok(positions)
}

fn row(presence: &OpenPresence, multicast_position: i64) -> Row<'_> {
    let about = &presence.about;
    let attributes = Attributes {
        hostname: about.hostname.clone(),
        peer_type: about.peer_type.clone(),
        channel: about.channel.clone(),
        model: about.model.clone(),
        visible: Some(presence.visible),
        profile: Some(presence.profile.clone()),
        stats: None,
    };
    Row {
        id: &presence.id,
        member_id: &presence.member,
        session_id: &about.session_id,
        session_pubkey: presence.session_key.as_ref().map(|key| key.as_str()),
        display_name: about.display_name.as_deref(),
        pid: about.pid,
        cwd: &about.cwd,
        status: presence.status.as_str(),
        status_source: presence.status_source.as_str(),
        groups: to_json(&presence.groups),
        role: presence.role.as_str(),
        multicast_position,
        node: &presence.node,
        attributes: to_json(&attributes),
    }
}

async fn insert(tx: &mut Tx, now: Timestamp, rows: &[Row<'_>]) -> Result<()> {
    // A presence that ended begins anew under its old id. `where true` keeps
    // `on conflict` from being read as part of a join.
    sqlx::query(
        "insert into presence (id, member_id, session_id, session_pubkey, display_name, pid,
            cwd, status, status_source, status_updated_at, groups, role, connected_at,
            last_ping_at, multicast_position, node, attributes)
         select value ->> 'id', value ->> 'member_id', value ->> 'session_id',
            value ->> 'session_pubkey', value ->> 'display_name', value ->> 'pid',
            value ->> 'cwd', value ->> 'status', value ->> 'status_source', ?2,
            value ->> 'groups', value ->> 'role', ?2, ?2, value ->> 'multicast_position',
            value ->> 'node', value ->> 'attributes'
         from json_each(?1) where true
         on conflict (id) do update set member_id = excluded.member_id,
            session_id = excluded.session_id, session_pubkey = excluded.session_pubkey,
            display_name = excluded.display_name, pid = excluded.pid, cwd = excluded.cwd,
            status = excluded.status, status_source = excluded.status_source,
            status_updated_at = excluded.status_updated_at, summary = null,
            groups = excluded.groups, role = excluded.role,
            connected_at = excluded.connected_at, last_ping_at = excluded.last_ping_at,
            disconnected_at = null, multicast_position = excluded.multicast_position,
            node = excluded.node, attributes = excluded.attributes",
    )
    .bind(to_json(rows))
    .bind(now.as_ms())
    .execute(&mut **tx)
    .await
    .map_err(refused)?;
    Ok(())
}

pub(super) async fn reattach(
    db: &Db,
    now: Timestamp,
    presence: &PresenceId,
    about: &ReattachPresence,
) -> Result<Option<i64>> {
    let mut tx = db.begin().await?;
    let position = sqlx::query_scalar(
        "update presence set session_id = coalesce(?2, session_id), cwd = ?3, pid = ?4,
            display_name = coalesce(?5, display_name), node = ?6,
            last_ping_at = max(last_ping_at, ?7)
         where id = ?1 and (?8 is null or member_id = ?8) and disconnected_at is null
         returning multicast_position",
    )
    .bind(presence.as_str())
    .bind(&about.session_id)
    .bind(&about.cwd)
    .bind(about.pid)
    .bind(&about.display_name)
    .bind(&about.node)
    .bind(now.as_ms())
    .bind(about.member.as_ref().map(MemberId::as_str))
    .fetch_optional(&mut *tx)
    .await
    .map_err(refused)?;
    tx.commit().await.map_err(refused)?;
    Ok(position)
}

/// What changes about one presence, as the statement reads it.
#[derive(Default, Serialize)]
struct Change<'a> {
    status: Option<&'static str>,
    status_source: Option<&'static str>,
    status_updated_at: Option<i64>,
    summary: Option<&'a str>,
    groups: Option<String>,
    visible: Option<bool>,
    profile: Option<&'a Profile>,
    stats: Option<&'a Stats>,
}

impl<'a> Change<'a> {
    /// Takes over what `later` says.
    fn merge(&mut self, later: &'a PresenceChange) {
        if let Some((status, source, since)) = later.status {
            self.status = Some(status.as_str());
            self.status_source = Some(source.as_str());
            self.status_updated_at = Some(since.as_ms());
        }
        self.summary = later.summary.as_deref().or(self.summary);
        self.groups = later.groups.as_ref().map(to_json).or(self.groups.take());
        self.visible = later.visible.or(self.visible);
        self.profile = later.profile.as_ref().or(self.profile);
        self.stats = later.stats.as_ref().or(self.stats);
    }
}

pub(super) async fn update(db: &Db, changes: &[PresenceChange]) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    // The statement must find each presence once.
    let mut merged: BTreeMap<&PresenceId, Change<'_>> = BTreeMap::new();
    for change in changes {
        merged.entry(&change.id).or_default().merge(change);
    }
    let merged: Vec<(&PresenceId, Change<'_>)> = merged.into_iter().collect();
    let mut tx = db.begin().await?;
    sqlx::query(
        "update presence set
            status = coalesce(new ->> 'status', status),
            status_source = coalesce(new ->> 'status_source', status_source),
            status_updated_at = coalesce(new ->> 'status_updated_at', status_updated_at),
            summary = coalesce(new ->> 'summary', summary),
            groups = coalesce(new ->> 'groups', groups),
            attributes = json_set(attributes,
               '$.visible', json(iif(new ->> 'visible' is null,
                  attributes -> 'visible', new -> 'visible')),
               '$.profile', json(iif(new ->> 'profile' is null,
                  attributes -> 'profile', new -> 'profile')),
               '$.stats', json(iif(new ->> 'stats' is null,
                  attributes -> 'stats', new -> 'stats')))
         from (select value ->> 0 as changed, value -> 1 as new from json_each(?1))
         where presence.id = changed and presence.disconnected_at is null",
    )
    .bind(to_json(&merged))
    .execute(&mut *tx)
    .await
    .map_err(refused)?;
    tx.commit().await.map_err(refused)
}

pub(super) async fn touch(db: &Db, now: Timestamp, presences: &[PresenceId]) -> Result<()> {
    if presences.is_empty() {
        return Ok(());
    }
    // Lost with the machine, it would be as stale as everything else.
    let mut tx = db.begin_relaxed().await?;
    sqlx::query(
        "update presence set last_ping_at = ?2
         where id in (select value from json_each(?1)) and disconnected_at is null
            and last_ping_at < ?2",
    )
    .bind(to_json(&presences))
    .bind(now.as_ms())
    .execute(&mut *tx)
    .await
    .map_err(refused)?;
    tx.commit().await.map_err(refused)
}

pub(super) async fn unheard(db: &Db, before: Timestamp) -> Result<Vec<StoredPresence>> {
    let rows = sqlx::query(
        "select p.*, m.mesh_id, m.peer_pubkey as member_key, m.display_name as member_name
         from presence p join member m on m.id = p.member_id
         where p.disconnected_at is null and p.last_ping_at < ?1
         order by p.connected_at, p.id",
    )
    .bind(before.as_ms())
    .fetch_all(db.reader())
    .await
    .map_err(refused)?;
    rows.iter().map(stored).collect()
}

pub(super) async fn by_cwd(db: &Db, cwd: &str, pid: i32, limit: u32) -> Result<Vec<PresenceAt>> {
    let rows = sqlx::query(
        "select p.id, m.mesh_id, p.member_id, p.session_id, p.cwd, p.pid, p.connected_at
         from presence p join member m on m.id = p.member_id
         where p.cwd = ?1 and p.disconnected_at is null
         order by (?2 <> 0 and p.pid = ?2) desc, p.connected_at desc, p.id desc limit 0 + ?3",
    )
    .bind(cwd)
    .bind(pid)
    .bind(limit)
    .fetch_all(db.reader())
    .await
    .map_err(refused)?;
    rows.iter().map(at).collect()
}

pub(super) async fn by_session_id(
    db: &Db,
    session_id: &str,
    limit: u32,
) -> Result<Vec<PresenceAt>> {
    let rows = sqlx::query(
        "select p.id, m.mesh_id, p.member_id, p.session_id, p.cwd, p.pid, p.connected_at
         from presence p join member m on m.id = p.member_id
         where p.session_id = ?1 and p.disconnected_at is null
         order by p.connected_at desc, p.id desc limit 0 + ?2",
    )
    .bind(session_id)
    .bind(limit)
    .fetch_all(db.reader())
    .await
    .map_err(refused)?;
    rows.iter().map(at).collect()
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
