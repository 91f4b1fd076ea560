//! The servers of `deploy/compose.yaml`, by what stands there: when Postgres
//! counts as ready, and how Valkey is started and looked after. They run here as
//! Debian packages them.

use std::path::Path;
use std::process::{Command, Stdio};

use claudemesh_broker::config::SecretUrl;
use rustix::process::Signal;

use super::{compose, filled_in, strings};
use crate::harness::child::ChildProcess;
use crate::harness::executable::write_program;
use crate::harness::ports::free_port;
use crate::harness::postgres::{Fsync, PrivatePostgres};
use crate::harness::program::ask_until;

/// The words of a health check.
fn check(service: &str) -> Vec<String> {
    let mut words = strings(&compose()["services"][service]["healthcheck"]["test"]);
    assert_eq!(words.remove(0), "CMD", "no shell is needed");
    words
}

/// Whether a check of Postgres is content, in a container of that server's.
fn is_content(words: &[String], server: &PrivatePostgres) -> bool {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdout(Stdio::null());
    command.env("PGPORT", server.port().to_string()).env("PGHOST", server.folder());
    command.status().expect("install postgresql-client").success()
}

#[test]
fn a_database_that_is_still_being_made_does_not_count_as_ready() {
    // The image starts a server so while it initialises.
    let making = PrivatePostgres::start_listening(Fsync::Off, "");
    let by_socket = ["pg_isready", "-U", "claudemesh"].map(str::to_owned);
    assert!(is_content(&by_socket, &making), "it answers, where no node can ask");
    assert!(!is_content(&check("postgres"), &making));
    assert!(is_content(&check("postgres"), PrivatePostgres::shared()));
    // Should it be slow all the same: nodes wait for this one.
    let restart = compose()["services"]["migrate"]["restart"].clone();
    assert!(
        restart.as_str().is_some_and(|policy| policy.starts_with("on-failure:")),
        "{restart:?}"
    );
}

#[test]
fn valkey_takes_its_password_unseen_and_counts_as_ready_with_it_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = free_port();
    // As Debian has them, on a port of the test's own.
    let server = format!("#!/bin/sh\nexec redis-server \"$@\" --port {port} --bind 127.0.0.1\n");
    write_program(&folder.path().join("valkey-server"), &server);
    let client = format!("#!/bin/sh\nexec redis-cli -p {port} \"$@\"\n");
    write_program(&folder.path().join("valkey-cli"), &client);
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").expect("a PATH"));
    let service = compose()["services"]["redis"].clone();
    let password = filled_in(service["environment"]["REDISCLI_AUTH"].as_str().expect("text"));
    let command = |words: &[String], password: Option<&str>| {
        let mut command = Command::new("env");
        command.args(words).current_dir(folder.path()).env_clear().env("PATH", &path);
        command.envs(password.map(|password| ("REDISCLI_AUTH", password)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let words: Vec<String> =
        strings(&service["command"]).iter().map(|word| filled_in(word)).collect();
    assert!(!words.concat().contains(&password), "it is no argument of the shell either");
    let server = ChildProcess::start(&mut command(&words, Some(&password)));
    let is_well = |password: Option<&str>| {
        command(&check("redis"), password).status().is_ok_and(|status| status.success())
    };
    ask_until("Valkey is ready", || is_well(Some(&password)));
    assert!(!is_well(None), "without the password nobody is answered");
    let arguments = std::fs::read_to_string(format!("/proc/{}/cmdline", server.0.id()));
    let arguments = arguments.expect("it runs");
    assert!(arguments.contains("redis-server"), "no shell in between: {arguments}");
    assert!(!arguments.contains(&password), "{arguments}");

    // As the nodes reach it, and as they need it.
    let url = compose()["services"]["node-1"]["environment"]["REDIS_URL"].clone();
    let url =
        filled_in(url.as_str().expect("text")).replace("redis:6379", &format!("127.0.0.1:{port}"));
    let url = SecretUrl::parse(&url).expect("a URL");
    let client = redis::Client::open(url.expose()).expect("a URL");
    let mut connection = client.get_connection().expect("the password is right");
    let mut setting = |name: &str| -> Vec<String> {
        redis::cmd("CONFIG").arg("GET").arg(name).query(&mut connection).expect(name)
    };
    assert_eq!(setting("maxmemory-policy")[1], "noeviction");
    assert_eq!(setting("maxmemory")[1], (256 << 20).to_string());
    assert!(setting("client-output-buffer-limit")[1].ends_with("pubsub 67108864 33554432 60"));
    server.signal(Signal::TERM);
    drop(server);
    assert!(!Path::new(&folder.path().join("dump.rdb")).exists(), "it keeps nothing");
}
