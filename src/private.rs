//! Files of this user alone, and where they lie: the data folder, names for files that
//! come from strangers, and files and folders that nobody else can read.
//!
//! No secret is ever written by another way than this. The commands, the keyring and the
//! sessions of `claude` call it.

use std::borrow::Cow;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use crate::config::{Config, platform_data_dir, process_env};
use crate::output::Failure;

/// The folder of keys and other things of this user: the broker's data folder,
/// also where the broker itself keeps its data in Postgres.
pub(crate) fn data_dir(config: &Config) -> anyhow::Result<PathBuf> {
    match config.deployment.data_dir() {
        Some(configured) => Ok(configured.to_owned()),
        None => data_dir_of_user(),
    }
}

/// The same for whoever runs in an environment that says nothing of a broker: a coding
/// session's project may have a `DATABASE_URL` of its own.
pub(crate) fn data_dir_of_user() -> anyhow::Result<PathBuf> {
    let set = process_env("CLAUDEMESH_DATA_DIR").filter(|folder| !folder.trim().is_empty());
    let found = set.map(|folder| folder.trim().into());
    found.or_else(platform_data_dir).ok_or_else(|| {
        let message = "this user has no home folder; set CLAUDEMESH_DATA_DIR to a folder in which \
                       to keep keys";
        Failure::new("no_data_dir", message).into()
    })
}

/// Writes a file that only this user can read, whole or not at all, and waits until the
/// disk has it.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    put(path, bytes, true)
}

/// As [`write()`], for what may be lost with the machine: nothing waits for the disk.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    put(path, bytes, false)
}

fn put(path: &Path, bytes: &[u8], durable: bool) -> anyhow::Result<()> {
    let write = || -> std::io::Result<()> {
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        make_folder(folder)?;
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&temporary)?;
        file.write_all(bytes)?;
        file.write_all(b"\n")?;
        if durable {
            file.sync_all()?;
        }
        std::fs::rename(&temporary, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Makes an empty file that only this user can read, and its folder, unless it is there:
/// for programs that write in it themselves.
pub(crate) fn make_file(path: &Path) -> anyhow::Result<()> {
    let make = || -> std::io::Result<()> {
        make_folder(path.parent().unwrap_or_else(|| Path::new(".")))?;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match options.open(path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    };
    make().with_context(|| format!("cannot make {}", path.display()))
}

/// Makes a folder that only this user can enter, unless it is there.
pub(crate) fn make_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Whether `text` can be a part of a path as it is: no folder, nothing hidden.
pub(crate) fn is_file_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && !text.starts_with('.')
        && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ' '))
}

/// A part of a path for `text`, which may come from a stranger: itself, or its digest.
pub(crate) fn file_name(text: &str) -> Cow<'_, str> {
    if is_file_name(text) {
        return text.into();
    }
    let digest = hex::encode(Sha256::digest(text.as_bytes()));
    digest[..32].to_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_path_stays_one() {
        assert_eq!(file_name("0199a1b2"), "0199a1b2");
        for hostile in ["../x", "/etc/passwd", "a/b", ".hidden", "", "..", "a\0b", "a\\b"] {
            let name = file_name(hostile);
            assert!(is_file_name(&name) && name.len() == 32, "{hostile:?}: {name}");
        }
    }
}
