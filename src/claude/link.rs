//! The session's own connection to its mesh, from the session's first moment to its last.
//!
//! What comes is kept in the spool first and confirmed then, so `confirmed` means that it
//! is on this machine's disk and nothing more. What the spool knows to be seen is told as
//! surfaced, and the status that the host's hooks say is told as the session's. A broker
//! that is away is a state and no end: the link tries until it is closed. It never shows
//! anything to a model, and decides nothing about what was seen.
//!
//! The MCP server opens one for each session that its host has.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

mod arrivals;
mod names;
mod reports;
mod spoken;
mod unsure;

pub(crate) use names::remember;
pub(crate) use spoken::Spoken;

use crate::claude::spool::Spool;
use crate::client::backoff::Backoff;
use crate::client::{Client, ClientError, ClientOptions, Identity, Inbound, Inbox, RESEAL_NEEDED};
use crate::keyring::known::Known;
use crate::keyring::{Kept, heads};
use crate::protocol::capability;
use names::Names;
use unsure::Unsure;

/// What the session asks for beyond what every client gets. With `holds` a busy session is
/// sent everything, since its spool keeps what it is busy for.
const ASKED: [&str; 5] = capability::ALL;
/// How often the spool is asked whether a hook has written to it.
const LOOK: Duration = Duration::from_millis(200);
/// After the broker has refused this session: until it is asked again, since an admin may
/// have changed it.
const REFUSED_PAUSE: Duration = Duration::from_secs(300);
/// Another process is the session now; the two would only take it from each other.
const REPLACED_PAUSE: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long a call waits for the first connection of all.
const FIRST_CONNECTION: Duration = Duration::from_secs(3);
/// For the goodbye to the broker.
const PARTING: Duration = Duration::from_millis(500);

/// As whom a session connects, and where what comes for it is kept.
#[derive(Clone)]
pub(crate) struct Party {
    /// The member, with the session's own key and name.
    pub(crate) identity: Identity,
    /// The member's file.
    pub(crate) kept: Kept,
    /// The session's id.
    pub(crate) session: String,
    /// The folder in which the host works.
    pub(crate) cwd: String,
    /// The spool of this session.
    pub(crate) spool: Spool,
    /// This user's folder.
    pub(crate) data_dir: std::path::PathBuf,
}

/// How the connection is.
#[derive(Clone, Debug)]
pub(crate) enum State {
    /// Not there yet, or lost; tried again by itself. The sentence says why, if there was
    /// a reason.
    Away(Option<String>),
    /// The session is in the mesh.
    Here(Client),
    /// The broker does not let this session in.
    Refused(String),
    /// Another process has taken this session over: it is the session now.
    Replaced,
}

/// A handle on the connection. Clones share it.
#[derive(Clone)]
pub(crate) struct Link {
    shared: Arc<Shared>,
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

struct Shared {
    party: Party,
    state: watch::Sender<State>,
    spoken: Mutex<Spoken>,
    names: Names,
    unsure: Mutex<Unsure>,
    /// Something is in the spool that was not there before.
    arrived: Notify,
    /// Something in the spool has been seen, or what the session says of itself changed.
    stirred: Notify,
    ending: CancellationToken,
}

impl Link {
    /// Begins to connect; returns at once.
    pub(crate) fn open(party: Party) -> Self {
        let shared = Arc::new(Shared {
            party,
            state: watch::Sender::new(State::Away(None)),
            spoken: Mutex::default(),
            names: Names::default(),
            unsure: Mutex::default(),
            arrived: Notify::new(),
            stirred: Notify::new(),
            ending: CancellationToken::new(),
        });
        let task = tokio::spawn(run(Arc::clone(&shared)));
        Self { shared, task: Arc::new(Mutex::new(Some(task))) }
    }

    /// As whom it connects.
    pub(crate) fn party(&self) -> &Party {
        &self.shared.party
    }

    /// Tells links of one process apart.
    pub(crate) fn number(&self) -> usize {
        Arc::as_ptr(&self.shared) as usize
    }

    /// How the connection is now.
    pub(crate) fn state(&self) -> State {
        self.shared.state.borrow().clone()
    }

    /// Waits for the outcome of the first attempt to connect, a moment at most.
    pub(crate) async fn tried(&self) {
        let mut state = self.shared.state.subscribe();
        let tried = state.wait_for(|state| !matches!(state, State::Away(None)));
        let _ = tokio::time::timeout(FIRST_CONNECTION, tried).await;
    }

    /// Waits until the connection is another way. Cancel safe.
    pub(crate) async fn turned(&self) {
        let _ = self.shared.state.subscribe().changed().await;
    }

    /// Waits for something new in the spool. Cancel safe.
    pub(crate) async fn arrived(&self) {
        self.shared.arrived.notified().await;
    }

    /// Says that something in the spool was seen, so that the broker is told soon.
    pub(crate) fn stir(&self) {
        self.shared.stirred.notify_one();
    }

    /// Changes what the session says of itself, also for the next time that it has to say
    /// so.
    pub(crate) fn speak(&self, change: impl FnOnce(&mut Spoken)) {
        change(&mut self.shared.spoken.lock());
        self.shared.stirred.notify_one();
    }

    /// The idempotence key for a message: the same again for one of which nobody knows
    /// whether the broker has it.
    pub(crate) fn key_of(&self, target: &str, text: &str) -> String {
        self.shared.unsure.lock().key_of(target, text)
    }

    /// Nobody knows whether the broker has the message.
    pub(crate) fn is_unsure(&self, target: &str, text: &str, key: &str) {
        self.shared.unsure.lock().note(target, text, key);
    }

    /// Leaves the mesh, and waits for that a moment.
    pub(crate) async fn close(&self) {
        self.shared.ending.cancel();
        let task = self.task.lock().take();
        if let Some(task) = task {
            let _ = tokio::time::timeout(PARTING, task).await;
        }
    }
}

async fn run(shared: Arc<Shared>) {
    let mut backoff = Backoff::default();
    while !shared.ending.is_cancelled() {
        let connecting =
            Client::connect(&shared.party.kept.file.broker_url, options(&shared.party));
        let connected = tokio::select! {
            connected = connecting => connected,
            () = shared.ending.cancelled() => return,
        };
        let pause = match connected {
            Ok((client, inbox)) => {
                backoff = Backoff::default();
                let end = serve(&shared, &client, inbox).await;
                client.close().await;
                end
            }
            Err(error) => after(&shared, &error),
        };
        let pause = pause.unwrap_or_else(|| backoff.pause());
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shared.ending.cancelled() => return,
        }
    }
}

fn options(party: &Party) -> ClientOptions {
    let mut options = ClientOptions::session(party.identity.clone());
    options.about.session_id.clone_from(&party.session);
    options.about.cwd.clone_from(&party.cwd);
    options.about.hostname = hostname();
    options.about.capabilities = ASKED.map(str::to_owned).to_vec();
    options.confirm = false;
    options.known = Some(Known::of(&party.data_dir, &party.kept));
    // The spool recognises what comes twice, and confirms it again.
    options.limits.remembered_max = 0;
    options
}

fn hostname() -> Option<String> {
    rustix::system::uname().nodename().to_str().ok().map(str::to_owned)
}

/// How long to wait after a failure; `None` leaves it to the backoff.
fn after(shared: &Shared, error: &ClientError) -> Option<Duration> {
    tracing::debug!(%error, "the session is not in its mesh");
    let replaced =
        matches!(error, ClientError::Closed { reason, .. } if reason == "session_replaced");
    let (state, pause) = if replaced {
        (State::Replaced, Some(REPLACED_PAUSE))
    } else if error.is_terminal() {
        (State::Refused(error.to_string()), Some(REFUSED_PAUSE))
    } else {
        (State::Away(Some(error.to_string())), None)
    };
    shared.state.send_replace(state);
    pause
}

/// Tells that the broker shows another audit chain than it did before, if it does. Nobody
/// waits for it: what it asks is answered behind what waits in the inbox.
async fn doubt(shared: Arc<Shared>, client: Client) {
    let Party { data_dir, kept, .. } = &shared.party;
    if let Some(doubt) = heads::check(data_dir, kept, &client).await {
        tracing::warn!(code = doubt.code(), "{}", doubt.sentence(kept));
    }
}

/// Serves one client to its end, over the connections that it has. Nothing is dropped while
/// it is at work in the spool: what ends is told to end.
async fn serve(shared: &Arc<Shared>, client: &Client, mut inbox: Inbox) -> Option<Duration> {
    reports::greet(shared, client).await;
    shared.state.send_replace(State::Here(client.clone()));
    client.hand_on_keys_beside(None);
    tokio::spawn(doubt(Arc::clone(shared), client.clone()));
    let over = CancellationToken::new();
    let reporting = reports::run(Arc::clone(shared), client.clone(), over.clone());
    let taking = async {
        let _ends_reporting = over.drop_guard();
        loop {
            let inbound = tokio::select! {
                inbound = inbox.recv() => inbound?,
                () = shared.ending.cancelled() => return None,
            };
            match client.opened(inbound).await {
                Inbound::Message { push, plaintext, is_sealed } => {
                    arrivals::take(shared, client, &push, (plaintext, is_sealed)).await;
                }
                Inbound::Event { event, data } if event == RESEAL_NEEDED => {
                    client.hand_on_keys_beside(Some(data));
                }
                Inbound::Event { event, data } => arrivals::told(shared, &event, &data).await,
                Inbound::Disconnected { code, reason } => {
                    let why = format!("the connection was lost ({code} {reason})");
                    shared.state.send_replace(State::Away(Some(why)));
                }
                Inbound::Reconnected { same_presence, .. } => {
                    if !same_presence {
                        shared.spoken.lock().is_to_be_said_again();
                    }
                    shared.stirred.notify_one();
                    shared.state.send_replace(State::Here(client.clone()));
                    tokio::spawn(doubt(Arc::clone(shared), client.clone()));
                }
                Inbound::Closed { code, reason } => {
                    return after(shared, &ClientError::Closed { code, reason });
                }
                Inbound::Error(_) | Inbound::Other { .. } => {}
            }
        }
    };
    tokio::join!(taking, reporting).0
}
