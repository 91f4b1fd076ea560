//! The cluster's Redis or Valkey: on loopback, with a password, and with
//! limits that a broker can live with.

use std::path::PathBuf;
use std::process::Command;

use super::files::{make_folder, write_for};
use super::folder::Folder;
use super::ports::Port;
use super::programs::{ServerUser, command_as, find_redis};

/// The server's configuration. Nothing in the server must outlive a restart: nodes write
/// their leases again. To evict keys would lose leases of peers that are
/// connected, so at the limit writes fail instead, which nodes survive. A node
/// that reads its subscription slowly is cut off only when it is far behind: it
/// then reads what it missed from Postgres.
const CONFIGURATION: &str = "\
save \"\"
appendonly no
maxmemory 256mb
maxmemory-policy noeviction
client-output-buffer-limit pubsub 64mb 32mb 60
timeout 0
tcp-keepalive 60
";

#[derive(Debug)]
pub(super) struct Redis {
    program: PathBuf,
    /// The server's working folder, which is its user's.
    folder: PathBuf,
    /// The configuration lies outside of that folder: the user reads it, and cannot change
    /// it.
    configuration: PathBuf,
    user: Option<ServerUser>,
    password: String,
    pub(super) port: Port,
}

impl Redis {
    /// Finds the server's program, and a port.
    pub(super) fn find(at: &Folder, user: Option<ServerUser>) -> anyhow::Result<Self> {
        let program = find_redis()?;
        let port = Port::again_or_any(at.last_port("redis"))?;
        let (folder, configuration) = (at.path().join("redis"), at.path().join("redis.conf"));
        Ok(Self { program, folder, configuration, user, password: at.password()?, port })
    }

    pub(super) fn url(&self) -> String {
        format!("redis://:{}@127.0.0.1:{}/", self.password, self.port.number())
    }

    /// Writes the configuration: a password does not belong in a command line.
    pub(super) fn prepare(&self) -> anyhow::Result<()> {
        make_folder(&self.folder, self.user)?;
        let (port, password) = (self.port.number(), &self.password);
        let listening = format!("bind 127.0.0.1\nport {port}\nrequirepass {password}\n");
        write_for(&self.configuration, &format!("{listening}{CONFIGURATION}"), self.user)
    }

    /// The command that runs the server.
    pub(super) fn serve(&self) -> Command {
        let mut command = command_as(&self.program, self.user);
        command.arg(&self.configuration).current_dir(&self.folder).env_clear();
        command
    }

    /// Whether the server answers.
    pub(super) async fn is_ready(&self) -> bool {
        let Ok(client) = redis::Client::open(self.url()) else { return false };
        let Ok(mut connection) = client.get_multiplexed_async_connection().await else {
            return false;
        };
        redis::cmd("PING").query_async::<String>(&mut connection).await.is_ok()
    }
}
