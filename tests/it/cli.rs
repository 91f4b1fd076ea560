//! The command line from outside: the program itself, run as a child.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;

use claudemesh_broker::app;
use claudemesh_broker::auth::{InvitePayload, SecretKey};
use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::config::Config;
use claudemesh_broker::id::{MemberId, MeshId};
use claudemesh_broker::store::{Join, Joined, Role, Store};
use serde_json::Value;
use tempfile::TempDir;

mod administration;
mod operation;

/// A data folder of its own, and nothing of the caller's environment.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_claudemesh-broker"));
        command
            .args(args)
            .env_clear()
            .env("CLAUDEMESH_DATA_DIR", self.path())
            .env("HOME", self.path())
            .env("BROKER_BIND", "127.0.0.1")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Answer {
        Answer::of(&self.command(args).output().expect("the program starts"), args)
    }

    /// Runs it with `--json`, which must work, and returns the one object.
    fn json(&self, args: &[&str]) -> Value {
        let answer = self.run(&[args, &["--json"]].concat());
        assert_eq!(answer.code, 0, "{answer:?}");
        assert_eq!(answer.err, "", "nothing but the object: {answer:?}");
        answer.object()
    }

    /// Runs it with `--json`, which must fail, and returns code and sentence.
    fn failure(&self, args: &[&str]) -> (String, String) {
        let answer = self.run(&[args, &["--json"]].concat());
        assert_eq!(answer.code, 1, "{answer:?}");
        let object = answer.object();
        let (code, message) = (text(&object["error"]["code"]), text(&object["error"]["message"]));
        assert!(answer.err.contains(&message), "people read it too: {answer:?}");
        (code, message)
    }

    async fn store(&self) -> Arc<dyn Store> {
        let store = app::open_store(&Config::for_tests(self.path())).await.expect("a store");
        store.migrate().await.expect("migrated");
        store
    }

    /// A mesh `team` with its owner and the member `ada`, who joined by invite.
    async fn team(&self) -> Team {
        let mesh = self.json(&["mesh", "create", "team"]);
        let invite = self.json(&["invite", "create", "team"]);
        let store = self.store().await;
        let key = SecretKey::generate().public_key();
        let join = Join {
            token: text(&invite["token"]),
            mesh: MeshId::from(text(&mesh["meshId"])),
            owner_key: text(&mesh["ownerPubkey"]),
            role: Role::Member,
            member: MemberId::generate(),
            key: key.clone(),
            display_name: "ada".to_owned(),
        };
        let joined = store.join(Timestamp::now(), &join).await.expect("the store works");
        store.close().await;
        let Joined::New(ada) = joined else { panic!("{joined:?}") };
        Team { mesh: join.mesh, ada, ada_key: key.to_string() }
    }
}

struct Team {
    mesh: MeshId,
    ada: MemberId,
    ada_key: String,
}

/// What a child said.
#[derive(Debug)]
struct Answer {
    code: i32,
    out: String,
    err: String,
}

impl Answer {
    fn of(output: &Output, args: &[&str]) -> Self {
        let read = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let Some(code) = output.status.code() else { panic!("{args:?}: {:?}", output.status) };
        Self { code, out: read(&output.stdout), err: read(&output.stderr) }
    }

    fn object(&self) -> Value {
        let object: Value = serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("not one JSON object: {error}: {self:?}"));
        assert!(object.is_object(), "{self:?}");
        object
    }
}

/// A broker that serves, as a child; killed when dropped.
struct Serving {
    child: Child,
    banner: Value,
    port: u16,
}

impl Serving {
    fn start(place: &Place) -> Self {
        let mut command = place.command(&["--json"]);
        command.env("BROKER_PORT", "0").stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the program starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("readable");
        let banner: Value = serde_json::from_str(&line).expect("one JSON object");
        let port = banner["port"].as_u64().and_then(|it| u16::try_from(it).ok()).expect("a port");
        Self { child, banner, port }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("a pid"), signal).expect("it lives");
    }

    fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("a child")
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("text expected: {value}")).to_owned()
}

fn payload_of(invite: &Value) -> InvitePayload {
    serde_json::from_value(invite["payload"].clone()).expect("a payload")
}
