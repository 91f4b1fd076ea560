//! One broker at a time serves from a file: it holds a lock on another beside it.
//!
//! Not on the database's own file: SQLite has its locks there, and the command
//! line must go on writing. The system lets go of the lock when the process ends,
//! however it ends; what is written in the file only says to others whose it is.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::id::NodeId;
use crate::store::{Result, StoreError};

/// A claim on a database file, as long as it lives.
#[derive(Debug)]
pub struct Claim(File);

impl Claim {
    /// Claims the database at `path` for this process; `None` where the file
    /// system has no locks.
    ///
    /// # Errors
    ///
    /// `Conflict` with a sentence that names who has it; `Unavailable` if the
    /// lock's file cannot be written.
    pub fn take(path: &Path, node: &NodeId) -> Result<Option<Self>> {
        let lock = lock_of(path);
        let cannot = |error: std::io::Error| {
            StoreError::Unavailable(format!("cannot lock {}: {error}", lock.display()))
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&lock).map_err(cannot)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(taken(path, &lock)),
            Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => {
                tracing::warn!(%error, "whether another broker serves from this file is not known");
                return Ok(None);
            }
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
        }
        let text = format!("process {}, node {node}\n", std::process::id());
        file.set_len(0).and_then(|()| file.write_all(text.as_bytes())).map_err(cannot)?;
        Ok(Some(Self(file)))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Closing it would not do: a process that is just being started has it
        // open, too, until it is another program.
        let _ = self.0.unlock();
    }
}

fn lock_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

fn taken(path: &Path, lock: &Path) -> StoreError {
    let text = std::fs::read_to_string(lock).unwrap_or_default();
    let other = text.lines().next().filter(|line| line.starts_with("process "));
    let other = other.map(|other| format!(" ({})", other.escape_debug())).unwrap_or_default();
    StoreError::Conflict(format!(
        "another broker serves from {}{other}: stop that one first, or give this one a folder of \
         its own with CLAUDEMESH_DATA_DIR",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_owner_who_is_named_and_lets_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("broker.db");
        let first = Claim::take(&path, &NodeId::from("node-a")).expect("free").expect("locks");
        let text = Claim::take(&path, &NodeId::from("node-b")).expect_err("taken").to_string();
        let process = format!("(process {}, node node-a)", std::process::id());
        assert!(text.contains(&process) && text.contains("CLAUDEMESH_DATA_DIR"), "{text}");
        let other = folder.path().join("other.db");
        assert!(Claim::take(&other, &NodeId::from("node-b")).expect("another file").is_some());
        drop(first);
        assert!(Claim::take(&path, &NodeId::from("node-b")).expect("free again").is_some());
    }
}
