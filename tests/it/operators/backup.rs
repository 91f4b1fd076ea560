//! What docs/OPERATIONS.md says of backups: made while the broker runs, and
//! restored elsewhere, the chain verifies and waiting mail arrives.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::harness::postgres::PrivatePostgres;
use crate::harness::program::{Answer, Place, Printing, text};
use crate::harness::text_of;

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

/// The commands of docs/OPERATIONS.md that stand behind that word.
fn commands(of: &str) -> String {
    let text = text_of("docs/OPERATIONS.md");
    let (_, after) = text.split_once(of).expect(of);
    after.split("```").nth(1).expect("commands").to_owned()
}

/// Types them in that folder, as an operator with an ordinary umask does.
fn types(commands: &str, folder: &Path, env: &[(&str, &str)]) {
    let program = Path::new(env!("CARGO_BIN_EXE_claudemesh-broker"));
    let programs = program.parent().expect("a folder").display().to_string();
    let path = format!("{programs}:{}", std::env::var("PATH").expect("a PATH"));
    let typed = Command::new("sh")
        .args(["-ec", &format!("umask 022\n{commands}")])
        .current_dir(folder)
        .env("PATH", path)
        .env("CLAUDEMESH_DATA_DIR", folder)
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("sh");
    assert!(typed.status.success(), "{commands}\n{typed:?}");
}

fn mode(file: &Path) -> u32 {
    let metadata = std::fs::metadata(file).unwrap_or_else(|error| panic!("{file:?}: {error}"));
    metadata.permissions().mode() & 0o777
}

/// What the document says for SQLite, to another folder than its `/backup`.
fn back_up_sqlite(from: &Path, to: &Path) {
    types(&commands("**SQLite.**").replace("/backup", &to.display().to_string()), from, &[]);
}

#[tokio::test]
async fn a_copy_of_sqlite_made_while_it_serves_has_all_of_it() {
    let (here, there) = (Place::new(), Place::new());
    let broker = Broker { place: &here, database: None };
    let (_child, url) = broker.serve();
    broker.leave_mail(&url);
    back_up_sqlite(here.path(), there.path());
    for file in ["broker.db", "owners", "peers"] {
        assert_eq!(mode(&there.path().join(file)) & 0o077, 0, "{file} is open to others");
    }
    Broker { place: &there, database: None }.has_it_all();
}

#[test]
fn a_machine_on_which_nobody_joined_is_backed_up_too() {
    let (here, there) = (Place::new(), Place::new());
    here.json(&["mesh", "create", "team"]);
    assert!(!here.path().join("peers").exists());
    back_up_sqlite(here.path(), there.path());
    there.json(&["invite", "create", "team"]);
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
    let urls = [("DATABASE_URL", old.as_str()), ("NEW_DATABASE_URL", new.as_str())];
    types(&commands("**Postgres.**"), here.path(), &urls);
    assert_eq!(mode(&here.path().join("team.dump")), 0o600);
    // Where peers and owners keep their keys has nothing to do with the database.
    for keys in ["owners", "peers"] {
        let mut copy = Command::new("cp");
        copy.arg("-r").arg(here.path().join(keys)).arg(there.path());
        assert!(copy.status().expect("cp").success(), "{keys}");
    }
    let broker = Broker { place: &there, database: Some(new) };
    let check = broker.run(&["migrate", "--check"]).object();
    assert_eq!(check["pending"].as_array().map(Vec::len), Some(0), "{check}");
    broker.has_it_all();
}
