//! The configuration: one small struct per concern, read from the environment.
//!
//! Nothing needs to be set. Every variable, with its default and meaning, stands
//! in [`SETTINGS`]; `claudemesh-broker config` prints them. All that is wrong is
//! reported at once, before a port is bound.

use std::path::Path;

mod accounts;
mod audit;
mod deployment;
mod error;
mod http;
mod listen;
mod listing;
mod log;
mod message;
mod node;
mod presence;
mod reader;
mod secret;
mod settings;
mod webhook;

pub use accounts::{AccountsConfig, AccountsMode};
pub use audit::{AuditConfig, AuditKeySource};
pub use deployment::{
    ClusterSecret, Deployment, PostgresConfig, RedisConfig, StoreConfig, platform_data_dir,
};
pub use error::{ConfigError, ConfigErrors};
pub use http::HttpConfig;
pub use listen::ListenConfig;
pub use listing::SettingRow;
pub use log::{DrainConfig, LogConfig, LogFormat};
pub use message::{MessageConfig, QuotaConfig};
pub use node::NodeConfig;
pub use presence::{LivenessConfig, PresenceConfig, TranscriptStatus};
pub use reader::Env;
pub use secret::{REDACTED, Secret, SecretUrl, any_matches, redact_url};
pub use settings::{Privacy, SETTINGS, Setting};
pub use webhook::WebhookConfig;

use reader::Reader;

/// All that a node is told from outside.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens.
    pub listen: ListenConfig,
    /// What it stands on.
    pub deployment: Deployment,
    /// Which node it is.
    pub node: NodeConfig,
    /// Leases and status of peers.
    pub presence: PresenceConfig,
    /// How a dead socket is noticed.
    pub liveness: LivenessConfig,
    /// What a member may send, and how long it is kept.
    pub message: MessageConfig,
    /// Who may call over HTTP.
    pub http: HttpConfig,
    /// Accounts of people, and who may act for them.
    pub accounts: AccountsConfig,
    /// By which key heads of audit chains are signed.
    pub audit: AuditConfig,
    /// Where others find its webhooks, and whom it may call.
    pub webhooks: WebhookConfig,
    /// How it stops.
    pub drain: DrainConfig,
    /// How it logs.
    pub log: LogConfig,
}

impl Config {
    /// Reads the configuration through `env`.
    ///
    /// # Errors
    /// Every problem there is, each with the variable's name and what to set.
    pub fn load(env: Env<'_>) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(env);
        let deployment = Deployment::read(&mut reader);
        let listen = ListenConfig::read(&mut reader);
        let node = NodeConfig::read(&mut reader, listen.port);
        let presence = PresenceConfig::read(&mut reader);
        let liveness = LivenessConfig::read(&mut reader);
        let message = MessageConfig::read(&mut reader);
        let http = HttpConfig::read(&mut reader);
        let accounts = AccountsConfig::read(&mut reader);
        let audit = AuditConfig::read(&mut reader);
        let webhooks = WebhookConfig::read(&mut reader);
        let drain = DrainConfig::read(&mut reader);
        let log = LogConfig::read(&mut reader);
        let problems = reader.into_problems();
        match deployment {
            Some(deployment) if problems.is_empty() => Ok(Self {
                listen,
                deployment,
                node,
                presence,
                liveness,
                message,
                http,
                accounts,
                audit,
                webhooks,
                drain,
                log,
            }),
            _ => Err(ConfigErrors(problems)),
        }
    }

    /// The defaults on a free loopback port, with SQLite in `data_dir` and a
    /// node id of its own: a starting point for tests and demos.
    ///
    /// # Panics
    /// Never, as long as the defaults are valid, which a test holds.
    #[must_use]
    pub fn for_tests(data_dir: &Path) -> Self {
        let env = |name: &str| match name {
            "BROKER_BIND" => Some("127.0.0.1".to_owned()),
            "BROKER_PORT" => Some("0".to_owned()),
            "CLAUDEMESH_DATA_DIR" => Some(".".to_owned()),
            _ => None,
        };
        let mut config = Self::load(&env).unwrap_or_else(|errors| panic!("{errors}"));
        // Not through the lookup, which trims and wants UTF-8.
        config.deployment = Deployment::sqlite_in(data_dir);
        config
    }

    /// Every setting with the value that holds and where it comes from, secrets
    /// redacted. With a wrong value, what depends on the machine is left out.
    #[must_use]
    pub fn describe(env: Env<'_>) -> Vec<SettingRow> {
        let config = Self::load(env).ok();
        listing::describe(env, |name| config.as_ref()?.machine_default(name))
    }

    /// Whether a peer's status is inferred from its transcript on this machine.
    #[must_use]
    pub fn infers_status(&self) -> bool {
        match self.presence.transcript_status {
            TranscriptStatus::On => true,
            TranscriptStatus::Off => false,
            TranscriptStatus::Auto => self.is_for_this_machine(),
        }
    }

    /// Whether people sign in here.
    #[must_use]
    pub fn has_accounts(&self) -> bool {
        match self.accounts.mode {
            AccountsMode::On => true,
            AccountsMode::Off => false,
            AccountsMode::Auto => self.is_for_this_machine(),
        }
    }

    /// Whether it is a single node that only this machine can reach.
    fn is_for_this_machine(&self) -> bool {
        matches!(self.deployment, Deployment::Single { .. }) && self.listen.is_loopback()
    }

    /// The value of a variable that is not set and whose default depends on the
    /// machine, or on other variables.
    fn machine_default(&self, name: &str) -> Option<String> {
        match name {
            "BROKER_WS_URL" => Some(self.http.public_url_on(self.listen.port)),
            "BROKER_PUBLIC_URL" => Some(self.webhooks.base_url(&self.http, self.listen.port)),
            "CLAUDEMESH_DATA_DIR" => {
                self.deployment.data_dir().map(|folder| folder.display().to_string())
            }
            "NODE_ID" => Some(self.node.id.to_string()),
            "REGION" => self.node.region.clone(),
            "LOG" => Some(self.log.filter.clone()),
            _ => None,
        }
    }
}

/// The process's environment: the lookup outside of tests. A value that is not
/// UTF-8 is passed on with replacement characters, so that it is refused or at
/// least seen rather than silently taken for not set.
#[must_use]
pub fn process_env(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(set: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
        Config::load(&|name: &str| {
            // Whether the user who runs the tests has a home folder does not matter.
            let data_dir = [("CLAUDEMESH_DATA_DIR", "/data")];
            let mut all = set.iter().chain(&data_dir);
            all.find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let config = load(&[]).expect("the defaults are valid");
        assert_eq!((config.listen.bind, config.listen.port), (None, 7900));
        assert_eq!(config.presence.status_ttl_ms, 60_000);
        assert_eq!(config.presence.hook_fresh_window_ms, 30_000);
        assert_eq!(config.presence.lease_grace_ms, 90_000);
        assert_eq!(config.presence.lease_ttl_ms, 45_000);
        assert_eq!(config.presence.connections_per_mesh_max, 100);
        assert_eq!(config.liveness.ping_interval_ms, 25_000);
        assert_eq!(config.http.hook_rate_per_minute, 30);
        assert_eq!(config.http.connections_per_ip_max, 200);
        assert_eq!(config.http.hello_rate_per_minute, 300);
        assert_eq!(config.drain.drain_ms, 25_000);
        assert_eq!(config.log.filter, "info");
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let errors = load(&[
            ("BROKER_PORT", "http"),
            ("BROKER_BIND", "localhost"),
            ("STATUS_TTL_SECONDS", "1m"),
            ("MAX_CONNECTIONS_PER_MESH", "0"),
            ("MAX_MESSAGE_BYTES", "64k"),
            ("HOOK_TOKEN", "short"),
            ("ADMIN_TOKEN", "long-enough-long-enough,not-enough"),
            ("REDIS_URL", "redis://cache"),
            ("NODE_ID", "no spaces"),
            ("LOG", "info=loud"),
            ("TRANSCRIPT_STATUS", "maybe"),
            ("DRAIN_SECONDS", "-1"),
        ])
        .expect_err("all wrong");
        let text = errors.to_string();
        for name in [
            "BROKER_PORT",
            "BROKER_BIND",
            "STATUS_TTL_SECONDS",
            "MAX_CONNECTIONS_PER_MESH",
            "MAX_MESSAGE_BYTES",
            "HOOK_TOKEN",
            "ADMIN_TOKEN",
            "DATABASE_URL",
            "NODE_ID",
            "LOG",
            "TRANSCRIPT_STATUS",
            "DRAIN_SECONDS",
        ] {
            assert!(errors.0.iter().any(|error| error.name == name), "{name} missing in {text}");
        }
        assert_eq!(errors.0.len(), 12, "{text}");
        assert!(
            !text.contains("short") && !text.contains("not-enough"),
            "a wrong secret is a secret too: {text}"
        );
    }

    #[test]
    fn two_test_nodes_share_neither_port_nor_name() {
        let (a, b) = (Config::for_tests(Path::new("/a")), Config::for_tests(Path::new("/b")));
        assert_eq!(a.listen.port, 0);
        assert_ne!(a.node.id, b.node.id);
        assert_eq!(a.deployment.data_dir(), Some(Path::new("/a")));
    }

    #[test]
    fn a_status_is_inferred_only_where_peers_share_the_machine() {
        let infers = |set: &[(&str, &str)]| load(set).expect("valid").infers_status();
        assert!(infers(&[("BROKER_BIND", "127.0.0.1")]));
        assert!(!infers(&[]), "the default address is reachable from elsewhere");
        assert!(!infers(&[("BROKER_BIND", "::1"), ("TRANSCRIPT_STATUS", "off")]));
        assert!(infers(&[("TRANSCRIPT_STATUS", "on")]));
        let cluster = [
            ("BROKER_BIND", "::1"),
            ("DATABASE_URL", "postgres://db/mesh"),
            ("REDIS_URL", "redis://cache"),
        ];
        assert!(!infers(&cluster));
    }
}
