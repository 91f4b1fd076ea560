//! The used digests in a file beside the database.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::cluster::books::once::Digests;

/// A digest and when it can be used again, as they stand in the file.
const ROW_BYTES: usize = 32 + 8;

/// Rows appended before the file is written anew, unless more than half of them
/// are still good: it stays within a few megabytes.
const ROWS_BEFORE_REWRITE: usize = 1 << 16;

/// The digests in a file, so that a hello which was used before a restart is not
/// good after it. Not synchronised: what a crash of the machine takes is dead by the
/// time that it has started again, or nearly.
#[derive(Debug)]
pub(super) struct DigestFile {
    path: PathBuf,
    file: File,
    rows: usize,
    /// A full disk is said once.
    has_failed: bool,
}

impl DigestFile {
    /// Opens or makes the file, and reads what in it is still good into `digests`.
    pub(super) fn open(path: &Path, now_ms: u64, digests: &mut Digests) -> io::Result<Self> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        // A row that was torn at the end is left out.
        for row in bytes.chunks_exact(ROW_BYTES) {
            let (digest, expires_ms) = row.split_at(32);
            let (Ok(digest), Ok(expires_ms)) = (digest.try_into(), expires_ms.try_into()) else {
                continue;
            };
            digests.remember(now_ms, digest, u64::from_be_bytes(expires_ms));
        }
        let file = rewrite(path, digests)?;
        let rows = digests.len();
        Ok(Self { path: path.to_owned(), file, rows, has_failed: false })
    }

    /// Keeps a digest that was used just now. Where that fails the node goes on, and
    /// forgets with its end what it has in memory.
    pub(super) fn keep(&mut self, digest: &[u8; 32], expires_ms: u64, digests: &Digests) {
        let mut row = [0; ROW_BYTES];
        row[..32].copy_from_slice(digest);
        row[32..].copy_from_slice(&expires_ms.to_be_bytes());
        self.rows += 1;
        // What failed half-way may have left half a row.
        let is_long = self.rows > ROWS_BEFORE_REWRITE.max(2 * digests.len());
        let written = if self.has_failed || is_long {
            rewrite(&self.path, digests).map(|file| {
                self.file = file;
                self.rows = digests.len();
            })
        } else {
            self.file.write_all(&row)
        };
        let had_failed = std::mem::replace(&mut self.has_failed, written.is_err());
        if let Err(error) = written
            && !had_failed
        {
            tracing::warn!(%error, "used hellos are not kept over a restart");
        }
    }
}

/// A new file in the place of the old one, with what is good now.
fn rewrite(path: &Path, digests: &Digests) -> io::Result<File> {
    let new = path.with_extension("new");
    let mut bytes = Vec::with_capacity(digests.len() * ROW_BYTES);
    for (digest, expires_ms) in digests.iter() {
        bytes.extend_from_slice(digest);
        bytes.extend_from_slice(&expires_ms.to_be_bytes());
    }
    let mut file =
        OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&bytes)?;
    fs::rename(&new, path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_outlive_the_process_and_not_their_time() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("used");
        let mut digests = Digests::default();
        let mut file = DigestFile::open(&path, 0, &mut digests).expect("a new file");
        for (byte, ttl_ms) in [(1, 100), (2, 200)] {
            assert!(digests.use_once(0, &[byte; 32], ttl_ms));
            file.keep(&[byte; 32], ttl_ms, &digests);
        }
        drop(file);
        // A process that was killed in the middle of a row.
        OpenOptions::new().append(true).open(&path).unwrap().write_all(&[7; 9]).unwrap();
        let mut digests = Digests::default();
        let mut file = DigestFile::open(&path, 150, &mut digests).expect("the file");
        assert!(!digests.use_once(150, &[2; 32], 100));
        assert!(digests.use_once(150, &[1; 32], 100), "its time is over");
        file.keep(&[1; 32], 250, &digests);
        drop(file);
        let mut digests = Digests::default();
        DigestFile::open(&path, 199, &mut digests).expect("the file");
        assert!(!digests.use_once(199, &[1; 32], 100) && !digests.use_once(199, &[2; 32], 100));
        assert_eq!(fs::metadata(&path).unwrap().len(), 2 * ROW_BYTES as u64);
    }
}
