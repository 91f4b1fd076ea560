//! Who may enter: meshes, members, what a member's last session left.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use serde_json::{Map, Value};

use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId};
use crate::protocol::SealingPolicy;
use crate::store::columns::Columns as _;
use crate::store::members::no_member;
use crate::store::meshes::read_policy;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::chain::append_one;
use crate::store::sqlite::connection::{Tx, execute, fetch_optional};
use crate::store::sqlite::error::refused;
use crate::store::sqlite::row::to_json;
use crate::store::{Admission, Member, Members, Result, Role};

/// A `select` of members, with the conditions given.
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
pub(in crate::store) use select_members;

#[async_trait]
impl Members for SqliteStore {
    async fn admit(&self, mesh: &MeshId, key: &str, preferred: &str) -> Result<Admission> {
        // An active membership wins over one of the same key that was revoked.
        let query = sqlx::query(
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
        .bind(preferred);
        let found = self.record(query, |row| Admission::read(row, mesh)).await?;
        Ok(found.unwrap_or(Admission::Unknown))
    }

    async fn active(&self, mesh: &MeshId) -> Result<Vec<Member>> {
        let query = sqlx::query(select_members!(
            "where m.mesh_id = ?1 and m.revoked_at is null order by m.joined_at, m.id"
        ))
        .bind(mesh.as_str());
        self.records(query, Member::read).await
    }

    async fn of_session_key(
        &self,
        mesh: &MeshId,
        session_key: &str,
        since: Timestamp,
    ) -> Result<Option<MemberId>> {
        member_of_session_key(self, mesh, session_key, since, true).await
    }

    async fn addressee_of_session_key(
        &self,
        mesh: &MeshId,
        session_key: &str,
        since: Timestamp,
    ) -> Result<Option<MemberId>> {
        member_of_session_key(self, mesh, session_key, since, false).await
    }

    async fn find(&self, mesh: &MeshId, target: &str) -> Result<Vec<Member>> {
        if target.is_empty() {
            return Ok(Vec::new());
        }
        let query = sqlx::query(select_members!(
            "where m.mesh_id = ?1 and m.revoked_at is null
                and (m.display_name = ?2 or substr(m.peer_pubkey, 1, length(?2)) = ?2)
             order by m.joined_at, m.id"
        ))
        .bind(mesh.as_str())
        .bind(target);
        self.records(query, Member::read).await
    }

    async fn all(&self, mesh: &MeshId) -> Result<Vec<Member>> {
        let query = sqlx::query(select_members!("where m.mesh_id = ?1 order by m.joined_at, m.id"))
            .bind(mesh.as_str());
        self.records(query, Member::read).await
    }

    async fn sealing(&self, mesh: &MeshId) -> Result<SealingPolicy> {
        let query = sqlx::query("select sealing from mesh where id = ?1").bind(mesh.as_str());
        Ok(self.record(query, read_policy).await?.unwrap_or_default())
    }

    async fn open_sealed(&self, mesh: &MeshId) -> Result<HashSet<MemberId>> {
        let query = sqlx::query(
            "select id from member
             where mesh_id = ?1 and opens_sealed = 1 and revoked_at is null",
        )
        .bind(mesh.as_str());
        self.records(query, |row| row.id("id")).await
    }

    async fn certificates(
        &self,
        mesh: &MeshId,
        members: &[MemberId],
    ) -> Result<HashMap<MemberId, String>> {
        let query = sqlx::query(
            "select id, certificate from member
             where id in (select value from json_each(?2)) and mesh_id = ?1
                and certificate is not null",
        )
        .bind(mesh.as_str())
        .bind(to_json(members));
        let found: Vec<(MemberId, String)> =
            self.records(query, |row| Ok((row.id("id")?, row.text("certificate")?))).await?;
        Ok(found.into_iter().collect())
    }

    async fn requires_certificates(&self, mesh: &MeshId) -> Result<bool> {
        let query =
            sqlx::query("select certified_required from mesh where id = ?1").bind(mesh.as_str());
        let required = self.record(query, |row| row.flag("certified_required")).await?;
        Ok(required.unwrap_or_default())
    }

    async fn note_opens_sealed(&self, member: &MemberId, opens: bool) -> Result<()> {
        let query =
            sqlx::query("update member set opens_sealed = ?2 where id = ?1 and opens_sealed <> ?2")
                .bind(member.as_str())
                .bind(opens);
        self.write(query).await?;
        Ok(())
    }

    async fn set_role(&self, now: Timestamp, member: &MemberId, role: Role) -> Result<()> {
        let mut tx = self.begin().await?;
        let query = sqlx::query(
            "select mesh_id, peer_pubkey, role = ?2 as unchanged from member where id = ?1",
        )
        .bind(member.as_str())
        .bind(role.as_str());
        let row = fetch_optional(&mut tx, query).await?.ok_or_else(no_member)?;
        if row.flag("unchanged")? {
            return Ok(());
        }
        let mesh: MeshId = row.id("mesh_id")?;
        let target_pubkey = row.id("peer_pubkey")?;
        let query = sqlx::query("update member set role = ?2 where id = ?1")
            .bind(member.as_str())
            .bind(role.as_str());
        execute(&mut tx, query).await?;
        let role = role.as_str();
        let event = AuditEvent::MemberRoleChanged { target_pubkey, role };
        append_one(&mut tx, now, &mesh, None, None, &event).await?;
        tx.commit().await.map_err(refused)
    }

    async fn set_grant<'a>(
        &self,
        member: &MemberId,
        sender_key: &str,
        capabilities: Option<&'a [String]>,
    ) -> Result<()> {
        let mut tx = self.begin().await?;
        let mut grants = grants(&mut tx, member).await?;
        match capabilities {
            Some(capabilities) => {
                grants.insert(sender_key.to_owned(), Value::from(capabilities));
            }
            None => {
                grants.remove(sender_key);
            }
        }
        let query = sqlx::query("update member set peer_grants = ?2 where id = ?1")
            .bind(member.as_str())
            .bind(to_json(&grants));
        execute(&mut tx, query).await?;
        tx.commit().await.map_err(refused)
    }
}

async fn grants(tx: &mut Tx, member: &MemberId) -> Result<Map<String, Value>> {
    let query = sqlx::query("select peer_grants from member where id = ?1").bind(member.as_str());
    let row = fetch_optional(tx, query).await?.ok_or_else(no_member)?;
    // Read as [`read_grants`](crate::store::read_grants) reads it.
    row.described("peer_grants")
}

/// The member that a session key belongs to. A key that a member has proven
/// (`session`) wins over one that somebody merely named in a `hello`, which counts
/// after its end only `if_ended`.
async fn member_of_session_key(
    store: &SqliteStore,
    mesh: &MeshId,
    session_key: &str,
    since: Timestamp,
    if_ended: bool,
) -> Result<Option<MemberId>> {
    let query = sqlx::query(
        "select m.id from presence p join member m on m.id = p.member_id
         where p.session_pubkey = ?2 and m.mesh_id = ?1 and m.revoked_at is null
            and max(p.last_ping_at, coalesce(p.disconnected_at, 0)) >= ?3
            and (?4 or p.role = 'session' or p.disconnected_at is null)
         order by p.role = 'session' desc, p.last_ping_at desc, p.connected_at desc limit 1",
    )
    .bind(mesh.as_str())
    .bind(session_key)
    .bind(since.as_ms())
    .bind(if_ended);
    store.record(query, |row| row.id("id")).await
}
