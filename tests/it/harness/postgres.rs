//! A Postgres server of one's own: a fresh cluster in a temporary folder, on a
//! free port of loopback, gone when the test process is, however that ends.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use claudemesh_broker::id;
use claudemesh_broker::store::Stores;
use claudemesh_broker::store::postgres::{PostgresSettings, PostgresStore};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::sync::OnceCell;

use super::ports::free_port;

/// Starting takes about a second; a busy machine is slower.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const INSTALL: &str = "install it (Debian: apt-get install -y postgresql)";

/// Waits for the end of its standard input, which is the end of the test
/// process, and then stops the server and removes the folder. Before that, each
/// `start` starts a server again that was killed.
const KEEPER: &str = r#"
    folder=$1; shift
    trap '' INT TERM
    word=start
    while [ "$word" = start ]; do
        "$@" </dev/null >>"$folder/log" 2>&1 &
        server=$!
        word=end
        read -r word
        [ "$word" = start ] && wait $server
    done
    kill -INT $server 2>/dev/null
    wait $server
    rm -rf "$folder"
"#;

/// Whether a commit is on disk when it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fsync {
    On,
    Off,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct PrivatePostgres {
    keeper: Child,
    folder: PathBuf,
    port: u16,
    /// The name of a migrated database that nobody uses.
    template: OnceCell<String>,
}

impl PrivatePostgres {
    /// Starts a server.
    pub(crate) fn start(fsync: Fsync) -> Self {
        Self::start_listening(fsync, "127.0.0.1")
    }

    /// Starts a server that listens there, besides on a socket in its folder.
    pub(crate) fn start_listening(fsync: Fsync, addresses: &str) -> Self {
        let programs = programs();
        let folder = tempfile::Builder::new()
            .prefix("broker-postgres-")
            .tempdir()
            .expect("a temporary folder")
            .keep();
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(&folder));
        }
        let data = folder.join("data");
        run(as_postgres(&programs.join("initdb"))
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8"])
            .args(["--locale=C.UTF-8", "--no-sync", "--pgdata"])
            .arg(&data)
            .current_dir(&folder)
            .stdout(Stdio::null()));
        // Somebody else may take the port in between.
        for _ in 0..5 {
            if let Some(server) = Self::serve(&programs, &folder, fsync, addresses) {
                return server;
            }
        }
        panic!("Postgres did not start: see {}", folder.join("log").display());
    }

    /// The server that all tests of this process share. It does not wait for
    /// the disk.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<PrivatePostgres> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(Fsync::Off))
    }

    /// Its port, which also names its socket.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where its socket is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a database of it is.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes an empty database and says where it is.
    pub(crate) async fn empty_database(&self) -> String {
        self.create_database("").await
    }

    /// Makes a database with the broker's schema and says where it is.
    pub(crate) async fn migrated_database(&self) -> String {
        let template = self.template.get_or_init(|| async {
            let url = self.empty_database().await;
            let store = store(&url);
            store.database.migrate().await.expect("an empty database");
            store.database.close().await;
            url.rsplit('/').next().expect("a name").to_owned()
        });
        let template = template.await;
        self.create_database(&format!("template {template}")).await
    }

    /// Makes a database as `create database` with these options does.
    pub(crate) async fn create_database(&self, options: &str) -> String {
        let name = format!("test_{}", id::generate());
        let mut connection = connection(&self.url("postgres")).await;
        sqlx::raw_sql(AssertSqlSafe(format!("create database {name} {options}")))
            .execute(&mut connection)
            .await
            .expect("a new database");
        self.url(&name)
    }

    fn serve(programs: &Path, folder: &Path, fsync: Fsync, addresses: &str) -> Option<Self> {
        let port = free_port();
        let fsync = if fsync == Fsync::On { "fsync=on" } else { "fsync=off" };
        let keeper = as_postgres(Path::new("sh"))
            .args(["-c", KEEPER, "sh"])
            .arg(folder)
            .arg(programs.join("postgres"))
            .arg("-D")
            .arg(folder.join("data"))
            .args(["-p", &port.to_string(), "-k"])
            .arg(folder)
            .args([
                "-c",
                &format!("listen_addresses={addresses}"),
                "-c",
                fsync,
                "-c",
                "max_connections=300",
            ])
            .current_dir(folder)
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh");
        let mut server =
            Self { keeper, folder: folder.to_owned(), port, template: OnceCell::new() };
        let since = Instant::now();
        while since.elapsed() < START_TIMEOUT {
            if server.is_ready() {
                return Some(server);
            }
            if !matches!(server.keeper.try_wait(), Ok(None)) {
                return None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// SIGKILL to all of it: connections break, and nobody listens.
    pub(crate) fn kill(&self) {
        for pid in self.pids() {
            // A connection may just have ended.
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Starts it again after [`Self::kill`]; it recovers from its log.
    pub(crate) async fn start_again(&mut self) {
        let stdin = self.keeper.stdin.as_mut().expect("the keeper lives");
        stdin.write_all(b"start\n").expect("the keeper listens");
        let url = self.url("postgres");
        super::until("Postgres has recovered", async || PgConnection::connect(&url).await.is_ok())
            .await;
    }

    /// All its processes, the first of them first.
    pub(crate) fn pids(&self) -> Vec<Pid> {
        let pid_file = std::fs::read_to_string(self.folder.join("data/postmaster.pid"));
        let first = pid_file.expect("it runs").lines().next().and_then(|line| line.parse().ok());
        let parent: i32 = first.expect("a process id");
        let children = children_of(parent);
        std::iter::once(parent).chain(children).filter_map(Pid::from_raw).collect()
    }

    /// The server writes `ready` into the last line of its pid file.
    fn is_ready(&self) -> bool {
        let pid_file = self.folder.join("data/postmaster.pid");
        std::fs::read_to_string(pid_file)
            .is_ok_and(|text| text.lines().last().is_some_and(|line| line.trim() == "ready"))
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.keeper.stdin.take() {
            let _ = stdin.write_all(b"\n");
        }
        let _ = self.keeper.wait();
    }
}

/// A store with few connections.
pub(crate) fn store(url: &str) -> Stores {
    let settings = PostgresSettings { url: url.to_owned(), pool_max: 5, statement_cache_max: 100 };
    Stores::of(Arc::new(PostgresStore::connect(&settings).expect("a URL")))
}

/// A connection such as any program has.
pub(crate) async fn connection(url: &str) -> PgConnection {
    PgConnection::connect(url).await.expect("the server runs")
}

fn children_of(parent: i32) -> Vec<i32> {
    let parent = format!("PPid:\t{parent}");
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        std::fs::read_to_string(format!("/proc/{pid}/status"))
            .is_ok_and(|status| status.lines().any(|line| line == parent))
    })
    .collect()
}

fn programs() -> PathBuf {
    let mut folders: Vec<PathBuf> = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect())
        .unwrap_or_default();
    // Debian keeps them out of the way, by version.
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    versions.sort();
    folders.extend(versions.into_iter().rev());
    folders
        .into_iter()
        .find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
        .unwrap_or_else(|| panic!("these tests start a Postgres server: {INSTALL}"))
}

/// Postgres refuses to run as root: then it runs as the user of its package.
fn as_postgres(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
    command
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id");
    id.stdout.trim_ascii() == b"0"
}

fn run(command: &mut Command) {
    let output = command.stderr(Stdio::piped()).output().unwrap_or_else(|error| {
        panic!(
            "{command:?} did not start ({error}); Postgres belongs to what tests need: {INSTALL}"
        )
    });
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {errors}");
}
