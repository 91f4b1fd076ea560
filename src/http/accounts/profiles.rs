//! Members as they and their admins describe them.
//!
//! The command line sends no proof with these calls, so who calls is known by the
//! token of an account, or by a socket of the member that is open from the same address.

use std::collections::HashMap;
use std::sync::Arc;

use axum::http::StatusCode;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use super::{Answer, Call, Refused, ok};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::http::bearer;
use crate::id::{MemberId, MeshId};
use crate::limits;
use crate::presence::members;
use crate::protocol::budget::group_bytes;
use crate::protocol::{Group, SealingPolicy, SystemEvent};
use crate::store::{Actor, Member, Mesh, ProfileEdit, Role};

fn unauthorized(error: &str) -> Refused {
    Refused::not_ok(StatusCode::UNAUTHORIZED, error)
}

fn bad(error: impl Into<String>) -> Refused {
    Refused::not_ok(StatusCode::BAD_REQUEST, error)
}

const NO_PROOF: &str = "open a session of the member from this address first, or send the token \
                        of its account as Authorization: Bearer";

impl Call {
    /// The mesh that the path names, and that is not archived.
    async fn mesh(&self) -> Result<Mesh, Refused> {
        let id = MeshId::from(self.part("mesh"));
        let mesh = self.state.stores.meshes.get(&id).await?;
        mesh.filter(|mesh| mesh.archived_at.is_none()).ok_or_else(|| bad("mesh not found"))
    }

    /// The member that calls, with the proof that it is.
    async fn calling_member(&self, mesh: &Mesh) -> Result<Member, Refused> {
        let named = self.headers.get("x-member-id").and_then(|id| id.to_str().ok());
        let named = named.filter(|id| !id.is_empty()).map(MemberId::from);
        let profiles = &self.state.stores.profiles;
        let caller = match (named, bearer(&self.headers).is_some()) {
            (None, false) => return Err(unauthorized("X-Member-Id header required")),
            (Some(named), false) => {
                if !self.is_beside(&mesh.id, Some(&named)).await {
                    return Err(unauthorized(NO_PROOF));
                }
                named
            }
            (named, true) => {
                let account = self.bearer_account().await?;
                match named {
                    Some(named) if profiles.is_of_account(&named, &account.id).await? => named,
                    Some(_) => return Err(unauthorized(NO_PROOF)),
                    None => {
                        let own = profiles.of_account(&mesh.id, &account.id).await?;
                        own.ok_or_else(|| bad("caller not a member of this mesh"))?.id
                    }
                }
            }
        };
        let active = self.state.stores.members.active(&mesh.id).await?;
        let caller = active.into_iter().find(|member| member.id == caller);
        caller.ok_or_else(|| bad("caller not a member of this mesh"))
    }

    async fn bearer_account(&self) -> Result<crate::store::Account, Refused> {
        if !self.state.has_accounts {
            return Err(unauthorized("there are no accounts here: ACCOUNTS=on turns them on"));
        }
        let error = |Refused(status, body)| {
            let error = body["error"].as_str().unwrap_or_default().to_owned();
            Refused::not_ok(status, error)
        };
        self.account(None).await.map_err(error)
    }
}

/// `GET /mesh/{mesh}/members`, by anybody who is in the mesh.
pub(super) async fn members(call: Arc<Call>) -> Answer {
    let mesh = call.mesh().await?;
    if bearer(&call.headers).is_some() {
        call.calling_member(&mesh).await?;
    } else if !call.is_beside(&mesh.id, None).await {
        return Err(unauthorized(NO_PROOF));
    }
    let active = call.state.stores.members.active(&mesh.id).await?;
    let sessions = sessions_of(&call, &mesh.id).await;
    let members: Vec<Value> = active
        .iter()
        .map(|member| {
            let count = sessions.get(&member.id).copied().unwrap_or(0);
            let mut described = describe(member);
            described["online"] = json!(count > 0);
            described["sessionCount"] = json!(count);
            described
        })
        .collect();
    ok(json!({ "ok": true, "members": members }))
}

/// Open sockets of each member, of those that others see.
async fn sessions_of(call: &Call, mesh: &MeshId) -> HashMap<MemberId, u32> {
    let mut counts = HashMap::new();
    match call.state.cluster.directory(mesh).await {
        Ok(records) => {
            for record in records {
                if record.online && record.visible && !record.visitor {
                    *counts.entry(record.member).or_default() += 1;
                }
            }
        }
        Err(error) => tracing::debug!(%error, "who is there is not known now"),
    }
    counts
}

fn describe(member: &Member) -> Value {
    json!({
        "id": member.id,
        "displayName": member.display_name,
        "roleTag": member.role_tag,
        "groups": member.default_groups,
        "messageMode": member.message_mode,
        "permission": member.role,
        // Which account a member is, is nobody else's business.
        "dashboardUserId": null,
        "joinedAt": member.joined_at,
        "lastSeenAt": null,
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EditCall {
    #[serde(default)]
    display_name: Option<String>,
    #[serde(default, deserialize_with = "given")]
    role_tag: Option<Option<String>>,
    #[serde(default)]
    groups: Option<Vec<Group>>,
    #[serde(default)]
    message_mode: Option<String>,
    #[serde(default)]
    permission: Option<Role>,
}

/// A field that is there, though it may be null.
fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(from).map(Some)
}

/// `PATCH /mesh/{mesh}/member/{member}`.
pub(super) async fn edit(call: Arc<Call>) -> Answer {
    let mesh = call.mesh().await?;
    let caller = call.calling_member(&mesh).await?;
    let body: EditCall = call.json().ok_or_else(|| {
        bad("the body is JSON {displayName?, roleTag?, groups?, messageMode?, permission?}")
    })?;
    let stores = &call.state.stores;
    let target = MemberId::from(call.part("member"));
    let is_admin = caller.is_owner || caller.role == Role::Admin;
    if target != caller.id && !is_admin {
        return Err(bad("not authorized — only admins or self can edit"));
    }
    let active = stores.members.active(&mesh.id).await?;
    let missing = || bad("member not found after update");
    let target = active.into_iter().find(|member| member.id == target).ok_or_else(missing)?;
    check(&body)?;
    if body.permission.is_some() && target.is_owner {
        return Err(bad("the owner is always an admin"));
    }
    let edit = ProfileEdit {
        mesh: mesh.id.clone(),
        member: target.id.clone(),
        key: target.key.clone(),
        actor: caller.id.clone(),
        actor_name: caller.display_name.clone(),
        display_name: body.display_name,
        role_tag: body.role_tag,
        groups: body.groups,
        message_mode: body.message_mode,
        role: body.permission.filter(|role| *role != target.role),
    };
    if !is_admin {
        check_policy(&edit, body.permission.is_some(), &mesh.self_editable)?;
    }
    let fields = edit.fields();
    if fields.is_empty() && body.permission.is_none() {
        return Err(bad("no fields to update"));
    }
    if !fields.is_empty() || edit.role.is_some() {
        stores.profiles.edit(Timestamp::now(), &edit).await?;
    }
    let active = stores.members.active(&mesh.id).await?;
    let member = active.into_iter().find(|member| member.id == target.id).ok_or_else(missing)?;
    let described = describe(&member);
    let changes: Map<String, Value> =
        fields.iter().map(|field| ((*field).to_owned(), described[*field].clone())).collect();
    members::changed(&call.state.presence, &mesh.id).await;
    if !changes.is_empty() {
        let event = SystemEvent { event: "profile_updated".into(), data: changes.clone().into() };
        members::tell(&call.state.presence, &mesh.id, &member.id, event);
    }
    ok(json!({ "ok": true, "member": described, "changes": changes }))
}

/// What peers will read of a member is bounded as what they may say themselves.
fn check(body: &EditCall) -> Result<(), Refused> {
    let is_line = |text: &str, max| text.len() <= max && !text.contains(char::is_control);
    let name_max = limits::DISPLAY_NAME_BYTES_MAX;
    if body.display_name.as_deref().is_some_and(|name| name.is_empty() || !is_line(name, name_max))
    {
        return Err(bad(format!("displayName is one line of 1 to {name_max} bytes")));
    }
    let tag_max = limits::GROUP_NAME_BYTES_MAX;
    if body.role_tag.as_ref().and_then(Option::as_deref).is_some_and(|tag| !is_line(tag, tag_max)) {
        return Err(bad(format!("roleTag is one line of up to {tag_max} bytes")));
    }
    if let Some(groups) = &body.groups {
        let is_good = |group: &Group| {
            (1..=tag_max).contains(&group.name.len())
                && group.role.as_ref().is_none_or(|role| role.len() <= tag_max)
        };
        let bytes: usize = groups.iter().map(group_bytes).sum();
        if groups.len() > limits::GROUPS_PER_PRESENCE_MAX
            || bytes > limits::GROUPS_BYTES_MAX
            || !groups.iter().all(is_good)
        {
            return Err(bad("these groups are too many, or their names too long"));
        }
    }
    match body.message_mode.as_deref() {
        None | Some("push" | "inbox" | "off") => Ok(()),
        Some(_) => Err(bad("messageMode is push, inbox or off")),
    }
}

/// What the mesh lets its members say of themselves.
fn check_policy(edit: &ProfileEdit, edits_permission: bool, policy: &Value) -> Result<(), Refused> {
    let is_managed = |field: &&str| policy.get(*field) == Some(&Value::Bool(false));
    let mut managed: Vec<&str> = edit.fields().into_iter().filter(|f| is_managed(f)).collect();
    managed.extend(edits_permission.then_some("permission"));
    if managed.is_empty() {
        return Ok(());
    }
    Err(bad(format!("admin-managed fields: {}", managed.join(", "))))
}

/// Which fields a member may edit of itself.
#[derive(Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Policy {
    display_name: bool,
    role_tag: bool,
    groups: bool,
    message_mode: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PolicyCall {
    #[serde(default)]
    self_editable: Option<Policy>,
    #[serde(default)]
    sealing: Option<SealingPolicy>,
}

/// `PATCH /mesh/{mesh}/settings`, by admins.
pub(super) async fn set_policy(call: Arc<Call>) -> Answer {
    let mesh = call.mesh().await?;
    let caller = call.calling_member(&mesh).await?;
    if !(caller.is_owner || caller.role == Role::Admin) {
        return Err(bad("admin access required"));
    }
    let body = call.json::<PolicyCall>();
    let (policy, sealing) = body.map_or((None, None), |body| (body.self_editable, body.sealing));
    if policy.is_none() && sealing.is_none() {
        return Err(bad("no settings to update"));
    }
    if sealing.is_some() && !caller.is_owner {
        return Err(bad("only the owner sets what the mesh asks of messages to many"));
    }
    let (stores, now) = (&call.state.stores, Timestamp::now());
    let by = Actor { id: caller.id, name: caller.display_name };
    if let Some(policy) = policy {
        let policy = serde_json::to_value(policy).unwrap_or_default();
        let may = policy.as_object().into_iter().flatten().filter(|(_, may)| **may == true);
        let event = AuditEvent::MeshPolicyChanged {
            self_editable: may.map(|(field, _)| field.clone()).collect(),
        };
        let audit = Actor::entry(Some(by.clone()), &mesh.id, event);
        stores.ownership.set_self_editable(now, &audit, &policy).await?;
    }
    if let Some(sealing) = sealing {
        stores.meshes.set_sealing(now, &mesh.id, sealing, Some(by)).await?;
        members::changed(&call.state.presence, &mesh.id).await;
    }
    ok(json!({ "ok": true }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit_of(fields: Value) -> EditCall {
        serde_json::from_value(fields).expect("fields")
    }

    #[test]
    fn a_tag_that_is_null_is_taken_away_and_one_that_is_missing_stays() {
        assert_eq!(edit_of(json!({ "roleTag": null })).role_tag, Some(None));
        assert_eq!(edit_of(json!({})).role_tag, None);
    }

    #[test]
    fn what_peers_will_read_is_bounded() {
        let long = "x".repeat(limits::GROUP_NAME_BYTES_MAX + 1);
        let many = vec![json!({ "name": "g" }); limits::GROUPS_PER_PRESENCE_MAX + 1];
        for fields in [
            json!({ "displayName": "" }),
            json!({ "displayName": "a\nb" }),
            json!({ "roleTag": long }),
            json!({ "groups": [{ "name": long }] }),
            json!({ "groups": many }),
            json!({ "messageMode": "loud" }),
        ] {
            assert!(check(&edit_of(fields.clone())).is_err(), "{fields}");
        }
        let fields = json!({ "displayName": "Ada", "roleTag": "lead", "messageMode": "inbox" });
        assert!(check(&edit_of(fields)).is_ok());
    }
}
