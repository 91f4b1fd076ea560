//! A broker as a child process, which can be killed.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use claudemesh_broker::app;
use claudemesh_broker::client::{self, Client, ClientOptions, Identity, Inbox};
use claudemesh_broker::config::Config;
use claudemesh_broker::id::MeshId;
use claudemesh_broker::store::{Role, Stores};
use http::Method;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::node::{Member, audited, new_member, new_mesh};
use super::ports::free_port;
use super::{until, value_of};

/// For a broker to stop: longer than it may take to drain.
const STOPPING: Duration = Duration::from_secs(40);

/// A broker as a child process, with a mesh; killed when dropped.
pub struct BrokerProcess {
    pub port: u16,
    pub mesh: MeshId,
    pub owner: Member,
    /// A second way into the same database, as another program has it.
    pub store: Stores,
    env: Vec<(String, String)>,
    /// Files that it may have open, if that is limited.
    open_files: Option<u32>,
    folder: TempDir,
    child: Child,
}

impl BrokerProcess {
    /// Starts `claudemesh-broker serve` with these variables, and waits until
    /// it is ready.
    pub async fn start(env: &[(&str, &str)]) -> Self {
        Self::start_limited(env, None).await
    }

    /// As above, with so many open files and no more.
    pub async fn start_limited(env: &[(&str, &str)], open_files: Option<u32>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = Config::for_tests(folder.path());
        let store = app::open_store(&config).await.expect("a store");
        let (mesh, owner) = new_mesh(&store, "test").await;
        Self::launch_on(env, open_files, folder, store, mesh, owner).await
    }

    /// One of several on the same databases, which `env` names, with a mesh
    /// that is there.
    pub async fn start_on(
        env: &[(&str, &str)],
        store: Stores,
        mesh: MeshId,
        owner: Member,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self::launch_on(env, None, folder, store, mesh, owner).await
    }

    async fn launch_on(
        env: &[(&str, &str)],
        open_files: Option<u32>,
        folder: TempDir,
        store: Stores,
        mesh: MeshId,
        owner: Member,
    ) -> Self {
        let env: Vec<_> =
            env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let port = free_port();
        let child = launch(&env, open_files, folder.path(), port);
        let mut process = Self { port, mesh, owner, store, env, open_files, folder, child };
        process.ready().await;
        process
    }

    /// Waits until it welcomes peers; if it ends instead, says what it wrote.
    async fn ready(&mut self) {
        let port = self.port;
        tokio::select! {
            () = is_ready(port) => {}
            ended = self.child.wait() => panic!("the broker ended, {ended:?}: {}", self.log()),
        }
    }

    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}/ws", self.port)
    }

    /// A new member of the mesh, as a client is one.
    pub async fn identity(&self, name: &str) -> Identity {
        let member = new_member(&self.store, &self.mesh, &self.owner, name, Role::Member).await;
        member.identity(&self.mesh)
    }

    /// A connected client.
    pub async fn connect(&self, options: ClientOptions) -> (Client, Inbox) {
        Client::connect(&self.url(), options).await.expect("connected")
    }

    /// How many audit rows of that type there are, in a chain that must hold.
    pub async fn audited(&self, event_type: &str) -> i64 {
        audited(&self.store, &self.mesh, event_type).await
    }

    /// How many sockets it serves.
    pub async fn sessions(&self) -> u64 {
        let url = format!("http://127.0.0.1:{}/metrics", self.port).parse().expect("a URL");
        let answer = client::http::call(Method::GET, &url, &[], None).await;
        let (_, body) = answer.expect("an answer");
        let text = String::from_utf8(body.to_vec()).expect("UTF-8");
        value_of(&text, "broker_connections_active")
    }

    /// Kills it without a word, as a power cut would.
    pub async fn kill9(&mut self) {
        self.child.kill().await.expect("killed");
    }

    /// It stands still, with its sockets open.
    pub fn freeze(&self) {
        kill_process(self.pid(), Signal::STOP).expect("signalled");
    }

    /// It goes on, as if no time had passed.
    pub fn thaw(&self) {
        kill_process(self.pid(), Signal::CONT).expect("signalled");
    }

    fn pid(&self) -> Pid {
        let id = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        id.expect("it lives")
    }

    /// Asks it to stop, and waits.
    pub async fn sigterm(&mut self) -> ExitStatus {
        kill_process(self.pid(), Signal::TERM).expect("signalled");
        let ended = tokio::time::timeout(STOPPING, self.child.wait()).await;
        ended.expect("it stops").expect("waited")
    }

    /// Starts it again on the same port and data.
    pub async fn start_again(&mut self) {
        self.child = launch(&self.env, self.open_files, self.folder.path(), self.port);
        self.ready().await;
    }

    /// The memory that it holds now.
    pub fn resident_bytes(&self) -> u64 {
        let pid = self.child.id().expect("it lives");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
        let kilobytes = line.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok());
        kilobytes.expect("a number") * 1024
    }

    /// What it wrote to standard error so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(log_file(self.folder.path())).unwrap_or_default()
    }
}

fn launch(env: &[(String, String)], open_files: Option<u32>, folder: &Path, port: u16) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(log_file(folder));
    let program = env!("CARGO_BIN_EXE_claudemesh-broker");
    let mut command = match open_files {
        None => Command::new(program),
        Some(files) => {
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", "ulimit -n \"$0\" && exec \"$@\"", &files.to_string(), program]);
            shell
        }
    };
    command
        .env_clear()
        .env("BROKER_BIND", "127.0.0.1")
        .env("CLAUDEMESH_DATA_DIR", folder)
        .env("REQUEST_RATE_PER_MINUTE", "0")
        .env("SEND_RATE_PER_MINUTE", "0")
        .envs(env.iter().map(|(name, value)| (name, value)))
        .env("BROKER_PORT", port.to_string())
        .arg("serve")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.expect("a log file"))
        .kill_on_drop(true)
        .spawn()
        .expect("the broker starts")
}

fn log_file(folder: &Path) -> PathBuf {
    folder.join("stderr.log")
}

async fn is_ready(port: u16) {
    let url = format!("http://127.0.0.1:{port}/health/ready").parse().expect("a URL");
    until("the broker is ready", async || {
        let answer = client::http::call(Method::GET, &url, &[], None).await;
        matches!(answer, Ok((status, _)) if status.is_success())
    })
    .await;
}
