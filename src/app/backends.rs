//! The back ends that a configuration names: the store, and what nodes share.
//!
//! The only place that names a database or Redis by type. Nothing is served from here.
//! The root opens them for a node, the command line for operators.

use std::sync::Arc;

use anyhow::Context as _;

use crate::cluster::books::LeaseTimes;
use crate::cluster::redis::seals::ClusterKey;
use crate::cluster::redis::{RedisCluster, RedisSettings};
use crate::cluster::single::SingleCluster;
use crate::cluster::{Cluster, ClusterEvents};
use crate::config::{ClusterSecret, Config, Deployment, PostgresConfig, RedisConfig, StoreConfig};
use crate::store::postgres::{PostgresSettings, PostgresStore};
use crate::store::sqlite::SqliteStore;
use crate::store::{ClusterIdentity, Stores};

/// Opens the store that the configuration names, with its schema up to date.
///
/// # Errors
///
/// A sentence that says what is wrong with the database or its folder.
pub async fn open_store(config: &Config) -> anyhow::Result<Stores> {
    let store = connect_store(config).await?;
    migrate(&store).await?;
    Ok(store)
}

pub(super) async fn migrate(store: &Stores) -> anyhow::Result<()> {
    store.database.migrate().await.context("the database could not be brought up to date")
}

/// Opens the store as it is; for those that look at migrations.
///
/// # Errors
///
/// As [`open_store`].
pub async fn connect_store(config: &Config) -> anyhow::Result<Stores> {
    match &config.deployment {
        Deployment::Single { store: StoreConfig::Sqlite { file, .. } } => {
            Ok(Stores::of(Arc::new(SqliteStore::open(file).await?)))
        }
        Deployment::Single { store: StoreConfig::Postgres(postgres) }
        | Deployment::Clustered { postgres, .. } => {
            Ok(Stores::of(Arc::new(PostgresStore::connect(&postgres_settings(postgres))?)))
        }
    }
}

pub(super) fn postgres_settings(postgres: &PostgresConfig) -> PostgresSettings {
    PostgresSettings {
        url: postgres.url.expose().to_owned(),
        pool_max: postgres.pool_max,
        statement_cache_max: postgres.statement_cache_max,
    }
}

pub(super) async fn open_cluster(
    config: &Config,
    store: &Stores,
) -> anyhow::Result<(Arc<dyn Cluster>, ClusterEvents)> {
    let presence = &config.presence;
    let times = LeaseTimes {
        grace_ms: u64::try_from(presence.lease_grace_ms)?,
        ttl_ms: u64::try_from(presence.lease_ttl_ms)?,
    };
    match &config.deployment {
        Deployment::Single { .. } => {
            let (cluster, events) = match config.deployment.data_dir() {
                Some(folder) => SingleCluster::remembering(times, folder),
                None => SingleCluster::new(times),
            };
            Ok((cluster, events))
        }
        Deployment::Clustered { redis, .. } => {
            let identity = store.database.cluster_identity().await;
            let identity = identity.context("who the cluster is could not be read")?;
            let settings = redis_settings(config, redis, identity)?;
            let (cluster, events) = RedisCluster::connect(settings).await?;
            Ok((cluster, events))
        }
    }
}

/// Where Redis is and who this node is in it.
///
/// # Errors
///
/// When a window of time is negative, which no configuration makes it.
pub fn redis_settings(
    config: &Config,
    redis: &RedisConfig,
    identity: ClusterIdentity,
) -> anyhow::Result<RedisSettings> {
    Ok(RedisSettings {
        url: redis.url.clone(),
        cluster_mode: redis.cluster,
        ca_file: redis.ca_file.clone(),
        node: config.node.id.clone(),
        region: config.node.region.clone(),
        lease_grace_ms: u64::try_from(config.presence.lease_grace_ms)?,
        lease_ttl_ms: u64::try_from(config.presence.lease_ttl_ms)?,
        key_prefix: REDIS_KEY_PREFIX.to_owned(),
        cluster_key: cluster_key(redis, identity),
    })
}

/// The secrets that are set, in their order, or the one in the database.
fn cluster_key(redis: &RedisConfig, identity: ClusterIdentity) -> ClusterKey {
    let ClusterIdentity { id, secret } = identity;
    let mut secrets = redis.secrets.iter().map(|named| match named {
        ClusterSecret::OfDatabase => secret.clone(),
        ClusterSecret::Given(given) => given.expose().as_bytes().to_vec(),
    });
    let first = secrets.next().unwrap_or_else(|| secret.clone());
    ClusterKey { id, secret: first, others: secrets.collect() }
}

/// What every key in Redis begins with.
const REDIS_KEY_PREFIX: &str = "claudemesh";
