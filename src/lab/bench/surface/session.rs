//! One coding session of a run: its folder, the process of its host, and the messages that
//! are sent to it, one at a time.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc;

use super::receipts::Receipts;
use super::rows::Row;
use super::said::Said;
use crate::client::{Client, Identity, Outgoing};
use crate::keyring::{self, KeyFile};
use crate::lab::bench::args::{HostWork, SessionState};
use crate::lab::bench::outcome::Checks;
use crate::private;
use crate::protocol::{Priority, Reached};

/// Moments of a host that wait to be looked at. More: they are read later than they were.
const MOMENTS_MAX: usize = 4096;
/// Pauses of idle sessions differ by up to so much, so that no two run in step with what
/// looks every so often.
const SPREAD: Duration = Duration::from_millis(500);
/// The mesh's name in the session's files.
const MESH: &str = "bench";
/// The name of the session's peer.
const NAME: &str = "session";
/// What a host's environment has of the bench's.
const PASSED_ON: [&str; 5] = ["PATH", "LOG", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"];

/// What all sessions of a run share.
pub(super) struct Scene {
    pub(super) state: SessionState,
    pub(super) work: HostWork,
    pub(super) messages: u32,
    pub(super) pause: Duration,
    pub(super) patience: Duration,
    pub(super) sender: Client,
    pub(super) receipts: Arc<Receipts>,
}

/// A running session.
pub(super) struct Session {
    scene: Arc<Scene>,
    /// Its place among those of its state.
    place: usize,
    /// Whom messages for it are sent to.
    target: String,
    host: Child,
    moments: mpsc::Receiver<(Instant, Said)>,
    /// Each text that was sent, and how often the model was given it.
    given: HashMap<String, u32>,
    pub(super) row: Row,
    pub(super) checks: Checks,
}

/// How a message came to the model.
struct Gift {
    at: Instant,
    way: String,
    hook_us: Option<u32>,
    /// Hooks that began between the ack and then.
    hooks: u64,
}

impl Session {
    /// Starts the host, and waits until it is ready.
    pub(super) async fn start(
        scene: Arc<Scene>,
        place: usize,
        identity: &Identity,
        url: &str,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        join(folder, identity, url)?;
        let mut host = start_host(&scene, folder)?;
        let out = host.stdout.take().context("a host's output is not piped")?;
        let (moment, moments) = mpsc::channel(MOMENTS_MAX);
        tokio::spawn(listen(out, moment));
        let mut session = Self {
            target: identity.member_pubkey().to_string(),
            scene,
            place,
            host,
            moments,
            given: HashMap::new(),
            row: Row::default(),
            checks: Checks::default(),
        };
        let patience = session.scene.patience;
        let ready = async {
            while let Some((_, said)) = session.moments.recv().await {
                if matches!(said, Said::Ready) {
                    return Ok(());
                }
            }
            anyhow::bail!("the stand-in for a host has ended before its session was ready")
        };
        tokio::time::timeout(patience, ready).await.context("a session is not ready in time")??;
        Ok(session)
    }

    /// Sends all messages, each when the one before it was surfaced; the first is not
    /// measured, since until then neither channel nor connection are known to be there.
    /// What goes wrong stands in the checks.
    pub(super) async fn run(mut self, count: impl Fn()) -> Self {
        for number in 0..=self.scene.messages {
            if let Err(error) = self.send(number).await {
                self.checks.lost += 1;
                self.checks.problem(format!("{}: {error:#}", self.scene.state.as_str()));
                break;
            }
            if number > 0 {
                count();
            }
        }
        if let Err(error) = self.end().await {
            self.checks.disconnected += 1;
            self.checks.problem(format!("{}: {error:#}", self.scene.state.as_str()));
        }
        self
    }

    async fn send(&mut self, number: u32) -> anyhow::Result<()> {
        tokio::time::sleep(self.pause(number)).await;
        while let Ok(moment) = self.moments.try_recv() {
            self.note(&moment.1);
        }
        let scene = Arc::clone(&self.scene);
        let state = scene.state;
        let body = format!("message {number} to session {} ({})", self.place, state.as_str());
        self.given.insert(body.clone(), 0);
        self.checks.sent += 1;
        self.checks.expected += 1;
        let priority = if state == SessionState::BusyNow { Priority::Now } else { Priority::Next };
        let mut message = Outgoing::new(&self.target, priority, body.as_bytes());
        message.receipt = Some(Reached::Surfaced);
        let sent = Instant::now();
        let ack = scene.sender.send_with(message).await?;
        let acked = Instant::now();
        self.checks.acked += 1;
        let gift = tokio::time::timeout(scene.patience, self.until_given(&body, acked)).await;
        let gift = gift.context("a message was not given to the model in time")??;
        self.checks.received += 1;
        let told = tokio::time::timeout(scene.patience, scene.receipts.of(&ack.message_id)).await;
        let told = told.context("the sender was not told in time that a message is surfaced")?;
        if number > 0 {
            let since = |at: Instant| micros(at.saturating_duration_since(acked));
            self.row.given_us.push(since(gift.at));
            self.row.surfaced_us.push(since(told));
            self.row.ack_us.push(micros(acked - sent));
            self.row.hook_us.extend(gift.hook_us);
            self.row.hooks_max = self.row.hooks_max.max(gift.hooks);
            *self.row.ways.entry(gift.way).or_default() += 1;
        }
        if !state.is_busy() {
            let idle = tokio::time::timeout(scene.patience, self.until_idle()).await;
            idle.context("the turn that a message began does not end")??;
        }
        Ok(())
    }

    /// How long to wait before a message: another part of the interval each time.
    fn pause(&self, number: u32) -> Duration {
        let Scene { state, work, pause, .. } = &*self.scene;
        let tool = Duration::from_millis(work.tool);
        let part = part(number, self.place);
        match state {
            SessionState::BusyNow => tool.mul_f64(part),
            SessionState::BusyNext => (tool * work.turn).mul_f64(part),
            _ if number == 0 || pause.is_zero() => Duration::ZERO,
            _ => *pause + SPREAD.mul_f64(part),
        }
    }

    async fn until_given(&mut self, body: &str, acked: Instant) -> anyhow::Result<Gift> {
        let mut hooks = 0;
        loop {
            let (at, said) = self.moment().await?;
            self.note(&said);
            match said {
                Said::Hook if at > acked => hooks += 1,
                Said::Given { way, hook_us, messages }
                    if messages.iter().any(|message| message.body == body) =>
                {
                    return Ok(Gift { at, way, hook_us, hooks });
                }
                _ => {}
            }
        }
    }

    async fn until_idle(&mut self) -> anyhow::Result<()> {
        loop {
            let (_, said) = self.moment().await?;
            self.note(&said);
            if matches!(said, Said::Idle) {
                return Ok(());
            }
        }
    }

    async fn moment(&mut self) -> anyhow::Result<(Instant, Said)> {
        self.moments.recv().await.context("the stand-in for a host has ended")
    }

    /// Counts what the model was given: each message once, and nothing else.
    fn note(&mut self, said: &Said) {
        let Said::Given { messages, .. } = said else { return };
        for message in messages {
            match self.given.get_mut(&message.body) {
                Some(0) => *self.given.entry(message.body.clone()).or_default() = 1,
                Some(times) => {
                    *times += 1;
                    self.checks.duplicates += 1;
                }
                None => self.checks.unreadable += 1,
            }
        }
    }

    /// Lets the host end its session, and reads what it says until then.
    async fn end(&mut self) -> anyhow::Result<()> {
        drop(self.host.stdin.take());
        let patience = self.scene.patience;
        let ending = async {
            while let Some((_, said)) = self.moments.recv().await {
                self.note(&said);
            }
            self.host.wait().await
        };
        let status = tokio::time::timeout(patience, ending).await;
        let status = status.context("the stand-in for a host does not end")??;
        anyhow::ensure!(status.success(), "the stand-in for a host ended with {status}");
        Ok(())
    }
}

/// A number from 0 up to 1 that is far from those before it and from those of neighbours.
fn part(number: u32, place: usize) -> f64 {
    /// The golden ratio's fraction, whose multiples spread most evenly.
    const STEP: f64 = 0.618_033_988_75;
    ((f64::from(number) + 0.31 * place as f64) * STEP).fract()
}

fn micros(span: Duration) -> u32 {
    u32::try_from(span.as_micros()).unwrap_or(u32::MAX)
}

/// Makes the folder of a user who has joined as that member.
fn join(folder: &Path, identity: &Identity, url: &str) -> anyhow::Result<()> {
    private::make_folder(folder)?;
    let (mesh, secret) = (identity.mesh.clone(), &identity.member_key);
    let mut file = KeyFile::new(mesh, MESH.to_owned(), NAME, url.to_owned(), secret);
    file.member_id = Some(identity.member.clone());
    file.write(&keyring::path_of(folder, MESH, NAME)?)
}

/// A host in an environment of its own: the bench may run in a coding session itself.
fn start_host(scene: &Scene, folder: &Path) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("this program cannot find itself")?;
    let mut command = Command::new(program);
    command.args(["bench", "host", "--state", scene.state.as_str()]);
    command.args(["--session", &crate::id::generate()]).arg("--folder").arg(folder);
    command.args(["--tool", &scene.work.tool.to_string()]);
    command.args(["--turn", &scene.work.turn.to_string()]);
    command.env_clear().env("HOME", folder).env("CLAUDEMESH_DATA_DIR", folder).env("LOG", "warn");
    for name in PASSED_ON {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    command.spawn().context("a stand-in for a host could not be started")
}

/// Notes when each moment was, whoever is waited for meanwhile.
async fn listen(out: ChildStdout, moment: mpsc::Sender<(Instant, Said)>) {
    let mut lines = BufReader::new(out).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let at = Instant::now();
        match serde_json::from_str(&line) {
            Ok(said) => {
                if moment.send((at, said)).await.is_err() {
                    return;
                }
            }
            Err(error) => tracing::warn!(%error, "a stand-in for a host says what is not known"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_meet_every_part_of_an_interval() {
        let mut parts: Vec<f64> = (1..=25).map(|number| part(number, 3)).collect();
        parts.sort_by(f64::total_cmp);
        assert!(parts.iter().all(|part| (0.0..1.0).contains(part)));
        let widest = parts.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
        assert!(widest < 0.1, "{parts:?}");
    }
}
