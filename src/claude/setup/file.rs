//! A file of a host that we change: read whole, replaced whole, and read back.
//!
//! A link stays a link: what it leads to is replaced. What the user made read-only is not
//! written, though a replacement could.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use super::json_text::without_blanks;
use crate::output::Failure;

/// Bytes of a settings file. More is no such file.
const BYTES_MAX: u64 = 16 * 1024 * 1024;
/// What a copy of a file before its first change is called, behind the file's name.
const BACKUP: &str = "before-claudemesh";

/// A file as it was read.
#[derive(Debug)]
pub(crate) struct HostFile {
    /// As the host names it.
    path: PathBuf,
    /// Where it lies, behind links.
    target: PathBuf,
    before: Option<String>,
}

/// What writing did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// The copy of what was there, if it was made now.
    pub(crate) backup: Option<PathBuf>,
}

/// What taking our part away did to the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TakenBack {
    /// The file is what it was before us, to the byte; the copy is gone.
    Restored,
    /// Nothing was left in a file that we had made.
    Removed,
    /// The rest stays; so does the copy of what was there before us, if there is one.
    Kept(Option<PathBuf>),
}

impl HostFile {
    /// Reads a file, which need not be there.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let target = match fs::symlink_metadata(path) {
            Ok(_) => fs::canonicalize(path).map_err(|error| cannot("read", path, &error))?,
            Err(error) if error.kind() == ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(cannot("read", path, &error)),
        };
        let before = match fs::metadata(&target) {
            Ok(metadata) if !metadata.is_file() || metadata.len() > BYTES_MAX => {
                let message =
                    format!("{} is no settings file; nothing was changed", path.display());
                return Err(Failure::new("settings_unreadable", message));
            }
            Ok(_) => {
                let read = fs::read_to_string(&target);
                Some(read.map_err(|error| cannot("read", path, &error))?)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(cannot("read", path, &error)),
        };
        Ok(Self { path: path.to_owned(), target, before })
    }

    /// As the host names it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What it says; nothing where it is not there.
    pub(crate) fn text(&self) -> &str {
        self.before.as_deref().unwrap_or_default()
    }

    /// Fails where writing would fail, or would go against what the user wants.
    pub(crate) fn check_writable(&self) -> Result<(), Failure> {
        let is_read_only =
            |path: &Path| fs::metadata(path).is_ok_and(|found| found.permissions().readonly());
        let folder = self.folder();
        let locked = [self.target.as_path(), folder].into_iter().find(|path| is_read_only(path));
        match locked {
            None => Ok(()),
            Some(path) => {
                let message = format!(
                    "{} is read-only, so {} stays as it is; make it writable, or write the entries \
                     yourself",
                    path.display(),
                    self.path.display()
                );
                Err(Failure::new("settings_read_only", message))
            }
        }
    }

    /// Replaces the file by a text. What was there is copied once, before the first change.
    pub(crate) fn write(&self, text: &str) -> Result<Written, Failure> {
        self.check_writable()?;
        let backup = self.backup_path();
        let mut written = Written::default();
        if let Some(before) = &self.before
            && !backup.exists()
        {
            self.replace(&backup, before)?;
            written.backup = Some(backup);
        }
        self.replace(&self.target, text)?;
        Ok(written)
    }

    /// Replaces the file by what is left of it without our part. Where that says the same as
    /// what was there before us, it is what was there.
    pub(crate) fn take_back(
        &self,
        text: &str,
        says_the_same: fn(&str, &str) -> bool,
    ) -> Result<TakenBack, Failure> {
        self.check_writable()?;
        let backup = self.backup_path();
        let original = fs::read_to_string(&backup).ok();
        if let Some(original) = &original
            && says_the_same(original, text)
        {
            self.replace(&self.target, original)?;
            fs::remove_file(&backup).map_err(|error| cannot("remove", &backup, &error))?;
            return Ok(TakenBack::Restored);
        }
        if original.is_none() && matches!(without_blanks(text).as_str(), "" | "{}") {
            self.check_unchanged()?;
            fs::remove_file(&self.target).map_err(|error| cannot("remove", &self.path, &error))?;
            return Ok(TakenBack::Removed);
        }
        self.replace(&self.target, text)?;
        Ok(TakenBack::Kept(original.map(|_| backup)))
    }

    /// Writes beside the file, down to the disk, and puts it in the file's place; then it
    /// is read back.
    fn replace(&self, place: &Path, text: &str) -> Result<(), Failure> {
        let failed = |error: &std::io::Error| cannot("write", place, error);
        fs::create_dir_all(self.folder()).map_err(|error| failed(&error))?;
        let temporary = self.beside(&format!("{}.tmp", std::process::id()));
        let put = || -> std::io::Result<()> {
            // What an earlier run left behind would have been put in its place, had it been whole.
            let _ = fs::remove_file(&temporary);
            let mut file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
            self.dress(&file)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        let put = put().map_err(|error| failed(&error)).and_then(|()| {
            self.check_unchanged()?;
            fs::rename(&temporary, place).map_err(|error| failed(&error))
        });
        if put.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        put?;
        if let Ok(folder) = File::open(self.folder()) {
            // Some file systems cannot do this for a folder; the file itself is on disk.
            let _ = folder.sync_all();
        }
        let there = fs::read_to_string(place).map_err(|error| failed(&error))?;
        if there == text {
            return Ok(());
        }
        let message = format!("{} was changed by somebody else at once", place.display());
        Err(Failure::new("settings_changed", message))
    }

    /// Gives a new file the mode and the owner of the one that it replaces.
    fn dress(&self, file: &File) -> std::io::Result<()> {
        let Ok(metadata) = fs::metadata(&self.target) else { return Ok(()) };
        file.set_permissions(metadata.permissions())?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::{MetadataExt as _, fchown};
            let own = file.metadata()?;
            if (own.uid(), own.gid()) != (metadata.uid(), metadata.gid()) {
                fchown(file, Some(metadata.uid()), Some(metadata.gid()))?;
            }
        }
        Ok(())
    }

    /// Fails if somebody wrote the file since it was read.
    fn check_unchanged(&self) -> Result<(), Failure> {
        let now = match fs::read_to_string(&self.target) {
            Ok(now) => Some(now),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(cannot("read", &self.path, &error)),
        };
        if now == self.before {
            return Ok(());
        }
        let message = format!(
            "{} was changed by somebody else meanwhile, and is left so; try again",
            self.path.display()
        );
        Err(Failure::new("settings_changed", message))
    }

    fn backup_path(&self) -> PathBuf {
        let name = self.target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.folder().join(format!("{name}.{BACKUP}"))
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let name = self.target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.folder().join(format!(".{name}.{suffix}"))
    }

    fn folder(&self) -> &Path {
        let parent = self.target.parent().filter(|parent| !parent.as_os_str().is_empty());
        parent.unwrap_or_else(|| Path::new("."))
    }
}

fn cannot(verb: &str, path: &Path, error: &std::io::Error) -> Failure {
    let message = format!("cannot {verb} {}: {error}; nothing was changed", path.display());
    Failure::new("settings_unreadable", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(one: &str, other: &str) -> bool {
        without_blanks(one) == without_blanks(other)
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder");
        let name = |entry: std::io::Result<fs::DirEntry>| {
            entry.expect("an entry").file_name().to_string_lossy().into_owned()
        };
        let mut names: Vec<String> = entries.map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_copied_once_and_comes_back_to_the_byte() {
        let folder = folder();
        let path = folder.path().join("settings.json");
        fs::write(&path, "{ \"a\" : 1 }").expect("written");
        let first = HostFile::read(&path).expect("read").write("{\"a\":1,\"b\":2}");
        let backup = folder.path().join("settings.json.before-claudemesh");
        assert_eq!(first.expect("written").backup, Some(backup.clone()));
        let second = HostFile::read(&path).expect("read").write("{\"a\":1,\"b\":3}");
        assert_eq!(second.expect("written"), Written::default());
        assert_eq!(fs::read_to_string(&backup).expect("there"), "{ \"a\" : 1 }");
        let back = HostFile::read(&path).expect("read").take_back("{\"a\":1}\n", same);
        assert_eq!(back, Ok(TakenBack::Restored));
        assert_eq!(fs::read_to_string(&path).expect("there"), "{ \"a\" : 1 }");
        assert_eq!(names(folder.path()), ["settings.json"]);
    }

    #[test]
    fn a_file_of_ours_goes_when_nothing_is_left_in_it() {
        let folder = folder();
        let path = folder.path().join("deep/settings.json");
        HostFile::read(&path).expect("not there").write("{\"ours\":1}").expect("written");
        assert_eq!(
            HostFile::read(&path).expect("read").take_back("{}\n", same),
            Ok(TakenBack::Removed)
        );
        assert!(!path.exists());
    }

    #[test]
    fn what_others_added_meanwhile_stays_with_the_copy_beside_it() {
        let folder = folder();
        let path = folder.path().join("settings.json");
        fs::write(&path, "{}").expect("written");
        HostFile::read(&path).expect("read").write("{\"ours\":1,\"theirs\":2}").expect("written");
        let back = HostFile::read(&path).expect("read").take_back("{\"theirs\":2}", same);
        let backup = folder.path().join("settings.json.before-claudemesh");
        assert_eq!(back, Ok(TakenBack::Kept(Some(backup))));
        assert_eq!(fs::read_to_string(&path).expect("there"), "{\"theirs\":2}");
    }

    #[test]
    fn what_somebody_wrote_meanwhile_is_not_overwritten() {
        let folder = folder();
        let path = folder.path().join("settings.json");
        fs::write(&path, "{}").expect("written");
        let file = HostFile::read(&path).expect("read");
        fs::write(&path, "{\"new\":1}").expect("written");
        assert_eq!(file.write("{\"ours\":1}").expect_err("changed").code, "settings_changed");
        assert_eq!(fs::read_to_string(&path).expect("there"), "{\"new\":1}");
        assert!(!names(folder.path()).iter().any(|name| name.ends_with(".tmp")));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_one_and_modes_stay() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let folder = folder();
        let (real, path) =
            (folder.path().join("dotfiles.json"), folder.path().join("settings.json"));
        fs::write(&real, "{}").expect("written");
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).expect("a mode");
        symlink(&real, &path).expect("a link");
        HostFile::read(&path).expect("read").write("{\"ours\":1}").expect("written");
        assert!(fs::symlink_metadata(&path).expect("there").is_symlink());
        assert_eq!(fs::read_to_string(&real).expect("there"), "{\"ours\":1}");
        assert_eq!(fs::metadata(&real).expect("there").permissions().mode() & 0o777, 0o640);
        let gone = folder.path().join("gone.json");
        symlink(folder.path().join("nowhere"), &gone).expect("a link");
        assert!(HostFile::read(&gone).is_err(), "a link that leads nowhere is not followed");
    }

    #[test]
    fn what_is_read_only_or_no_file_is_left_alone() {
        let folder = folder();
        let path = folder.path().join("settings.json");
        fs::write(&path, "{}").expect("written");
        let mut permissions = fs::metadata(&path).expect("there").permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&path, permissions).expect("a mode");
        let refused = HostFile::read(&path).expect("read").write("{\"ours\":1}");
        assert_eq!(refused.expect_err("read-only").code, "settings_read_only");
        assert_eq!(names(folder.path()), ["settings.json"]);
        assert_eq!(
            HostFile::read(folder.path()).expect_err("a folder").code,
            "settings_unreadable"
        );
    }
}
