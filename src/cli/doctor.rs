//! `claudemesh-broker doctor`: looks at what the broker stands on, and says what
//! to do about what it finds.

use std::process::ExitCode;

use super::{listen, probe};
use crate::config::{Config, ConfigErrors, ListenConfig};
use crate::output::check::{self, Check, Status};
use crate::socket::half_open::{affordable, reserved_files};

mod disk;
mod redis;
mod store;

/// A mesh of some size does not fit into fewer open files.
const OPEN_FILES_WANTED: u64 = 4096;

/// Runs every check. The exit code is 1 when one fails.
pub(crate) async fn run(
    json: bool,
    config: Result<Config, ConfigErrors>,
) -> anyhow::Result<ExitCode> {
    let checks = match config {
        Ok(config) => check_all(&config).await,
        // What the rest should look at is not known.
        Err(errors) => wrong_settings(&errors),
    };
    check::report(json, &checks)
}

async fn check_all(config: &Config) -> Vec<Check> {
    let mut checks = vec![
        Check::ok("settings", format!("valid; a {} node", config.deployment)),
        port(&config.listen).await,
        open_files(listen::open_files(), reserved_files(config)),
    ];
    let folder = disk::data_folder(&config.deployment, config.message.disk_free_min_bytes);
    let is_usable = folder.status != Status::Fail;
    checks.push(folder);
    if is_usable {
        checks.extend(store::check(config).await);
        checks.extend(redis::check(config).await);
    } else {
        checks.push(store::clock(None));
    }
    checks
}

fn wrong_settings(errors: &ConfigErrors) -> Vec<Check> {
    let wrong = errors.0.iter().map(|error| {
        let found = match &error.value {
            Some(value) => format!("{} is {value:?}", error.name),
            None => format!("{} is not set", error.name),
        };
        Check::fail("settings", found, error.problem.clone())
    });
    wrong.collect()
}

async fn port(config: &ListenConfig) -> Check {
    let port = config.port;
    let error = match listen::bind(config) {
        Ok(_) if port == 0 => return Check::ok("port", "any that is free (BROKER_PORT is 0)"),
        Ok(bound) if bound.ipv4_only => {
            return Check::ok("port", format!("{port} is free; IPv4 only, there is no IPv6"));
        }
        Ok(_) => return Check::ok("port", format!("{port} is free; no broker is running")),
        Err(error) => error,
    };
    match probe::health(config).await {
        Some(health) if health.db == "up" => {
            Check::ok("port", format!("{port} is served by a claudemesh-broker {}", health.version))
        }
        Some(health) => Check::fail(
            "port",
            format!("the claudemesh-broker {} on {port} has lost its database", health.version),
            "look at the broker's log and at the database",
        ),
        None => {
            let failure = listen::explain(config, &error, None);
            let (found, todo) = failure
                .message
                .split_once("; ")
                .unwrap_or((failure.message.as_str(), "set BROKER_PORT to another port"));
            Check::fail("port", found, todo)
        }
    }
}

fn open_files((soft, hard): (Option<u64>, Option<u64>), reserved: u64) -> Check {
    let room = format!("room for {} sockets before their hello", affordable(hard, reserved));
    match hard {
        Some(max) if max < OPEN_FILES_WANTED => Check::warn(
            "limits",
            format!("at most {max} open files, so somewhat fewer sockets; {room}"),
            "raise the hard limit: LimitNOFILE=65536 in a systemd unit, --ulimit nofile=65536 for \
             a container, or nofile in /etc/security/limits.conf",
        ),
        Some(max) if soft == hard => Check::ok("limits", format!("{max} open files; {room}")),
        Some(max) => Check::ok(
            "limits",
            format!("{max} open files (the broker raises its own limit); {room}"),
        ),
        None => Check::ok("limits", format!("no limit of open files; {room}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigError;

    #[test]
    fn few_open_files_are_a_warning_that_says_how_to_raise_them() {
        assert_eq!(open_files((Some(1024), Some(1024)), 64).status, Status::Warn);
        assert_eq!(open_files((Some(1024), Some(524_288)), 64).status, Status::Ok);
        assert_eq!(open_files((None, None), 64).status, Status::Ok);
        let text = open_files((Some(256), Some(256)), 64).to_text();
        assert!(text.contains("LimitNOFILE") && text.contains("room for 96"), "{text}");
    }

    #[test]
    fn each_wrong_setting_is_a_failed_check() {
        let error = ConfigError {
            name: "BROKER_PORT",
            value: Some("x".to_owned()),
            problem: "set a number".to_owned(),
        };
        let checks = wrong_settings(&ConfigErrors(vec![error]));
        assert_eq!(checks.len(), 1);
        assert_eq!(
            checks[0].to_text(),
            "FAIL  settings  BROKER_PORT is \"x\"\n                -> set a number"
        );
    }

    #[tokio::test]
    async fn a_port_that_something_else_holds_is_a_failure() {
        let holder = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port_number = holder.local_addr().expect("bound").port();
        let config = ListenConfig { bind: "127.0.0.1".parse().ok(), port: port_number };
        let check = port(&config).await;
        assert_eq!(check.status, Status::Fail);
        assert!(check.to_text().contains("BROKER_PORT"), "{}", check.to_text());
        drop(holder);
        assert_eq!(port(&config).await.status, Status::Ok);
    }
}
