//! A Redis server of a test's own: a child process on a free port with an
//! empty folder, ended by its own process id.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use claudemesh_broker::cluster::redis::seals::ClusterKey;
use claudemesh_broker::config::SecretUrl;
use redis::{Cmd, FromRedisValue};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::ports::free_port;

/// From starting the process to its first answer.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Servers of a Redis Cluster, and what they share.
const SHARDS: usize = 3;
const SLOTS: usize = 16_384;

/// What nodes of a test sign by that have no database.
pub(crate) fn test_key() -> ClusterKey {
    ClusterKey { id: "of-tests".to_owned(), secret: b"of tests".to_vec(), others: Vec::new() }
}

/// A private server; it ends when this is dropped.
pub(crate) struct PrivateRedis {
    child: Option<Child>,
    port: u16,
    /// On which the servers of a Redis Cluster talk to each other.
    cluster_port: Option<u16>,
    dir: TempDir,
    /// The other shards of a Redis Cluster.
    others: Vec<PrivateRedis>,
    /// Where it speaks TLS.
    tls_port: Option<u16>,
}

impl PrivateRedis {
    /// One server.
    pub(crate) fn start() -> Self {
        Self::start_as(false)
    }

    /// A Redis Cluster of three servers that share the slots.
    pub(crate) fn start_cluster() -> Self {
        let mut shards = std::iter::repeat_with(|| Self::start_as(true));
        let mut first = shards.next().expect("endless");
        first.others = shards.take(SHARDS - 1).collect();
        first.share_slots();
        first
    }

    fn start_as(is_shard: bool) -> Self {
        // Another process may take a port in between.
        for _ in 0..5 {
            let dir = tempfile::tempdir().expect("a temporary folder");
            // The system's own offset leads to ports that may not exist.
            let (port, cluster_port) = (free_port(), is_shard.then(free_port));
            let (child, others, tls_port) = (None, Vec::new(), None);
            let mut server = Self { child, port, cluster_port, dir, others, tls_port };
            if server.launch() {
                return server;
            }
        }
        panic!("redis-server ended at each of five starts");
    }

    /// One that speaks TLS besides, by a certificate of its own making.
    pub(crate) fn start_with_tls() -> Self {
        let mut server = Self::start_as(false);
        server.kill();
        let name = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]);
        let rcgen::CertifiedKey { cert, signing_key } = name.expect("a certificate");
        std::fs::write(server.ca_file(), cert.pem()).expect("a file");
        std::fs::write(server.dir.path().join("key.pem"), signing_key.serialize_pem())
            .expect("a file");
        server.tls_port = Some(free_port());
        server.start_again();
        server
    }

    /// What vouches for the server that speaks TLS.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.dir.path().join("cert.pem")
    }

    /// Where it is by TLS.
    pub(crate) fn tls_url(&self) -> SecretUrl {
        let port = self.tls_port.expect("it speaks TLS");
        SecretUrl::parse(&format!("rediss://127.0.0.1:{port}/")).expect("a URL")
    }

    fn share_slots(&self) {
        let shards: Vec<&Self> = std::iter::once(self).chain(&self.others).collect();
        for (number, shard) in shards.iter().enumerate() {
            let slots = [number, number + 1].map(|number| number * SLOTS / shards.len());
            let mut add = redis::cmd("CLUSTER");
            add.arg("ADDSLOTSRANGE").arg(slots[0]).arg(slots[1] - 1);
            shard.query::<()>(&add);
            // Each needs an epoch of its own before they meet.
            let mut epoch = redis::cmd("CLUSTER");
            epoch.arg("SET-CONFIG-EPOCH").arg(number + 1);
            shard.query::<()>(&epoch);
        }
        for shard in &self.others {
            let mut meet = redis::cmd("CLUSTER");
            meet.arg("MEET").arg("127.0.0.1").arg(shard.port).arg(shard.cluster_port);
            self.query::<()>(&meet);
        }
        let mut info = redis::cmd("CLUSTER");
        info.arg("INFO");
        for shard in shards {
            shard.until("all slots are served", |shard| {
                let info = shard.try_query::<String>(&info).unwrap_or_default();
                info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384")
            });
        }
    }

    /// Starts the server on its port, empty, after [`Self::kill`].
    pub(crate) fn start_again(&mut self) {
        assert!(self.launch(), "redis-server ended at its start; is port {} taken?", self.port);
    }

    /// Starts the server and waits until it, and no other, answers; `false` if
    /// it ends instead.
    fn launch(&mut self) -> bool {
        assert!(self.child.is_none(), "it runs");
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--loglevel", "warning"])
            .args(["--enable-debug-command", "local"])
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if let Some(port) = self.tls_port {
            command.args(["--tls-port", &port.to_string(), "--tls-auth-clients", "no"]);
            command.args(["--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem"]);
            command.args(["--tls-ca-cert-file", "cert.pem"]);
        }
        if let Some(port) = self.cluster_port {
            let _ = std::fs::remove_file(self.dir.path().join("nodes.conf"));
            command.args(["--cluster-enabled", "yes", "--cluster-port", &port.to_string()]);
        }
        let child = command.spawn().unwrap_or_else(|error| {
            panic!(
                "redis-server does not start ({error}); install it: apt-get install redis-server"
            )
        });
        let pid_line = format!("process_id:{}\r\n", child.id());
        let child = self.child.insert(child);
        let started = Instant::now();
        while started.elapsed() < START_TIMEOUT {
            if child.try_wait().expect("it is a child").is_some() {
                self.child = None;
                return false;
            }
            let info = ask::<String>(&url_text(self.port), redis::cmd("INFO").arg("server"));
            if info.is_ok_and(|info| info.contains(&pid_line)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("redis-server: not in time: it answers");
    }

    /// Where it is.
    pub(crate) fn url(&self) -> SecretUrl {
        SecretUrl::parse(&url_text(self.port)).expect("a URL")
    }

    /// Where it is for a user that the test has made, with the password `pw`.
    pub(crate) fn url_as(&self, user: &str) -> SecretUrl {
        let url = format!("redis://{user}:pw@127.0.0.1:{}/", self.port);
        SecretUrl::parse(&url).expect("a URL")
    }

    /// Where one of its databases is.
    pub(crate) fn url_of_database(&self, number: u32) -> SecretUrl {
        SecretUrl::parse(&format!("{}{number}", url_text(self.port))).expect("a URL")
    }

    /// For whoever stands in between.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Moves a slot of the Redis Cluster to another of its servers, empty.
    pub(crate) fn move_slot(&self, slot: usize) {
        let shards: Vec<&Self> = std::iter::once(self).chain(&self.others).collect();
        let to = (slot * shards.len() / SLOTS + 1) % shards.len();
        let mut id = redis::cmd("CLUSTER");
        let id: String = ask(&url_text(shards[to].port), id.arg("MYID")).expect("an id");
        for shard in &shards {
            let mut keys = redis::cmd("CLUSTER");
            keys.arg("GETKEYSINSLOT").arg(slot).arg(1000);
            let keys: Vec<String> = ask(&url_text(shard.port), &keys).expect("keys");
            for key in keys {
                let mut delete = redis::cmd("DEL");
                ask::<()>(&url_text(shard.port), delete.arg(key)).expect("deleted");
            }
            let mut set = redis::cmd("CLUSTER");
            set.arg("SETSLOT").arg(slot).arg("NODE").arg(&id);
            ask::<()>(&url_text(shard.port), &set).expect("moved");
        }
    }

    /// Runs a command over a connection of its own.
    pub(crate) fn query<T: FromRedisValue>(&self, cmd: &Cmd) -> T {
        self.try_query(cmd).expect("the server answers")
    }

    /// `FLUSHALL`.
    pub(crate) fn flush_all(&self) {
        for shard in std::iter::once(self).chain(&self.others) {
            shard.query::<()>(&redis::cmd("FLUSHALL"));
        }
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

    fn try_query<T: FromRedisValue>(&self, cmd: &Cmd) -> redis::RedisResult<T> {
        match ask(&url_text(self.port), cmd) {
            // Another shard has the key.
            Err(error) if error.redirect_node().is_some() => {
                let (address, _) = error.redirect_node().expect("it was there");
                ask(&format!("redis://{address}/"), cmd)
            }
            answer => answer,
        }
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

fn url_text(port: u16) -> String {
    format!("redis://127.0.0.1:{port}/")
}

/// Over a connection of its own.
fn ask<T: FromRedisValue>(url: &str, cmd: &Cmd) -> redis::RedisResult<T> {
    let client = redis::Client::open(url)?;
    let mut connection = client.get_connection_with_timeout(Duration::from_secs(5))?;
    cmd.query(&mut connection)
}
