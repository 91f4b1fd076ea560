//! From a message's ack until a coding session's model has it: `surface`.
//!
//! - [`host`]: the stand-in for a session's host, a process for each session
//! - [`pipe`]: that host's side of the pipe to its session's server
//! - [`said`]: what the stand-in says to the bench
//! - [`session`]: one session, and the messages that are sent to it
//! - [`receipts`]: what the broker tells the sender
//! - [`rows`]: the figures
//!
//! Sessions are this program's own server and hooks, as real processes, each with a folder
//! of its own; what calls them is a stand-in, in which a model takes no time. Two moments
//! are measured for each message: when the host has the text for its model, and when the
//! broker has told the sender that it is surfaced, which needs evidence and so comes later.
//! Messages to one session go one at a time. A message that a model was given twice, or
//! not at all, fails the run.

pub(super) mod host;
mod pipe;
mod receipts;
pub(super) mod rows;
mod said;
mod session;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;
use tokio::task::JoinSet;

use super::args::{Common, HostWork, SessionState};
use super::outcome::{Checks, Outcome, histogram, histogram_of};
use super::process::{Meter, Process};
use super::progress::Progress;
use super::stage::Stage;
use super::traffic::options;
use crate::client::{Client, Identity};
use crate::lab::scratch::Scratch;
use crate::protocol::capability;
use receipts::Receipts;
use rows::Row;
use session::{Scene, Session};

/// What is to be measured.
#[derive(Clone, Debug)]
pub(super) struct Surfacing {
    pub(super) states: Vec<SessionState>,
    /// Sessions at once.
    pub(super) sessions: usize,
    /// Messages to each session in each state.
    pub(super) messages: u32,
    /// Before a message to an idle session.
    pub(super) pause: Duration,
    pub(super) work: HostWork,
}

impl Surfacing {
    /// Members that are needed: one who sends, and one for each session, so that nothing of
    /// an earlier state is left to a later one.
    pub(super) fn members(&self) -> usize {
        1 + self.sessions * self.states.len()
    }
}

pub(super) async fn run(
    stage: &Stage,
    surfacing: &Surfacing,
    common: &Common,
    progress: &Progress,
) -> anyhow::Result<Outcome> {
    let folder = Scratch::new(common.data_dir.as_deref(), "bench")?;
    let (sender, members) = stage.sessions[0].split_first().context("a sender")?;
    let mut options = options(sender.clone(), common);
    options.about.capabilities.push(capability::STAGES.to_owned());
    let (sender, inbox) = Client::connect(stage.url_of(0), options).await?;
    let receipts = Arc::new(Receipts::default());
    let reading = tokio::spawn(Arc::clone(&receipts).read(inbox));
    let (broker, load) = (Meter::start(&stage.processes), Meter::start(&[Process::own()]));
    let begun = Instant::now();
    let each = u64::from(surfacing.messages) * surfacing.sessions as u64;
    progress.begin("messages surfaced", each * surfacing.states.len() as u64);
    let done = Arc::new(AtomicU64::new(0));
    let (mut checks, mut states, mut ack_us) = (Checks::default(), Vec::new(), Vec::new());
    for (state, members) in surfacing.states.iter().zip(members.chunks(surfacing.sessions)) {
        let scene = Arc::new(Scene {
            state: *state,
            work: surfacing.work,
            messages: surfacing.messages,
            pause: surfacing.pause,
            patience: Duration::from_secs(common.patience),
            sender: sender.clone(),
            receipts: Arc::clone(&receipts),
        });
        let mut row = Row::default();
        for session in sessions(&scene, members, stage, &folder, &done, progress).await? {
            add(&mut checks, session.checks);
            row.add(session.row);
        }
        states.push(row.to_json(*state));
        ack_us.append(&mut row.ack_us);
    }
    progress.done();
    let seconds = begun.elapsed().as_secs_f64();
    let (broker, load) = (broker.stop(), load.stop());
    sender.close().await;
    reading.await?;
    let mut extra = serde_json::Map::new();
    extra.insert("states".to_owned(), states.into());
    extra.insert("standsIn".to_owned(), json!(rows::stands_in(surfacing.work)));
    Ok(Outcome {
        unit: "messages",
        count: checks.received,
        seconds,
        checks,
        end_to_end: histogram(),
        ack: histogram_of(&ack_us),
        over_time: Vec::new(),
        broker,
        load,
        extra,
    })
}

/// Starts all sessions of a state, sends what is to be sent to them at once, and waits for
/// their ends.
async fn sessions(
    scene: &Arc<Scene>,
    members: &[Identity],
    stage: &Stage,
    folder: &Scratch,
    done: &Arc<AtomicU64>,
    progress: &Progress,
) -> anyhow::Result<Vec<Session>> {
    let mut starting = Vec::with_capacity(members.len());
    for (place, member) in members.iter().enumerate() {
        let folder = folder.path().join(format!("{}-{place}", scene.state.as_str()));
        let url = stage.url_of(place + 1);
        starting.push(Session::start(Arc::clone(scene), place, member, url, &folder).await?);
    }
    let mut running = JoinSet::new();
    for session in starting {
        let done = Arc::clone(done);
        running.spawn(session.run(move || {
            done.fetch_add(1, Ordering::Relaxed);
        }));
    }
    let mut ended = Vec::with_capacity(members.len());
    let mut look = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            session = running.join_next() => match session {
                Some(session) => ended.push(session.context("a session failed")?),
                None => return Ok(ended),
            },
            _ = look.tick() => progress.at(done.load(Ordering::Relaxed)),
        }
    }
}

fn add(all: &mut Checks, of_session: Checks) {
    all.sent += of_session.sent;
    all.acked += of_session.acked;
    all.expected += of_session.expected;
    all.received += of_session.received;
    all.duplicates += of_session.duplicates;
    all.lost += of_session.lost;
    all.unreadable += of_session.unreadable;
    all.disconnected += of_session.disconnected;
    if let Some(problem) = of_session.first_problem {
        all.problem(problem);
    }
}
