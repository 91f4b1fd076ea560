//! The database, and this machine's clock beside what the database remembers.

use super::Check;
use crate::app;
use crate::clock::Timestamp;
use crate::config::{Config, Deployment, StoreConfig};
use crate::limits::HELLO_SIGNATURE_WINDOW_MS;
use crate::store::{self, Stores};

/// The beginning of 2026: a clock that shows less is not set, since this program did not
/// exist then.
const CLOCK_FLOOR: Timestamp = Timestamp::from_ms(1_767_225_600_000);

/// Meshes whose newest row is looked at.
const MESHES_LOOKED_AT: usize = 50;

const SET_CLOCK: &str = "set the clock, and let NTP keep it: hellos that are off by more than a \
                         minute are refused";

/// Looks at the database and then at the clock.
pub(super) async fn check(config: &Config) -> Vec<Check> {
    if let Deployment::Single { store: StoreConfig::Sqlite { file, .. } } = &config.deployment
        && !file.exists()
    {
        let found = format!("{} will be made at the first start", file.display());
        return vec![Check::ok("database", found), clock(None)];
    }
    let (database, newest) = match app::connect_store(config).await {
        Ok(store) => {
            let found = look(&store).await;
            store.database.close().await;
            found.unwrap_or_else(|error| (unreachable(&error), None))
        }
        Err(error) => (unreachable(&error), None),
    };
    vec![database, clock(newest)]
}

fn unreachable(error: &dyn std::fmt::Display) -> Check {
    Check::fail(
        "database",
        format!("cannot be used: {error:#}"),
        "start the database, or set DATABASE_URL (CLAUDEMESH_DATA_DIR for SQLite) to where it is",
    )
}

/// What to say of the database, and its newest instant.
async fn look(store: &Stores) -> store::Result<(Check, Option<Timestamp>)> {
    store.database.ping().await?;
    let pending = store.database.pending_migrations().await?;
    if !pending.is_empty() {
        // Nothing more can be asked where tables may be missing.
        let found = format!("reachable; not migrated yet: {}", pending.join(", "));
        let todo = "run `claudemesh-broker migrate`, or start the broker, which does it too";
        return Ok((Check::warn("database", found, todo), None));
    }
    let meshes = store.meshes.all().await?;
    let waiting: i64 = meshes.iter().map(|mesh| mesh.queued).sum();
    let mut newest = meshes.iter().map(|mesh| mesh.mesh.created_at).max();
    for summary in meshes.iter().take(MESHES_LOOKED_AT) {
        let rows = store.audit.before(&summary.mesh.id, None, i64::MAX, 1).await?;
        newest = newest.max(rows.first().map(|row| row.created_at));
    }
    let found = format!("reachable; meshes: {}, messages waiting: {waiting}", meshes.len());
    Ok((Check::ok("database", found), newest))
}

/// What to say of the clock, when the database's newest row is of `newest`.
pub(super) fn clock(newest: Option<Timestamp>) -> Check {
    judge_clock(Timestamp::now(), newest)
}

fn judge_clock(now: Timestamp, newest: Option<Timestamp>) -> Check {
    if now < CLOCK_FLOOR {
        return Check::fail("clock", format!("it is not {now}"), SET_CLOCK);
    }
    let ahead_ms = newest.map_or(0, |newest| newest.ms_since(now));
    if ahead_ms > HELLO_SIGNATURE_WINDOW_MS {
        let seconds = ahead_ms / 1000;
        let found = format!("{now}; the database holds a row from {seconds} s later");
        return Check::fail("clock", found, SET_CLOCK);
    }
    Check::ok("clock", format!("{now}"))
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn a_clock_before_this_program_is_wrong() {
        assert_eq!(judge_clock(Timestamp::from_ms(0), None).status, Status::Fail);
        assert_eq!(judge_clock(CLOCK_FLOOR, None).status, Status::Ok);
    }

    #[test]
    fn a_clock_behind_the_database_is_wrong() {
        let now = CLOCK_FLOOR;
        let at = |ms| judge_clock(now, Some(now.plus_ms(ms))).status;
        assert_eq!(at(-5_000), Status::Ok);
        assert_eq!(at(HELLO_SIGNATURE_WINDOW_MS), Status::Ok);
        assert_eq!(at(3_600_000), Status::Fail);
    }
}
