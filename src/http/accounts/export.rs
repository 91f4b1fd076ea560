//! `/api/my/export`: what an account owns and is, in one answer.
//!
//! No message, no value and no secret is in it: neither tokens nor codes of invites, nor
//! keys that only their holders know. Every list is bounded, and one that was cut is named.

use std::sync::Arc;

use serde_json::{Value, json};

use super::my::{describe, describe_invite};
use super::{Answer, Call, ok, service};
use crate::clock::Timestamp;
use crate::limits;
use crate::store::AccountMembership;

/// The lists of an export, and which of them were cut.
#[derive(Default)]
struct Lists {
    truncated: Vec<&'static str>,
}

impl Lists {
    /// As many as an export has of one kind, of what was read with one more.
    fn cut<T>(&mut self, name: &'static str, mut rows: Vec<T>) -> Vec<T> {
        let max = usize::try_from(limits::EXPORT_ROWS_MAX).unwrap_or(usize::MAX);
        if rows.len() > max {
            rows.truncate(max);
            self.truncated.push(name);
        }
        rows
    }
}

/// `GET /api/my/export`.
pub(super) async fn export(call: Arc<Call>) -> Answer {
    if let Err(limited) = call.limit() {
        return Ok(*limited);
    }
    let account = call.account(None).await?;
    let (stores, now) = (&call.state.stores, Timestamp::now());
    let one_more = i64::from(limits::EXPORT_ROWS_MAX) + 1;
    let mut lists = Lists::default();
    let meshes = lists.cut("meshes", stores.ownership.meshes_of(&account.id).await?);
    let memberships = stores.profiles.memberships(&account.id, one_more).await?;
    let memberships = lists.cut("memberships", memberships);
    let invites = stores.invites.of_account(&account.id, one_more, 0).await?;
    let invites = lists.cut("invites", invites);
    let sessions = stores.accounts.sessions(now, &account.id, one_more).await?;
    let sessions = lists.cut("sessions", sessions);
    let of = |rows: Vec<Value>| Value::from(rows);
    ok(json!({
        "exportedAt": now,
        "account": {
            "id": account.id,
            "name": account.name,
            "email": account.email,
            "createdAt": account.created_at,
        },
        "meshes": of(meshes.iter().map(|found| describe(&call, found)).collect()),
        "memberships": of(memberships.iter().map(describe_membership).collect()),
        "invites": of(invites.iter().map(|found| describe_invite(found, now)).collect()),
        "sessions": of(sessions.iter().map(service::describe).collect()),
        "truncated": lists.truncated,
    }))
}

fn describe_membership(membership: &AccountMembership) -> Value {
    json!({
        "memberId": membership.member,
        "meshId": membership.mesh,
        "meshSlug": membership.slug,
        "pubkey": membership.key,
        "displayName": membership.display_name,
        "role": membership.role,
        "joinedAt": membership.joined_at,
        "revokedAt": membership.revoked_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_too_long_is_cut_and_named() {
        let mut lists = Lists::default();
        let max = usize::try_from(limits::EXPORT_ROWS_MAX).expect("small");
        assert_eq!(lists.cut("meshes", vec![(); max]).len(), max);
        assert_eq!(lists.cut("invites", vec![(); max + 1]).len(), max);
        assert_eq!(lists.truncated, ["invites"]);
    }
}
