//! The data folder: there or possible, writable, with room.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::statvfs;

use super::Check;
use crate::config::Deployment;

/// Less room than this is worth a word.
const FREE_BYTES_WANTED: u64 = 512 * 1024 * 1024;

/// Less room than this and the next write may fail.
const FREE_BYTES_MIN: u64 = 16 * 1024 * 1024;

/// `floor`: with less room the broker takes nothing new.
pub(super) fn data_folder(deployment: &Deployment, floor: u64) -> Check {
    let Some(folder) = deployment.data_dir() else {
        return Check::ok("data", "kept in Postgres; nothing on this machine");
    };
    let shown = folder.display();
    // The folder is made when the broker serves, so the nearest folder that is there decides.
    let Some(existing) = folder.ancestors().find(|folder| is_there(folder)) else {
        return Check::fail("data", format!("{shown} cannot be made"), REMEDY);
    };
    if !fs::metadata(existing).is_ok_and(|found| found.is_dir()) {
        return Check::fail("data", format!("{} is no folder", existing.display()), REMEDY);
    }
    if let Err(error) = try_write(existing) {
        return Check::fail("data", format!("{shown} is not writable: {error}"), REMEDY);
    }
    let free =
        statvfs(existing).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    let room = room(free);
    match free {
        _ if free < FREE_BYTES_MIN => Check::fail("data", format!("{shown} has {room}"), MAKE_ROOM),
        _ if free < floor => Check::fail(
            "data",
            format!("{shown} has {room}, less than DISK_FREE_MIN_MB: nothing new is taken"),
            MAKE_ROOM,
        ),
        _ if free < FREE_BYTES_WANTED.max(floor.saturating_mul(2)) => {
            Check::warn("data", format!("{shown} has {room}"), MAKE_ROOM)
        }
        _ if existing == folder => Check::ok("data", format!("{shown} is writable, {room}")),
        _ => Check::ok("data", format!("{shown} will be made at the first start, {room}")),
    }
}

const REMEDY: &str = "set CLAUDEMESH_DATA_DIR to a folder that this user can write to";
const MAKE_ROOM: &str = "make room, or set CLAUDEMESH_DATA_DIR to a folder on another disk";

fn is_there(path: &Path) -> bool {
    // `a/b`'s last ancestor is the empty path: the current folder.
    path.as_os_str().is_empty() || path.symlink_metadata().is_ok()
}

fn try_write(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let probe = folder.join(format!(".doctor-{}", crate::id::generate()));
    fs::write(&probe, "can this be written?")?;
    fs::remove_file(&probe)
}

fn room(bytes: u64) -> String {
    const MIB: u64 = 1024 * 1024;
    match bytes / MIB {
        mib @ 10_240.. => format!("{} GiB free", mib / 1024),
        mib => format!("{mib} MiB free"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn a_folder_that_is_there_or_can_be_made_is_well() {
        let folder = tempfile::tempdir().expect("a folder");
        let check = data_folder(&Deployment::sqlite_in(folder.path()), 0);
        assert_ne!(check.status, Status::Fail, "{check:?}");
        let missing = folder.path().join("a/b");
        let check = data_folder(&Deployment::sqlite_in(&missing), 0);
        assert_ne!(check.status, Status::Fail, "{check:?}");
        assert!(!missing.exists(), "a doctor changes nothing");
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0);
    }

    #[test]
    fn less_room_than_the_floor_is_a_failure() {
        let folder = tempfile::tempdir().expect("a folder");
        let check = data_folder(&Deployment::sqlite_in(folder.path()), u64::MAX);
        assert_eq!(check.status, Status::Fail, "{check:?}");
        assert!(check.to_text().contains("DISK_FREE_MIN_MB"), "{check:?}");
    }

    #[test]
    fn a_file_in_its_place_is_a_failure() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, "").expect("a file");
        for data_dir in [file.clone(), file.join("below")] {
            let check = data_folder(&Deployment::sqlite_in(&data_dir), 0);
            assert_eq!(check.status, Status::Fail, "{check:?}");
            assert!(check.to_text().contains("CLAUDEMESH_DATA_DIR"));
        }
    }

    #[test]
    fn room_is_told_in_fitting_units() {
        assert_eq!(room(300 * 1024 * 1024), "300 MiB free");
        assert_eq!(room(u64::pow(2, 40)), "1024 GiB free");
    }
}
