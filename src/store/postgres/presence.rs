//! Presences while they last: opening, changing, finding them.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;

use super::audit::Entries;
use super::error::unreadable;
use super::pool::Db;
use super::row::{clean, clean_optional, described, get, id, optional_id, time, to_json, word};
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId, PresenceId};
use crate::protocol::handshake::About;
use crate::protocol::{Group, PeerRole, Profile, Stats, Status, StatusSource};
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

/// One of the presences to open, as an element of the statement's JSON.
#[derive(Serialize)]
struct Row<'a> {
    id: &'a PresenceId,
    mesh: &'a MeshId,
    member: &'a str,
    session_id: &'a str,
    session_key: Option<&'a str>,
    display_name: Option<&'a str>,
    pid: i32,
    cwd: &'a str,
    status: &'static str,
    status_source: &'static str,
    groups: &'a [Group],
    role: &'static str,
    node: &'a str,
    attributes: Attributes,
}

pub(super) async fn open(db: &Db, now: Timestamp, opened: &[OpenPresence]) -> Result<Vec<i64>> {
    if opened.is_empty() {
        return Ok(Vec::new());
    }
    let mut grouped: Vec<&OpenPresence> = opened.iter().collect();
    grouped.sort_by_key(|presence| &presence.mesh);
    let mut joined = Entries::default();
    for OpenPresence { mesh, member, actor_name, audit, .. } in &grouped {
        joined.push(mesh, Some(member), Some(actor_name), audit);
    }
    let rows: Vec<Row<'_>> = grouped.into_iter().map(row).collect();
    let rows = db.fetch_all(write(now, &rows, joined)).await?;
    let mut positions: HashMap<MeshId, i64> = HashMap::new();
    for row in &rows {
        positions.insert(id(row, "mesh")?, get(row, "position")?);
    }
    let position = |presence: &OpenPresence| positions.get(&presence.mesh).copied();
    opened.iter().map(|presence| position(presence).ok_or_else(|| unreadable("position"))).collect()
}

fn row(presence: &OpenPresence) -> Row<'_> {
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
        mesh: &presence.mesh,
        member: presence.member.as_str(),
        session_id: &about.session_id,
        session_key: presence.session_key.as_ref().map(|key| key.as_str()),
        display_name: about.display_name.as_deref(),
        pid: about.pid,
        cwd: &about.cwd,
        status: presence.status.as_str(),
        status_source: presence.status_source.as_str(),
        groups: &presence.groups,
        role: presence.role.as_str(),
        node: &presence.node,
        attributes,
    }
}

type Query = sqlx::query::Query<'static, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// The positions are read after the locks were taken: a multicast of the mesh
/// is either before all of these presences or after them.
fn write(now: Timestamp, rows: &[Row<'_>], joined: Entries<'_>) -> Query {
    sqlx::query(
        "with locked as materialized (select mesh.broker_lock_v1($3)),
         places as materialized (
            select box.mesh, mesh.broker_position_v1(box.mesh) as position
            from locked cross join (select distinct unnest($4::text[]) as mesh) box
         ),
         appended as materialized (
            select mesh.broker_append_v2($1, $2, $3, $4, $5, $6, $7, $8, null)
         ),
         opened as (
            -- A presence that ended begins anew under its old id.
            insert into mesh.presence as p (id, member_id, session_id, session_pubkey,
                display_name, pid, cwd, status, status_source, status_updated_at, groups, role,
                connected_at, last_ping_at, multicast_position, node, attributes)
            select e.id, e.member, e.session_id, e.session_key, e.display_name, e.pid, e.cwd,
                e.status::mesh.presence_status, e.status_source::mesh.presence_status_source,
                $1, e.groups, e.role, $1, $1, places.position, e.node, e.attributes
            from jsonb_to_recordset($9::jsonb) as e (id text, mesh text, member text,
                session_id text, session_key text, display_name text, pid integer, cwd text,
                status text, status_source text, groups jsonb, role text, node text,
                attributes jsonb)
            join places on places.mesh = e.mesh
            on conflict (id) do update set member_id = excluded.member_id,
                session_id = excluded.session_id, session_pubkey = excluded.session_pubkey,
                display_name = excluded.display_name, pid = excluded.pid, cwd = excluded.cwd,
                status = excluded.status, status_source = excluded.status_source,
                status_updated_at = excluded.status_updated_at, summary = null,
                groups = excluded.groups, role = excluded.role,
                connected_at = excluded.connected_at, last_ping_at = excluded.last_ping_at,
                disconnected_at = null, multicast_position = excluded.multicast_position,
                node = excluded.node, attributes = excluded.attributes
         )
         select mesh, position, (select count(*) from appended) as appended from places",
    )
    .bind(now.to_naive())
    .bind(now.to_string())
    .bind(joined.locks())
    .bind(joined.mesh)
    .bind(joined.actor)
    .bind(joined.name)
    .bind(joined.event)
    .bind(joined.payload)
    .bind(to_json(rows))
}

pub(super) async fn reattach(
    db: &Db,
    now: Timestamp,
    presence: &PresenceId,
    about: &ReattachPresence,
) -> Result<Option<i64>> {
    let row = db
        .fetch_optional(
            sqlx::query(
                "update mesh.presence set session_id = coalesce($2, session_id), cwd = $3,
                    pid = $4, display_name = coalesce($5, display_name), node = $6,
                    last_ping_at = greatest(last_ping_at, $7)
                 where id = $1 and ($8 is null or member_id = $8)
                    and disconnected_at is null
                 returning coalesce(multicast_position, 0) as position",
            )
            .bind(presence.as_str())
            .bind(clean_optional(about.session_id.as_deref()))
            .bind(clean(&about.cwd))
            .bind(about.pid)
            .bind(clean_optional(about.display_name.as_deref()))
            .bind(&about.node)
            .bind(now.to_naive())
            .bind(about.member.as_ref().map(MemberId::as_str)),
        )
        .await?;
    row.map(|row| get(&row, "position")).transpose()
}

/// What changes about one presence, as an element of the statement's JSON.
#[derive(Default, Serialize)]
struct Change<'a> {
    id: &'a str,
    status: Option<&'static str>,
    status_source: Option<&'static str>,
    status_updated_ms: Option<i64>,
    summary: Option<&'a str>,
    groups: Option<&'a [Group]>,
    attributes: ChangedAttributes<'a>,
}

/// What takes the place of its like in the column `attributes`.
#[derive(Default, Serialize)]
struct ChangedAttributes<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    visible: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<&'a Profile>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stats: Option<&'a Stats>,
}

impl<'a> Change<'a> {
    /// Takes over what `later` says.
    fn merge(&mut self, later: &'a PresenceChange) {
        self.id = later.id.as_str();
        if let Some((status, source, since)) = later.status {
            self.status = Some(status.as_str());
            self.status_source = Some(source.as_str());
            self.status_updated_ms = Some(since.as_ms());
        }
        self.summary = later.summary.as_deref().or(self.summary);
        self.groups = later.groups.as_deref().or(self.groups);
        let attributes = &mut self.attributes;
        attributes.visible = later.visible.or(attributes.visible);
        attributes.profile = later.profile.as_ref().or(attributes.profile);
        attributes.stats = later.stats.as_ref().or(attributes.stats);
    }
}

pub(super) async fn update(db: &Db, changes: &[PresenceChange]) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    // The statement must find each presence once, and everybody's in one order.
    let mut merged: BTreeMap<&PresenceId, Change<'_>> = BTreeMap::new();
    for change in changes {
        merged.entry(&change.id).or_default().merge(change);
    }
    let merged: Vec<Change<'_>> = merged.into_values().collect();
    db.execute(
        sqlx::query(
            "update mesh.presence p set
                status = coalesce(e.status::mesh.presence_status, p.status),
                status_source =
                    coalesce(e.status_source::mesh.presence_status_source, p.status_source),
                status_updated_at = coalesce(
                    timestamp 'epoch' + e.status_updated_ms * interval '1 millisecond',
                    p.status_updated_at),
                summary = coalesce(e.summary, p.summary),
                groups = coalesce(e.groups, p.groups),
                attributes = coalesce(p.attributes, '{}') || e.attributes
             from jsonb_to_recordset($1::jsonb) as e (id text, status text,
                status_source text, status_updated_ms bigint, summary text, groups jsonb,
                attributes jsonb)
             where p.id = e.id and p.disconnected_at is null",
        )
        .bind(to_json(&merged)),
    )
    .await?;
    Ok(())
}

pub(super) async fn touch(db: &Db, now: Timestamp, presences: &[PresenceId]) -> Result<()> {
    if presences.is_empty() {
        return Ok(());
    }
    let presences: Vec<&str> = presences.iter().map(PresenceId::as_str).collect();
    // A row that somebody else is writing waits for the next time.
    db.execute(
        sqlx::query(
            "update mesh.presence set last_ping_at = $1
             where id in (
                select id from mesh.presence
                where id = any ($2) and disconnected_at is null and last_ping_at < $1
                for update skip locked
             )",
        )
        .bind(now.to_naive())
        .bind(presences),
    )
    .await?;
    Ok(())
}

pub(super) async fn unheard(db: &Db, before: Timestamp) -> Result<Vec<StoredPresence>> {
    let rows = db
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

pub(super) async fn by_cwd(db: &Db, cwd: &str, pid: i32, limit: u32) -> Result<Vec<PresenceAt>> {
    let rows = db
        .fetch_all(
            sqlx::query(
                "select p.id, m.mesh_id, p.member_id, p.session_id, p.cwd, p.pid, p.connected_at
                 from mesh.presence p join mesh.member m on m.id = p.member_id
                 where p.cwd = $1 and p.disconnected_at is null
                 order by ($2 <> 0 and p.pid = $2) desc, p.connected_at desc, p.id desc limit $3",
            )
            .bind(clean(cwd))
            .bind(pid)
            .bind(i64::from(limit)),
        )
        .await?;
    rows.iter().map(at).collect()
}

pub(super) async fn by_session_id(
    db: &Db,
    session_id: &str,
    limit: u32,
) -> Result<Vec<PresenceAt>> {
    let rows = db
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
