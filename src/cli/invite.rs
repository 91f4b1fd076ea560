//! `claudemesh-broker invite`: lets peers in, and stops letting them in.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use super::enrol::{CreatedInvite, InviteTerms, OwnerSecret};
use super::member::RoleArg;
use super::{Failure, enrol, lookup, output};
use crate::auth::{LINK_PREFIX, SecretKey};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::private;
use crate::store::{Invite, Mesh, StoreError, Stores};

/// The longest life of an invite: ten years, which any payload can say.
const EXPIRES_IN_MS_MAX: i64 = 3650 * 24 * 60 * 60 * 1000;

/// How many invites with the same terms can be made in one second.
const SAME_SECOND_MAX: u32 = 300;

/// What can be done with invites.
#[derive(Debug, Subcommand)]
pub(crate) enum InviteCommand {
    /// Create a link by which peers join a mesh
    Create {
        /// The mesh's slug or id
        mesh: String,
        /// What the newcomer becomes
        #[arg(long, default_value = "member")]
        role: RoleArg,
        /// How many peers may join by it
        #[arg(long, default_value_t = 1,
              value_parser = clap::value_parser!(i32).range(1..))]
        max_uses: i32,
        /// How long it can be used, such as 90m, 12h, 7d or 2w
        #[arg(long, default_value = "7d", value_name = "TIME")]
        expires_in: String,
        /// The owner's secret key, where it is not kept on this machine: 128
        /// hex digits, or - to read them from standard input
        #[arg(long, value_name = "KEY")]
        owner_key: Option<String>,
        /// Make a link for programs that know no other, `claudemesh join` among them: it
        /// proves to nobody who was let in
        #[arg(long)]
        uncertified: bool,
    },
    /// List the invites of a mesh
    List {
        /// The mesh's slug or id
        mesh: String,
    },
    /// Make an invite useless; who joined by it stays
    Revoke {
        /// Its id, its token or the whole link
        invite: String,
    },
}

pub(crate) async fn run(
    command: InviteCommand,
    json: bool,
    config: &Config,
) -> anyhow::Result<ExitCode> {
    lookup::with_store(config, async |store| match command {
        InviteCommand::Create { mesh, role, max_uses, expires_in, owner_key, uncertified } => {
            let terms = InviteTerms {
                role: role.into(),
                max_uses,
                lifetime_ms: parse_duration_ms(&expires_in)?,
                broker_url: broker_url(config)?,
                certifies: !uncertified,
            };
            create(store, &mesh, terms, owner_key, json, config).await
        }
        InviteCommand::List { mesh } => list(store, &mesh, json).await,
        InviteCommand::Revoke { invite } => revoke(store, &invite, json).await,
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}

async fn create(
    store: &Stores,
    mesh: &str,
    mut terms: InviteTerms,
    owner_key: Option<String>,
    json: bool,
    config: &Config,
) -> anyhow::Result<()> {
    let mesh = lookup::mesh(store, mesh).await?;
    let given = match owner_key {
        // A dash keeps the key out of the list of processes, where others could read it.
        Some(dash) if dash == "-" => Some(std::io::read_to_string(std::io::stdin())?),
        given => given,
    };
    let folder = private::data_dir(config).ok();
    let owner = enrol::owner_secret(folder.as_deref(), &mesh, given.as_deref())?;
    let proof = proof_of(&terms, &owner);
    terms.certifies &= !owner.is_the_brokers;
    let created = create_distinct(store, &mesh, &owner.secret, &terms).await?;
    let object = json!({
        "id": created.id,
        "meshId": mesh.id,
        "slug": mesh.slug,
        "link": created.link,
        "token": created.token,
        "payload": created.payload,
        "certifies": terms.certifies,
        "role": terms.role,
        "maxUses": terms.max_uses,
        "expiresAt": created.expires_at,
    });
    let text = format!(
        "{}\n\n\
         It lets {} join {} as {}, until {}, at {}\n\
         Whoever has the link can join: send it by a private way. The newcomer types\n  \
         claudemesh-broker peer join <link> --name <name>\n\
         {proof}",
        created.link,
        output::count(terms.max_uses, "peer"),
        mesh.slug,
        terms.role.as_str(),
        created.expires_at,
        terms.broker_url,
    );
    output::answer(json, &object, &text)
}

/// Whether the invite proves who was let in by it, and why not.
const fn proof_of(terms: &InviteTerms, owner: &OwnerSecret) -> &'static str {
    if !terms.certifies {
        "It certifies nobody: members that join by it show as unverified."
    } else if owner.is_the_brokers {
        "It certifies nobody: the broker has this mesh's owner key in its database, so it could \
         certify whom it likes. Meshes of `claudemesh-broker mesh create` keep that key here."
    } else {
        "It certifies them to each other. Programs that cannot read it (`claudemesh join`) take \
         one that is made with --uncertified."
    }
}

/// Creates an invite with a token of its own. The payload holds nothing but
/// the terms and the second in which they end, so of two invites made in the
/// same second the later one lives a second longer.
async fn create_distinct(
    store: &Stores,
    mesh: &Mesh,
    owner: &SecretKey,
    terms: &InviteTerms,
) -> anyhow::Result<CreatedInvite> {
    let (mut terms, now) = (terms.clone(), Timestamp::now());
    for _ in 1..SAME_SECOND_MAX {
        match enrol::create_invite(store, mesh, owner, &terms, now).await {
            Err(error) if matches!(error.downcast_ref(), Some(StoreError::Conflict(_))) => {
                terms.lifetime_ms += 1000;
            }
            created => return created,
        }
    }
    enrol::create_invite(store, mesh, owner, &terms, now).await
}

/// Where the invite sends the newcomer.
fn broker_url(config: &Config) -> Result<String, Failure> {
    if config.listen.port == 0 && config.http.public_url.is_none() {
        let message = "BROKER_PORT is 0, so where the broker listens is not known; set \
                       BROKER_PORT to its port, or BROKER_WS_URL to the URL that peers use";
        return Err(Failure::new("broker_url_unknown", message));
    }
    Ok(config.http.public_url_on(config.listen.port))
}

async fn list(store: &Stores, mesh: &str, json: bool) -> anyhow::Result<()> {
    let mesh = lookup::mesh(store, mesh).await?;
    let (invites, now) = (store.invites.of_mesh(&mesh.id).await?, Timestamp::now());
    if json {
        let invites: Vec<Value> = invites.iter().map(|invite| describe(invite, now)).collect();
        return output::json(&json!({
            "meshId": mesh.id, "slug": mesh.slug, "invites": invites,
        }));
    }
    if invites.is_empty() {
        let slug = &mesh.slug;
        output::line(&format!(
            "{slug} has no invites. Next, type:\n  claudemesh-broker invite create {slug}"
        ))?;
        return Ok(());
    }
    let rows = invites.iter().map(|invite| {
        [
            invite.id.clone(),
            invite.role.as_str().to_owned(),
            format!("{} of {}", invite.used_count, invite.max_uses),
            invite.expires_at.to_string(),
            state(invite, now).to_owned(),
        ]
    });
    output::table(["id", "role", "used", "expires", "state"], rows)?;
    Ok(())
}

async fn revoke(store: &Stores, invite: &str, json: bool) -> anyhow::Result<()> {
    let word = invite.trim();
    let word = word.strip_prefix(LINK_PREFIX).unwrap_or(word).trim_end_matches('/');
    // What is behind the dot is the secret, which is none of the broker's business.
    let id_or_token = word.split_once('.').map_or(word, |(token, _)| token);
    if !store.invites.revoke(Timestamp::now(), id_or_token).await? {
        let message = "there is no such invite that could still be used; \
                       `claudemesh-broker invite list <mesh>` shows each with its id and state";
        return Err(Failure::new("invite_not_found", message).into());
    }
    let text = "The invite is revoked; who joined by it stays.";
    output::answer(json, &json!({"invite": id_or_token, "revoked": true}), text)
}

fn describe(invite: &Invite, now: Timestamp) -> Value {
    json!({
        "id": invite.id,
        "role": invite.role,
        "maxUses": invite.max_uses,
        "usedCount": invite.used_count,
        "state": state(invite, now),
        "createdAt": invite.created_at,
        "expiresAt": invite.expires_at,
        "revokedAt": invite.revoked_at,
    })
}

/// Whether somebody could join by the invite at `now`.
pub(super) fn is_usable(invite: &Invite, now: Timestamp) -> bool {
    state(invite, now) == "usable"
}

fn state(invite: &Invite, now: Timestamp) -> &'static str {
    if invite.revoked_at.is_some() {
        "revoked"
    } else if invite.used_count >= invite.max_uses {
        "used up"
    } else if invite.expires_at < now {
        "expired"
    } else {
        "usable"
    }
}

/// Reads a span of time such as `90m`, `12h`, `7d`, `1h 30m`.
fn parse_duration_ms(text: &str) -> Result<i64, Failure> {
    let parsed = humantime::parse_duration(text.trim()).ok();
    let ms = parsed.and_then(|duration| i64::try_from(duration.as_millis()).ok());
    match ms {
        Some(ms @ 1000..=EXPIRES_IN_MS_MAX) => Ok(ms),
        Some(_) => {
            let message = format!("{text:?} is out of range; give one second to ten years");
            Err(Failure::new("invalid_duration", message))
        }
        None => {
            let message =
                format!("{text:?} is no span of time; give one such as 90m, 12h, 7d or 2w");
            Err(Failure::new("invalid_duration", message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Role;

    #[test]
    fn spans_of_time_need_a_unit() {
        let hour = 60 * 60 * 1000;
        for (text, ms) in [
            ("90m", hour * 3 / 2),
            ("12h", 12 * hour),
            ("7d", 168 * hour),
            ("2w", 336 * hour),
            ("1h 30m", hour * 3 / 2),
            ("1s", 1000),
        ] {
            assert_eq!(parse_duration_ms(text).expect(text), ms, "{text}");
        }
        for text in
            ["", "7", "d", "-1d", "7 parsecs", "0s", "1ms", "11years", "99999999999999999999d"]
        {
            let failure = parse_duration_ms(text).expect_err(text);
            assert_eq!(failure.code, "invalid_duration");
            assert!(failure.message.contains("give "), "{failure}");
        }
    }

    #[test]
    fn an_invite_says_why_it_cannot_be_used() {
        let now = Timestamp::from_ms(1_000_000);
        let invite = Invite {
            id: "i1".to_owned(),
            role: Role::Member,
            max_uses: 2,
            used_count: 1,
            expires_at: now,
            created_at: Timestamp::from_ms(0),
            revoked_at: None,
        };
        assert!(is_usable(&invite, now));
        assert_eq!(state(&invite, now.plus_ms(1)), "expired");
        assert_eq!(state(&Invite { used_count: 2, ..invite.clone() }, now), "used up");
        assert_eq!(state(&Invite { revoked_at: Some(now), ..invite }, now), "revoked");
    }
}
