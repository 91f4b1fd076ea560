//! Which session the process has. A host may give it another one while it runs, when its
//! user clears the conversation or goes back to an earlier one: then the link to the mesh
//! is that of the other.
//!
//! The seat never asks the broker anything. The server's process makes one, and everybody
//! else in it asks the seat for the link.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::watch;

use super::shown;
use crate::claude::home::{Binding, Home, Host, HostInbox, Process, Start};
use crate::claude::link::{Link, Party};
use crate::claude::variables;
use crate::clock::Timestamp;
use crate::keyring;
use crate::output::Failure;

/// How often the session's file is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// Hooks bind the session when the host starts. Later: the host has none, or they are off.
const HOOKS_COME_WITHIN: Duration = Duration::from_millis(1_500);

const NOBODY_JOINED: &str = "This user has not joined a mesh yet. Tell your user: \
    `claudemesh-broker peer join <invite> --name <name>` joins one, and this session is in it a \
    moment later.";

/// Who sits here.
#[derive(Clone)]
pub(super) struct Seat {
    taken: watch::Receiver<Taken>,
}

#[derive(Clone)]
enum Taken {
    /// Not looked yet.
    Unknown,
    /// By nobody; the sentence says why and what to do.
    Free(String),
    By(Sitter),
}

#[derive(Clone)]
struct Sitter {
    session: String,
    link: Link,
    inbox: Option<HostInbox>,
}

impl Seat {
    /// The seat, and what looks who takes it: for the caller to drive.
    pub(super) fn new(home: Home) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (taken, seat) = watch::channel(Taken::Unknown);
        (Self { taken: seat }, follow(taken, home))
    }

    /// The link, once there is one.
    pub(super) async fn link(&self) -> Link {
        let mut taken = self.taken.clone();
        loop {
            if let Taken::By(sitter) = &*taken.borrow_and_update() {
                return sitter.link.clone();
            }
            if taken.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The link, or what there is to say instead.
    pub(super) async fn link_or_why(&self) -> Result<Link, String> {
        let mut taken = self.taken.clone();
        let known = taken.wait_for(|taken| !matches!(taken, Taken::Unknown)).await;
        match known.as_deref() {
            Ok(Taken::By(sitter)) => Ok(sitter.link.clone()),
            Ok(Taken::Free(why)) => Err(why.clone()),
            Ok(Taken::Unknown) | Err(_) => Err("This server is about to end.".to_owned()),
        }
    }

    /// The inbox of the session's host, if the host has one.
    pub(super) fn inbox(&self) -> Option<HostInbox> {
        match &*self.taken.borrow() {
            Taken::By(sitter) => sitter.inbox.clone(),
            Taken::Unknown | Taken::Free(_) => None,
        }
    }

    /// Leaves the mesh.
    pub(super) async fn close(&self) {
        let link = match &*self.taken.borrow() {
            Taken::By(sitter) => Some(sitter.link.clone()),
            Taken::Unknown | Taken::Free(_) => None,
        };
        if let Some(link) = link {
            link.close().await;
        }
    }
}

/// Looks, and takes the seat for whatever session there is, until it is dropped.
async fn follow(taken: watch::Sender<Taken>, home: Home) {
    let began = Instant::now();
    loop {
        let looking = home.clone();
        let may_guess = began.elapsed() >= HOOKS_COME_WITHIN;
        let found = tokio::task::spawn_blocking(move || look(&looking, may_guess)).await;
        match found.map_err(anyhow::Error::from).and_then(|found| found) {
            Ok(Some(binding)) => take(&taken, &home, binding).await,
            Ok(None) if may_guess => free(&taken, NOBODY_JOINED.to_owned()),
            Ok(None) => {}
            Err(error) => free(&taken, why(&error)),
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The binding that the host's hooks have made; without hooks, one that is guessed.
fn look(home: &Home, may_guess: bool) -> anyhow::Result<Option<Binding>> {
    let found = home.of_ancestors()?;
    if found.is_some() || !may_guess {
        return Ok(found);
    }
    let process = Process::host(None);
    let unnamed = || format!("process-{}-{}", process.pid, process.started.unwrap_or_default());
    let session = variable("CLAUDE_CODE_SESSION_ID").unwrap_or_else(unnamed);
    let host = Host { session: &session, process, start: Start::Guessed, inbox: None };
    home.bind(&host, variable(variables::PEER).as_deref(), Timestamp::now())
}

async fn take(taken: &watch::Sender<Taken>, home: &Home, binding: Binding) {
    let inbox = binding.inbox.or_else(inbox_of_environment);
    let current = match &*taken.borrow() {
        Taken::By(sitter) => Some(sitter.clone()),
        Taken::Unknown | Taken::Free(_) => None,
    };
    if let Some(sitter) = current {
        if sitter.session == binding.session {
            if sitter.inbox != inbox {
                taken.send_replace(Taken::By(Sitter { inbox, ..sitter }));
            }
            return;
        }
        sitter.link.close().await;
    }
    match party(home, &binding.session).await {
        Ok(party) => {
            let link = Link::open(party);
            let sitter = Sitter { session: binding.session, link, inbox };
            taken.send_replace(Taken::By(sitter));
        }
        Err(error) => free(taken, why(&error)),
    }
}

async fn party(home: &Home, id: &str) -> anyhow::Result<Party> {
    let (reading, named) = (home.clone(), id.to_owned());
    let (session, kept) = tokio::task::spawn_blocking(move || {
        let session = reading.session(&named)?.context("the session's file is gone")?;
        let kept = keyring::choose(reading.data_dir(), Some(&session.peer), None)?;
        anyhow::Ok((session, kept))
    })
    .await??;
    let name = variable(variables::DISPLAY_NAME).unwrap_or_else(|| kept.file.name.clone());
    let mut identity = kept.file.identity()?.named(name);
    identity.session_key = Some(session.secret()?);
    let cwd = std::env::current_dir().unwrap_or_default().to_string_lossy().into_owned();
    let spool = home.spool(id).await?;
    let data_dir = home.data_dir().to_owned();
    Ok(Party { identity, kept, session: session.id, cwd, spool, data_dir })
}

/// The inbox that the host names to its children, where no hook has handed it over.
fn inbox_of_environment() -> Option<HostInbox> {
    let socket = variable("CLAUDE_CODE_MESSAGING_SOCKET")?;
    Some(HostInbox { socket, token: variable("CLAUDE_CODE_MESSAGING_TOKEN") })
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// Nobody sits here. Whoever did keeps the seat: files may be unreadable for a moment.
fn free(taken: &watch::Sender<Taken>, why: String) {
    taken.send_if_modified(|taken| match taken {
        Taken::By(_) => false,
        Taken::Free(before) if *before == why => false,
        Taken::Unknown | Taken::Free(_) => {
            *taken = Taken::Free(why);
            true
        }
    });
}

fn why(error: &anyhow::Error) -> String {
    match error.downcast_ref::<Failure>() {
        Some(failure) => format!(
            "This session is in no mesh yet: {}. Tell your user.",
            shown::text(&failure.message, shown::SENTENCE_CHARS)
        ),
        None => {
            tracing::warn!(error = format!("{error:#}"), "the session is not known");
            "This session is in no mesh: its files on this machine cannot be read. Tell your user; \
             `claudemesh-broker claude doctor` says more."
                .to_owned()
        }
    }
}
