//! The cluster's Postgres: a database cluster of its own in the folder, on
//! loopback, with a password.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

use super::files::{make_folder, write_for};
use super::folder::Folder;
use super::ports::Port;
use super::programs::{ServerUser, command_as, find_postgres};
use crate::cli::Failure;

/// The database that the nodes share.
const DATABASE: &str = "claudemesh";
/// Connections for sixteen nodes with the default pool, and some for people.
const CONNECTIONS_MAX: u32 = 200;

#[derive(Debug)]
pub(super) struct Postgres {
    programs: PathBuf,
    /// The folder of which `data` is the data. That is the server's user's; the folder is not.
    folder: PathBuf,
    user: Option<ServerUser>,
    password: String,
    pub(super) port: Port,
}

impl Postgres {
    /// Finds the server's programs, and a port.
    pub(super) fn find(at: &Folder, user: Option<ServerUser>) -> anyhow::Result<Self> {
        let folder = at.path().join("postgres");
        let version = std::fs::read_to_string(folder.join("data/PG_VERSION")).ok();
        let programs = find_postgres(version.as_deref().map(str::trim))?;
        let port = Port::again_or_any(at.last_port("postgres"))?;
        Ok(Self { programs, folder, user, password: at.password()?, port })
    }

    pub(super) fn url(&self) -> String {
        format!("postgres://postgres:{}@127.0.0.1:{}/{DATABASE}", self.password, self.port.number())
    }

    /// Makes the data, if there is none, under another name until it is complete: a crash in
    /// between leaves nothing that looks like data.
    pub(super) fn prepare(&self) -> anyhow::Result<()> {
        let (data, unfinished) = (self.data(), self.folder.join("data.new"));
        make_folder(&self.folder, None)?;
        if data.exists() {
            return Ok(());
        }
        self.check_reachable()?;
        match std::fs::symlink_metadata(&unfinished) {
            Ok(left) if left.is_dir() => std::fs::remove_dir_all(&unfinished)?,
            Ok(_) => std::fs::remove_file(&unfinished)?,
            Err(_) => {}
        }
        make_folder(&unfinished, self.user)?;
        let password_file = self.folder.join("password");
        write_for(&password_file, &self.password, self.user)?;
        let mut initdb = self.command("initdb");
        initdb
            .args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8"])
            .arg("--no-locale")
            .arg("--pwfile")
            .arg(&password_file)
            .arg("--pgdata")
            .arg(&unfinished);
        let made = run(&mut initdb, None);
        std::fs::remove_file(&password_file)?;
        made?;
        let mut alone = self.command("postgres");
        alone.arg("--single").arg("-D").arg(&unfinished).arg("postgres");
        run(&mut alone, Some(&format!("create database {DATABASE}\n")))?;
        std::fs::rename(&unfinished, &data)?;
        Ok(())
    }

    /// The command that runs the server, as durable as it comes.
    pub(super) fn serve(&self) -> Command {
        let mut command = self.command("postgres");
        command
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.number().to_string()])
            .args(["-c", "listen_addresses=127.0.0.1"])
            // A socket's path has a length limit, and nobody needs one.
            .args(["-c", "unix_socket_directories="])
            .args(["-c", &format!("max_connections={CONNECTIONS_MAX}")]);
        command
    }

    /// Whether the server with that process id takes connections: it says so in
    /// its pid file, which may also be an older one's.
    pub(super) fn is_ready(&self, pid: u32) -> bool {
        let text = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        let mut lines = text.lines();
        let is_its = lines.next().and_then(|line| line.trim().parse().ok()) == Some(pid);
        is_its && lines.next_back().is_some_and(|line| line.trim() == "ready")
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = command_as(&self.programs.join(program), self.user);
        command.current_dir(&self.folder).env_clear().env("PATH", &self.programs);
        command.env("LC_ALL", "C").env("TZ", "UTC");
        command
    }

    /// Refuses a folder that the server's user cannot reach from above.
    fn check_reachable(&self) -> Result<(), Failure> {
        let mut look = command_as(Path::new("/bin/sh"), self.user);
        look.args(["-c", "cd -- \"$1\"", "sh"]).arg(&self.folder).stderr(Stdio::null());
        if look.status().is_ok_and(|status| status.success()) {
            return Ok(());
        }
        Err(Failure::new(
            "bad_folder",
            format!(
                "Postgres runs as another user than root, who cannot enter {}; give a folder \
                 that others can enter with --dir, such as /var/lib/claudemesh/cluster",
                self.folder.display()
            ),
        ))
    }
}

/// Runs a program to its end, with `input`.
fn run(command: &mut Command, input: Option<&str>) -> anyhow::Result<()> {
    let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_owned();
    let name = name.to_string_lossy();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.unwrap_or_default().as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    // A single-user server reports a failed statement and ends well.
    if output.status.success() && !said.contains("ERROR:") {
        return Ok(());
    }
    let text = format!("{name} failed: {}", said.trim());
    Err(Failure::new("postgres_failed", text).into())
}
