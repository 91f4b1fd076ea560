//! Where the sessions of this user's machine lie, and which session of a host is which
//! peer's session in the mesh: the *binding*.
//!
//! A host names its sessions by ids that change (`/clear`) and come back (resume), and
//! its processes by pids. The session in the mesh has its own key and spool, outlives
//! both, and belongs to one running host at a time. Hooks bind, because they alone are
//! told the host's session id; the session's MCP process finds the binding by the host's
//! process, which is its ancestor.
//!
//! Keys, and the token of a host's own inbox, stand only in files of this user (mode
//! 0600, in folders 0700), never in a log line. Nothing here opens a socket.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::spool::Spool;
use crate::auth::SecretKey;
use crate::clock::Timestamp;
use crate::output::Failure;
use crate::{id, keyring, limits, private};

mod bind;
mod process;
#[cfg(test)]
mod tests;

pub(crate) use process::Process;

/// The folder of all sessions of this user.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    data_dir: PathBuf,
    folder: PathBuf,
}

/// What a host says of a session when it calls a hook.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host<'a> {
    /// The host's id of its session.
    pub(crate) session: &'a str,
    /// The running host.
    pub(crate) process: Process,
    /// How the session came to be there.
    pub(crate) start: Start,
    /// The host's own inbox, where it has one and says so.
    pub(crate) inbox: Option<&'a HostInbox>,
}

/// How a host's session came to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// It is new: a start, a fork.
    New,
    /// It was there before: resumed, maybe by another process.
    Resumed,
    /// It goes on under what may be another id: cleared, compacted.
    GoesOn,
    /// It was not said: no start was heard of.
    Unknown,
    /// Nobody said anything: an environment names a session, and may be stale. Whatever
    /// a hook has bound, or will, is right and this is not.
    Guessed,
}

/// A host's own inbox: a socket by which its children may wake it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostInbox {
    /// The socket's path.
    pub(crate) socket: String,
    /// What the socket wants to be told first.
    pub(crate) token: Option<String>,
}

/// A running host and its session in the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Binding {
    /// The session in the mesh.
    pub(crate) session: String,
    /// The host's id of its session now.
    pub(crate) host_session: String,
    /// The running host.
    pub(crate) process: Process,
    /// Its own inbox.
    pub(crate) inbox: Option<HostInbox>,
    /// Whether no hook has said so yet.
    #[serde(default)]
    pub(crate) guessed: bool,
}

/// A session in the mesh, as its file has it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Session {
    /// Its id, in the mesh too.
    pub(crate) id: String,
    /// The peer whose session it is: `mesh/name`, as the keyring finds it.
    pub(crate) peer: String,
    /// When it was made, in milliseconds.
    pub(crate) created_at_ms: i64,
    /// The session's own secret key as 128 hex digits.
    secret_key: String,
}

/// What a session's process says of it, for whoever looks: the status line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Live {
    /// Whether it has a socket to its broker.
    pub(crate) connected: bool,
    /// Peers in the mesh, itself included.
    pub(crate) peers: u32,
    /// Of those, how many are online.
    pub(crate) online: u32,
    /// Whether the host's channel was proven to reach the model.
    pub(crate) channel_proven: bool,
    /// When that was so, in milliseconds.
    pub(crate) at_ms: i64,
}

impl Home {
    /// The sessions of the user who runs this.
    pub(crate) fn of_user() -> anyhow::Result<Self> {
        Ok(Self::at(&private::data_dir_of_user()?))
    }

    /// Those in a data folder.
    pub(crate) fn at(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned(), folder: data_dir.join("claude") }
    }

    /// Where the user's peers are, too.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The log of hooks, which have no other place to say what went wrong.
    pub(crate) fn log_file(&self) -> PathBuf {
        self.folder.join("hooks.log")
    }

    /// The binding of a running host, if there is one. Reads one small file: whoever
    /// wants to know whether it was bound anew asks again and compares.
    pub(crate) fn of_process(&self, process: Process) -> anyhow::Result<Option<Binding>> {
        let binding: Option<Binding> = read(&self.process_file(process))?;
        // A pid is used again; what began at another instant is another process.
        Ok(binding.filter(|binding| binding.process == process))
    }

    /// The binding of the nearest of this process's ancestors that is a bound host; one
    /// that was only guessed if there is no other.
    pub(crate) fn of_ancestors(&self) -> anyhow::Result<Option<Binding>> {
        let mut guessed = None;
        for process in process::ancestors() {
            match self.of_process(process)? {
                Some(binding) if !binding.guessed => return Ok(Some(binding)),
                found => guessed = guessed.or(found),
            }
        }
        Ok(guessed)
    }

    /// The binding of a host's session, by the running host and else by the session's
    /// id: nothing is made.
    pub(crate) fn of_host(&self, host: &Host<'_>) -> anyhow::Result<Option<Binding>> {
        if let Some(binding) = self.of_process(host.process)?
            && binding.host_session == host.session
        {
            return Ok(Some(binding));
        }
        let known: Option<Known> = read(&self.host_file(host.session))?;
        Ok(known.map(|known| Binding {
            session: known.session,
            host_session: host.session.to_owned(),
            process: host.process,
            inbox: None,
            guessed: false,
        }))
    }

    /// A session in the mesh.
    pub(crate) fn session(&self, session: &str) -> anyhow::Result<Option<Session>> {
        read(&self.session_folder(session).join("session.json"))
    }

    /// The spool of a session.
    pub(crate) async fn spool(&self, session: &str) -> anyhow::Result<Spool> {
        Spool::open(&self.session_folder(session).join("spool.db")).await
    }

    /// Says how a session's process does.
    pub(crate) fn say(&self, session: &str, live: &Live) -> anyhow::Result<()> {
        let file = self.session_folder(session).join("live.json");
        private::replace(&file, &serde_json::to_vec(live)?)
    }

    /// What a session's process said last.
    pub(crate) fn live(&self, session: &str) -> anyhow::Result<Option<Live>> {
        read(&self.session_folder(session).join("live.json"))
    }

    /// All running hosts that are bound.
    pub(crate) fn bindings(&self) -> anyhow::Result<Vec<Binding>> {
        let mut found = Vec::new();
        for path in entries(&self.folder.join("processes"))? {
            if let Some(binding) = read::<Binding>(&path)?
                && binding.process.runs()
            {
                found.push(binding);
            }
        }
        Ok(found)
    }

    /// Sessions of that peer that no running host has, other than `except`, the newest
    /// first: what waits in their spools may wait for ever.
    pub(crate) fn left_behind(&self, peer: &str, except: &str) -> anyhow::Result<Vec<String>> {
        let held: Vec<String> = self.bindings()?.into_iter().map(|bound| bound.session).collect();
        let mut found = Vec::new();
        for path in entries(&self.folder.join("sessions"))? {
            let Some(session) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if session == except || held.iter().any(|held| held == session) {
                continue;
            }
            if self.session(session)?.is_some_and(|kept| kept.peer == peer) {
                found.push(session.to_owned());
            }
        }
        // Their ids begin with when they were made.
        found.sort_by(|one, other| other.cmp(one));
        Ok(found)
    }

    /// The host ends: its process is bound no more. The session stays.
    pub(crate) fn unbind(&self, process: Process) -> anyhow::Result<()> {
        if self.of_process(process)?.is_some() {
            fs::remove_file(self.process_file(process))?;
        }
        Ok(())
    }

    fn make_session(&self, peer: &str, now: Timestamp) -> anyhow::Result<Session> {
        let session = Session {
            id: id::generate(),
            peer: peer.to_owned(),
            created_at_ms: now.as_ms(),
            secret_key: SecretKey::generate().to_hex128(),
        };
        let file = self.session_folder(&session.id).join("session.json");
        private::write(&file, &serde_json::to_vec_pretty(&session)?)?;
        Ok(session)
    }

    /// The peer to be, by its name, or the only one; `None` where nobody has joined yet.
    fn peer(&self, name: Option<&str>) -> anyhow::Result<Option<String>> {
        match keyring::choose(&self.data_dir, name, None) {
            Ok(kept) => Ok(Some(kept.file.full_name())),
            Err(error) => match error.downcast_ref::<Failure>() {
                Some(failure) if failure.code == "no_peer" => Ok(None),
                _ => Err(error),
            },
        }
    }

    fn session_folder(&self, session: &str) -> PathBuf {
        self.folder.join("sessions").join(&*private::file_name(session))
    }

    fn host_file(&self, host_session: &str) -> PathBuf {
        let name = private::file_name(host_session);
        self.folder.join("hosts").join(format!("{name}.json"))
    }

    fn process_file(&self, process: Process) -> PathBuf {
        self.folder.join("processes").join(format!("{}.json", process.pid))
    }

    /// Holds the one lock of all bindings until the file is dropped.
    fn lock(&self) -> anyhow::Result<File> {
        let path = self.folder.join("bind.lock");
        private::make_file(&path)?;
        let file = File::options().write(true).open(&path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(file)
    }
}

/// The session in the mesh that a session of a host is, as its file has it.
#[derive(Serialize, Deserialize)]
struct Known {
    session: String,
}

impl Session {
    /// The session's own key.
    pub(crate) fn secret(&self) -> anyhow::Result<SecretKey> {
        SecretKey::from_hex128(&self.secret_key).map_err(anyhow::Error::from)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Session").field("id", &self.id).field("peer", &self.peer).finish()
    }
}

impl fmt::Debug for HostInbox {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("HostInbox([redacted])")
    }
}

/// A file of ours; `None` if it is not there, or was cut short by a crash: it is written
/// again when its host is bound.
fn read<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(listing) => listing.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot list {}", folder.display())),
    }
}

/// Removes the files of a folder that were written longest ago, down to the bound.
fn keep_newest(folder: &Path) -> anyhow::Result<()> {
    let files = entries(folder)?;
    if files.len() <= limits::BINDINGS_MAX {
        return Ok(());
    }
    let written = |path: &PathBuf| fs::metadata(path).and_then(|file| file.modified()).ok();
    let mut dated: Vec<_> = files.into_iter().map(|path| (written(&path), path)).collect();
    dated.sort();
    let surplus = dated.len() - limits::BINDINGS_MAX;
    for (_, path) in dated.into_iter().take(surplus) {
        fs::remove_file(path)?;
    }
    Ok(())
}
