//! Meshes of an account: list, create, rename, archive.

use std::sync::Arc;

use axum::http::{StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Call, Refused, ok};
use crate::accounts::random_root_key;
use crate::audit::AuditEvent;
use crate::auth::{SecretKey, can_sign, is_public_key};
use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId};
use crate::limits;
use crate::presence::members;
use crate::protocol::budget::cut;
use crate::store::{Account, AccountMesh, Actor, Founder, NewMesh, StoreError};

/// The longest slug that `rename` takes, and the longest that is made of a name.
const SLUG_CHARS_MAX: usize = 32;

impl Call {
    /// Where this broker's pages and routes are, as browsers and command lines see
    /// them: beside the URL that invites carry, else where this call came to.
    pub(super) fn public_base(&self) -> String {
        let http = |url: &str| {
            let url = url.split_once("://").map_or(url, |(_, rest)| rest);
            url.trim_end_matches('/').trim_end_matches("/ws").to_owned()
        };
        match &self.state.http.public_url {
            Some(url) if url.starts_with("wss://") => format!("https://{}", http(url)),
            Some(url) => format!("http://{}", http(url)),
            None => format!("http://{}", self.host()),
        }
    }

    /// The URL of sockets, in the same way.
    pub(super) fn public_ws_url(&self) -> String {
        let known = self.state.http.public_url.clone();
        known.unwrap_or_else(|| format!("ws://{}/ws", self.host()))
    }

    fn host(&self) -> &str {
        let host = self.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        host.unwrap_or("localhost")
    }

    /// The account's membership by which it acts in a mesh; its owner may have none.
    pub(super) async fn actor(
        &self,
        account: &Account,
        mesh: &MeshId,
    ) -> Result<Option<Actor>, Refused> {
        let member = self.state.stores.profiles.of_account(mesh, &account.id).await?;
        Ok(member.map(|member| Actor { id: member.id, name: member.display_name }))
    }

    /// The account's mesh with that slug. Of several of its own, the one that it owns.
    pub(super) async fn mesh_of(
        &self,
        account: &Account,
        slug: &str,
    ) -> Result<Option<AccountMesh>, Refused> {
        let meshes = self.state.stores.ownership.meshes_of(&account.id).await?;
        let named = meshes.into_iter().filter(|found| found.mesh.slug == slug);
        Ok(named.max_by_key(|found| found.is_owner))
    }

    /// As above, of an owner; `forbidden` is said to everybody else, who also learns
    /// whether there is such a mesh at all.
    pub(super) async fn own_mesh(
        &self,
        account: &Account,
        slug: &str,
        missing: &str,
        forbidden: &str,
    ) -> Result<AccountMesh, Refused> {
        match self.mesh_of(account, slug).await? {
            Some(found) if found.is_owner => Ok(found),
            Some(_) => Err(Refused::new(StatusCode::FORBIDDEN, forbidden)),
            None => match self.state.stores.meshes.find(slug).await? {
                Some(mesh) if mesh.slug == slug && mesh.archived_at.is_none() => {
                    Err(Refused::new(StatusCode::FORBIDDEN, forbidden))
                }
                _ => Err(Refused::new(StatusCode::NOT_FOUND, missing)),
            },
        }
    }
}

/// `GET /cli/meshes`.
pub(super) async fn list(call: Arc<Call>) -> Answer {
    let account = call.account(call.query.get("user_id").map(String::as_str)).await?;
    let meshes = call.state.stores.ownership.meshes_of(&account.id).await?;
    let (now, url) = (Timestamp::now(), call.public_ws_url());
    let meshes: Vec<Value> = meshes
        .iter()
        .map(|found| {
            json!({
                "id": found.mesh.id,
                "slug": found.mesh.slug,
                "name": found.mesh.name,
                "role": found.role,
                "is_owner": found.is_owner,
                "member_count": found.members,
                "active_peers": found.presences,
                "joined_at": found.joined_at.unwrap_or(now),
                "broker_url": url,
            })
        })
        .collect();
    ok(json!({ "meshes": meshes }))
}

/// `GET /api/my/profile`.
pub(super) async fn profile(call: Arc<Call>) -> Answer {
    let account = call.account(None).await?;
    let email = account.email.as_deref().unwrap_or_default();
    ok(json!({ "id": account.id, "display_name": account.name, "email": email }))
}

#[derive(Deserialize)]
struct CreateCall {
    #[serde(default)]
    name: String,
    #[serde(default)]
    pubkey: String,
    #[serde(default)]
    slug: Option<String>,
    #[serde(default)]
    user_id: Option<String>,
}

/// `POST /cli/mesh/create`.
pub(super) async fn create(call: Arc<Call>) -> Answer {
    let body = call.json::<CreateCall>();
    let account = call.account(body.as_ref().and_then(|body| body.user_id.as_deref())).await?;
    let bad = |error: &str| Refused::new(StatusCode::BAD_REQUEST, error);
    let body = body.ok_or_else(|| bad("name required"))?;
    let name = cut(body.name.trim(), limits::DISPLAY_NAME_BYTES_MAX);
    if name.is_empty() || name.contains(char::is_control) {
        return Err(bad("name required"));
    }
    let key = body.pubkey.to_ascii_lowercase();
    // Before anything is made: a mesh whose only member can never say hello is of no use.
    if !is_public_key(&key) || !can_sign(&key) {
        return Err(bad("pubkey required (64 hex chars)"));
    }
    let wish = Wish {
        name,
        slug: body.slug.as_deref(),
        owner_name: format!("{name}-owner"),
        key: Some(Key::from(key)),
    };
    let mesh = found(&call, &account, wish).await?;
    ok(json!({
        "id": mesh.id, "slug": mesh.slug, "name": mesh.name, "member_id": mesh.owner_member,
    }))
}

/// What a mesh is to be that an account makes.
pub(super) struct Wish<'a> {
    pub(super) name: &'a str,
    /// What its slug is made of; its name, if nothing is said.
    pub(super) slug: Option<&'a str>,
    pub(super) owner_name: String,
    /// The key of its first member. Without one the owner's stands for it, which the
    /// broker keeps: nobody says hello by it, and machines come in by `/cli-sync`.
    pub(super) key: Option<Key>,
}

/// Makes a mesh for an account, under the first slug that is free.
pub(super) async fn found(
    call: &Call,
    account: &Account,
    wish: Wish<'_>,
) -> Result<NewMesh, Refused> {
    let own = call.state.stores.ownership.meshes_of(&account.id).await?;
    if own.iter().filter(|found| found.is_owner).count() >= limits::ACCOUNT_MESHES_MAX {
        let text = format!(
            "an account has at most {} meshes: archive one first",
            limits::ACCOUNT_MESHES_MAX
        );
        return Err(Refused::new(StatusCode::CONFLICT, text));
    }
    let Wish { name, slug, owner_name, key } = wish;
    let base = slug_of(slug.filter(|slug| !slug.is_empty()).unwrap_or(name));
    let owner = SecretKey::generate();
    let mut mesh = NewMesh {
        id: MeshId::generate(),
        slug: base.clone(),
        name: name.to_owned(),
        owner_key: owner.public_key(),
        root_key: random_root_key(),
        owner_member: MemberId::generate(),
        owner_name,
        founder: Some(Founder {
            account: account.id.clone(),
            member_key: key.unwrap_or_else(|| owner.public_key()),
            owner_secret_key: owner.to_hex128(),
        }),
    };
    let mut number = 1;
    loop {
        match call.state.stores.meshes.create(Timestamp::now(), &mesh).await {
            Ok(()) => break,
            Err(StoreError::Conflict(_)) if number < limits::SLUG_NUMBERS_MAX => {
                number += 1;
                mesh.slug = format!("{base}-{number}");
            }
            Err(StoreError::Conflict(_)) => {
                let text = "Too many meshes with this name";
                return Err(Refused::new(StatusCode::CONFLICT, text));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(mesh)
}

/// A slug made of any text: lower-case letters, digits and single hyphens.
pub(super) fn slug_of(text: &str) -> String {
    let mut slug = String::new();
    for c in text.to_lowercase().chars() {
        if c.is_ascii_alphanumeric() {
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
        if slug.len() == SLUG_CHARS_MAX {
            break;
        }
    }
    let slug = slug.trim_end_matches('-');
    // That one is a route.
    if slug.is_empty() || slug == "create" { "mesh".to_owned() } else { slug.to_owned() }
}

#[derive(Deserialize)]
struct UserCall {
    #[serde(default)]
    user_id: Option<String>,
}

/// `DELETE /cli/mesh/{slug}`: archived, so that nobody enters it any more.
pub(super) async fn archive(call: Arc<Call>) -> Answer {
    let named = call.json::<UserCall>().and_then(|body| body.user_id);
    let account = call.account(named.as_deref()).await?;
    let slug = call.part("slug");
    let forbidden = "Only the mesh owner can delete it";
    let found = call.own_mesh(&account, slug, "Mesh not found", forbidden).await?;
    end(&call, &account, &found).await?;
    ok(json!({ "ok": true, "deleted": slug }))
}

/// Archives a mesh of its owner.
pub(super) async fn end(
    call: &Call,
    account: &Account,
    found: &AccountMesh,
) -> Result<(), Refused> {
    let by = call.actor(account, &found.mesh.id).await?;
    call.state.stores.meshes.archive(Timestamp::now(), &found.mesh.id, by).await?;
    members::changed(&call.state.presence, &found.mesh.id).await;
    Ok(())
}

#[derive(Deserialize)]
struct RenameCall {
    #[serde(default)]
    slug: Option<String>,
}

/// `PATCH /api/cli/meshes/{slug}`.
pub(super) async fn rename(call: Arc<Call>) -> Answer {
    let account = call.account(None).await?;
    let bad = |error: &str| Refused::new(StatusCode::BAD_REQUEST, error);
    let body: RenameCall = call.json().ok_or_else(|| bad("invalid JSON body"))?;
    let slug = body.slug.filter(|slug| !slug.is_empty()).ok_or_else(|| bad("slug is required"))?;
    let is_slug_char = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fits = (2..=SLUG_CHARS_MAX).contains(&slug.len())
        && slug.chars().all(is_slug_char)
        && !slug.starts_with('-');
    if !fits || slug == "create" {
        return Err(bad("slug must be 2-32 chars, lowercase alnum + hyphens, start with alnum"));
    }
    let old = call.part("slug");
    let missing = format!("mesh \"{old}\" not found");
    let forbidden = "only the owner's account can rename a mesh: `claudemesh whoami` shows which \
                     account this is; `claudemesh logout`, then `claudemesh login`, changes it";
    let found = call.own_mesh(&account, old, &missing, forbidden).await?;
    let (mesh, by) = (&found.mesh.id, call.actor(&account, &found.mesh.id).await?);
    let audit = Actor::entry(by, mesh, AuditEvent::MeshRenamed { slug: slug.clone() });
    call.state.stores.ownership.rename(Timestamp::now(), &audit, &slug).await?;
    ok(json!({ "slug": slug }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slug_is_made_of_any_name() {
        for (name, slug) in [
            ("My Team", "my-team"),
            ("  a__b!! ", "a-b"),
            ("Ünïcode 9", "n-code-9"),
            ("日本", "mesh"),
            ("create", "mesh"),
        ] {
            assert_eq!(slug_of(name), slug, "{name}");
        }
        assert_eq!(slug_of(&"x".repeat(99)).len(), SLUG_CHARS_MAX);
    }
}
