//! `/api/my`: the meshes of an account and their invites, for pages and programs that show
//! them to their owner.
//!
//! A mesh is named by its id, and is looked for among the account's own: of any other, and
//! of one that there is not, the answer is the same. What makes, invites and archives is
//! what the command line's routes do.

use std::sync::Arc;

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::meshes::{Wish, end, found as found_mesh};
use super::{Answer, Call, Refused, invites, ok};
use crate::accounts::InviteTerms;
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{AccountId, MemberId, MeshId};
use crate::limits;
use crate::presence::members;
use crate::store::{Account, AccountInvite, AccountMesh, Moderation, Role};

/// Characters that the name of a mesh may have.
const NAME_CHARS: std::ops::RangeInclusive<usize> = 2..=80;

/// Rows of a page, where nothing is said.
const PAGE_ROWS: u32 = 50;

/// The longest page number: of what lies farther, nobody has so much.
const PAGES_MAX: u32 = 100_000;

fn bad(error: impl Into<String>) -> Refused {
    Refused::new(StatusCode::BAD_REQUEST, error)
}

/// Which part of a list is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    rows: u32,
    skip: u32,
}

impl Call {
    /// `page` from 1, and `perPage`; `None` if neither is said.
    fn page(&self) -> Result<Option<Part>, Refused> {
        let number = |name: &str, max: u32| match self.query.get(name) {
            None => Ok(None),
            Some(text) => match text.parse::<u32>() {
                Ok(number) if (1..=max).contains(&number) => Ok(Some(number)),
                _ => Err(bad(format!("{name} is a number from 1 to {max}"))),
            },
        };
        let page = number("page", PAGES_MAX)?;
        let rows = number("perPage", limits::ACCOUNT_PAGE_ROWS_MAX)?;
        if page.is_none() && rows.is_none() {
            return Ok(None);
        }
        let rows = rows.unwrap_or(PAGE_ROWS);
        Ok(Some(Part { rows, skip: (page.unwrap_or(1) - 1) * rows }))
    }

    /// The account's mesh that the path names.
    async fn my_mesh(&self, account: &Account) -> Result<AccountMesh, Refused> {
        let meshes = self.state.stores.ownership.meshes_of(&account.id).await?;
        let named = meshes.into_iter().find(|found| found.mesh.id.as_str() == self.part("id"));
        named.ok_or_else(|| Refused::new(StatusCode::NOT_FOUND, "you have no mesh with this id"))
    }

    /// As above, of its owner, who alone may `act`.
    async fn my_own_mesh(&self, account: &Account, act: &str) -> Result<AccountMesh, Refused> {
        let found = self.my_mesh(account).await?;
        if found.is_owner {
            return Ok(found);
        }
        let text = format!("only the owner of a mesh may {act}");
        Err(Refused::new(StatusCode::FORBIDDEN, text))
    }
}

/// What the account is in a mesh, as lists say it.
pub(super) fn role_of(found: &AccountMesh) -> &'static str {
    if found.is_owner { "owner" } else { found.role.as_str() }
}

/// `GET /api/my/meshes`: a list, and nothing around it. `q` is a part of a name or a slug.
pub(super) async fn list(call: Arc<Call>) -> Answer {
    let account = call.account(None).await?;
    let page = call.page()?;
    let sought = call.query.get("q").map(|q| q.to_lowercase()).unwrap_or_default();
    let meshes = call.state.stores.ownership.meshes_of(&account.id).await?;
    let is_sought = |found: &&AccountMesh| {
        let texts = [&found.mesh.name, &found.mesh.slug];
        texts.into_iter().any(|text| text.to_lowercase().contains(&sought))
    };
    let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let meshes: Vec<Value> = meshes
        .iter()
        .filter(is_sought)
        .skip(page.map_or(0, |page| count(page.skip)))
        .take(page.map_or(usize::MAX, |page| count(page.rows)))
        .map(|found| {
            json!({
                "id": found.mesh.id,
                "slug": found.mesh.slug,
                "name": found.mesh.name,
                "role": role_of(found),
                "member_count": found.members,
            })
        })
        .collect();
    ok(json!(meshes))
}

/// `POST /api/my/meshes`: a mesh that has no machine in it yet. `/cli-sync` brings one.
pub(super) async fn create(call: Arc<Call>) -> Answer {
    if let Err(limited) = call.limit() {
        return Ok(*limited);
    }
    let account = call.account(None).await?;
    let body: Map<String, Value> = call.json().ok_or_else(|| bad("the body is JSON {name}"))?;
    let name = name_of(body.get("name"))?;
    // Whoever asks for more than there is must not believe to have got it.
    for (field, known) in [("visibility", "private"), ("transport", "managed")] {
        if body.get(field).is_some_and(|value| !value.is_null() && value != known) {
            return Err(bad(format!("{field} can only be {known} here")));
        }
    }
    let wish = Wish { name, slug: None, owner_name: account.name.clone(), key: None };
    let mesh = found_mesh(&call, &account, wish).await?;
    ok(json!({ "id": mesh.id, "slug": mesh.slug }))
}

/// The name of a mesh to make.
pub(super) fn name_of(value: Option<&Value>) -> Result<&str, Refused> {
    let name = value.and_then(Value::as_str).unwrap_or_default().trim();
    let fits = NAME_CHARS.contains(&name.chars().count())
        && name.len() <= limits::DISPLAY_NAME_BYTES_MAX
        && !name.contains(char::is_control);
    let text = "name is one line of 2 to 80 characters";
    if fits { Ok(name) } else { Err(bad(text)) }
}

/// `GET /api/my/meshes/{id}`.
pub(super) async fn show(call: Arc<Call>) -> Answer {
    let account = call.account(None).await?;
    let found = call.my_mesh(&account).await?;
    ok(describe(&call, &found))
}

/// A mesh as its account sees it, without its secrets. Its members are at
/// `/mesh/{mesh}/members`.
pub(super) fn describe(call: &Call, found: &AccountMesh) -> Value {
    json!({
        "id": found.mesh.id,
        "slug": found.mesh.slug,
        "name": found.mesh.name,
        "role": role_of(found),
        "isOwner": found.is_owner,
        "memberCount": found.members,
        "activePeers": found.presences,
        "joinedAt": found.joined_at,
        "createdAt": found.mesh.created_at,
        "brokerUrl": call.public_ws_url(),
    })
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct InviteCall {
    role: Option<Role>,
    max_uses: Option<i32>,
    expires_in_days: Option<i64>,
}

/// `POST /api/my/meshes/{id}/invites`: the link is shown once.
pub(super) async fn invite(call: Arc<Call>) -> Answer {
    if let Err(limited) = call.limit() {
        return Ok(*limited);
    }
    let account = call.account(None).await?;
    let found = call.my_own_mesh(&account, "invite to it").await?;
    let shape = || bad("the body is JSON {role?: admin or member, maxUses?, expiresInDays?}");
    let body: InviteCall = match call.body.is_empty() {
        true => InviteCall::default(),
        false => call.json().ok_or_else(shape)?,
    };
    let (max_uses, days) = (body.max_uses.unwrap_or(1), body.expires_in_days.unwrap_or(7));
    if !(1..=limits::INVITE_USES_MAX).contains(&max_uses) {
        return Err(bad(format!("maxUses is a number from 1 to {}", limits::INVITE_USES_MAX)));
    }
    if !(1..=limits::INVITE_DAYS_MAX).contains(&days) {
        return Err(bad(format!(
            "expiresInDays is a number from 1 to {}",
            limits::INVITE_DAYS_MAX
        )));
    }
    let terms = InviteTerms {
        role: body.role.unwrap_or(Role::Member),
        max_uses,
        lifetime_ms: days * limits::DAY_MS,
        broker_url: call.public_ws_url(),
        certifies: false,
    };
    let made = invites::make(&call, &account, &found.mesh, terms).await?;
    ok(json!({
        "id": made.id,
        "url": invites::url_of(&call, &made),
        "code": made.code.map(|code| code.code),
        "role": made.role,
        "maxUses": made.max_uses,
        "expiresAt": made.expires_at,
    }))
}

/// `POST /api/my/meshes/{id}/archive`: nobody enters it any more.
pub(super) async fn archive(call: Arc<Call>) -> Answer {
    let account = call.account(None).await?;
    let found = call.my_own_mesh(&account, "archive it").await?;
    end(&call, &account, &found).await?;
    ok(json!({ "ok": true, "id": found.mesh.id }))
}

/// `POST /api/my/meshes/{id}/leave`: every membership of the account there ends, on every
/// machine, with its sockets and API keys. It comes back by a newer invite.
pub(super) async fn leave(call: Arc<Call>) -> Answer {
    let account = call.account(None).await?;
    let found = call.my_mesh(&account).await?;
    if found.is_owner {
        return Err(owner_stays());
    }
    let mesh = &found.mesh.id;
    let mut left = Vec::new();
    let done = end_memberships(&call, mesh, &account.id, &mut left).await;
    if !left.is_empty() {
        members::changed(&call.state.presence, mesh).await;
    }
    done?;
    ok(json!({ "ok": true, "id": mesh, "memberIds": left }))
}

fn owner_stays() -> Refused {
    let text = "the owner cannot leave a mesh: archive it instead";
    Refused::new(StatusCode::CONFLICT, text)
}

/// Ends them one by one; what has ended is in `left` even if the next could not be.
async fn end_memberships(
    call: &Call,
    mesh: &MeshId,
    account: &AccountId,
    left: &mut Vec<MemberId>,
) -> Result<(), Refused> {
    let stores = &call.state.stores;
    while let Some(member) = stores.profiles.of_account(mesh, account).await? {
        // The owner's key may be a member without being the account that owns the mesh.
        if member.is_owner {
            return Err(owner_stays());
        }
        let change = Moderation {
            mesh: mesh.clone(),
            member: member.id.clone(),
            actor: Some(member.id.clone()),
            actor_name: Some(member.display_name),
            audit: AuditEvent::MemberLeft { pubkey: member.key },
        };
        stores.bans.ban(Timestamp::now(), &change).await?;
        left.push(member.id);
    }
    Ok(())
}

/// `GET /api/my/invites`: to the meshes that the account owns, newest first. What lets
/// somebody in is shown when it is made, and not here.
pub(super) async fn invites(call: Arc<Call>) -> Answer {
    let account = call.account(None).await?;
    let page = call.page()?.unwrap_or(Part { rows: PAGE_ROWS, skip: 0 });
    let (rows, skip) = (i64::from(page.rows), i64::from(page.skip));
    let mut found = call.state.stores.invites.of_account(&account.id, rows + 1, skip).await?;
    let is_cut = found.len() > usize::try_from(rows).unwrap_or(usize::MAX);
    found.truncate(usize::try_from(rows).unwrap_or(usize::MAX));
    let now = Timestamp::now();
    let found: Vec<Value> = found.iter().map(|found| describe_invite(found, now)).collect();
    ok(json!({ "invites": found, "more": is_cut }))
}

/// An invite without its token and its code, each of which lets somebody in.
pub(super) fn describe_invite(found: &AccountInvite, now: Timestamp) -> Value {
    let invite = &found.invite;
    let state = if invite.revoked_at.is_some() {
        "revoked"
    } else if invite.used_count >= invite.max_uses {
        "exhausted"
    } else if invite.expires_at < now {
        "expired"
    } else {
        "open"
    };
    json!({
        "id": invite.id,
        "meshId": found.mesh,
        "meshSlug": found.slug,
        "isOwn": found.is_own,
        "state": state,
        "role": invite.role,
        "maxUses": invite.max_uses,
        "usedCount": invite.used_count,
        "expiresAt": invite.expires_at,
        "createdAt": invite.created_at,
        "revokedAt": invite.revoked_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Invite;

    #[test]
    fn a_name_is_one_line_of_two_to_eighty_characters() {
        assert_eq!(name_of(Some(&json!(" My Team "))).expect("a name"), "My Team");
        let (long, longest) = (json!("x".repeat(81)), json!("日".repeat(80)));
        assert!(name_of(Some(&longest)).is_ok(), "characters, and no bytes");
        for name in [json!("x"), json!("a\nb"), json!(12), json!(null), long] {
            assert!(name_of(Some(&name)).is_err(), "{name}");
        }
        assert!(name_of(None).is_err());
    }

    #[test]
    fn an_invite_says_how_it_stands_and_nothing_that_lets_anybody_in() {
        let now = Timestamp::from_ms(1_000);
        let invite = Invite {
            id: "i".to_owned(),
            role: Role::Member,
            max_uses: 2,
            used_count: 1,
            expires_at: now,
            created_at: now,
            revoked_at: None,
        };
        let state = |invite: Invite, now| {
            let (mesh, slug) = (MeshId::from("m"), "team".to_owned());
            let shown = describe_invite(&AccountInvite { invite, mesh, slug, is_own: true }, now);
            assert!(shown.get("token").is_none() && shown.get("code").is_none());
            shown["state"].clone()
        };
        assert_eq!(state(invite.clone(), now), "open");
        assert_eq!(state(invite.clone(), now.plus_ms(1)), "expired");
        assert_eq!(state(Invite { used_count: 2, ..invite.clone() }, now), "exhausted");
        assert_eq!(state(Invite { revoked_at: Some(now), ..invite }, now), "revoked");
    }
}
