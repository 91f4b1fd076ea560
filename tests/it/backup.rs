//! What docs/OPERATIONS.md says of backups: made while the broker runs, and
//! restored elsewhere, the chain verifies and waiting mail arrives.

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use sqlx::Connection as _;

use crate::harness::postgres::PrivatePostgres;
use crate::harness::program::{Answer, Place, Printing, text};

/// A broker of one place, and the commands that go with it.
struct Broker<'a> {
    place: &'a Place,
    database: Option<String>,
}

impl Broker<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.command(&[args, &["--json"]].concat());
        command.envs(self.database.iter().map(|url| ("DATABASE_URL", url)));
        command
    }

    fn run(&self, args: &[&str]) -> Answer {
        let answer = Answer::of(&self.command(args).output().expect("it starts"), args);
        assert_eq!(answer.code, 0, "{answer:?}");
        answer
    }

    /// Serves; where peers reach it.
    fn serve(&self) -> (Printing, String) {
        let mut command = self.command(&["serve"]);
        command.env("BROKER_PORT", "0");
        let mut child = Printing::start(command);
        let port = child.next()["port"].as_u64().expect("a port");
        (child, format!("ws://127.0.0.1:{port}/ws"))
    }

    /// A mesh in which bob is away and mail waits for him.
    fn leave_mail(&self, url: &str) {
        self.run(&["mesh", "create", "team"]);
        let invite = self.run(&["invite", "create", "team", "--max-uses", "2"]).object();
        let link = text(&invite["link"]);
        for name in ["ada", "bob"] {
            self.run(&["peer", "join", &link, "--name", name, "--broker", url]);
        }
        self.run(&["peer", "send", "bob", "kept for you", "--as", "ada"]);
    }

    /// All of that is here.
    fn has_it_all(&self) {
        assert_eq!(self.run(&["audit", "verify", "team"]).object()["valid"], true);
        let (mut broker, url) = self.serve();
        let mut bob =
            Printing::start(self.command(&["peer", "listen", "--as", "bob", "--broker", &url]));
        assert_eq!(bob.next_of("message")["text"], "kept for you");
        drop(bob);
        broker.signal(Signal::TERM);
        assert!(broker.wait().success());
        assert_eq!(self.run(&["audit", "verify", "team"]).object()["valid"], true);
    }
}

fn copy_keys(from: &Path, to: &Path) {
    for folder in ["owners", "peers"] {
        let copied = Command::new("cp").arg("-r").arg(from.join(folder)).arg(to).status();
        assert!(copied.expect("cp").success(), "{folder}");
    }
}

#[tokio::test]
async fn a_copy_of_sqlite_made_while_it_serves_has_all_of_it() {
    let (here, there) = (Place::new(), Place::new());
    let broker = Broker { place: &here, database: None };
    let (_child, url) = broker.serve();
    broker.leave_mail(&url);
    let file = format!("sqlite://{}", here.path().join("broker.db").display());
    let mut sqlite = sqlx::SqliteConnection::connect(&file).await.expect("a file");
    sqlx::query("vacuum into $1")
        .bind(there.path().join("broker.db").display().to_string())
        .execute(&mut sqlite)
        .await
        .expect("a copy");
    sqlite.close().await.expect("closed");
    copy_keys(here.path(), there.path());
    Broker { place: &there, database: None }.has_it_all();
}

#[tokio::test]
async fn a_dump_of_postgres_made_while_it_serves_has_all_of_it() {
    let programs = ["pg_dump", "pg_restore"];
    let installed = |program: &&str| {
        Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok()
    };
    assert!(programs.iter().all(installed), "install postgresql-client");
    let (here, there) = (Place::new(), Place::new());
    let server = PrivatePostgres::shared();
    let (old, new) = (server.migrated_database().await, server.empty_database().await);
    let broker = Broker { place: &here, database: Some(old.clone()) };
    let (_child, url) = broker.serve();
    broker.leave_mail(&url);
    let dump = here.path().join("team.dump");
    let dumped = Command::new("pg_dump").arg("-Fc").arg("-f").arg(&dump).arg(&old).status();
    assert!(dumped.expect("pg_dump").success());
    let restored = Command::new("pg_restore")
        .args(["--no-owner", "--exit-on-error", "-d", &new])
        .arg(&dump)
        .status();
    assert!(restored.expect("pg_restore").success());
    // Where peers and owners keep their keys has nothing to do with the database.
    copy_keys(here.path(), there.path());
    let broker = Broker { place: &there, database: Some(new) };
    let check = broker.run(&["migrate", "--check"]).object();
    assert_eq!(check["pending"].as_array().map(Vec::len), Some(0), "{check}");
    broker.has_it_all();
}
