//! Grants and permissions, as an account sets them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Answer, Call, Refused, ok};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::MemberId;
use crate::limits;
use crate::presence::members;
use crate::store::{AccountMesh, Actor, GrantEntries, Grants, Member, Permissions};

impl Call {
    /// The account's membership of the mesh with that slug.
    async fn membership(&self) -> Result<(AccountMesh, Member), Refused> {
        let account = self.account(None).await?;
        let refused = || Refused::new(StatusCode::FORBIDDEN, "Not a member of this mesh");
        let found = self.mesh_of(&account, self.part("slug")).await?.ok_or_else(refused)?;
        let member = self.state.stores.profiles.of_account(&found.mesh.id, &account.id).await?;
        Ok((found, member.ok_or_else(refused)?))
    }
}

#[derive(Deserialize)]
struct GrantsCall {
    grants: BTreeMap<String, Option<Vec<String>>>,
}

/// `POST /cli/mesh/{slug}/grants`.
pub(super) async fn merge_grants(call: Arc<Call>) -> Answer {
    let (found, member) = call.membership().await?;
    let bad = || {
        let text = "the body is JSON {grants: {<pubkey>: [capability] | null}}";
        Refused::new(StatusCode::BAD_REQUEST, text)
    };
    let GrantsCall { grants } = call.json().ok_or_else(bad)?;
    let is_text = |text: &String| text.len() <= limits::GRANT_TEXT_BYTES_MAX;
    let fits = |entry: &Option<Vec<String>>| {
        entry.as_ref().is_none_or(|caps| {
            caps.len() <= limits::GRANT_CAPABILITIES_MAX && caps.iter().all(is_text)
        })
    };
    let entries: GrantEntries = grants;
    if entries.len() > limits::GRANT_CHANGES_MAX
        || !entries.iter().all(|(key, entry)| is_text(key) && fits(entry))
    {
        return Err(bad());
    }
    // All that a member grants is read by every node with the member.
    if entries_then(&member.grants, &entries) > limits::GRANT_ENTRIES_MAX {
        let text = format!("a member grants to {} keys at most", limits::GRANT_ENTRIES_MAX);
        return Err(Refused::new(StatusCode::CONFLICT, text));
    }
    let grants = call.state.stores.profiles.merge_grants(&member.id, &entries).await?;
    members::changed(&call.state.presence, &found.mesh.id).await;
    ok(json!({ "ok": true, "grants": grants }))
}

/// How many entries there are once these are merged.
fn entries_then(known: &Grants, changes: &GrantEntries) -> usize {
    let kept = known.keys().filter(|key| !changes.contains_key(*key)).count();
    kept + changes.values().flatten().count()
}

/// `GET /cli/mesh/{slug}/permissions`.
pub(super) async fn permissions(call: Arc<Call>) -> Answer {
    let (found, _) = call.membership().await?;
    let stores = &call.state.stores;
    let said: BTreeMap<MemberId, Permissions> =
        stores.ownership.permissions(&found.mesh.id).await?.into_iter().collect();
    let active = stores.members.active(&found.mesh.id).await?;
    let members: Vec<Value> = active
        .iter()
        .map(|member| {
            let holding = said
                .get(&member.id)
                .copied()
                .unwrap_or_else(|| Permissions::of(member.role, member.is_owner));
            json!({
                "member_id": member.id,
                "display_name": member.display_name,
                "role": member.role,
                "is_owner": member.is_owner,
                "permissions": holding,
            })
        })
        .collect();
    ok(json!({ "mesh": found.mesh.slug, "members": members }))
}

#[derive(Deserialize)]
struct PermissionsCall {
    member_id: String,
    permissions: Map<String, Value>,
}

/// `POST /cli/mesh/{slug}/permissions`, by whoever may set them.
pub(super) async fn set_permissions(call: Arc<Call>) -> Answer {
    let (found, caller) = call.membership().await?;
    let bad = || Refused::new(StatusCode::BAD_REQUEST, "member_id and permissions required");
    let body: PermissionsCall = call.json().ok_or_else(bad)?;
    let stores = &call.state.stores;
    let said: BTreeMap<MemberId, Permissions> =
        stores.ownership.permissions(&found.mesh.id).await?.into_iter().collect();
    let holding = |member: &Member| {
        let by_role = Permissions::of(member.role, member.is_owner);
        said.get(&member.id).copied().unwrap_or(by_role)
    };
    if !(caller.is_owner || holding(&caller).can_manage_permissions) {
        let text = "you may not set permissions in this mesh";
        return Err(Refused::new(StatusCode::FORBIDDEN, text));
    }
    let active = stores.members.active(&found.mesh.id).await?;
    let target = active.iter().find(|member| member.id.as_str() == body.member_id);
    let missing = || Refused::new(StatusCode::NOT_FOUND, "Member not found");
    let target = target.ok_or_else(missing)?;
    if target.is_owner && !caller.is_owner {
        let text = "only the owner may set the owner's permissions";
        return Err(Refused::new(StatusCode::FORBIDDEN, text));
    }
    let own = serde_json::to_value(holding(&caller)).unwrap_or_default();
    let mut flags = serde_json::to_value(holding(target)).unwrap_or_default();
    let fields = body.permissions.keys().cloned().collect();
    for (name, value) in body.permissions {
        match flags.get_mut(&name) {
            // Nobody hands on what it does not have.
            Some(_) if value == true && own[&name] != true && !caller.is_owner => {
                let text = format!("you may not give {name}, which you do not have");
                return Err(Refused::new(StatusCode::FORBIDDEN, text));
            }
            Some(known) if value.is_boolean() => *known = value,
            _ => return Err(bad()),
        }
    }
    let permissions: Permissions = serde_json::from_value(flags).map_err(|_| bad())?;
    let now = Timestamp::now();
    let by = Some(Actor { id: caller.id, name: caller.display_name });
    let target_pubkey = target.key.clone();
    let event = AuditEvent::MemberPermissionsChanged { target_pubkey, fields };
    let audit = Actor::entry(by, &found.mesh.id, event);
    stores.ownership.set_permissions(now, &audit, &target.id, &permissions).await?;
    ok(json!({ "ok": true }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_counted_as_they_are_once_merged() {
        let known = Grants::from([("a".to_owned(), vec![]), ("b".to_owned(), vec![])]);
        let changes = |keys: &[(&str, bool)]| -> GrantEntries {
            keys.iter().map(|(key, is_set)| ((*key).to_owned(), is_set.then(Vec::new))).collect()
        };
        for (keys, count) in [
            (&[][..], 2),
            (&[("a", true)], 2),
            (&[("c", true), ("d", true)], 4),
            (&[("a", false), ("c", true)], 2),
            (&[("x", false)], 2),
        ] {
            assert_eq!(entries_then(&known, &changes(keys)), count, "{keys:?}");
        }
    }
}
