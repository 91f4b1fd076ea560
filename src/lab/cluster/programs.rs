//! The installed programs that a cluster stands on, and whom they run as.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cli::Failure;

/// Debian's folder of Postgres, by version.
const DEBIAN_POSTGRES: &str = "/usr/lib/postgresql";
const INSTALL_POSTGRES: &str =
    "install it (Debian and Ubuntu: apt-get install postgresql; macOS: brew install postgresql)";
const INSTALL_REDIS: &str =
    "install one (Debian and Ubuntu: apt-get install redis-server; macOS: brew install valkey)";
/// The users that everything runs as when this program runs as root: the first there is.
const SERVER_USERS: [&str; 2] = ["postgres", "nobody"];

/// The user that servers and nodes run as: these have the servers' passwords, so
/// that nothing is kept apart by another user for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ServerUser {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// The other user for what runs, or `None` for the one who runs this. Postgres refuses to
/// run as root.
pub(super) fn server_user() -> Result<Option<ServerUser>, Failure> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = SERVER_USERS.iter().find_map(|name| user_in(&users, name));
    found.map(Some).ok_or_else(|| {
        Failure::new(
            "no_server_user",
            "Postgres does not run as root, and this machine has neither a user postgres nor a \
             user nobody; run this as another user",
        )
    })
}

fn user_in(users: &str, name: &str) -> Option<ServerUser> {
    let mut line =
        users.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?.split(':');
    line.next()?;
    Some(ServerUser { uid: line.next()?.parse().ok()?, gid: line.next()?.parse().ok()? })
}

/// A command that runs as `user`.
pub(super) fn command_as(program: &Path, user: Option<ServerUser>) -> Command {
    let mut command = Command::new(program);
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    command
}

/// This program as `user`, who may not be able to enter the folder in which it
/// lies: then by way of the process that runs it.
pub(super) fn this_program_as(user: Option<ServerUser>) -> std::io::Result<Command> {
    let path = std::env::current_exe()?;
    let reaches = |user| {
        let mut look = command_as(Path::new("/bin/sh"), Some(user));
        look.args(["-c", "test -x \"$1\"", "sh"]).arg(&path).env_clear();
        look.stdin(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    Ok(match user {
        Some(user) if !reaches(user) => {
            let mut command = command_as(Path::new("/proc/self/exe"), Some(user));
            command.arg0(&path);
            command
        }
        user => command_as(&path, user),
    })
}

/// The folder of Postgres's programs; those of `version` before others, since
/// data of one version is no use to another.
pub(super) fn find_postgres(version: Option<&str>) -> Result<PathBuf, Failure> {
    let mut folders = search_path();
    let entries = std::fs::read_dir(DEBIAN_POSTGRES).into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    versions.sort_by_key(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        (version == Some(name), name.parse::<u32>().unwrap_or_default())
    });
    folders.extend(versions.into_iter().rev().map(|path| path.join("bin")));
    let is_complete = |folder: &PathBuf| {
        ["initdb", "postgres"].iter().all(|program| folder.join(program).is_file())
    };
    folders.into_iter().find(is_complete).ok_or_else(|| {
        Failure::new(
            "postgres_missing",
            format!(
                "a cluster needs Postgres, and neither PATH nor {DEBIAN_POSTGRES} has its \
                 programs initdb and postgres; {INSTALL_POSTGRES}"
            ),
        )
    })
}

/// The Redis or Valkey server.
pub(super) fn find_redis() -> Result<PathBuf, Failure> {
    let folders = search_path();
    let names = ["valkey-server", "redis-server"];
    let mut programs =
        names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    programs.find(|program| program.is_file()).ok_or_else(|| {
        Failure::new(
            "redis_missing",
            format!(
                "a cluster needs a Redis or Valkey server, and PATH has neither redis-server nor \
                 valkey-server; {INSTALL_REDIS}"
            ),
        )
    })
}

fn search_path() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let users = "root:x:0:0::/root:/bin/sh\npostgres2:x:7:8::/:/bin/sh\n\
                     postgres:x:101:104:,,,:/var:/bin/sh\n";
        assert_eq!(user_in(users, "postgres"), Some(ServerUser { uid: 101, gid: 104 }));
        assert_eq!(user_in(users, "nobody"), None);
    }
}
