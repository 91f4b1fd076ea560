//! A Redis server of a test's own: a child process on a free port with an
//! empty folder, ended by its own process id.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use claudemesh_broker::config::SecretUrl;
use redis::{Cmd, FromRedisValue};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// From starting the process to its first answer.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A private server; it ends when this is dropped.
pub(crate) struct PrivateRedis {
    child: Option<Child>,
    port: u16,
    is_cluster: bool,
    dir: TempDir,
}

impl PrivateRedis {
    /// One server.
    pub(crate) fn start() -> Self {
        Self::start_as(false)
    }

    /// A Redis Cluster of one server that has every slot.
    pub(crate) fn start_cluster() -> Self {
        Self::start_as(true)
    }

    fn start_as(is_cluster: bool) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut server = Self { child: None, port: free_port(), is_cluster, dir };
        server.start_again();
        server
    }

    /// Starts the server on its port, empty, after [`Self::kill`].
    pub(crate) fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--loglevel", "warning"])
            .args(["--enable-debug-command", "local"])
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if self.is_cluster {
            let _ = std::fs::remove_file(self.dir.path().join("nodes.conf"));
            // Its second port is the first and this offset: also free.
            let bus_port = free_port().to_string();
            command.args(["--cluster-enabled", "yes", "--cluster-port", &bus_port]);
        }
        let child = command.spawn().unwrap_or_else(|error| {
            panic!(
                "redis-server does not start ({error}); install it: apt-get install redis-server"
            )
        });
        self.child = Some(child);
        self.until("it answers", |server| server.try_query::<String>(&redis::cmd("PING")).is_ok());
        if self.is_cluster {
            let mut add = redis::cmd("CLUSTER");
            add.arg("ADDSLOTSRANGE").arg(0).arg(16383);
            self.query::<()>(&add);
            let mut info = redis::cmd("CLUSTER");
            info.arg("INFO");
            self.until("it has its slots", |server| {
                let info = server.try_query::<String>(&info);
                info.is_ok_and(|text| text.contains("cluster_state:ok"))
            });
        }
    }

    /// Where it is.
    pub(crate) fn url(&self) -> SecretUrl {
        SecretUrl::parse(&self.url_text()).expect("a URL")
    }

    /// Runs a command over a connection of its own.
    pub(crate) fn query<T: FromRedisValue>(&self, cmd: &Cmd) -> T {
        self.try_query(cmd).expect("the server answers")
    }

    /// `FLUSHALL`.
    pub(crate) fn flush_all(&self) {
        self.query::<()>(&redis::cmd("FLUSHALL"));
    }

    /// SIGKILL: connections break, and everything is lost.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGSTOP: connections stay open, and nobody answers.
    pub(crate) fn freeze(&self) {
        kill_process(self.pid(), Signal::STOP).expect("the process is there");
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self) {
        kill_process(self.pid(), Signal::CONT).expect("the process is there");
    }

    fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("it runs"))
    }

    fn url_text(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    fn try_query<T: FromRedisValue>(&self, cmd: &Cmd) -> redis::RedisResult<T> {
        let client = redis::Client::open(self.url_text())?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(5))?;
        cmd.query(&mut connection)
    }

    fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !is_so(self) {
            assert!(started.elapsed() < START_TIMEOUT, "redis-server: not in time: {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for PrivateRedis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nobody listens on now. Between this and its use somebody may
/// take it; the system gives each out once in a while only.
fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("it is bound").port()
}
