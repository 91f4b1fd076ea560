//! A look at a Redis from outside, for those who set one up: what it says of
//! itself, and each thing that nodes ask of it, tried.

use std::sync::Arc;
use std::time::Duration;

use redis::{PushInfo, RedisResult, Value};
use tokio::sync::Notify;

use super::bus::Push;
use super::connection::{Connection, Opener, is_answer, timed_out, unavailable};
use super::keys::Keys;
use super::link::load_scripts;
use super::scripts::{self, Scripts};
use super::seals::Seals;
use super::settings::RedisSettings;
use crate::cluster::Result;

/// From publishing to hearing it. Later: the bus is deaf.
const HEARING_TIMEOUT: Duration = Duration::from_secs(2);

/// How long what is tried stays if it is not taken away.
const TRIAL_MS: u64 = 5_000;

/// What a Redis says of itself, empty where it does not say, and does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisFacts {
    /// Its name, if it is not Redis, and its version.
    pub version: String,
    /// `master`, or what takes no writes.
    pub role: String,
    /// What it does when its memory is full.
    pub maxmemory_policy: String,
    /// Bytes in use, and how many may be; `None` without a limit.
    pub memory: Option<(u64, u64)>,
    /// What it does not do that nodes need, each with its reason.
    pub refusals: Vec<(Need, String)>,
    /// Nodes that sign by another key.
    pub strangers: u32,
}

/// What nodes need of a Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To load scripts, and to run one that writes.
    Scripts,
    /// To write, read and delete.
    Writes,
    /// To hear what is published.
    Bus,
}

/// Connects, asks and tries.
///
/// # Errors
///
/// [`ClusterError::Unavailable`](crate::cluster::ClusterError::Unavailable) with
/// the reason.
pub async fn examine(settings: &RedisSettings) -> Result<RedisFacts> {
    // The servers of a Redis Cluster are set up alike: one of them is asked.
    let plain = RedisSettings { cluster_mode: false, ..settings.clone() };
    let opener = Opener::new(&plain).map_err(unavailable)?;
    let mut facts = ask(&mut opener.open().await.map_err(unavailable)?).await?;
    let opener = Opener::new(settings).map_err(unavailable)?;
    let connection = opener.open().await.map_err(unavailable)?;
    let keys = Keys::of(settings, opener.database());
    let trial = keys.trial(rand::random());
    let trials = [
        (Need::Scripts, try_scripts(connection.clone(), &trial).await),
        (Need::Writes, try_writes(connection.clone(), &trial).await),
        (Need::Bus, try_bus(connection.clone(), &opener, &trial).await),
    ];
    for (need, tried) in trials {
        if let Err(error) = tried {
            facts.refusals.push((need, error.to_string()));
        }
    }
    facts.strangers = strangers(connection, &keys, settings).await.unwrap_or(0);
    Ok(facts)
}

/// Who may not ask is told nothing, and that is no fault.
async fn ask(connection: &mut Connection) -> Result<RedisFacts> {
    let info: RedisResult<String> = redis::cmd("INFO").query_async(connection).await;
    let info = match info {
        Err(error) if !is_answer(&error) => return Err(unavailable(error)),
        info => info.unwrap_or_default(),
    };
    let field = |name: &str| {
        let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_default().trim().to_owned()
    };
    let bytes = |name: &str| field(name).parse::<u64>().unwrap_or(0);
    let memory = Some((bytes("used_memory"), bytes("maxmemory"))).filter(|(_, max)| *max > 0);
    Ok(RedisFacts {
        version: version(&field("redis_version"), &field("valkey_version")),
        role: field("role"),
        maxmemory_policy: field("maxmemory_policy"),
        memory,
        ..RedisFacts::default()
    })
}

/// Valkey says 7.2.4 for good where Redis says its version.
fn version(redis: &str, valkey: &str) -> String {
    if valkey.is_empty() { redis.to_owned() } else { format!("Valkey {valkey}") }
}

async fn try_scripts(mut connection: Connection, trial: &str) -> RedisResult<()> {
    load_scripts(&mut connection).await?;
    let mut call = scripts::call(&Scripts::new().members, &[trial.to_owned()]);
    call.arg("trial").arg(TRIAL_MS);
    call.query_async::<Value>(&mut connection).await?;
    let mut delete = redis::cmd("DEL");
    delete.arg(trial).query_async::<Value>(&mut connection).await.map(drop)
}

async fn try_writes(mut connection: Connection, trial: &str) -> RedisResult<()> {
    let mut set = redis::cmd("SET");
    set.arg(trial).arg("trial").arg("NX").arg("PX").arg(TRIAL_MS);
    set.query_async::<Value>(&mut connection).await?;
    let mut take = redis::cmd("GETDEL");
    take.arg(trial).query_async::<Value>(&mut connection).await.map(drop)
}

/// As a node does: by one connection out, by another in.
async fn try_bus(mut out: Connection, opener: &Opener, trial: &str) -> RedisResult<()> {
    let heard = Arc::new(Notify::new());
    let on_push = {
        let (heard, trial) = (Arc::clone(&heard), trial.to_owned());
        move |info: PushInfo| {
            if Push::from_info(info).is_some_and(|push| push.channel == trial) {
                heard.notify_one();
            }
            Ok(())
        }
    };
    let mut listening = opener.open_with_pushes(on_push).await?;
    listening.subscribe(&[trial.to_owned()]).await?;
    let mut publish = redis::cmd(match out {
        Connection::Plain(_) => "PUBLISH",
        Connection::Sharded(_) => "SPUBLISH",
    });
    publish.arg(trial).arg("trial").query_async::<Value>(&mut out).await?;
    tokio::time::timeout(HEARING_TIMEOUT, heard.notified()).await.map_err(|_| timed_out())
}

/// Nodes that are there, and no node by this key.
async fn strangers(
    mut connection: Connection,
    keys: &Keys,
    settings: &RedisSettings,
) -> RedisResult<u32> {
    let mut range = redis::cmd("ZRANGE");
    range.arg(keys.nodes()).arg(0).arg(-1);
    let members: Vec<String> = range.query_async(&mut connection).await?;
    Ok(super::members::read(&Seals::new(&settings.cluster_key), &keys.nodes(), &members).1)
}
