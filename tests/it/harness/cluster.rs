//! Several nodes on one database and one Redis: in this process, or as
//! processes of their own that can be killed.
//!
//! Each cluster has a database of its own and a Redis of its own. All windows
//! are short, and all limits on senders are off unless a test sets them.

use claudemesh_broker::app;
use claudemesh_broker::cluster::redis::seals::ClusterKey;
use claudemesh_broker::config::Config;
use claudemesh_broker::store::Stores;
use redis::Cmd;
use rustix::process::{Pid, Signal, kill_process};
use std::net::SocketAddr;
use url::Url;

use super::node::new_mesh;
use super::postgres::{Fsync, PrivatePostgres, connection};
use super::proxy::Proxy;
use super::redis::PrivateRedis;
use super::{BrokerProcess, Node, until};

type Env = Vec<(String, String)>;

/// How a cluster is to be.
#[derive(Clone, Debug)]
pub struct Setup {
    nodes: usize,
    has_proxies: bool,
    has_postgres_proxies: bool,
    has_own_postgres: bool,
    has_redis_cluster: bool,
    env: Env,
    env_of: Vec<(usize, Env)>,
}

/// Nodes of one mesh.
pub struct Cluster {
    pub nodes: Vec<Node>,
    /// The processes behind the nodes, if they are processes.
    pub processes: Vec<BrokerProcess>,
    /// Between each node and Redis, if there are any.
    pub proxies: Vec<Proxy>,
    /// Between each node and Postgres, if there are any.
    pub postgres_proxies: Vec<Proxy>,
    pub redis: PrivateRedis,
    /// What every key and channel in Redis begins with.
    pub prefix: String,
    postgres: Postgres,
    database: String,
}

enum Postgres {
    Shared,
    Own(PrivatePostgres),
}

impl Setup {
    pub fn new(nodes: usize) -> Self {
        let env = [
            ("BROKER_BIND", "127.0.0.1"),
            ("BROKER_PORT", "0"),
            ("DATABASE_POOL_MAX", "5"),
            ("DRAIN_SECONDS", "6"),
            ("HELLO_RATE_PER_MINUTE", "0"),
            ("LEASE_GRACE_SECONDS", "6"),
            ("LEASE_TTL_SECONDS", "3"),
            ("LOG", "claudemesh_broker=debug,info"),
            ("MAX_CONNECTIONS_PER_IP", "0"),
            ("REDELIVERY_SECONDS", "3"),
            ("REQUEST_RATE_PER_MINUTE", "0"),
            ("SEND_RATE_PER_MINUTE", "0"),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Self {
            nodes,
            has_proxies: false,
            has_postgres_proxies: false,
            has_own_postgres: false,
            has_redis_cluster: false,
            env,
            env_of: Vec::new(),
        }
    }

    /// With that variable.
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_string()));
        self
    }

    /// One node, counted from 0, has these variables besides.
    pub fn set_on(mut self, node: usize, env: &[(&str, &str)]) -> Self {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.env_of.push((node, env.collect()));
        self
    }

    /// With a proxy between each node and Postgres.
    pub fn behind_postgres_proxies(mut self) -> Self {
        self.has_postgres_proxies = true;
        self
    }

    /// With a proxy between each node and Redis.
    pub fn behind_proxies(mut self) -> Self {
        self.has_proxies = true;
        self
    }

    /// With a Postgres server that nobody else uses: for those that harm it.
    pub fn on_its_own_postgres(mut self) -> Self {
        self.has_own_postgres = true;
        self
    }

    /// With a Redis Cluster of several shards.
    pub fn on_redis_cluster(mut self) -> Self {
        self.has_redis_cluster = true;
        self.set("REDIS_CLUSTER", true)
    }

    /// Nodes in this process.
    pub async fn start(self) -> Cluster {
        self.build(false).await
    }

    /// Nodes as processes.
    pub async fn start_processes(self) -> Cluster {
        self.build(true).await
    }

    async fn build(self, as_processes: bool) -> Cluster {
        let redis = if self.has_redis_cluster {
            PrivateRedis::start_cluster()
        } else {
            PrivateRedis::start()
        };
        let postgres = if self.has_own_postgres {
            Postgres::Own(PrivatePostgres::start(Fsync::Off))
        } else {
            Postgres::Shared
        };
        let database = match &postgres {
            Postgres::Shared => PrivatePostgres::shared().migrated_database().await,
            Postgres::Own(server) => server.migrated_database().await,
        };
        let redis_url = redis.url().expose().to_owned();
        let (mut proxies, mut postgres_proxies) = (Vec::new(), Vec::new());
        let mut envs: Vec<Env> = Vec::new();
        for number in 1..=self.nodes {
            let (mut redis_url, mut database) = (redis_url.clone(), database.clone());
            if self.has_proxies {
                redis_url = through(&redis_url, &mut proxies).await;
            }
            if self.has_postgres_proxies {
                database = through(&database, &mut postgres_proxies).await;
            }
            let mut env = self.env.clone();
            env.push(("DATABASE_URL".to_owned(), database));
            env.push(("NODE_ID".to_owned(), format!("node-{number}")));
            env.push(("REDIS_URL".to_owned(), redis_url));
            let own = self.env_of.iter().filter(|(node, _)| node + 1 == number);
            env.extend(own.flat_map(|(_, env)| env.clone()));
            envs.push(env);
        }
        let mut direct = envs[0].clone();
        direct.retain(|(name, _)| name != "DATABASE_URL");
        direct.push(("DATABASE_URL".to_owned(), database.clone()));
        let store: Stores = app::open_store(&load(&direct)).await.expect("a store");
        let (mesh, owner) = new_mesh(&store, "test").await;
        let id = store.database.cluster_identity().await.expect("a cluster").id;
        let prefix = format!("claudemesh:{id}:0");
        let (mut nodes, mut processes) = (Vec::new(), Vec::new());
        for env in &envs {
            let (config, store, owner) = (load(env), store.clone(), owner.clone());
            if as_processes {
                let env: Vec<_> = env.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
                let process =
                    BrokerProcess::start_on(&env, store.clone(), mesh.clone(), owner.clone()).await;
                let address = SocketAddr::from(([127, 0, 0, 1], process.port));
                nodes.push(Node::elsewhere(address, config, store, mesh.clone(), owner));
                processes.push(process);
            } else {
                nodes.push(Node::start_on(config, store, mesh.clone(), owner).await);
            }
        }
        let cluster = Cluster {
            nodes,
            processes,
            proxies,
            postgres_proxies,
            redis,
            prefix,
            postgres,
            database,
        };
        cluster.until_nodes_know_each_other().await;
        cluster
    }
}

impl Cluster {
    /// So many nodes in this process.
    pub async fn start(nodes: usize) -> Self {
        Setup::new(nodes).start().await
    }

    async fn until_nodes_know_each_other(&self) {
        let mut count = redis::cmd("ZCARD");
        count.arg(format!("{}:nodes", self.prefix));
        let nodes = self.nodes.len();
        until("all nodes are there", async || self.redis.query::<usize>(&count) == nodes).await;
    }

    /// What the nodes sign by, unless they are set otherwise.
    pub async fn key(&self) -> ClusterKey {
        let identity = self.nodes[0].store.database.cluster_identity().await.expect("a cluster");
        ClusterKey { id: identity.id, secret: identity.secret, others: Vec::new() }
    }

    /// Leases of open sockets, and of those in grace, as Redis has them.
    pub fn leases(&self) -> (usize, usize) {
        let count = |part: &str| {
            let mut ask: Cmd = redis::cmd("ZCARD");
            ask.arg(format!("{}:{{{}}}:{part}", self.prefix, self.nodes[0].mesh));
            self.redis.query(&ask)
        };
        (count("online"), count("grace"))
    }

    /// The Postgres server that is this cluster's own.
    pub fn postgres(&mut self) -> &mut PrivatePostgres {
        match &mut self.postgres {
            Postgres::Own(server) => server,
            Postgres::Shared => panic!("others use this server"),
        }
    }

    /// Where the cluster's database is.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Runs a statement in the cluster's database, or for its server.
    pub async fn sql(&self, statement: &'static str) {
        let mut own = connection(&self.database).await;
        sqlx::raw_sql(statement).execute(&mut own).await.expect(statement);
    }

    /// SIGSTOP to all of Postgres. Returns what thaws it.
    pub fn freeze_postgres(&mut self) -> Frozen {
        let pids = self.postgres().pids();
        for pid in &pids {
            // A connection may just have ended.
            let _ = kill_process(*pid, Signal::STOP);
        }
        Frozen(pids)
    }

    /// SIGKILL to one of Postgres's processes: it ends all connections and
    /// starts again from its log.
    pub fn crash_postgres(&mut self) {
        let pids = self.postgres().pids();
        kill_process(pids[1], Signal::KILL).expect("it runs");
    }
}

/// Stopped processes; they go on when this is dropped.
pub struct Frozen(Vec<Pid>);

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = kill_process(*pid, Signal::CONT);
        }
    }
}

fn load(env: &Env) -> Config {
    let find =
        |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, value)| value.to_owned());
    Config::load(&find).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The URL by a new proxy before the server that it names.
async fn through(url: &str, proxies: &mut Vec<Proxy>) -> String {
    let mut url = Url::parse(url).expect("a URL");
    let server = url.socket_addrs(|| None).expect("an address")[0];
    let proxy = Proxy::start(server).await;
    url.set_ip_host(proxy.address.ip()).expect("a host");
    url.set_port(Some(proxy.address.port())).expect("a port");
    proxies.push(proxy);
    url.into()
}
