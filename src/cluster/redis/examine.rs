//! A look at a Redis from outside, for those who set one up.

use super::RedisSettings;
use super::connection::Opener;
use super::unavailable;
use crate::cluster::Result;

/// What a Redis says of itself; empty where it does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisFacts {
    /// Its version.
    pub version: String,
    /// `master`, or what takes no writes.
    pub role: String,
    /// What it does when its memory is full.
    pub maxmemory_policy: String,
}

/// Connects once and asks.
///
/// # Errors
///
/// [`ClusterError::Unavailable`](crate::cluster::ClusterError::Unavailable) with
/// the reason.
pub async fn examine(settings: &RedisSettings) -> Result<RedisFacts> {
    // The servers of a Redis Cluster are set up alike: one of them is asked.
    let one = RedisSettings { cluster_mode: false, ..settings.clone() };
    let opener = Opener::new(&one).map_err(unavailable)?;
    let mut connection = opener.open().await.map_err(unavailable)?;
    let info: String =
        redis::cmd("INFO").query_async(&mut connection).await.map_err(unavailable)?;
    let field = |name: &str| {
        let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_default().trim().to_owned()
    };
    Ok(RedisFacts {
        version: field("redis_version"),
        role: field("role"),
        maxmemory_policy: field("maxmemory_policy"),
    })
}
