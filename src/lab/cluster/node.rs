//! One node of the cluster: this program, as a child.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::Context as _;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::ChildStdout;

use super::folder::Folder;
use super::ports::Port;
use super::programs::{ServerUser, this_program_as};
use crate::config::process_env;

/// Variables that the nodes get besides those of this process.
pub(super) type Environment = BTreeMap<&'static str, String>;

#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) port: Port,
    /// The URL that the node's banner said.
    pub(super) url: String,
    environment: Environment,
    user: Option<ServerUser>,
}

/// The settings of every node, which listens on loopback unless told otherwise: the
/// caller's other settings hold.
pub(super) fn environment(database_url: &str, redis_url: &str) -> Environment {
    let mut environment = Environment::from([
        ("DATABASE_URL", database_url.to_owned()),
        ("REDIS_URL", redis_url.to_owned()),
        ("REDIS_CLUSTER", "false".to_owned()),
    ]);
    if process_env("BROKER_BIND").is_none() {
        environment.insert("BROKER_BIND", "127.0.0.1".to_owned());
    }
    environment
}

impl Node {
    pub(super) fn new(
        at: &Folder,
        number: u8,
        port: Port,
        user: Option<ServerUser>,
        mut environment: Environment,
    ) -> Self {
        let name = format!("node-{number}");
        environment.insert("NODE_ID", name.clone());
        environment.insert("BROKER_PORT", port.number().to_string());
        // The caller may have the first node's address: from a shell that has read `env.sh`.
        let url = format!("ws://localhost:{}/ws", port.number());
        environment.insert("BROKER_WS_URL", url);
        // A node needs no folder; but nothing of it may end up in the caller's.
        environment.insert("CLAUDEMESH_DATA_DIR", at.path().display().to_string());
        Self { name, port, url: String::new(), environment, user }
    }

    /// The node itself; its banner is one line of JSON.
    pub(super) fn serve(&self) -> std::io::Result<Command> {
        let mut command = this_program_as(self.user)?;
        command.args(["serve", "--json"]).envs(&self.environment);
        Ok(command)
    }

    /// Reads the banner, which a node prints when it listens.
    pub(super) async fn read_banner(&mut self, from: &mut ChildStdout) -> anyhow::Result<()> {
        #[derive(Deserialize)]
        struct Banner {
            url: String,
        }
        let mut line = String::new();
        BufReader::new(from).read_line(&mut line).await?;
        let banner: Banner = serde_json::from_str(&line).context("it did not start to listen")?;
        self.url = banner.url;
        Ok(())
    }
}
