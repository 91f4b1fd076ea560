//! A cluster's folder.
//!
//! ```text
//! lock            held by the `up` that runs
//! running.json    the processes of that `up`, or of one that was killed
//! password        of both servers, made once
//! redis.conf      what Redis is told
//! env.sh          what makes this program's other commands find the cluster
//! node-1.log ...  what each process said
//! postgres/data   the database's; redis/  where Redis works
//! ```
//!
//! Where root runs the cluster, its processes are another user's, and so are
//! `postgres/data` and `redis/`. That user may be anybody who has the database's
//! password. So root writes only where nobody else can: in the folder itself, and
//! in `postgres/`.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use rustix::process::{Signal, geteuid};
use serde::{Deserialize, Serialize};

use super::files::{ITSELF, check_is_roots, flags, write_private};
use super::process::{Identity, is_taken, program_of};
use crate::cli::Failure;
use crate::config::{platform_data_dir, process_env};

/// Root's clusters are here: Postgres runs as another user, who cannot enter
/// root's home folder.
const ROOT_FOLDER: &str = "/var/lib/claudemesh";
/// The longest wait for a process that a killed `up` has left.
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(15);
/// The file in the data of a Postgres that runs; its process stands in the first line.
const PID_FILE: &str = "postmaster.pid";
/// Bytes of randomness in the password.
const PASSWORD_BYTES: usize = 24;
/// Lines of a log that an error quotes.
const TAIL_LINES: usize = 6;

/// A process of the cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    /// The process's name, which is also its log's.
    pub(super) name: String,
    pub(super) port: u16,
    #[serde(flatten)]
    pub(super) identity: Identity,
}

/// The record of what runs, or ran last.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Record {
    /// The `up` itself.
    pub(super) supervisor: Option<Identity>,
    /// The processes in the order of their start.
    pub(super) services: Vec<Entry>,
}

/// A cluster's folder, which is ours as long as this lives.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    last: Record,
    /// The lock's file, which is never read.
    lock: File,
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Closing the file would not do: a process that is just being started has it
        // open, too, until it is another program.
        let _ = self.lock.unlock();
    }
}

/// Whose a folder is.
pub(super) enum Claimed {
    Here(Folder),
    Elsewhere(Running),
}

/// An `up` that runs.
pub(super) struct Running(Record);

impl Running {
    /// The process of that `up`; `None` while it starts.
    pub(super) fn supervisor(&self) -> Option<Identity> {
        self.0.supervisor.clone().filter(Identity::is_alive)
    }
}

impl Folder {
    /// Takes the folder, and makes it if need be.
    pub(super) fn claim(dir: Option<&Path>) -> anyhow::Result<Self> {
        let path = place(dir)?;
        create(&path)?;
        match lock(path)? {
            Claimed::Here(folder) => Ok(folder),
            Claimed::Elsewhere(running) => {
                let process = running.supervisor().map_or_else(String::new, |supervisor| {
                    format!(" (process {})", supervisor.pid)
                });
                Err(Failure::new(
                    "cluster_running",
                    format!(
                        "a cluster runs in this folder already{process}; press Ctrl-C there, run \
                         `claudemesh-broker cluster down`, or give another folder with --dir"
                    ),
                )
                .into())
            }
        }
    }

    /// Looks whose the folder is; it is ours if nobody has it.
    pub(super) fn look(dir: Option<&Path>) -> anyhow::Result<Claimed> {
        let path = place(dir)?;
        if !path.join("lock").exists() {
            return Err(Failure::new(
                "no_cluster",
                format!("{} holds no cluster; --dir names another folder", path.display()),
            )
            .into());
        }
        lock(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn environment_file(&self) -> PathBuf {
        self.path.join("env.sh")
    }

    pub(super) fn log_of(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.log"))
    }

    /// The port that the service of that name had last.
    pub(super) fn last_port(&self, name: &str) -> Option<u16> {
        self.last.services.iter().find(|entry| entry.name == name).map(|entry| entry.port)
    }

    /// The servers' password: made when there is none.
    pub(super) fn password(&self) -> anyhow::Result<String> {
        let file = self.path.join("password");
        match std::fs::read_to_string(&file) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let password = hex::encode(rand::random::<[u8; PASSWORD_BYTES]>());
                write_private(&file, &password)?;
                Ok(password)
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }

    /// Writes down what runs: a later `up` or `down` ends what this one, if it
    /// is killed, cannot.
    pub(super) fn record(&self, services: Vec<Entry>) -> anyhow::Result<()> {
        let supervisor = Identity::of(std::process::id());
        let text = serde_json::to_string_pretty(&Record { supervisor, services })?;
        write_private(&self.path.join("running.json"), &text)
    }

    /// Ends the processes of an `up` that was killed, the nodes first; how many
    /// there were.
    pub(super) async fn end_leftovers(&self) -> anyhow::Result<usize> {
        let mut ended = 0;
        let is_server = |entry: &Entry| matches!(entry.name.as_str(), "postgres" | "redis");
        let (servers, nodes): (Vec<_>, Vec<_>) =
            self.last.services.iter().partition(|entry| is_server(entry));
        for node in &nodes {
            node.identity.signal(Signal::TERM);
        }
        for entry in nodes.iter().chain(servers.iter().rev()) {
            if entry.identity.is_alive() {
                ended += 1;
                let signal = if entry.name == "postgres" { Signal::INT } else { Signal::TERM };
                entry.identity.end(signal, LEFTOVER_PATIENCE).await;
            }
        }
        ended += usize::from(self.end_unrecorded_postgres().await?);
        Ok(ended)
    }

    /// Removes the record that Postgres itself keeps. The next start takes it for a server
    /// that runs as long as anything has that number: another program, or the
    /// dead one, while nobody has waited for it.
    async fn end_unrecorded_postgres(&self) -> anyhow::Result<bool> {
        // No link in there is followed: others may write there.
        let Ok(folder) = self.postgres_data() else { return Ok(false) };
        let once = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let Ok(file) = openat(&folder, PID_FILE, OFlags::RDONLY | once, Mode::empty()) else {
            return Ok(false);
        };
        let text = std::io::read_to_string(File::from(file)).unwrap_or_default();
        let pid = text.lines().next().and_then(|line| line.trim().parse::<u32>().ok());
        let Some(pid) = pid.filter(|pid| is_taken(*pid)) else { return Ok(false) };
        let is_server = program_of(pid).is_some_and(|name| name.starts_with("postgres"));
        if let Some(running) = Identity::of(pid).filter(|_| is_server) {
            running.end(Signal::INT, LEFTOVER_PATIENCE).await;
            return Ok(true);
        }
        // Children of the dead one that still use the data are noticed by
        // their shared memory.
        unlinkat(&folder, PID_FILE, AtFlags::empty())
            .with_context(|| format!("cannot remove Postgres's {PID_FILE}"))?;
        Ok(false)
    }

    fn postgres_data(&self) -> rustix::io::Result<OwnedFd> {
        let folder = ITSELF | OFlags::RDONLY;
        let postgres = rustix::fs::open(self.path.join("postgres"), folder, Mode::empty())?;
        openat(postgres, "data", folder, Mode::empty())
    }
}

/// The end of a log, for an error.
pub(super) fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n  ")
}

fn place(dir: Option<&Path>) -> anyhow::Result<PathBuf> {
    let path = match dir {
        Some(dir) => dir.to_owned(),
        None => default_folder().ok_or_else(|| {
            Failure::new("no_home", "this user has no home folder; name a folder with --dir")
        })?,
    };
    std::path::absolute(&path).with_context(|| format!("no such path: {}", path.display()))
}

fn default_folder() -> Option<PathBuf> {
    let data = match process_env("CLAUDEMESH_DATA_DIR").filter(|text| !text.trim().is_empty()) {
        Some(set) => Some(PathBuf::from(set.trim())),
        None if geteuid().is_root() => Some(PathBuf::from(ROOT_FOLDER)),
        None => platform_data_dir(),
    };
    data.map(|data| data.join("cluster"))
}

/// Refuses a folder that is neither empty nor held a cluster before: nobody wants a
/// database in the middle of something else.
fn create(path: &Path) -> anyhow::Result<()> {
    let refused = |problem: String| Failure::new("bad_folder", problem);
    if geteuid().is_root() {
        check_is_roots(path)?;
    }
    match std::fs::read_dir(path) {
        Ok(mut entries) => {
            if entries.next().is_some() && !path.join("lock").exists() {
                return Err(refused(format!(
                    "{} is not empty and holds no cluster; give an empty or a new folder",
                    path.display()
                ))
                .into());
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            std::fs::create_dir_all(path)
                .map_err(|error| refused(format!("cannot make {}: {error}", path.display())))?;
            // Root's servers run as another user, who has to pass.
            let mode = if geteuid().is_root() { 0o755 } else { 0o700 };
            std::fs::set_permissions(path, Permissions::from_mode(mode))?;
            if geteuid().is_root() {
                // Somebody else may have made it in between.
                check_is_roots(path)?;
            }
        }
        Err(error) => {
            let text = format!("{} cannot be the cluster's folder: {error}", path.display());
            return Err(refused(text).into());
        }
    }
    Ok(())
}

fn lock(path: PathBuf) -> anyhow::Result<Claimed> {
    let file = path.join("lock");
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).custom_flags(flags(OFlags::NOFOLLOW));
    let lock = options.open(&file);
    let lock = lock.with_context(|| format!("cannot write {}", file.display()))?;
    let is_ours = match lock.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", file.display()));
        }
    };
    let text = std::fs::read_to_string(path.join("running.json")).unwrap_or_default();
    // A record that cannot be read counts as empty, since it is only written whole.
    let last: Record = serde_json::from_str(&text).unwrap_or_default();
    Ok(if is_ours {
        Claimed::Here(Folder { path, last, lock })
    } else {
        Claimed::Elsewhere(Running(last))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_and_a_password_that_stays() {
        let outer = tempfile::tempdir().expect("a folder");
        let dir = outer.path().join("cluster");
        let folder = Folder::claim(Some(&dir)).expect("new");
        let password = folder.password().expect("made");
        assert_eq!(password.len(), 2 * PASSWORD_BYTES);
        let mode = std::fs::metadata(dir.join("password")).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let error = Folder::claim(Some(&dir)).expect_err("taken").to_string();
        assert!(error.contains("--dir") && error.contains("Ctrl-C"), "{error}");
        drop(folder);
        let folder = Folder::claim(Some(&dir)).expect("free again");
        assert_eq!(folder.password().expect("read"), password);
    }

    #[test]
    fn a_folder_with_something_else_in_it_is_left_alone() {
        let outer = tempfile::tempdir().expect("a folder");
        std::fs::write(outer.path().join("thesis.txt"), "years of work").expect("a file");
        let error = Folder::claim(Some(outer.path())).expect_err("not empty").to_string();
        assert!(error.contains("not empty"), "{error}");
        let file = outer.path().join("thesis.txt");
        let error = Folder::claim(Some(&file)).expect_err("a file").to_string();
        assert!(error.contains("thesis.txt"), "{error}");
        assert_eq!(std::fs::read_dir(outer.path()).expect("readable").count(), 1);
    }

    #[test]
    fn root_takes_no_folder_that_others_can_write_to() {
        if !geteuid().is_root() {
            eprintln!("not run: only root is refused");
            return;
        }
        let outer = tempfile::tempdir().expect("a folder");
        let refused = |dir: &Path| Folder::claim(Some(dir)).expect_err("others'").to_string();
        let (open, theirs) = (outer.path().join("open"), outer.path().join("theirs"));
        for folder in [&open, &theirs] {
            std::fs::create_dir(folder).expect("a folder");
        }
        std::fs::set_permissions(&open, Permissions::from_mode(0o777)).expect("ours");
        std::os::unix::fs::chown(&theirs, Some(12_345), None).expect("root may");
        std::os::unix::fs::symlink(outer.path(), theirs.join("link")).expect("a link");
        for dir in [open.clone(), open.join("new"), theirs.clone(), theirs.join("link/new")] {
            let sentence = refused(&dir);
            assert!(
                sentence.contains("others than root") && sentence.contains("--dir"),
                "{sentence}"
            );
        }
        // What root makes in a folder like /tmp stays root's.
        std::fs::set_permissions(&open, Permissions::from_mode(0o1777)).expect("ours");
        Folder::claim(Some(&open.join("new"))).expect("root's own");
        assert!(refused(&open).contains("others than root"));
    }

    #[tokio::test]
    async fn a_pid_file_that_names_another_program_is_stale() {
        let outer = tempfile::tempdir().expect("a folder");
        let dir = outer.path().join("cluster");
        let folder = Folder::claim(Some(&dir)).expect("new");
        let data = dir.join("postgres/data");
        std::fs::create_dir_all(&data).expect("a folder");
        let file = data.join("postmaster.pid");
        // This process is alive, and no Postgres.
        std::fs::write(&file, format!("{}\n{}\n", std::process::id(), data.display()))
            .expect("a file");
        assert_eq!(folder.end_leftovers().await.expect("looked"), 0);
        assert!(!file.exists());
    }
}
