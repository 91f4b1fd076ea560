//! The key files of this user's peers: `peers/<mesh slug>/<name>.json` in the
//! data folder, mode 0600.
//!
//! Who has joined once is a peer at the terminal and in every coding session: `cli` and
//! `claude` read the same files. A secret key never leaves them but into an [`Identity`].

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::auth::SecretKey;
use crate::client::Identity;
use crate::id::{Key, MemberId, MeshId};
use crate::output::Failure;
use crate::private::{self, is_file_name};

pub(crate) mod contacts;
pub(crate) mod heads;
pub(crate) mod known;
pub(crate) mod recipient;

/// One peer, as its file has it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeyFile {
    pub(crate) mesh_id: MeshId,
    pub(crate) mesh_slug: String,
    /// `None` while the peer has not joined yet: joining again goes on with
    /// the same key.
    pub(crate) member_id: Option<MemberId>,
    pub(crate) name: String,
    pub(crate) broker_url: String,
    pub(crate) public_key: Key,
    /// The key of the mesh's owner, from the invite: by it others' certificates are
    /// checked. Files of earlier releases have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) owner_pubkey: Option<Key>,
    /// The secret key as 128 hex digits.
    secret_key: String,
}

/// A peer with the place of its file.
#[derive(Clone)]
pub(crate) struct Kept {
    pub(crate) path: PathBuf,
    pub(crate) file: KeyFile,
}

impl KeyFile {
    pub(crate) fn new(
        mesh_id: MeshId,
        mesh_slug: String,
        name: &str,
        broker_url: String,
        secret: &SecretKey,
    ) -> Self {
        Self {
            mesh_id,
            mesh_slug,
            member_id: None,
            name: name.to_owned(),
            broker_url,
            public_key: secret.public_key(),
            owner_pubkey: None,
            secret_key: secret.to_hex128(),
        }
    }

    pub(crate) fn secret(&self) -> anyhow::Result<SecretKey> {
        SecretKey::from_hex128(&self.secret_key).map_err(anyhow::Error::from)
    }

    /// The name by which `--as` finds the peer whatever others there are.
    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.mesh_slug, self.name)
    }

    /// The identity to connect as.
    pub(crate) fn identity(&self) -> anyhow::Result<Identity> {
        let Some(member) = self.member_id.clone() else {
            let message = format!(
                "{} has not joined yet; run `claudemesh-broker peer join` with its invite again",
                self.full_name()
            );
            return Err(Failure::new("not_joined", message).into());
        };
        Ok(Identity::new(self.mesh_id.clone(), member, self.secret()?).named(self.name.as_str()))
    }

    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        private::write(path, &serde_json::to_vec_pretty(self)?)
    }
}

/// Where the peer of that name in that mesh is kept.
pub(crate) fn path_of(data_dir: &Path, mesh_slug: &str, name: &str) -> Result<PathBuf, Failure> {
    // Slugs come from invites, so from strangers.
    if !is_file_name(mesh_slug) {
        let message = format!("the invite's mesh name {mesh_slug:?} cannot be a folder's name");
        return Err(Failure::new("invalid_invite", message));
    }
    if !is_file_name(name) {
        let message = format!(
            "{name:?} is no name for a peer; use up to 64 letters, digits, spaces, dots, hyphens \
             and underscores"
        );
        return Err(Failure::new("invalid_name", message));
    }
    Ok(data_dir.join("peers").join(mesh_slug).join(format!("{name}.json")))
}

/// Reads one key file.
pub(crate) fn read(path: &Path) -> anyhow::Result<Kept> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file = serde_json::from_slice(&bytes)
        .with_context(|| format!("{} is no peer's key file", path.display()))?;
    Ok(Kept { path: path.to_owned(), file })
}

/// All peers of this user, by mesh and name.
pub(crate) fn all(data_dir: &Path) -> anyhow::Result<Vec<Kept>> {
    let mut found = Vec::new();
    for folder in entries(&data_dir.join("peers"))? {
        if folder.is_dir() {
            for path in entries(&folder)? {
                if path.extension().is_some_and(|extension| extension == "json") {
                    found.push(read(&path)?);
                }
            }
        }
    }
    found.sort_by_key(|kept| kept.file.full_name());
    Ok(found)
}

fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listing = match std::fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot list {}", folder.display()));
        }
    };
    listing.map(|entry| Ok(entry?.path())).collect()
}

/// The peer that `--key` or `--as` names, else the only one there is.
pub(crate) fn choose(
    data_dir: &Path,
    name: Option<&str>,
    key_file: Option<&Path>,
) -> anyhow::Result<Kept> {
    if let Some(path) = key_file {
        return read(path);
    }
    let kept = all(data_dir)?;
    let matches = |kept: &&Kept| match name {
        Some(name) => kept.file.name.eq_ignore_ascii_case(name) || kept.file.full_name() == name,
        None => true,
    };
    let mut found: Vec<&Kept> = kept.iter().filter(matches).collect();
    if let Some(exact) =
        name.and_then(|name| kept.iter().find(|peer| peer.file.full_name() == name))
    {
        found = vec![exact];
    }
    match found[..] {
        [one] => Ok(one.clone()),
        [] if kept.is_empty() => {
            let message = "this user has no peer yet; `claudemesh-broker peer join <link> --name \
                           <name>` makes one";
            Err(Failure::new("no_peer", message).into())
        }
        [] => {
            let name = name.unwrap_or_default();
            let message = format!("there is no peer {name:?} here; there are {}", names(&kept));
            Err(Failure::new("no_such_peer", message).into())
        }
        _ => {
            let found: Vec<Kept> = found.into_iter().cloned().collect();
            let message = format!("choose one with --as: {}", names(&found));
            Err(Failure::new("several_peers", message).into())
        }
    }
}

fn names(kept: &[Kept]) -> String {
    kept.iter().map(|peer| peer.file.full_name()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(data_dir: &Path, slug: &str, name: &str) -> Kept {
        let secret = SecretKey::generate();
        let url = "ws://localhost/ws".to_owned();
        let file = KeyFile::new(MeshId::from("m"), slug.to_owned(), name, url, &secret);
        let path = path_of(data_dir, slug, name).expect("a good name");
        file.write(&path).expect("written");
        Kept { path, file }
    }

    fn chosen(data_dir: &Path, name: Option<&str>) -> Result<String, &'static str> {
        choose(data_dir, name, None)
            .map(|kept| kept.file.full_name())
            .map_err(|error| error.downcast::<Failure>().expect("a failure").code)
    }

    #[test]
    fn the_only_peer_needs_no_name_and_several_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path();
        assert_eq!(chosen(at, None), Err("no_peer"));
        let alice = keep(at, "team", "alice");
        assert_eq!(chosen(at, None), Ok("team/alice".to_owned()));
        keep(at, "team", "bob");
        keep(at, "other", "alice");
        assert_eq!(chosen(at, None), Err("several_peers"));
        assert_eq!(chosen(at, Some("Bob")), Ok("team/bob".to_owned()));
        assert_eq!(chosen(at, Some("alice")), Err("several_peers"));
        assert_eq!(chosen(at, Some("other/alice")), Ok("other/alice".to_owned()));
        assert_eq!(chosen(at, Some("carol")), Err("no_such_peer"));
        let by_file = choose(at, None, Some(&alice.path)).expect("by its file");
        assert_eq!(by_file.file.public_key, alice.file.public_key);
    }

    #[test]
    fn a_key_file_is_this_users_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = keep(folder.path(), "team", "alice");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode =
                |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
            assert_eq!(mode(&kept.path), 0o600);
            assert_eq!(mode(kept.path.parent().expect("a folder")), 0o700);
        }
        assert_eq!(kept.file.secret().expect("a key").public_key(), kept.file.public_key);
        assert!(kept.file.identity().is_err(), "not joined yet");
    }

    #[test]
    fn names_from_outside_stay_inside_the_folder() {
        let at = Path::new("/data");
        for bad in ["", "..", "../x", "a/b", ".hidden", "a\\b", "a\nb", &"x".repeat(65)] {
            assert!(path_of(at, "team", bad).is_err(), "{bad:?}");
            assert!(path_of(at, bad, "alice").is_err(), "{bad:?}");
        }
        assert!(path_of(at, "team", "Ada L. Ü").is_ok());
    }
}
