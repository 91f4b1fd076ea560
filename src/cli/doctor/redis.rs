//! Redis, for a node of a cluster.

use super::Check;
use crate::app;
use crate::cluster::redis::{Need, RedisFacts, examine};
use crate::config::{Config, Deployment};
use crate::store::ClusterIdentity;

/// The share of its memory above which Redis deserves a warning.
const MEMORY_WARN_PERCENT: u64 = 90;

/// Looks at Redis; `None` for a single node.
pub(super) async fn check(config: &Config) -> Option<Check> {
    let Deployment::Clustered { redis, .. } = &config.deployment else { return None };
    let settings = match app::redis_settings(config, redis, identity(config).await) {
        Ok(settings) => settings,
        Err(error) => return Some(unreachable(&error)),
    };
    Some(match examine(&settings).await {
        Ok(facts) => judge(&facts),
        Err(error) => unreachable(&error),
    })
}

/// The cluster's identity; where the database does not say it, which is told elsewhere,
/// one that nobody has, so that nodes are not looked for.
async fn identity(config: &Config) -> ClusterIdentity {
    let Ok(store) = app::connect_store(config).await else { return ClusterIdentity::generate() };
    let identity = store.database.cluster_identity().await;
    store.database.close().await;
    identity.unwrap_or_else(|_| ClusterIdentity::generate())
}

fn unreachable(error: &dyn std::fmt::Display) -> Check {
    Check::fail(
        "redis",
        format!("cannot be used: {error:#}"),
        "start Redis, or set REDIS_URL to where it is; without it each node admits and delivers \
         by itself, slower",
    )
}

fn judge(facts: &RedisFacts) -> Check {
    let found = found(facts);
    if !matches!(facts.role.as_str(), "" | "master") {
        let todo = "set REDIS_URL to the primary: a replica takes no leases";
        return Check::fail("redis", found, todo);
    }
    if let Some((need, error)) = facts.refusals.first() {
        let (what, todo) = advice(*need);
        return Check::fail("redis", format!("{found}; {what}: {error}"), todo);
    }
    if facts.strangers > 0 {
        let found = format!("{found}; {} nodes there sign by another key", facts.strangers);
        let todo = "set the same CLUSTER_SECRET on all nodes, or on none: what they say to each \
                    other is not heard";
        return Check::fail("redis", found, todo);
    }
    let number = facts.version.trim_start_matches("Valkey ");
    let major: Option<u32> = number.split('.').next().and_then(|text| text.parse().ok());
    if major.is_some_and(|major| major < 7) {
        return Check::warn("redis", found, "use Redis 7 or Valkey: nothing older is tested");
    }
    if !matches!(facts.maxmemory_policy.as_str(), "" | "noeviction") {
        let found = format!("{found}; maxmemory-policy {}", facts.maxmemory_policy);
        let todo = "set maxmemory-policy noeviction: an evicted lease is a session that others \
                    take for gone";
        return Check::warn("redis", found, todo);
    }
    match facts.memory {
        Some((used, max)) if used >= max / 100 * MEMORY_WARN_PERCENT => {
            let found = format!("{found}; {used} of {max} bytes in use");
            Check::warn("redis", found, "raise maxmemory: at the limit nothing can be written")
        }
        _ => Check::ok("redis", found),
    }
}

fn found(facts: &RedisFacts) -> String {
    match facts.version.as_str() {
        "" => "reachable; it does not say what it is".to_owned(),
        version if version.starts_with("Valkey") => format!("reachable; {version}, {}", facts.role),
        version => format!("reachable; version {version}, {}", facts.role),
    }
}

/// What is missing, and what to do about it.
fn advice(need: Need) -> (&'static str, &'static str) {
    match need {
        Need::Scripts => (
            "scripts do not run",
            "allow the user of REDIS_URL all commands and keys (+@all ~*), and see that Redis can \
             write: memory, disk, replicas",
        ),
        Need::Writes => (
            "it takes no writes",
            "see whether its memory or disk is full or replicas are missing (MISCONF, OOM, \
             NOREPLICAS)",
        ),
        Need::Bus => (
            "what is published is not heard",
            "allow the user of REDIS_URL all channels (&*): Redis 7 allows none by default",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn a_redis_that_cannot_hold_leases_is_told_apart() {
        let good = RedisFacts {
            version: "7.0.15".to_owned(),
            role: "master".to_owned(),
            maxmemory_policy: "noeviction".to_owned(),
            ..RedisFacts::default()
        };
        assert_eq!(judge(&good).status, Status::Ok);
        let silent = RedisFacts::default();
        assert_eq!(judge(&silent).status, Status::Ok, "it may not say, and does all");
        let replica = RedisFacts { role: "slave".to_owned(), ..good.clone() };
        assert_eq!(judge(&replica).status, Status::Fail);
        let old = RedisFacts { version: "6.2.1".to_owned(), ..good.clone() };
        assert_eq!(judge(&old).status, Status::Warn);
        let valkey = RedisFacts { version: "Valkey 9.1.2".to_owned(), ..good.clone() };
        assert_eq!(judge(&valkey).to_text(), "ok    redis     reachable; Valkey 9.1.2, master");
        let full = RedisFacts { memory: Some((95, 100)), ..good.clone() };
        assert!(judge(&full).to_text().contains("95 of 100"));
        let strangers = RedisFacts { strangers: 1, ..good.clone() };
        assert!(judge(&strangers).to_text().contains("CLUSTER_SECRET"));
        let refusals = vec![(Need::Bus, "NOPERM".to_owned())];
        let deaf = judge(&RedisFacts { refusals, ..good.clone() });
        assert!(deaf.status == Status::Fail && deaf.to_text().contains("&*"), "{deaf:?}");
        let evicts = RedisFacts { maxmemory_policy: "allkeys-lru".to_owned(), ..good };
        assert!(judge(&evicts).to_text().contains("noeviction"));
    }
}
