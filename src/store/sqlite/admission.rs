//! Who may enter: meshes, members, what a member's last session left.

use sqlx::sqlite::SqliteRow;

use super::connection::Db;
use super::error::refused;
use super::row::{described, get, id, json, optional_id, optional_time, time, word};
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId};
use crate::store::{Admission, AdmittedMember, Member, Mesh, PeerState, Result, Role, read_grants};

/// `select` for [`member`], with the conditions given.
macro_rules! select_members {
    ($conditions:literal) => {
        concat!(
            "select m.*,
                coalesce(m.peer_pubkey = mesh.owner_pubkey or m.user_id = mesh.owner_user_id, 0)
                    as is_owner
             from member m join mesh on mesh.id = m.mesh_id ",
            $conditions
        )
    };
}
pub(super) use select_members;

pub(super) async fn admit(db: &Db, mesh: &MeshId, key: &str, preferred: &str) -> Result<Admission> {
    // An active membership wins over one of the same key that was revoked.
    let row = sqlx::query(
        "select m.*, mesh.name, mesh.slug, mesh.self_editable,
            coalesce(m.peer_pubkey = mesh.owner_pubkey or m.user_id = mesh.owner_user_id, 0)
                as is_owner,
            s.id as state_id, s.groups, s.profile, s.visible, s.last_summary,
            s.last_display_name, s.cumulative_stats, s.last_seen_at
         from mesh
         join member m on m.mesh_id = mesh.id and m.peer_pubkey = ?2
         left join peer_state s on s.mesh_id = mesh.id and s.member_id = m.id
         where mesh.id = ?1 and mesh.archived_at is null
         order by m.revoked_at is not null, m.id <> ?3, m.joined_at, m.id limit 1",
    )
    .bind(mesh.as_str())
    .bind(key)
    .bind(preferred)
    .fetch_optional(db.reader())
    .await
    .map_err(refused)?;
    let Some(row) = row else { return Ok(Admission::Unknown) };
    let member = member(&row)?;
    if member.revoked_at.is_some() {
        let names = [get::<String>(&row, "name")?, get(&row, "slug")?];
        let mesh_label = names.into_iter().find(|name| !name.is_empty());
        return Ok(Admission::Revoked {
            mesh_label: mesh_label.unwrap_or_else(|| mesh.as_str().to_owned()),
        });
    }
    let saved = match get::<Option<&str>>(&row, "state_id")? {
        Some(_) => Some(peer_state(&row)?),
        None => None,
    };
    let self_editable = json(&row, "self_editable")?;
    Ok(Admission::Member(Box::new(AdmittedMember { member, self_editable, saved })))
}

pub(super) async fn members(db: &Db, mesh: &MeshId) -> Result<Vec<Member>> {
    let rows = sqlx::query(select_members!(
        "where m.mesh_id = ?1 and m.revoked_at is null order by m.joined_at, m.id"
    ))
    .bind(mesh.as_str())
    .fetch_all(db.reader())
    .await
    .map_err(refused)?;
    rows.iter().map(member).collect()
}

pub(super) async fn mesh(db: &Db, mesh: &MeshId) -> Result<Option<Mesh>> {
    let row = sqlx::query("select * from mesh where id = ?1")
        .bind(mesh.as_str())
        .fetch_optional(db.reader())
        .await
        .map_err(refused)?;
    row.as_ref().map(mesh_of).transpose()
}

pub(super) async fn member_of_session_key(
    db: &Db,
    mesh: &MeshId,
    session_key: &str,
    since: Timestamp,
) -> Result<Option<MemberId>> {
    // A session key that a member has proven (`session`) wins over one that
    // somebody merely named in a `hello`.
    let row = sqlx::query(
        "select m.id from presence p join member m on m.id = p.member_id
         where p.session_pubkey = ?2 and m.mesh_id = ?1 and m.revoked_at is null
            and max(p.last_ping_at, coalesce(p.disconnected_at, 0)) >= ?3
         order by p.role = 'session' desc, p.last_ping_at desc, p.connected_at desc limit 1",
    )
    .bind(mesh.as_str())
    .bind(session_key)
    .bind(since.as_ms())
    .fetch_optional(db.reader())
    .await
    .map_err(refused)?;
    row.as_ref().map(|row| id(row, "id")).transpose()
}

pub(super) async fn addressee_of_session_key(
    db: &Db,
    mesh: &MeshId,
    session_key: &str,
    since: Timestamp,
) -> Result<Option<MemberId>> {
    let row = sqlx::query(
        "select m.id from presence p join member m on m.id = p.member_id
         where p.session_pubkey = ?2 and m.mesh_id = ?1 and m.revoked_at is null
            and max(p.last_ping_at, coalesce(p.disconnected_at, 0)) >= ?3
            and (p.role = 'session' or p.disconnected_at is null)
         order by p.role = 'session' desc, p.last_ping_at desc, p.connected_at desc limit 1",
    )
    .bind(mesh.as_str())
    .bind(session_key)
    .bind(since.as_ms())
    .fetch_optional(db.reader())
    .await
    .map_err(refused)?;
    row.as_ref().map(|row| id(row, "id")).transpose()
}

/// A row of `member` with `is_owner`.
pub(super) fn member(row: &SqliteRow) -> Result<Member> {
    Ok(Member {
        id: id(row, "id")?,
        key: id(row, "peer_pubkey")?,
        display_name: get(row, "display_name")?,
        role: word(row, "role", Role::parse)?,
        is_owner: get(row, "is_owner")?,
        role_tag: get(row, "role_tag")?,
        default_groups: described(row, "default_groups")?,
        message_mode: get(row, "message_mode")?,
        grants: read_grants(get(row, "peer_grants")?),
        joined_at: time(row, "joined_at")?,
        revoked_at: optional_time(row, "revoked_at")?,
    })
}

/// A row of `mesh`.
pub(super) fn mesh_of(row: &SqliteRow) -> Result<Mesh> {
    Ok(Mesh {
        id: id(row, "id")?,
        slug: get(row, "slug")?,
        name: get(row, "name")?,
        owner_key: optional_id(row, "owner_pubkey")?,
        owner_secret_key: get(row, "owner_secret_key")?,
        root_key: get(row, "root_key")?,
        self_editable: json(row, "self_editable")?,
        created_at: time(row, "created_at")?,
        archived_at: optional_time(row, "archived_at")?,
    })
}

fn peer_state(row: &SqliteRow) -> Result<PeerState> {
    Ok(PeerState {
        groups: described(row, "groups")?,
        profile: described(row, "profile")?,
        visible: get(row, "visible")?,
        last_summary: get(row, "last_summary")?,
        last_display_name: get(row, "last_display_name")?,
        stats: described(row, "cumulative_stats")?,
        last_seen_at: optional_time(row, "last_seen_at")?,
    })
}
