//! The processes of a cluster: started, watched, started again, stopped.

use std::io::Write as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rustix::process::Signal;
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

use super::files::{open_log, write_private};
use super::folder::{Entry, Folder, tail};
use super::node::{Environment, Node};
use super::ports::Port;
use super::postgres::Postgres;
use super::process::{Identity, signal_to};
use super::redis::Redis;
use crate::cli::{Failure, output};

/// The longest time from starting a process until it serves; Postgres may have to recover.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// The pause between two looks whether a process serves.
const LOOK: Duration = Duration::from_millis(20);
/// Tries of a Postgres whose predecessor's last processes are just ending.
const POSTGRES_TRIES: u32 = 20;
const POSTGRES_TRY_PAUSE: Duration = Duration::from_millis(500);
/// The time that a server has to stop.
const SERVER_PATIENCE: Duration = Duration::from_secs(30);
/// The pause before what ended by itself is started again: doubled each time, from the
/// first to the second.
const RESTART_PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

#[derive(Debug)]
pub(super) enum Service {
    Postgres(Postgres),
    Redis(Redis),
    Node(Box<Node>),
}

impl Service {
    fn name(&self) -> &str {
        match self {
            Self::Postgres(_) => "postgres",
            Self::Redis(_) => "redis",
            Self::Node(node) => &node.name,
        }
    }

    const fn port(&self) -> &Port {
        match self {
            Self::Postgres(server) => &server.port,
            Self::Redis(server) => &server.port,
            Self::Node(node) => &node.port,
        }
    }

    fn release_port(&mut self) {
        match self {
            Self::Postgres(server) => server.port.release(),
            Self::Redis(server) => server.port.release(),
            Self::Node(node) => node.port.release(),
        }
    }

    /// The signal to stop in order: for Postgres, without waiting for clients.
    const fn stop_signal(&self) -> Signal {
        match self {
            Self::Postgres(_) => Signal::INT,
            Self::Redis(_) | Self::Node(_) => Signal::TERM,
        }
    }

    fn spawn(&mut self, log: &Path) -> anyhow::Result<Child> {
        self.release_port();
        let (command, says_when) = match self {
            Self::Postgres(server) => (server.serve(), false),
            Self::Redis(server) => (server.serve(), false),
            Self::Node(node) => (node.serve()?, true),
        };
        let said = open_log(log)?;
        let mut command = tokio::process::Command::from(command);
        command.stdin(Stdio::null()).process_group(0);
        command.stdout(if says_when { Stdio::piped() } else { Stdio::from(said.try_clone()?) });
        command.stderr(said);
        command.spawn().with_context(|| format!("cannot start {}", self.name()))
    }

    /// Waits until the service serves.
    async fn ready(&mut self, child: &mut Child) -> anyhow::Result<()> {
        match self {
            Self::Postgres(server) => {
                let pid = child.id().unwrap_or_default();
                while !server.is_ready(pid) {
                    tokio::time::sleep(LOOK).await;
                }
                Ok(())
            }
            Self::Redis(server) => {
                while !server.is_ready().await {
                    tokio::time::sleep(LOOK).await;
                }
                Ok(())
            }
            Self::Node(node) => {
                let from = child.stdout.as_mut().context("its output is not piped")?;
                node.read_banner(from).await
            }
        }
    }
}

/// A process of the fleet, to show.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct Running {
    pub(super) name: String,
    pub(super) pid: u32,
    pub(super) port: u16,
}

#[derive(Debug)]
struct Member {
    service: Service,
    child: Child,
    identity: Option<Identity>,
    restarts: u32,
}

/// All processes, in the order of their start.
#[derive(Debug)]
pub(super) struct Fleet {
    folder: Folder,
    stop: CancellationToken,
    members: Vec<Member>,
}

impl Fleet {
    pub(super) const fn new(folder: Folder, stop: CancellationToken) -> Self {
        Self { folder, stop, members: Vec::new() }
    }

    pub(super) const fn folder(&self) -> &Folder {
        &self.folder
    }

    pub(super) fn services(&self) -> Vec<Running> {
        let servers = self.members.iter().filter(|member| !member.is_node());
        servers.map(Member::running).collect()
    }

    /// The nodes, each with the URL that peers use.
    pub(super) fn nodes(&self) -> Vec<(Running, String)> {
        let node = |member: &Member| match &member.service {
            Service::Node(node) => Some((member.running(), node.url.clone())),
            Service::Postgres(_) | Service::Redis(_) => None,
        };
        self.members.iter().filter_map(node).collect()
    }

    /// Starts one more service, and waits until it serves.
    pub(super) async fn start(&mut self, mut service: Service) -> anyhow::Result<()> {
        let log = self.folder.log_of(service.name());
        let mut said_before = length(&log);
        let child = service.spawn(&log)?;
        let identity = child.id().and_then(Identity::of);
        self.members.push(Member { service, child, identity, restarts: 0 });
        self.record()?;
        let mut tries = 0;
        loop {
            let index = self.members.len() - 1;
            match self.until_ready(index).await {
                Err(_) if is_still_attached(&log, said_before) && tries < POSTGRES_TRIES => {
                    tries += 1;
                    tokio::time::sleep(POSTGRES_TRY_PAUSE).await;
                    said_before = length(&log);
                    self.spawn_again(index)?;
                }
                outcome => return outcome,
            }
        }
    }

    /// Writes what other commands of this program need to find the cluster.
    pub(super) fn write_environment(&self, environment: &Environment) -> anyhow::Result<()> {
        let mut text = String::new();
        for (name, value) in environment {
            if matches!(*name, "DATABASE_URL" | "REDIS_URL") {
                text.push_str(&format!("export {name}={}\n", output::shell_word(value)));
            }
        }
        if let Some((_, url)) = self.nodes().first() {
            text.push_str(&format!("export BROKER_WS_URL={}", output::shell_word(url)));
        }
        write_private(&self.folder.environment_file(), &text)
    }

    /// Starts again what ends by itself, until it is time to stop.
    pub(super) async fn supervise(&mut self) {
        let stop = self.stop.clone();
        loop {
            let (index, status) = tokio::select! {
                ended = next_end(&mut self.members) => ended,
                () = stop.cancelled() => return,
            };
            let member = &mut self.members[index];
            let pause = RESTART_PAUSES.0 * 2_u32.saturating_pow(member.restarts.min(8));
            let pause = pause.min(RESTART_PAUSES.1);
            member.restarts += 1;
            say(&format!(
                "{} ended ({status}); starting it again in {} s",
                member.service.name(),
                pause.as_secs()
            ));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
            let again = match self.spawn_again(index) {
                Ok(()) => self.until_ready(index).await,
                Err(error) => Err(error),
            };
            match again {
                Ok(()) => say(&format!("{} is back", self.members[index].service.name())),
                Err(_) if stop.is_cancelled() => return,
                Err(error) => say(&format!("{error:#}")),
            }
        }
    }

    /// Stops all of them: the nodes together, then the servers, last started
    /// first. `hurry` cuts it short.
    pub(super) async fn stop(mut self, drain: Duration, hurry: &CancellationToken) {
        let first_node = self.members.iter().take_while(|member| !member.is_node()).count();
        let mut nodes = self.members.split_off(first_node);
        for node in &nodes {
            node.signal(node.service.stop_signal());
        }
        for node in &mut nodes {
            node.wait(drain, hurry).await;
        }
        for mut server in self.members.drain(..).rev() {
            server.signal(server.service.stop_signal());
            server.wait(SERVER_PATIENCE, &CancellationToken::new()).await;
        }
        // The record stays, so that the next start takes the same ports.
    }

    fn spawn_again(&mut self, index: usize) -> anyhow::Result<()> {
        let member = &mut self.members[index];
        member.child = member.service.spawn(&self.folder.log_of(member.service.name()))?;
        member.identity = member.child.id().and_then(Identity::of);
        self.record()
    }

    /// Waits until the process serves; if it ends instead, the error quotes its log.
    async fn until_ready(&mut self, index: usize) -> anyhow::Result<()> {
        let member = &mut self.members[index];
        let name = member.service.name().to_owned();
        let log = self.folder.log_of(&name);
        let ready = member.service.ready(&mut member.child);
        let outcome = tokio::select! {
            outcome = tokio::time::timeout(START_PATIENCE, ready) => outcome,
            () = self.stop.cancelled() => Ok(Err(anyhow::anyhow!("stopped"))),
            () = end_of(member.identity.as_ref()) => Ok(Err(anyhow::anyhow!("it ended"))),
        };
        match outcome {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::new(
                "cluster_start",
                format!("{name} did not start ({error:#}). Its log says:\n  {}", tail(&log)),
            )
            .into()),
            Err(_) => Err(Failure::new(
                "cluster_start",
                format!("{name} does not answer; see {}", log.display()),
            )
            .into()),
        }
    }

    fn record(&self) -> anyhow::Result<()> {
        let entry = |member: &Member| {
            Some(Entry {
                name: member.service.name().to_owned(),
                port: member.service.port().number(),
                identity: member.identity.clone()?,
            })
        };
        self.folder.record(self.members.iter().filter_map(entry).collect())
    }
}

impl Member {
    const fn is_node(&self) -> bool {
        matches!(self.service, Service::Node(_))
    }

    fn running(&self) -> Running {
        Running {
            name: self.service.name().to_owned(),
            pid: self.child.id().unwrap_or_default(),
            port: self.service.port().number(),
        }
    }

    /// A child that has not been waited for keeps its number.
    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.id() {
            signal_to(pid, signal);
        }
    }

    /// Waits for the process's end, and forces it when that takes too long.
    async fn wait(&mut self, patience: Duration, hurry: &CancellationToken) {
        tokio::select! {
            _ = self.child.wait() => return,
            () = tokio::time::sleep(patience) => {}
            () = hurry.cancelled() => {}
        }
        // Killing fails only when it has ended meanwhile.
        let _ = self.child.kill().await;
    }
}

async fn next_end(members: &mut [Member]) -> (usize, String) {
    let mut ends: FuturesUnordered<_> = members
        .iter_mut()
        .enumerate()
        .map(|(index, member)| async move { (index, described(member.child.wait().await)) })
        .collect();
    match ends.next().await {
        Some(ended) => ended,
        None => std::future::pending().await,
    }
}

fn described(status: std::io::Result<ExitStatus>) -> String {
    status.map_or_else(|error| error.to_string(), |status| status.to_string())
}

/// Ends when the process does; its output may stay open in children of it.
async fn end_of(identity: Option<&Identity>) {
    if let Some(identity) = identity {
        while !identity.wait(Duration::from_secs(3600)).await {}
    }
}

/// Postgres found processes of its predecessor, which end by themselves when
/// they notice that it is gone. They say so in the same log, maybe many lines.
fn is_still_attached(log: &Path, said_before: u64) -> bool {
    let said = std::fs::read(log).unwrap_or_default();
    let since = usize::try_from(said_before).ok().and_then(|from| said.get(from..));
    String::from_utf8_lossy(since.unwrap_or_default()).contains("pre-existing shared memory block")
}

fn length(log: &Path) -> u64 {
    std::fs::metadata(log).map_or(0, |metadata| metadata.len())
}

fn say(text: &str) {
    // When writing fails, nobody is left to tell.
    let _ = writeln!(std::io::stderr(), "claudemesh-broker: {text}");
}
