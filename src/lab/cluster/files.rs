//! Files and folders of a cluster, made so that no link is followed: where root
//! runs it, others own some of what lies beside them.

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::Context as _;
use rustix::fs::OFlags;
use rustix::process::{getegid, geteuid};

use super::programs::ServerUser;
use crate::cli::Failure;

/// A folder, and not what a link in its place leads to.
pub(super) const ITSELF: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW);
/// The bit of a folder in which each may replace only what is their own.
const STICKY: u32 = 0o1000;

/// Writes a file that only this user can read, whole or not at all.
pub(super) fn write_private(file: &Path, text: &str) -> anyhow::Result<()> {
    write_for(file, text, None)
}

/// Writes a file that `reader` can read besides, and not change.
pub(super) fn write_for(file: &Path, text: &str, reader: Option<ServerUser>) -> anyhow::Result<()> {
    let write = || {
        let new = file.with_extension("new");
        // A crash may have left one. A link is removed itself, never followed.
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        if let Some(reader) = reader {
            std::os::unix::fs::fchown(&to, None, Some(reader.gid))?;
            to.set_permissions(Permissions::from_mode(0o640))?;
        }
        to.write_all(text.as_bytes())?;
        to.write_all(b"\n")?;
        std::fs::rename(&new, file)
    };
    write().with_context(|| format!("cannot write {}", file.display()))
}

/// Makes a folder, if there is none, and `owner`'s, or else this user's own. It
/// stands where only this user can put anything.
pub(super) fn make_folder(path: &Path, owner: Option<ServerUser>) -> anyhow::Result<()> {
    let make = || {
        match std::fs::create_dir(path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let folder = OpenOptions::new().read(true).custom_flags(flags(ITSELF)).open(path)?;
        let (uid, gid, mode) = match owner {
            Some(owner) => (owner.uid, owner.gid, 0o700),
            None => (geteuid().as_raw(), getegid().as_raw(), 0o755),
        };
        let now = folder.metadata()?;
        if (now.uid(), now.gid()) != (uid, gid) {
            std::os::unix::fs::fchown(&folder, Some(uid), Some(gid))?;
        }
        folder.set_permissions(Permissions::from_mode(mode))
    };
    make().with_context(|| format!("cannot make {}", path.display()))
}

/// Opens a log of this folder for what a process will say.
pub(super) fn open_log(file: &Path) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).custom_flags(flags(OFlags::NOFOLLOW));
    options.open(file).with_context(|| format!("cannot write {}", file.display()))
}

/// The flags as the standard library takes them.
pub(super) fn flags(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

/// Root's folder must be one in which, and above which, nobody else can put a
/// link in the place of what root is about to write.
pub(super) fn check_is_roots(path: &Path) -> anyhow::Result<()> {
    // The path is checked as far as it is there (what is made will be root's), both as it
    // is written and as it is, since a link on the way may be another's.
    let there = path.ancestors().find(|folder| folder.exists());
    let real = there.and_then(|folder| folder.canonicalize().ok()).unwrap_or_default();
    let written = there.into_iter().flat_map(Path::ancestors);
    for folder in written.chain(real.ancestors()) {
        let look = |of: std::io::Result<Metadata>| {
            of.with_context(|| format!("cannot look at {}", folder.display()))
        };
        let metadata = look(std::fs::metadata(folder))?;
        let itself = look(std::fs::symlink_metadata(folder))?;
        // In a sticky folder above, others make things, but replace none of root's.
        let is_above = there != Some(path) || (folder != path && folder != real);
        let is_sticky = is_above && metadata.mode() & STICKY != 0;
        let is_open = metadata.mode() & 0o022 != 0 && !is_sticky;
        if metadata.uid() != 0 || itself.uid() != 0 || is_open {
            let text = format!(
                "others than root can put things into {}, and root would write there; give a \
                 folder that is root's alone with --dir, such as /var/lib/claudemesh/cluster, or run \
                 this as the user whose folder it is",
                folder.display()
            );
            return Err(Failure::new("bad_folder", text).into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_the_place_of_a_file_or_a_folder_is_not_followed() {
        let outer = tempfile::tempdir().expect("a folder");
        let at = |name: &str| outer.path().join(name);
        std::fs::write(at("theirs"), "kept").expect("a file");
        std::fs::create_dir(at("elsewhere")).expect("a folder");
        for (link, to) in [("a.new", "theirs"), ("a.conf", "theirs"), ("data", "elsewhere")] {
            std::os::unix::fs::symlink(at(to), at(link)).expect("a link");
        }
        write_private(&at("a.conf"), "ours").expect("written");
        assert_eq!(std::fs::read_to_string(at("theirs")).expect("a file"), "kept");
        assert_eq!(std::fs::read_to_string(at("a.conf")).expect("a file"), "ours\n");
        assert!(make_folder(&at("data"), None).is_err());
        std::os::unix::fs::symlink(at("theirs"), at("a.log")).expect("a link");
        assert!(open_log(&at("a.log")).is_err());
    }
}
