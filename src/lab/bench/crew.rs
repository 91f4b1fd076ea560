//! Who takes part: meshes, their members, and a session for every socket.

use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::args::Size;
use crate::auth::{InviteLink, SecretKey};
use crate::cli::Failure;
use crate::cli::enrol::{self, InviteTerms};
use crate::client::{self, Identity};
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId};
use crate::private;
use crate::store::{Join, Joined, Role, Stores};

/// An invite's life, longer than any run.
const INVITE_MS: i64 = 24 * 60 * 60 * 1000;

/// The members of each mesh, written to `--mesh-file`, so that later runs
/// against the same broker need not enrol again.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Crew {
    meshes: Vec<CrewMesh>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CrewMesh {
    mesh_id: MeshId,
    members: Vec<CrewMember>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CrewMember {
    member_id: MemberId,
    /// The secret key as 128 hex digits.
    secret_key: String,
}

impl Crew {
    /// Members that no broker knows, for the floor, which asks nobody.
    pub(super) fn imaginary(size: Size) -> Self {
        let members = || {
            let made = (0..size.members()).map(|_| CrewMember::new(MemberId::generate()).0);
            made.collect()
        };
        let mesh = |_| CrewMesh { mesh_id: MeshId::generate(), members: members() };
        Self { meshes: (0..size.meshes).map(mesh).collect() }
    }

    /// Creates the meshes and enrols the members in a broker's store.
    pub(super) async fn in_store(store: &Stores, size: Size) -> anyhow::Result<Self> {
        let mut meshes = Vec::with_capacity(size.meshes);
        let run = crate::id::generate();
        let run = &run[20..];
        for number in 0..size.meshes {
            meshes.push(new_mesh(store, &format!("bench-{run}-{number}"), size.members()).await?);
        }
        Ok(Self { meshes })
    }

    /// Joins by invite, one mesh each, as anybody would.
    pub(super) async fn by_invites(
        url: &str,
        invites: &[String],
        size: Size,
    ) -> anyhow::Result<Self> {
        if invites.len() != size.meshes {
            let message = format!(
                "{} meshes need as many --invite links; {} given",
                size.meshes,
                invites.len()
            );
            return Err(Failure::new("usage", message).into());
        }
        let mut meshes = Vec::with_capacity(size.meshes);
        for invite in invites {
            let InviteLink { payload, .. } = InviteLink::read(invite)?;
            let mut members = Vec::with_capacity(size.members());
            for number in 0..size.members() {
                let secret = SecretKey::generate();
                let name = format!("bench-{number}");
                let enrolled = client::join(Some(url), invite, &secret, &name).await?;
                members.push(CrewMember {
                    member_id: enrolled.member,
                    secret_key: secret.to_hex128(),
                });
            }
            meshes.push(CrewMesh { mesh_id: MeshId::from(payload.mesh_id), members });
        }
        Ok(Self { meshes })
    }

    /// Reads what an earlier run wrote; `None` if there is no such file.
    pub(super) fn from_file(path: &Path, size: Size) -> anyhow::Result<Option<Self>> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let crew: Self = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is no mesh file", path.display()))?;
        let enough = crew.meshes.len() >= size.meshes
            && crew.meshes.iter().all(|mesh| mesh.members.len() >= size.members());
        if !enough {
            let message = format!(
                "{} holds too few: {} meshes of {} members are needed; remove it to enrol anew",
                path.display(),
                size.meshes,
                size.members()
            );
            return Err(Failure::new("mesh_file_too_small", message).into());
        }
        Ok(Some(crew))
    }

    /// Keeps the crew for later runs, readable by this user alone.
    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        private::write(path, &serde_json::to_vec_pretty(self)?)
    }

    /// One identity per socket, mesh by mesh, each under a session key of its
    /// own. Members take turns: neighbours are never of one member.
    pub(super) fn sessions(&self, size: Size) -> anyhow::Result<Vec<Vec<Identity>>> {
        let of_mesh = |mesh: &CrewMesh| {
            (0..size.peers)
                .map(|number| {
                    let member = &mesh.members[number % size.members()];
                    let secret = SecretKey::from_hex128(&member.secret_key)?;
                    let (id, mesh) = (member.member_id.clone(), mesh.mesh_id.clone());
                    let identity = Identity::new(mesh, id, secret);
                    let name = format!("bench-{number}");
                    Ok(Identity {
                        session_key: Some(SecretKey::generate()),
                        ..identity.named(name)
                    })
                })
                .collect::<anyhow::Result<Vec<Identity>>>()
        };
        self.meshes.iter().take(size.meshes).map(of_mesh).collect()
    }

    /// The meshes, to be archived where a run should leave nothing in use.
    pub(super) fn meshes(&self) -> impl Iterator<Item = &MeshId> {
        self.meshes.iter().map(|mesh| &mesh.mesh_id)
    }
}

impl CrewMember {
    fn new(member_id: MemberId) -> (Self, SecretKey) {
        let secret = SecretKey::generate();
        (Self { member_id, secret_key: secret.to_hex128() }, secret)
    }
}

async fn new_mesh(store: &Stores, slug: &str, count: usize) -> anyhow::Result<CrewMesh> {
    let now = Timestamp::now();
    let created = enrol::create_mesh(store, slug, None, now).await?;
    let terms = InviteTerms {
        role: Role::Member,
        max_uses: i32::try_from(count)?,
        lifetime_ms: INVITE_MS,
        broker_url: "ws://localhost/ws".to_owned(),
        certifies: false,
    };
    let (mesh, owner) = (&created.mesh, &created.owner_secret);
    let invite = enrol::create_invite(store, mesh, owner, &terms, now).await?;
    let mut members = Vec::with_capacity(count);
    for number in 0..count {
        let (member, secret) = CrewMember::new(MemberId::generate());
        let join = Join {
            token: invite.token.clone(),
            mesh: mesh.id.clone(),
            owner_key: owner.public_key().to_string(),
            member: member.member_id.clone(),
            key: secret.public_key(),
            display_name: format!("bench-{number}"),
            certificate: None,
        };
        let joined = store.invites.join(now, &join).await?;
        anyhow::ensure!(matches!(joined, Joined::New(_)), "a member was not enrolled: {joined:?}");
        members.push(member);
    }
    Ok(CrewMesh { mesh_id: mesh.id.clone(), members })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_of_different_members_and_no_two_sessions_share_a_key() {
        let size = Size { meshes: 2, peers: 5, sessions_per_member: 2 };
        let crew = Crew::imaginary(size);
        let sessions = crew.sessions(size).expect("keys");
        assert_eq!(sessions.len(), 2);
        let mesh = &sessions[0];
        assert_eq!(mesh.len(), 5);
        assert!(mesh.windows(2).all(|pair| pair[0].member != pair[1].member));
        let mut keys: Vec<_> =
            mesh.iter().filter_map(|peer| Some(peer.session_key.as_ref()?.public_key())).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 5);
    }

    #[test]
    fn a_mesh_file_is_read_back_and_its_size_is_checked() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("crew.json");
        let size = Size { meshes: 1, peers: 3, sessions_per_member: 1 };
        assert!(Crew::from_file(&path, size).expect("no error").is_none());
        Crew::imaginary(size).write(&path).expect("written");
        assert!(Crew::from_file(&path, size).expect("readable").is_some());
        assert!(Crew::from_file(&path, Size { peers: 9, ..size }).is_err());
    }
}
