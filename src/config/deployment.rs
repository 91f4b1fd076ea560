//! Which of the deployments this is. A cluster without Postgres cannot be
//! expressed: its queue would die with one node.

mod postgres;

use std::fmt;
use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::secret::{Secret, SecretUrl};

/// The SQLite file's name inside the data folder.
const SQLITE_FILE: &str = "broker.db";

/// What the broker stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deployment {
    /// One node; no other service needed.
    Single {
        /// Where its messages are kept.
        store: StoreConfig,
    },
    /// One of several equal nodes.
    Clustered {
        /// Where the cluster's messages are kept.
        postgres: PostgresConfig,
        /// Where the cluster's leases and its bus are.
        redis: RedisConfig,
    },
}

/// Where a single node keeps its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreConfig {
    /// A file of this machine.
    Sqlite {
        /// `CLAUDEMESH_DATA_DIR`: the data folder. Default: the platform's, such
        /// as `~/.local/share/claudemesh`; the file's folder when `DATABASE_URL`
        /// names a file.
        data_dir: PathBuf,
        /// `DATABASE_URL=sqlite://path`: the database file. Default `broker.db`
        /// in the data folder.
        file: PathBuf,
    },
    /// A Postgres server.
    Postgres(PostgresConfig),
}

/// A Postgres database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresConfig {
    /// `DATABASE_URL`: `postgres://` or `postgresql://`. No default.
    pub url: SecretUrl,
    /// `DATABASE_POOL_MAX`: connections of this node. Default 10. 2 to 500.
    pub pool_max: u32,
    /// `DATABASE_STATEMENT_CACHE`: prepared statements kept per connection.
    /// Default 100. 0 to 10,000; 0 behind a PgBouncer in transaction mode.
    pub statement_cache_max: usize,
}

/// A Redis server or cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisConfig {
    /// `REDIS_URL`: `redis://` or `rediss://` (TLS). No default.
    pub url: SecretUrl,
    /// `REDIS_CLUSTER`: whether it is a Redis Cluster. Default false.
    pub cluster: bool,
    /// `REDIS_TLS_CA_FILE`: a PEM file with the authorities to trust for
    /// `rediss://`. Default: the well-known ones.
    pub ca_file: Option<PathBuf>,
    /// `CLUSTER_SECRET`: what the cluster's nodes sign by: the first signs, all
    /// verify. Default none: a key that is kept in Postgres. Comma-separated, each of
    /// at least 16 characters, or `postgres` for that key.
    pub secrets: Vec<ClusterSecret>,
}

/// What a cluster's nodes sign by.
#[derive(Clone, Debug)]
pub enum ClusterSecret {
    /// The key that is kept in Postgres.
    OfDatabase,
    /// The secret that the configuration gives.
    Given(Secret),
}

/// As long as whoever compares them must not learn from how long it takes.
impl PartialEq for ClusterSecret {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::OfDatabase, Self::OfDatabase) => true,
            (Self::Given(one), Self::Given(other)) => one.matches(other.expose()),
            _ => false,
        }
    }
}

impl Eq for ClusterSecret {}

impl Deployment {
    /// A single node with its SQLite file in `data_dir`.
    #[must_use]
    pub fn sqlite_in(data_dir: &Path) -> Self {
        let store =
            StoreConfig::Sqlite { data_dir: data_dir.to_owned(), file: data_dir.join(SQLITE_FILE) };
        Self::Single { store }
    }

    /// `None` when a problem was noted.
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let data_dir = reader.text("CLAUDEMESH_DATA_DIR").map(PathBuf::from);
        let pool_max = reader.number("DATABASE_POOL_MAX", 2..=500);
        let statement_cache_max = reader.number("DATABASE_STATEMENT_CACHE", 0..=10_000);
        let database = read_database(reader);
        let redis = read_redis(reader);
        match (database?, redis?) {
            (Database::Postgres(url), redis) => {
                let postgres = PostgresConfig { url, pool_max, statement_cache_max };
                Some(match redis {
                    Some(redis) => Self::Clustered { postgres, redis },
                    None => Self::Single { store: StoreConfig::Postgres(postgres) },
                })
            }
            (Database::Unset | Database::Sqlite(_), Some(_)) => {
                reader.refuse(
                    "DATABASE_URL",
                    "a cluster (REDIS_URL) keeps its messages in Postgres; set \
                     DATABASE_URL=postgres://user:password@host/database, or unset REDIS_URL to \
                     run a single node",
                );
                None
            }
            (Database::Sqlite(file), None) => {
                let data_dir = data_dir.unwrap_or_else(|| folder_of(&file));
                Some(Self::Single { store: StoreConfig::Sqlite { data_dir, file } })
            }
            (Database::Unset, None) => {
                let data_dir = data_dir.or_else(platform_data_dir);
                if data_dir.is_none() {
                    reader.refuse(
                        "CLAUDEMESH_DATA_DIR",
                        "this user has no home folder; set the folder in which to keep messages",
                    );
                }
                data_dir.map(|data_dir| Self::sqlite_in(&data_dir))
            }
        }
    }

    /// The data folder, if this deployment has one.
    #[must_use]
    pub fn data_dir(&self) -> Option<&Path> {
        match self {
            Self::Single { store: StoreConfig::Sqlite { data_dir, .. } } => Some(data_dir),
            Self::Single { .. } | Self::Clustered { .. } => None,
        }
    }
}

/// One word for logs and `/health`: `single` or `clustered`.
impl fmt::Display for Deployment {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Single { .. } => "single",
            Self::Clustered { .. } => "clustered",
        })
    }
}

enum Database {
    Unset,
    Sqlite(PathBuf),
    Postgres(SecretUrl),
}

fn read_database(reader: &mut Reader<'_>) -> Option<Database> {
    let Some(text) = reader.text("DATABASE_URL") else { return Some(Database::Unset) };
    // Not by the URL parser: `sqlite://data/broker.db` has no host.
    if let Some(path) = text.strip_prefix("sqlite:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path == ":memory:" || path.contains('?') {
            reader.refuse(
                "DATABASE_URL",
                "messages must outlive the process; set sqlite:// and the path of a file, \
                 without options",
            );
            return None;
        }
        return Some(Database::Sqlite(PathBuf::from(path)));
    }
    match postgres::parse(&text) {
        Ok(url) => Some(Database::Postgres(url)),
        Err(problem) => {
            reader.refuse("DATABASE_URL", problem);
            None
        }
    }
}

fn is_pem(file: &Path) -> bool {
    std::fs::read_to_string(file).is_ok_and(|text| text.contains("-----BEGIN CERTIFICATE-----"))
}

/// Outer `None`: a problem was noted; inner: no Redis.
fn read_redis(reader: &mut Reader<'_>) -> Option<Option<RedisConfig>> {
    let cluster = reader.flag("REDIS_CLUSTER");
    let ca_file = reader.text("REDIS_TLS_CA_FILE").map(PathBuf::from);
    if ca_file.as_deref().is_some_and(|file| !is_pem(file)) {
        reader.refuse(
            "REDIS_TLS_CA_FILE",
            "this is no file with PEM certificates that can be read; set the path of one, or \
             unset it to trust the well-known authorities",
        );
        return None;
    }
    let secrets = reader.tokens_or_word("CLUSTER_SECRET", "postgres");
    let secrets = secrets.into_iter().map(|secret| match secret {
        Some(secret) => ClusterSecret::Given(secret),
        None => ClusterSecret::OfDatabase,
    });
    let secrets = secrets.collect();
    let Some(text) = reader.text("REDIS_URL") else {
        if cluster {
            reader.refuse(
                "REDIS_CLUSTER",
                "there is no REDIS_URL; set REDIS_URL=redis://host:6379, or unset REDIS_CLUSTER",
            );
            return None;
        }
        return Some(None);
    };
    match SecretUrl::parse(&text) {
        Ok(url) if matches!(url.scheme(), "redis" | "rediss") && url.url().has_host() => {
            Some(Some(RedisConfig { url, cluster, ca_file, secrets }))
        }
        _ => {
            reader.refuse(
                "REDIS_URL",
                "set redis://:password@host:6379, or rediss:// for TLS; special characters of a \
                 password are written as %40 and so on",
            );
            None
        }
    }
}

fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// The platform's folder for this program's data; `None` without a home folder.
#[must_use]
pub fn platform_data_dir() -> Option<PathBuf> {
    directories::ProjectDirs::from("", "", "claudemesh").map(|dirs| dirs.data_dir().to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::error::ConfigError;
    use super::*;

    fn read(set: &[(&str, &str)]) -> (Option<Deployment>, Vec<ConfigError>) {
        let env = |name: &str| {
            set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        let mut reader = Reader::new(&env);
        let deployment = Deployment::read(&mut reader);
        (deployment, reader.into_problems())
    }

    const POSTGRES: (&str, &str) = ("DATABASE_URL", "postgresql://u:hunter2@db/mesh");
    const REDIS: (&str, &str) = ("REDIS_URL", "rediss://:hunter2@cache:6379");

    #[test]
    fn nothing_configured_is_a_single_node_on_sqlite() {
        let (deployment, _) = read(&[("CLAUDEMESH_DATA_DIR", "/data")]);
        assert_eq!(deployment, Some(Deployment::sqlite_in(Path::new("/data"))));
        let Some(Deployment::Single { store: StoreConfig::Sqlite { file, .. } }) = deployment
        else {
            panic!("{deployment:?}")
        };
        assert_eq!(file, Path::new("/data/broker.db"));
    }

    #[test]
    fn a_sqlite_path_brings_its_folder_unless_one_is_set() {
        for (url, file, folder) in [
            ("sqlite:///var/lib/m.db", "/var/lib/m.db", "/var/lib"),
            ("sqlite://data/m.db", "data/m.db", "data"),
            ("sqlite:m.db", "m.db", "."),
        ] {
            let (deployment, _) = read(&[("DATABASE_URL", url)]);
            let store = StoreConfig::Sqlite { data_dir: folder.into(), file: file.into() };
            assert_eq!(deployment, Some(Deployment::Single { store }), "{url}");
        }
        let (deployment, _) =
            read(&[("DATABASE_URL", "sqlite:m.db"), ("CLAUDEMESH_DATA_DIR", "/data")]);
        assert_eq!(deployment.expect("valid").data_dir(), Some(Path::new("/data")));
        for wrong in ["sqlite::memory:", "sqlite://", "sqlite://m.db?mode=memory"] {
            assert_eq!(read(&[("DATABASE_URL", wrong)]).1.len(), 1, "{wrong}");
        }
    }

    #[test]
    fn postgres_alone_is_single_and_with_redis_a_cluster() {
        let (deployment, _) = read(&[POSTGRES, ("DATABASE_STATEMENT_CACHE", "0")]);
        let Some(Deployment::Single { store: StoreConfig::Postgres(postgres) }) = deployment else {
            panic!("{deployment:?}")
        };
        assert_eq!((postgres.pool_max, postgres.statement_cache_max), (10, 0));
        assert_eq!(postgres.url.expose(), POSTGRES.1);

        let (deployment, _) = read(&[POSTGRES, REDIS, ("REDIS_CLUSTER", "1")]);
        let Some(Deployment::Clustered { redis, .. }) = &deployment else {
            panic!("{deployment:?}")
        };
        assert!(redis.cluster);
        assert!(!format!("{deployment:?}").contains("hunter2"), "{deployment:?}");
    }

    #[test]
    fn a_cluster_signs_by_what_is_listed_first_and_never_shows_it() {
        let secrets = |text: &'static str| {
            let (deployment, problems) = read(&[POSTGRES, REDIS, ("CLUSTER_SECRET", text)]);
            let shown = format!("{deployment:?} {problems:?}");
            assert!(!shown.contains("0123456789"), "{shown}");
            match deployment {
                Some(Deployment::Clustered { redis, .. }) => (redis.secrets, problems.len()),
                other => panic!("{other:?}"),
            }
        };
        let given = |text: &str| ClusterSecret::Given(Secret::new(text));
        assert_eq!(secrets(""), (Vec::new(), 0));
        let both = vec![ClusterSecret::OfDatabase, given("0123456789abcdef")];
        assert_eq!(secrets("postgres, 0123456789abcdef"), (both, 0));
        assert_ne!(given("0123456789abcdef"), given("0123456789abcdeg"));
        assert_eq!(secrets("0123456789").1, 1, "too short");
    }

    #[test]
    fn a_cluster_on_sqlite_is_refused_and_told_what_to_set() {
        for set in [&[REDIS][..], &[REDIS, ("DATABASE_URL", "sqlite://m.db")]] {
            let (deployment, problems) = read(set);
            assert_eq!(deployment, None);
            assert_eq!(problems.len(), 1);
            let text = problems[0].to_string();
            assert!(text.contains("DATABASE_URL=postgres://"), "{text}");
            assert!(text.contains("REDIS_URL"), "{text}");
        }
        assert_eq!(read(&[("REDIS_CLUSTER", "true")]).1[0].name, "REDIS_CLUSTER");
        let no_file = [POSTGRES, REDIS, ("REDIS_TLS_CA_FILE", "/nowhere/ca.pem")];
        assert_eq!(read(&no_file).1[0].name, "REDIS_TLS_CA_FILE");
    }

    #[test]
    fn wrong_urls_are_all_reported_and_never_quoted_whole() {
        let (_, problems) = read(&[
            ("DATABASE_URL", "mysql://u:hunter2@db/mesh"),
            ("REDIS_URL", "cache:hunter2"),
            ("DATABASE_POOL_MAX", "0"),
        ]);
        let names: Vec<&str> = problems.iter().map(|problem| problem.name).collect();
        assert_eq!(names, ["DATABASE_POOL_MAX", "DATABASE_URL", "REDIS_URL"]);
        assert_eq!(problems[1].value.as_deref(), Some("mysql://u:[redacted]@db/mesh"));
        assert!(!format!("{problems:?}").contains("hunter2"), "{problems:?}");
    }
}
