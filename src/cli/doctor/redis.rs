//! Redis, for a node of a cluster.

use super::Check;
use crate::app;
use crate::cluster::redis::{RedisFacts, examine};
use crate::config::{Config, Deployment};

/// Looks at Redis; `None` for a single node.
pub(super) async fn check(config: &Config) -> Option<Check> {
    let Deployment::Clustered { redis, .. } = &config.deployment else { return None };
    let settings = match app::redis_settings(config, redis) {
        Ok(settings) => settings,
        Err(error) => return Some(unreachable(&error)),
    };
    Some(match examine(&settings).await {
        Ok(facts) => judge(&facts),
        Err(error) => unreachable(&error),
    })
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
    let found = format!("reachable; version {}, {}", facts.version, facts.role);
    let major: u32 =
        facts.version.split('.').next().and_then(|text| text.parse().ok()).unwrap_or(0);
    if facts.role != "master" {
        let todo = "set REDIS_URL to the primary: a replica takes no leases";
        return Check::fail("redis", found, todo);
    }
    if major < 7 {
        return Check::warn("redis", found, "use Redis 7 or Valkey: nothing older is tested");
    }
    if !matches!(facts.maxmemory_policy.as_str(), "" | "noeviction") {
        let found = format!("{found}; maxmemory-policy {}", facts.maxmemory_policy);
        let todo = "set maxmemory-policy noeviction: an evicted lease is a session that others \
                    take for gone";
        return Check::warn("redis", found, todo);
    }
    Check::ok("redis", found)
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
        };
        assert_eq!(judge(&good).status, Status::Ok);
        let replica = RedisFacts { role: "slave".to_owned(), ..good.clone() };
        assert_eq!(judge(&replica).status, Status::Fail);
        let old = RedisFacts { version: "6.2.1".to_owned(), ..good.clone() };
        assert_eq!(judge(&old).status, Status::Warn);
        let evicts = RedisFacts { maxmemory_policy: "allkeys-lru".to_owned(), ..good };
        assert!(judge(&evicts).to_text().contains("noeviction"));
    }
}
