//! `claudemesh-broker mesh`: creates, lists, shows, sets and archives meshes.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{Failure, enrol, lookup, output};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::limits::DISPLAY_NAME_BYTES_MAX;
use crate::private;
use crate::protocol::SealingPolicy;
use crate::store::{MeshSummary, Stores};

/// What can be done with meshes.
#[derive(Debug, Subcommand)]
pub(crate) enum MeshCommand {
    /// Create a mesh, with its owner as first member
    Create {
        /// Its short name: lower-case letters, digits and dashes, 1 to 63
        slug: String,
        /// Its name; the slug when not given
        #[arg(long)]
        name: Option<String>,
    },
    /// List all meshes
    List,
    /// Show one mesh
    Show {
        /// The mesh's slug or id
        mesh: String,
    },
    /// Set what a mesh asks of its members
    #[command(group(clap::ArgGroup::new("what").required(true).multiple(true)))]
    Set {
        /// The mesh's slug or id
        mesh: String,
        /// Messages to groups, to everyone and to topics: in clear, sealed where all that are
        /// here can open them, or never in clear
        #[arg(long, value_enum, group = "what")]
        sealing: Option<SealingArg>,
        /// Whether only who is certified may join: `required` or `off`
        #[arg(long, value_enum, group = "what")]
        certified: Option<CertifiedArg>,
    },
    /// Archive a mesh: nobody can enter it any more
    Archive {
        /// The mesh's slug or id
        mesh: String,
    },
}

/// What a mesh asks of messages to many, as typed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum SealingArg {
    /// Clients send them in clear
    Off,
    /// Clients seal them if all that are here can open them
    Preferred,
    /// Those in clear are refused, from whatever client
    Required,
}

impl From<SealingArg> for SealingPolicy {
    fn from(typed: SealingArg) -> Self {
        match typed {
            SealingArg::Off => Self::Off,
            SealingArg::Preferred => Self::Preferred,
            SealingArg::Required => Self::Required,
        }
    }
}

/// Whether certificates are asked for, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CertifiedArg {
    /// Nobody joins without one
    Required,
    /// Anybody with an invite joins
    Off,
}

pub(crate) async fn run(
    command: MeshCommand,
    json: bool,
    config: &Config,
) -> anyhow::Result<ExitCode> {
    lookup::with_store(config, async |store| match command {
        MeshCommand::Create { slug, name } => {
            create(store, &slug, name.as_deref(), json, config).await
        }
        MeshCommand::List => list(store, json).await,
        MeshCommand::Show { mesh } => show(store, &mesh, json).await,
        MeshCommand::Set { mesh, sealing, certified } => {
            set(store, &mesh, sealing.map(SealingPolicy::from), certified, json).await
        }
        MeshCommand::Archive { mesh } => archive(store, &mesh, json).await,
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}

async fn create(
    store: &Stores,
    slug: &str,
    name: Option<&str>,
    json: bool,
    config: &Config,
) -> anyhow::Result<()> {
    let name = name.map(check_name).transpose()?;
    // The folder comes before the mesh: there must be a place for its owner's key.
    let folder = private::data_dir(config)?;
    let created = enrol::create_mesh(store, slug, name, Timestamp::now()).await?;
    let kept = enrol::keep_owner_secret(&folder, &created);
    let file = match &kept {
        Ok(path) => Some(path.display().to_string()),
        // The mesh is there, so its key must be shown all the same.
        Err(error) => {
            let note = format!("the owner's key was not kept ({error:#}); keep it yourself");
            let _ = writeln!(std::io::stderr(), "claudemesh-broker: {note}");
            None
        }
    };
    let (mesh, secret) = (&created.mesh, created.owner_secret.to_hex128());
    let object = json!({
        "meshId": mesh.id,
        "slug": mesh.slug,
        "name": mesh.name,
        "ownerPubkey": created.owner_secret.public_key(),
        "ownerSecretKey": secret,
        "ownerKeyFile": file,
        "memberId": created.member_id,
    });
    // Elsewhere the invite's maker has to bring the key.
    let bring = if file.is_some() { "" } else { " --owner-key -" };
    let file = file.map(|path| format!("\n  kept in     {path}")).unwrap_or_default();
    let text = format!(
        "The mesh {slug} is made; you own it.\n  \
         mesh id     {}\n  \
         owner key   {}\n  \
         its secret  {secret}{file}\n  \
         next, type  claudemesh-broker invite create {slug}{bring}\n\
         The secret signs invites and is not shown again: keep a copy in a safe place.",
        mesh.id,
        created.owner_secret.public_key(),
    );
    output::answer(json, &object, &text)
}

fn check_name(name: &str) -> Result<&str, Failure> {
    let name = name.trim();
    if (1..=DISPLAY_NAME_BYTES_MAX).contains(&name.len()) && !name.contains(char::is_control) {
        return Ok(name);
    }
    let message =
        format!("that is no name for a mesh; give one line of 1 to {DISPLAY_NAME_BYTES_MAX} bytes");
    Err(Failure::new("invalid_name", message))
}

async fn list(store: &Stores, json: bool) -> anyhow::Result<()> {
    let meshes = store.meshes.all().await?;
    if json {
        let meshes: Vec<Value> = meshes.iter().map(describe).collect();
        return output::json(&json!({ "meshes": meshes }));
    }
    if meshes.is_empty() {
        output::line("There is no mesh yet. Next, type:\n  claudemesh-broker mesh create team")?;
        return Ok(());
    }
    let rows = meshes.iter().map(|summary| {
        let state = if summary.mesh.archived_at.is_some() { "archived" } else { "open" };
        [
            summary.mesh.slug.clone(),
            summary.mesh.name.clone(),
            summary.members.to_string(),
            summary.presences.to_string(),
            summary.queued.to_string(),
            summary.mesh.created_at.to_string(),
            state.to_owned(),
        ]
    });
    let headings = ["slug", "name", "members", "connected", "waiting", "created", "state"];
    output::table(headings, rows)?;
    Ok(())
}

async fn show(store: &Stores, mesh: &str, json: bool) -> anyhow::Result<()> {
    let mesh = lookup::mesh(store, mesh).await?;
    let (meshes, now) = (store.meshes.all().await?, Timestamp::now());
    let invites = store.invites.of_mesh(&mesh.id).await?;
    let usable = invites.iter().filter(|invite| super::invite::is_usable(invite, now)).count();
    let summary = meshes.into_iter().find(|summary| summary.mesh.id == mesh.id);
    let summary = summary.unwrap_or(MeshSummary { mesh, members: 0, presences: 0, queued: 0 });
    let mut object = describe(&summary);
    object["usableInvites"] = json!(usable);
    object["certifiedRequired"] =
        json!(store.members.requires_certificates(&summary.mesh.id).await?);
    let MeshSummary { mesh, members, presences, queued } = &summary;
    let archived = mesh.archived_at.map_or_else(String::new, |at| format!("\n  archived   {at}"));
    let text = format!(
        "{}  {}\n  mesh id    {}\n  owner key  {}\n  created    {}{archived}\n  \
         sealing    {}\n  {}, {presences} connected\n  {} waiting for delivery\n  {} that can be used",
        mesh.slug,
        output::printable(&mesh.name),
        mesh.id,
        output::or_dash(mesh.owner_key.as_ref()),
        mesh.created_at,
        mesh.sealing.as_str(),
        output::count(*members, "member"),
        output::count(*queued, "message"),
        output::count(usable, "invite"),
    );
    output::answer(json, &object, &text)
}

async fn set(
    store: &Stores,
    mesh: &str,
    sealing: Option<SealingPolicy>,
    certified: Option<CertifiedArg>,
    json: bool,
) -> anyhow::Result<()> {
    let mesh = lookup::mesh(store, mesh).await?;
    let required = certified.map(|certified| certified == CertifiedArg::Required);
    if required == Some(true) && mesh.owner_secret_key.is_some() {
        let message = "the broker has this mesh's owner key in its database, so its invites certify \
                       nobody, and nobody could join any more";
        return Err(Failure::new("owner_key_is_the_brokers", message).into());
    }
    let mut object = json!({ "meshId": mesh.id, "slug": mesh.slug, "changed": false });
    let mut said = Vec::new();
    if let Some(sealing) = sealing {
        let changed = store.meshes.set_sealing(Timestamp::now(), &mesh.id, sealing, None).await?;
        object["sealing"] = json!(sealing);
        object["changed"] = json!(changed);
        said.push(of_sealing(&mesh.slug, sealing));
    }
    if let Some(required) = required {
        let changed = store.meshes.require_certificates(&mesh.id, required).await?;
        object["certifiedRequired"] = json!(required);
        object["changed"] = json!(changed || object["changed"] == true);
        said.push(of_certificates(&mesh.slug, required));
    }
    output::answer(json, &object, &said.join("\n"))
}

fn of_sealing(slug: &str, sealing: SealingPolicy) -> String {
    match sealing {
        SealingPolicy::Off => format!("In {slug}, clients send messages to many in clear."),
        SealingPolicy::Preferred => format!(
            "In {slug}, clients that can seal messages to many do so if all that are here can \
             open them."
        ),
        SealingPolicy::Required => format!(
            "In {slug}, messages to many are refused in clear; clients that cannot seal write to \
             single peers only."
        ),
    }
}

fn of_certificates(slug: &str, required: bool) -> String {
    if required {
        format!(
            "Nobody joins {slug} without a certificate any more, and our clients seal for nobody \
             without one, once they have seen it; `peer members` shows who has none."
        )
    } else {
        format!(
            "Anybody with an invite joins {slug}. Clients that have seen that certificates were \
             required go on to want them: `peer verify <name> --accept` takes a key all the same."
        )
    }
}

async fn archive(store: &Stores, mesh: &str, json: bool) -> anyhow::Result<()> {
    let mesh = lookup::mesh(store, mesh).await?;
    let changed = store.meshes.archive(Timestamp::now(), &mesh.id, None).await?;
    let object = json!({
        "meshId": mesh.id, "slug": mesh.slug, "archived": true, "changed": changed,
    });
    let text = if changed {
        format!("{} is archived: nobody can enter it any more.", mesh.slug)
    } else {
        format!("{} was archived before.", mesh.slug)
    };
    output::answer(json, &object, &text)
}

/// A mesh for scripts, without the secrets that it may hold.
fn describe(summary: &MeshSummary) -> Value {
    let MeshSummary { mesh, members, presences, queued } = summary;
    json!({
        "meshId": mesh.id,
        "slug": mesh.slug,
        "name": mesh.name,
        "ownerPubkey": mesh.owner_key,
        "sealing": mesh.sealing,
        "members": members,
        "connected": presences,
        "queued": queued,
        "createdAt": mesh.created_at,
        "archivedAt": mesh.archived_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_line_that_is_not_empty() {
        assert_eq!(check_name("  The Team ").expect("a name"), "The Team");
        for name in ["", "  ", "a\nb", "a\u{1b}[2J", &"x".repeat(257)] {
            assert_eq!(check_name(name).expect_err(name).code, "invalid_name");
        }
    }
}
