//! `claudemesh-broker member`: who is in a mesh, and what each may do.

use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{Failure, lookup, output};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::id::MeshId;
use crate::store::{Member, Moderation, Role, Stores};

/// The audit trail's name for whoever types here: no member, but whoever can
/// reach the database.
const OPERATOR: &str = "operator";

/// What a recipient can let a sender do; the last is in no default.
const CAPABILITIES: [&str; 5] = ["read", "dm", "broadcast", "state-read", "file-read"];

/// What can be done about members.
#[derive(Debug, Subcommand)]
pub(crate) enum MemberCommand {
    /// List the members of a mesh
    List {
        /// The mesh's slug or id
        mesh: String,
        /// Also those who are banned
        #[arg(long)]
        all: bool,
    },
    /// Shut a member out: its sessions end, and it cannot come back
    Ban {
        /// The mesh's slug or id
        mesh: String,
        /// Its name, id, key, or the beginning of its key
        member: String,
    },
    /// Let a banned member in again
    Unban {
        /// The mesh's slug or id
        mesh: String,
        /// Its name, id, key, or the beginning of its key
        member: String,
    },
    /// Make a member an admin, who may kick and ban, or an ordinary member
    Role {
        /// The mesh's slug or id
        mesh: String,
        /// Its name, id, key, or the beginning of its key
        member: String,
        /// The new role
        role: RoleArg,
    },
    /// Say what one sender may do to a member
    Grant {
        /// The mesh's slug or id
        mesh: String,
        /// Who grants: its name, id, key, or the beginning of its key
        member: String,
        /// To whom: the same, or a session's whole key
        sender: String,
        /// Of read, dm, broadcast, state-read, file-read, with commas between; or none; or
        /// default (the first four)
        capabilities: String,
    },
}

/// A role, as typed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum RoleArg {
    /// May kick, ban, and read the audit trail
    Admin,
    /// May not
    Member,
}

impl From<RoleArg> for Role {
    fn from(arg: RoleArg) -> Self {
        match arg {
            RoleArg::Admin => Self::Admin,
            RoleArg::Member => Self::Member,
        }
    }
}

pub(crate) async fn run(
    command: MemberCommand,
    json: bool,
    config: &Config,
) -> anyhow::Result<ExitCode> {
    lookup::with_store(config, async |store| {
        let (object, text) = match command {
            MemberCommand::List { mesh, all } => {
                list(store, &mesh, all, json).await?;
                return Ok(ExitCode::SUCCESS);
            }
            MemberCommand::Ban { mesh, member } => ban(store, &mesh, &member).await?,
            MemberCommand::Unban { mesh, member } => unban(store, &mesh, &member).await?,
            MemberCommand::Role { mesh, member, role } => {
                set_role(store, &mesh, &member, role.into()).await?
            }
            MemberCommand::Grant { mesh, member, sender, capabilities } => {
                grant(store, &mesh, &member, &sender, &capabilities).await?
            }
        };
        output::answer(json, &object, &output::printable(&text))?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}

/// What a change answers: the object for scripts, the sentence for people.
type Answer = (Value, String);

async fn list(store: &Stores, mesh: &str, all: bool, json: bool) -> anyhow::Result<()> {
    let mesh = lookup::mesh(store, mesh).await?;
    let mut members = store.members.all(&mesh.id).await?;
    members.retain(|member| all || member.revoked_at.is_none());
    if json {
        let members: Vec<Value> = members.iter().map(describe).collect();
        return output::json(&json!({
            "meshId": mesh.id, "slug": mesh.slug, "members": members,
        }));
    }
    if members.is_empty() {
        output::line("The mesh has no members.")?;
        return Ok(());
    }
    let rows = members.iter().map(|member| {
        let owner = if member.is_owner { ", owner" } else { "" };
        let banned = if member.revoked_at.is_some() { ", banned" } else { "" };
        let groups = member.default_groups.iter().map(|group| format!("@{}", group.name));
        [
            member.display_name.clone(),
            format!("{}{owner}{banned}", member.role.as_str()),
            member.key.to_string(),
            groups.collect::<Vec<_>>().join(" "),
            member.joined_at.to_string(),
        ]
    });
    output::table(["name", "role", "key", "groups", "joined"], rows)?;
    Ok(())
}

fn describe(member: &Member) -> Value {
    let groups: Vec<&str> = member.default_groups.iter().map(|group| group.name.as_str()).collect();
    json!({
        "memberId": member.id,
        "pubkey": member.key,
        "displayName": member.display_name,
        "role": member.role,
        "isOwner": member.is_owner,
        "roleTag": member.role_tag,
        "groups": groups,
        "messageMode": member.message_mode,
        "grants": member.grants,
        "joinedAt": member.joined_at,
        "revokedAt": member.revoked_at,
    })
}

async fn ban(store: &Stores, mesh: &str, target: &str) -> anyhow::Result<Answer> {
    let mesh = lookup::mesh(store, mesh).await?;
    let members = store.members.all(&mesh.id).await?;
    let (active, banned) = split(members);
    let member = match lookup::member(&active, target) {
        Ok(member) => member,
        Err(failure) => match lookup::member(&banned, target) {
            Ok(member) => return Ok(changed(member, false, "is banned already".to_owned())),
            Err(_) => return Err(failure.into()),
        },
    };
    if member.is_owner {
        let message = "the owner of a mesh cannot be banned; archive the mesh to end it";
        return Err(Failure::new("owner_not_bannable", message).into());
    }
    let event =
        AuditEvent::MemberBanned { target: target.to_owned(), target_pubkey: member.key.clone() };
    let done = store.bans.ban(Timestamp::now(), &moderation(mesh.id, member, event)).await?;
    let text = format!("is banned from {}; its sessions end within a second", mesh.slug);
    Ok(changed(member, done, text))
}

async fn unban(store: &Stores, mesh: &str, target: &str) -> anyhow::Result<Answer> {
    let mesh = lookup::mesh(store, mesh).await?;
    let members = store.members.all(&mesh.id).await?;
    let (active, banned) = split(members);
    let member = match lookup::member(&banned, target) {
        Ok(member) => member,
        Err(failure) => match lookup::member(&active, target) {
            Ok(member) => return Ok(changed(member, false, "is not banned".to_owned())),
            Err(_) => return Err(failure.into()),
        },
    };
    let event = AuditEvent::MemberUnbanned { target: target.to_owned() };
    let done = store.bans.unban(Timestamp::now(), &moderation(mesh.id, member, event)).await?;
    Ok(changed(member, done, format!("may enter {} again", mesh.slug)))
}

async fn set_role(store: &Stores, mesh: &str, target: &str, role: Role) -> anyhow::Result<Answer> {
    let mesh = lookup::mesh(store, mesh).await?;
    let members = store.members.active(&mesh.id).await?;
    let member = lookup::member(&members, target)?;
    if member.is_owner && role != Role::Admin {
        let message = "the owner of a mesh is always an admin";
        return Err(Failure::new("owner_not_demotable", message).into());
    }
    let change = member.role != role;
    if change {
        store.members.set_role(Timestamp::now(), &member.id, role).await?;
    }
    let (mut object, text) = changed(member, change, format!("has the role {}", role.as_str()));
    object["role"] = json!(role);
    Ok((object, text))
}

async fn grant(
    store: &Stores,
    mesh: &str,
    target: &str,
    sender: &str,
    capabilities: &str,
) -> anyhow::Result<Answer> {
    let capabilities = parse_capabilities(capabilities)?;
    let mesh = lookup::mesh(store, mesh).await?;
    let members = store.members.active(&mesh.id).await?;
    let member = lookup::member(&members, target)?;
    let key = lookup::sender_key(&members, sender)?;
    if key == member.key {
        let message = "a member needs no grant from itself; name two different members";
        return Err(Failure::new("own_grant", message).into());
    }
    store.members.set_grant(&member.id, key.as_str(), capabilities.as_deref()).await?;
    let what = match capabilities.as_deref() {
        None => "the default".to_owned(),
        Some([]) => "nothing".to_owned(),
        Some(list) => list.join(", "),
    };
    let object = json!({
        "memberId": member.id,
        "displayName": member.display_name,
        "sender": key,
        "capabilities": capabilities,
    });
    let text = format!("{} grants {sender} {what}.", member.display_name);
    Ok((object, text))
}

/// Reads `read,dm`, `none` or `default` (the outer `None`).
fn parse_capabilities(text: &str) -> Result<Option<Vec<String>>, Failure> {
    match text.trim() {
        "default" => return Ok(None),
        "none" => return Ok(Some(Vec::new())),
        _ => {}
    }
    let mut list: Vec<String> = Vec::new();
    for word in text.split(',').map(str::trim) {
        if !CAPABILITIES.contains(&word) {
            let message = format!(
                "{word:?} is no capability; give some of {}, with commas between, or none, or \
                 default",
                CAPABILITIES.join(", ")
            );
            return Err(Failure::new("invalid_capabilities", message));
        }
        if !list.iter().any(|listed| listed == word) {
            list.push(word.to_owned());
        }
    }
    Ok(Some(list))
}

fn split(members: Vec<Member>) -> (Vec<Member>, Vec<Member>) {
    members.into_iter().partition(|member| member.revoked_at.is_none())
}

fn moderation(mesh: MeshId, member: &Member, audit: AuditEvent) -> Moderation {
    let actor_name = Some(OPERATOR.to_owned());
    Moderation { mesh, member: member.id.clone(), actor: None, actor_name, audit }
}

fn changed(member: &Member, changed: bool, text: String) -> Answer {
    let object = json!({
        "memberId": member.id,
        "pubkey": member.key,
        "displayName": member.display_name,
        "changed": changed,
    });
    (object, format!("{} {text}.", member.display_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_a_list_or_one_word() {
        let parsed = |text| parse_capabilities(text).expect("valid");
        assert_eq!(parsed("default"), None);
        assert_eq!(parsed("none"), Some(Vec::new()));
        assert_eq!(parsed("dm"), Some(vec!["dm".to_owned()]));
        assert_eq!(parsed(" read, dm,read"), Some(vec!["read".to_owned(), "dm".to_owned()]));
        assert_eq!(parsed(&CAPABILITIES.join(",")).map(|list| list.len()), Some(5));
    }

    #[test]
    fn a_word_that_is_no_capability_is_named() {
        for (text, word) in
            [("", ""), ("dm,", ""), ("DM", "DM"), ("dm,none", "none"), ("write", "write")]
        {
            let failure = parse_capabilities(text).unwrap_err();
            assert_eq!(failure.code, "invalid_capabilities");
            assert!(failure.message.contains(&format!("{word:?}")), "{failure}");
            assert!(failure.message.contains("state-read"), "{failure}");
        }
    }

    #[test]
    fn a_member_is_described_in_the_protocols_words() {
        let object = describe(&lookup::tests::named("m1", &"ab".repeat(32), "ada"));
        assert_eq!(object["memberId"], "m1");
        assert_eq!(object["role"], "member");
        assert_eq!(object["joinedAt"], "1970-01-01T00:00:00.000Z");
        assert!(object["revokedAt"].is_null());
    }
}
