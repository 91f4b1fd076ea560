//! Tokens that an account makes for its own command lines: one to sign in by, and one to
//! fetch its meshes by.
//!
//! Neither says more than the account is when it is made: which meshes, and which roles,
//! the store says.

use std::sync::Arc;

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::login::MachineCall;
use super::meshes::{Wish, found as found_mesh, slug_of};
use super::my::name_of;
use super::{Answer, Call, Refused, ok};
use crate::accounts::{SessionKind, begin_session, sync_token};
use crate::clock::Timestamp;
use crate::limits;
use crate::store::{Account, AccountMesh, Machine};

impl Call {
    /// A token to sign a command line in by, with its session.
    pub(super) async fn new_session(
        &self,
        account: &Account,
        machine: Machine,
    ) -> Result<String, Refused> {
        let (accounts, now) = (&self.state.stores.accounts, Timestamp::now());
        let max = limits::ACCOUNT_SESSIONS_MAX;
        let open = accounts.sessions(now, &account.id, max).await?.len();
        if i64::try_from(open).is_ok_and(|open| open >= max) {
            let text = format!(
                "the account is signed in {max} times: sign some out first, or wait until \
                 their 30 days are over"
            );
            return Err(Refused::new(StatusCode::CONFLICT, text));
        }
        let key = self.state.keys.key().await?;
        let (token, session) = begin_session(key, now, account, SessionKind::Pasted, machine);
        accounts.open_session(now, &session).await?;
        Ok(token)
    }

    /// A token to fetch these meshes by.
    pub(super) async fn new_sync_token(
        &self,
        account: &Account,
        meshes: &[AccountMesh],
    ) -> Result<String, Refused> {
        Ok(sync_token(self.state.keys.key().await?, Timestamp::now(), account, meshes))
    }
}

/// What is said of a machine that a token is pasted into.
pub(super) fn pasted(said: &MachineCall) -> Machine {
    let mut machine = said.machine();
    machine.hostname.get_or_insert_with(|| "paste-token".to_owned());
    machine.platform.get_or_insert_with(|| "unknown".to_owned());
    machine.arch.get_or_insert_with(|| "unknown".to_owned());
    machine
}

/// `POST /api/auth/cli/token`: a session of its own for another command line.
pub(super) async fn cli(call: Arc<Call>) -> Answer {
    if let Err(limited) = call.limit() {
        return Ok(*limited);
    }
    let account = call.account(None).await?;
    let said: MachineCall = call.json().unwrap_or_default();
    let token = call.new_session(&account, pasted(&said)).await?;
    ok(json!({ "token": token }))
}

/// What `/api/cli-sync-token` is asked.
#[derive(Debug, PartialEq, Eq)]
struct Asked<'a> {
    /// The meshes, by their ids; all, if none is named.
    ids: Vec<&'a str>,
    /// The name and the slug of a mesh to make first.
    new: Option<(&'a str, &'a str)>,
}

impl<'a> Asked<'a> {
    /// Roles that the body names are passed over.
    fn read(body: &'a Map<String, Value>) -> Result<Self, &'static str> {
        let meshes = body.get("meshes").and_then(Value::as_array);
        let meshes = meshes.ok_or("meshes must be an array")?;
        let new = match body.get("action").and_then(Value::as_str) {
            Some("sync") => None,
            Some("create") => {
                let text = |field: &str| body.get("newMesh")?.get(field)?.as_str();
                let given = |field: &str| text(field).filter(|text| !text.trim().is_empty());
                let required = "newMesh.name and newMesh.slug are required for create action";
                Some(given("name").zip(given("slug")).ok_or(required)?)
            }
            _ => return Err("action must be \"sync\" or \"create\""),
        };
        let ids = meshes.iter().map(|mesh| mesh.get("id").and_then(Value::as_str));
        let ids: Option<Vec<&str>> = ids.collect();
        Ok(Self { ids: ids.ok_or("each of meshes has an id")?, new })
    }
}

/// `POST /api/cli-sync-token`.
pub(super) async fn sync(call: Arc<Call>) -> Answer {
    if let Err(limited) = call.limit() {
        return Ok(*limited);
    }
    let account = call.account(None).await?;
    let bad = |error: &str| Refused::new(StatusCode::BAD_REQUEST, error);
    let body: Map<String, Value> = call.json().ok_or_else(|| bad("Invalid JSON body"))?;
    let asked = Asked::read(&body).map_err(bad)?;
    let mut ids: Vec<String> = asked.ids.iter().map(|id| (*id).to_owned()).collect();
    if let Some((name, slug)) = asked.new {
        ids.push(new_mesh(&call, &account, name, slug).await?);
    }
    let mut meshes = call.state.stores.ownership.meshes_of(&account.id).await?;
    if !ids.is_empty() {
        meshes.retain(|found| ids.iter().any(|id| found.mesh.id.as_str() == id));
    }
    if meshes.is_empty() {
        let text = "none of these meshes is yours";
        return Err(Refused::new(StatusCode::FORBIDDEN, text));
    }
    let token = call.new_sync_token(&account, &meshes).await?;
    ok(json!({ "token": token }))
}

/// The account's own mesh of that slug, made if it has none: to ask again makes no other.
async fn new_mesh(
    call: &Call,
    account: &Account,
    name: &str,
    slug: &str,
) -> Result<String, Refused> {
    let slug = slug_of(slug);
    let known = call.mesh_of(account, &slug).await?;
    if let Some(known) = known.filter(|known| known.is_owner) {
        return Ok(known.mesh.id.to_string());
    }
    let name = name_of(Some(&Value::from(name)))?.to_owned();
    let owner_name = account.name.clone();
    let wish = Wish { name: &name, slug: Some(&slug), owner_name, key: None };
    Ok(found_mesh(call, account, wish).await?.id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_read_in_one_order_and_roles_are_passed_over() {
        let read = |body: Value| {
            let body = body.as_object().expect("an object").clone();
            Asked::read(&body).map(|asked| (asked.ids.len(), asked.new.is_some()))
        };
        let action = "action must be \"sync\" or \"create\"";
        let new = "newMesh.name and newMesh.slug are required for create action";
        for (body, said) in [
            (json!({}), Err("meshes must be an array")),
            (json!({ "meshes": {}, "action": "sync" }), Err("meshes must be an array")),
            (json!({ "meshes": [] }), Err(action)),
            (json!({ "meshes": [], "action": "all" }), Err(action)),
            (json!({ "meshes": [], "action": "create" }), Err(new)),
            (json!({ "meshes": [], "action": "create", "newMesh": { "name": "x" } }), Err(new)),
            (json!({ "meshes": ["m"], "action": "sync" }), Err("each of meshes has an id")),
            (json!({ "meshes": [], "action": "sync" }), Ok((0, false))),
            (
                json!({ "meshes": [{ "id": "m", "role": "admin" }], "action": "create",
                    "newMesh": { "name": "x", "slug": "x" } }),
                Ok((1, true)),
            ),
        ] {
            assert_eq!(read(body.clone()), said, "{body}");
        }
    }
}
