//! Makes meshes and invites: what `mesh create`, `invite create` and the demo
//! share.
//!
//! A mesh belongs to whoever has its owner's secret key: that key signs the
//! invites. The broker does not need it, so the command line keeps it beside
//! the data, in `owners/<mesh id>.json`, readable by this user alone.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::Failure;
pub use crate::accounts::InviteTerms;
use crate::accounts::{SignedInvite, random_root_key, signed_invite};
use crate::auth::{InvitePayload, SecretKey, link_to};
use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId};
use crate::private;
use crate::store::{Mesh, NewInvite, NewMesh, Stores};

/// A slug's greatest length: slugs stand in file names and in invites.
const SLUG_BYTES_MAX: usize = 64;
/// What the owner is called until a peer of it says otherwise.
const OWNER_NAME: &str = "owner";

/// A mesh made a moment ago. Its owner's secret is nowhere else yet.
#[derive(Clone, Debug)]
pub(crate) struct CreatedMesh {
    pub(crate) mesh: Mesh,
    /// The secret that signs its invites.
    pub(crate) owner_secret: SecretKey,
    /// The owner, who is a member and an admin.
    pub(crate) member_id: MemberId,
}

/// An invite made a moment ago.
#[derive(Clone, Debug)]
pub struct CreatedInvite {
    /// The id by which `invite revoke` knows it.
    pub(crate) id: String,
    /// What to give to a newcomer.
    pub link: String,
    /// What the broker knows the invite by.
    pub(crate) token: String,
    /// What the token holds.
    pub(crate) payload: InvitePayload,
    /// Until when it can be used.
    pub(crate) expires_at: Timestamp,
}

/// Creates a mesh with an owner of its own.
pub(crate) async fn create_mesh(
    store: &Stores,
    slug: &str,
    name: Option<&str>,
    now: Timestamp,
) -> anyhow::Result<CreatedMesh> {
    check_slug(slug)?;
    if store.meshes.find(slug).await?.is_some_and(|mesh| mesh.archived_at.is_none()) {
        let message = format!("there is a mesh {slug:?} already; choose another slug");
        return Err(Failure::new("slug_taken", message).into());
    }
    let owner_secret = SecretKey::generate();
    let new = NewMesh {
        id: MeshId::generate(),
        slug: slug.to_owned(),
        name: name.unwrap_or(slug).to_owned(),
        owner_key: owner_secret.public_key(),
        root_key: random_root_key(),
        owner_member: MemberId::generate(),
        owner_name: OWNER_NAME.to_owned(),
        founder: None,
    };
    store.meshes.create(now, &new).await?;
    let mesh = store.meshes.get(&new.id).await?.context("the mesh just created is not there")?;
    Ok(CreatedMesh { mesh, owner_secret, member_id: new.owner_member })
}

/// Creates an invite, signed by the mesh's owner.
pub async fn create_invite(
    store: &Stores,
    mesh: &Mesh,
    owner_secret: &SecretKey,
    terms: &InviteTerms,
    now: Timestamp,
) -> anyhow::Result<CreatedInvite> {
    if mesh.archived_at.is_some() {
        let message = format!("the mesh {:?} is archived; nobody can join it", mesh.slug);
        return Err(Failure::new("mesh_archived", message).into());
    }
    check_owner(mesh, owner_secret)?;
    let members = store.members.active(&mesh.id).await?;
    let owner = members.iter().find(|member| member.is_owner);
    let created_by = owner.map(|owner| owner.id.to_string());
    let SignedInvite { invite, payload, secret } =
        signed_invite(mesh, owner_secret, terms, created_by, now);
    store.invites.create(now, &invite).await?;
    let NewInvite { id, token, expires_at, .. } = invite;
    let link = link_to(&token, secret.as_ref());
    Ok(CreatedInvite { id, link, token, payload, expires_at })
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OwnerFile {
    mesh_id: MeshId,
    mesh_slug: String,
    owner_pubkey: Key,
    owner_secret_key: String,
}

/// Keeps the owner's secret for `invite create`, readable by this user alone.
/// Returns where.
pub(crate) fn keep_owner_secret(data_dir: &Path, created: &CreatedMesh) -> anyhow::Result<PathBuf> {
    let path = owner_file(data_dir, &created.mesh.id);
    let file = OwnerFile {
        mesh_id: created.mesh.id.clone(),
        mesh_slug: created.mesh.slug.clone(),
        owner_pubkey: created.owner_secret.public_key(),
        owner_secret_key: created.owner_secret.to_hex128(),
    };
    private::write(&path, &serde_json::to_vec_pretty(&file)?)?;
    Ok(path)
}

/// The owner's secret, and who else has it.
#[derive(Debug)]
pub(crate) struct OwnerSecret {
    pub(crate) secret: SecretKey,
    /// The broker keeps it, too: it could itself sign whatever is signed by it.
    pub(crate) is_the_brokers: bool,
}

/// The owner's secret: as given (128 hex digits), else as kept by
/// [`keep_owner_secret`], else as the mesh's row has it.
pub(crate) fn owner_secret(
    data_dir: Option<&Path>,
    mesh: &Mesh,
    given: Option<&str>,
) -> anyhow::Result<OwnerSecret> {
    let kept = || -> anyhow::Result<Option<String>> {
        let Some(path) = data_dir.map(|folder| owner_file(folder, &mesh.id)) else {
            return Ok(None);
        };
        match std::fs::read(&path) {
            Ok(bytes) => {
                let file: OwnerFile = serde_json::from_slice(&bytes)
                    .with_context(|| format!("{} is no owner's file", path.display()))?;
                Ok(Some(file.owner_secret_key))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    };
    let hex = match given {
        Some(given) => Some(given.trim().to_owned()),
        None => kept()?.or_else(|| mesh.owner_secret_key.clone()),
    };
    let Some(hex) = hex else {
        let message = format!(
            "the owner's secret key of {:?} is not on this machine; give it with --owner-key, as \
             `mesh create` showed it, or run this where the mesh was created",
            mesh.slug
        );
        return Err(Failure::new("owner_key_missing", message).into());
    };
    let secret = SecretKey::from_hex128(&hex)
        .map_err(|error| Failure::new("owner_key_invalid", error.to_string()))?;
    check_owner(mesh, &secret)?;
    Ok(OwnerSecret { secret, is_the_brokers: mesh.owner_secret_key.is_some() })
}

fn owner_file(data_dir: &Path, mesh: &MeshId) -> PathBuf {
    data_dir.join("owners").join(format!("{}.json", private::file_name(mesh.as_str())))
}

fn check_owner(mesh: &Mesh, secret: &SecretKey) -> Result<(), Failure> {
    let public = secret.public_key();
    if mesh.owner_key.as_ref().is_none_or(|owner| *owner == public) {
        return Ok(());
    }
    let message = format!(
        "that key does not belong to the owner of {:?}: its public half is {}",
        mesh.slug,
        public.short()
    );
    Err(Failure::new("wrong_owner_key", message))
}

fn check_slug(slug: &str) -> Result<(), Failure> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let ok = (1..=SLUG_BYTES_MAX).contains(&slug.len())
        && slug.chars().all(fits)
        && !slug.starts_with('-')
        && !slug.ends_with('-');
    if ok {
        return Ok(());
    }
    let message = format!(
        "{slug:?} is no slug; use 1 to {SLUG_BYTES_MAX} lower-case letters, digits and hyphens, \
         for example my-team"
    );
    Err(Failure::new("invalid_slug", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mesh(owner: &SecretKey) -> Mesh {
        Mesh {
            id: MeshId::from("m1"),
            slug: "team".to_owned(),
            name: "Team".to_owned(),
            owner_key: Some(owner.public_key()),
            owner_secret_key: None,
            root_key: None,
            self_editable: serde_json::Value::Null,
            sealing: crate::protocol::SealingPolicy::default(),
            created_at: Timestamp::from_ms(0),
            archived_at: None,
        }
    }

    #[test]
    fn slugs_fit_file_names_and_links() {
        for good in ["a", "my-team", "2026", &"x".repeat(64)] {
            assert!(check_slug(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "My", "a/b", "..", "a b", "ü", &"x".repeat(65)] {
            assert_eq!(check_slug(bad).expect_err(bad).code, "invalid_slug");
        }
    }

    #[test]
    fn the_owners_secret_is_kept_for_this_user_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let owner = SecretKey::generate();
        let mesh = mesh(&owner);
        let created = CreatedMesh {
            mesh: mesh.clone(),
            owner_secret: owner.clone(),
            member_id: MemberId::generate(),
        };
        let path = keep_owner_secret(folder.path(), &created).expect("written");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(&path).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let found = owner_secret(Some(folder.path()), &mesh, None).expect("kept");
        assert_eq!(found.secret.public_key(), owner.public_key());
        assert!(!found.is_the_brokers);
        assert!(!format!("{created:?}").contains(&owner.to_hex128()[..64]));
        assert!(path.starts_with(folder.path()));
    }

    #[test]
    fn a_key_that_is_missing_or_anothers_is_said_so() {
        let code = |error: anyhow::Error| error.downcast::<Failure>().expect("a failure").code;
        let owner = SecretKey::generate();
        let mut mesh = mesh(&owner);
        assert_eq!(code(owner_secret(None, &mesh, None).unwrap_err()), "owner_key_missing");
        assert_eq!(code(owner_secret(None, &mesh, Some("x")).unwrap_err()), "owner_key_invalid");
        let other = SecretKey::generate().to_hex128();
        assert_eq!(code(owner_secret(None, &mesh, Some(&other)).unwrap_err()), "wrong_owner_key");
        mesh.owner_secret_key = Some(owner.to_hex128());
        let found = owner_secret(None, &mesh, None).expect("as a dashboard keeps it");
        assert!(found.is_the_brokers);
    }
}
