//! A broker to test against: in this process, or as a process of its own that
//! can be killed.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use claudemesh_broker::app;
use claudemesh_broker::client::{self, Client, ClientOptions, Inbox};
use claudemesh_broker::config::Config;
use claudemesh_broker::store::Store;
use http::Method;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::mesh::TestMesh;

/// For anything that should happen soon. Long, because the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// For a broker to stop: longer than it may take to drain.
const STOPPING: Duration = Duration::from_secs(40);

/// A node in this process, on a free port, with a data folder of its own.
pub(crate) struct Broker {
    config: Config,
    port: u16,
    store: Arc<dyn Store>,
    running: Option<(CancellationToken, JoinHandle<anyhow::Result<()>>)>,
    _folder: Option<TempDir>,
}

impl Broker {
    /// Starts one. `configure` changes the defaults of [`Config::for_tests`].
    pub(crate) async fn start(configure: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = Config::for_tests(folder.path());
        configure(&mut config);
        let mut broker = Self::on(config).await;
        broker._folder = Some(folder);
        broker
    }

    /// Starts one on a configuration made elsewhere, for instance one of
    /// several nodes on the same databases.
    pub(crate) async fn on(mut config: Config) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", config.listen.port)).await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        config.listen.port = port;
        let store = app::open_store(&config).await.expect("a store");
        let running = Some(spawn(config.clone(), listener));
        wait_ready(port).await;
        Self { config, port, store, running, _folder: None }
    }

    /// Where peers connect.
    pub(crate) fn url(&self) -> String {
        format!("ws://127.0.0.1:{}/ws", self.port)
    }

    /// The port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A second view of the node's database.
    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Makes a mesh.
    pub(crate) async fn mesh(&self, slug: &str) -> TestMesh {
        TestMesh::create(&self.store, slug, &self.url()).await
    }

    /// A client, connected.
    pub(crate) async fn connect(&self, options: ClientOptions) -> (Client, Inbox) {
        Client::connect(&self.url(), options).await.expect("connected")
    }

    /// One HTTP request: the status and the body.
    pub(crate) async fn http(
        &self,
        method: Method,
        route: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> (u16, Value) {
        call(self.port, method, route, headers, body).await
    }

    /// The value of a line of `/metrics`, by its name with labels.
    pub(crate) async fn metric(&self, line: &str) -> Option<f64> {
        metric(self.port, line).await
    }

    /// Stops it as a signal would, and waits.
    pub(crate) async fn stop(&mut self) {
        if let Some((shutdown, task)) = self.running.take() {
            shutdown.cancel();
            let ended = tokio::time::timeout(STOPPING, task).await.expect("the broker stops");
            ended.expect("without a panic").expect("without an error");
        }
    }

    /// Stops it and starts it again on the same port and data.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.expect("the same port");
        self.running = Some(spawn(self.config.clone(), listener));
        wait_ready(self.port).await;
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some((shutdown, task)) = self.running.take() {
            shutdown.cancel();
            task.abort();
        }
    }
}

fn spawn(
    config: Config,
    listener: TcpListener,
) -> (CancellationToken, JoinHandle<anyhow::Result<()>>) {
    let shutdown = CancellationToken::new();
    (shutdown.clone(), tokio::spawn(app::run(config, listener, shutdown)))
}

/// A node as a child process.
pub(crate) struct BrokerProcess {
    env: Vec<(String, String)>,
    folder: TempDir,
    port: u16,
    child: Child,
    store: Arc<dyn Store>,
}

impl BrokerProcess {
    /// Starts `claudemesh-broker serve` with these variables, and waits until
    /// it is ready.
    pub(crate) async fn start(env: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let env: Vec<(String, String)> =
            env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let data_dir = folder.path().display().to_string();
        let config = Config::load(&|name: &str| match name {
            "CLAUDEMESH_DATA_DIR" => Some(data_dir.clone()),
            _ => env.iter().find(|(set, _)| set == name).map(|(_, value)| value.clone()),
        });
        let store = app::open_store(&config.expect("a configuration")).await.expect("a store");
        let port = free_port();
        let child = launch(&env, folder.path(), port);
        let mut process = Self { env, folder, port, child, store };
        process.ready().await;
        process
    }

    /// Waits until it welcomes peers; if it ends instead, says what it wrote.
    async fn ready(&mut self) {
        let port = self.port;
        tokio::select! {
            () = wait_ready(port) => {}
            ended = self.child.wait() => panic!("the broker ended, {ended:?}: {}", self.log()),
        }
    }

    /// Where peers connect.
    pub(crate) fn url(&self) -> String {
        format!("ws://127.0.0.1:{}/ws", self.port)
    }

    /// The port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A view of the node's database.
    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Makes a mesh.
    pub(crate) async fn mesh(&self, slug: &str) -> TestMesh {
        TestMesh::create(&self.store, slug, &self.url()).await
    }

    /// The process id, while it lives.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it lives")
    }

    /// Kills it without a word, as a power cut would.
    pub(crate) async fn kill9(&mut self) {
        self.child.kill().await.expect("killed");
    }

    /// Asks it to stop and waits: its exit code.
    pub(crate) async fn sigterm(&mut self) -> Option<i32> {
        let pid = i32::try_from(self.pid()).ok().and_then(rustix::process::Pid::from_raw);
        let signal = rustix::process::Signal::TERM;
        rustix::process::kill_process(pid.expect("a process id"), signal).expect("signalled");
        let ended = tokio::time::timeout(STOPPING, self.child.wait()).await.expect("it stops");
        ended.expect("waited").code()
    }

    /// Starts it again on the same port and data.
    pub(crate) async fn start_again(&mut self) {
        self.child = launch(&self.env, self.folder.path(), self.port);
        self.ready().await;
    }

    /// What it wrote to standard error so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(log_file(self.folder.path())).unwrap_or_default()
    }
}

fn launch(env: &[(String, String)], folder: &Path, port: u16) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(log_file(folder));
    Command::new(env!("CARGO_BIN_EXE_claudemesh-broker"))
        .env_clear()
        .env("BROKER_BIND", "127.0.0.1")
        .env("CLAUDEMESH_DATA_DIR", folder)
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

/// A port that nobody listens on now.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("bound").port()
}

/// Waits until the broker on that port welcomes peers.
pub(crate) async fn wait_ready(port: u16) {
    let url = format!("http://127.0.0.1:{port}/health/ready").parse().expect("a URL");
    eventually("the broker is ready", async || {
        let answer = client::http::call(Method::GET, &url, &[], None).await;
        matches!(answer, Ok((status, _)) if status.is_success())
    })
    .await;
}

/// One HTTP request: the status and the body; what is no JSON as a string.
pub(crate) async fn call(
    port: u16,
    method: Method,
    route: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> (u16, Value) {
    let url = format!("http://127.0.0.1:{port}{route}").parse().expect("a URL");
    let answer = client::http::call(method, &url, headers, body).await;
    let (status, bytes) = answer.expect("an answer");
    let body = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes).into_owned()));
    (status.as_u16(), body)
}

/// The value of a line of `/metrics`.
pub(crate) async fn metric(port: u16, line: &str) -> Option<f64> {
    let (_, body) = call(port, Method::GET, "/metrics", &[], None).await;
    let text = body.as_str()?;
    let value = text.lines().find_map(|it| it.strip_prefix(line)?.strip_prefix(' '))?;
    value.trim().parse().ok()
}

/// Waits until `holds`, or fails. For what shows in no event.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "it never came to be that {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
