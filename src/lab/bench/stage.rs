//! What a run runs against: brokers started for it, or brokers that are there.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::args::{Common, Size};
use super::crew::Crew;
use super::process::Process;
use crate::app;
use crate::cli::{Failure, lookup};
use crate::client::Identity;
use crate::clock::Timestamp;
use crate::config::{Config, Deployment};
use crate::lab::scratch::Scratch;

/// The time that a child has to say where it listens, and to stop.
const CHILD_DEADLINE: Duration = Duration::from_secs(60);

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cast {
    Broker,
    /// The plainest relay.
    Floor,
}

/// A set-up run.
pub(super) struct Stage {
    /// The addresses at which peers connect, in turns.
    pub(super) urls: Vec<String>,
    /// The processes that are measured; none if they run elsewhere.
    pub(super) processes: Vec<Process>,
    /// One identity per socket, mesh by mesh.
    pub(super) sessions: Vec<Vec<Identity>>,
    children: Vec<Child>,
    /// Meshes made in a database that outlives the run.
    left: Option<(Config, Crew)>,
    _scratch: Option<Scratch>,
}

impl Stage {
    pub(super) async fn set(
        cast: Cast,
        common: &Common,
        size: Size,
        config: &Config,
    ) -> anyhow::Result<Self> {
        match cast {
            Cast::Floor => Self::floor(size).await,
            Cast::Broker if common.urls.is_empty() => Self::own(common, size, config).await,
            Cast::Broker => Self::elsewhere(common, size, config).await,
        }
    }

    async fn floor(size: Size) -> anyhow::Result<Self> {
        let mut command = this_program()?;
        command.args(["bench", "relay"]);
        let (child, url) = start(command).await?;
        let crew = Crew::imaginary(size);
        Self::of(vec![(child, url)], &crew, size)
    }

    async fn own(common: &Common, size: Size, config: &Config) -> anyhow::Result<Self> {
        let nodes = common.cluster.unwrap_or(1);
        let shared = common.cluster.is_some() || common.postgres;
        check_deployment(common, config)?;
        let scratch = Scratch::new(common.data_dir.as_deref(), "bench")?;
        let own_config = if shared { config.clone() } else { Config::for_tests(scratch.path()) };
        let store = app::open_store(&own_config).await?;
        let crew = Crew::in_store(&store, size).await;
        store.database.close().await;
        let crew = crew?;
        let mut children = Vec::with_capacity(nodes);
        for _ in 0..nodes {
            children.push(start(broker(common, scratch.path(), size, shared)?).await?);
        }
        let mut stage = Self::of(children, &crew, size)?;
        stage.left = shared.then_some((own_config, crew));
        stage._scratch = Some(scratch);
        Ok(stage)
    }

    async fn elsewhere(common: &Common, size: Size, config: &Config) -> anyhow::Result<Self> {
        let kept = match &common.mesh_file {
            Some(path) => Crew::from_file(path, size)?,
            None => None,
        };
        let crew = match kept {
            Some(crew) => crew,
            None => {
                let crew = if common.invites.is_empty() {
                    lookup::with_store(config, async |store| Crew::in_store(store, size).await)
                        .await
                        .context("no --invite given, so members are enrolled in the store")?
                } else {
                    Crew::by_invites(&common.urls[0], &common.invites, size).await?
                };
                if let Some(path) = &common.mesh_file {
                    crew.write(path)?;
                }
                crew
            }
        };
        let sessions = crew.sessions(size)?;
        let processes = common.pids.iter().copied().map(Process::new).collect();
        let (urls, children) = (common.urls.clone(), Vec::new());
        Ok(Self { urls, processes, sessions, children, left: None, _scratch: None })
    }

    fn of(children: Vec<(Child, String)>, crew: &Crew, size: Size) -> anyhow::Result<Self> {
        let processes = children.iter().filter_map(|(child, _)| child.id()).map(Process::new);
        let processes = processes.collect();
        let (children, urls) = children.into_iter().unzip();
        let sessions = crew.sessions(size)?;
        Ok(Self { urls, processes, sessions, children, left: None, _scratch: None })
    }

    /// The address of the peer with that number.
    pub(super) fn url_of(&self, peer: usize) -> &str {
        &self.urls[peer % self.urls.len()]
    }

    /// Ends what was started and removes what was made.
    pub(super) async fn strike(mut self) -> anyhow::Result<()> {
        for child in &mut self.children {
            stop(child).await;
        }
        if let Some((config, crew)) = &self.left {
            let archive = async |store: &crate::store::Stores| {
                for mesh in crew.meshes() {
                    store.meshes.archive(Timestamp::now(), mesh, None).await?;
                }
                Ok(())
            };
            lookup::with_store(config, archive).await?;
        }
        Ok(())
    }
}

fn check_deployment(common: &Common, config: &Config) -> Result<(), Failure> {
    let clustered = matches!(config.deployment, Deployment::Clustered { .. });
    let sqlite = config.deployment.data_dir().is_some();
    if common.cluster.is_some() && !clustered {
        let message = "--cluster needs DATABASE_URL (Postgres) and REDIS_URL";
        return Err(Failure::new("usage", message));
    }
    if common.postgres && (sqlite || clustered) {
        let message = "--postgres needs DATABASE_URL (Postgres), and REDIS_URL must not be set";
        return Err(Failure::new("usage", message));
    }
    Ok(())
}

fn this_program() -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("this program cannot find itself")?;
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
    Ok(command)
}

/// A broker as a user would start it, on a free port, without the limits that
/// a bench is there to exceed.
fn broker(common: &Common, data_dir: &Path, size: Size, shared: bool) -> anyhow::Result<Command> {
    let mut command = this_program()?;
    command
        .args(["serve", "--json"])
        .env("BROKER_BIND", "127.0.0.1")
        .env("BROKER_PORT", "0")
        .env("CLAUDEMESH_DATA_DIR", data_dir)
        .env("SEND_RATE_PER_MINUTE", "0")
        .env("REQUEST_RATE_PER_MINUTE", "0")
        .env("MAX_CONNECTIONS_PER_MESH", size.peers.max(100).to_string())
        .env("DRAIN_SECONDS", "2")
        .env_remove("NODE_ID");
    if std::env::var_os("LOG").is_none() {
        command.env("LOG", "warn");
    }
    if !shared {
        command.env_remove("DATABASE_URL").env_remove("REDIS_URL");
    }
    for setting in &common.set {
        let (name, value) = setting
            .split_once('=')
            .ok_or_else(|| Failure::new("usage", format!("--set {setting:?}: write NAME=VALUE")))?;
        command.env(name, value);
    }
    Ok(command)
}

/// Starts a child and waits for the line that says where it listens.
async fn start(mut command: Command) -> anyhow::Result<(Child, String)> {
    #[derive(Deserialize)]
    struct Banner {
        port: u16,
    }
    let mut child = command.spawn().context("a child could not be started")?;
    let out = child.stdout.take().context("its output is not piped")?;
    let mut lines = BufReader::new(out).lines();
    let line = tokio::time::timeout(CHILD_DEADLINE, lines.next_line())
        .await
        .context("a child did not say where it listens")??
        .context("a child ended before it listened")?;
    let Banner { port } = serde_json::from_str(&line)
        .with_context(|| format!("a child said something else: {line}"))?;
    // The port is open before the store is; the socket's first answer waits.
    Ok((child, format!("ws://127.0.0.1:{port}/ws")))
}

async fn stop(child: &mut Child) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    if tokio::time::timeout(Duration::from_secs(8), child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}
