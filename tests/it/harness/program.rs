//! The program itself, run as a child.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::PATIENCE;
use super::child::ChildProcess;

/// A data folder of its own, and nothing of the caller's environment.
pub struct Place {
    folder: TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn command(&self, args: &[&str]) -> Command {
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

    pub fn run(&self, args: &[&str]) -> Answer {
        Answer::of(&self.command(args).output().expect("the program starts"), args)
    }

    /// Runs it with `--json`, which must work, and returns the one object.
    pub fn json(&self, args: &[&str]) -> Value {
        let answer = self.run(&[args, &["--json"]].concat());
        assert_eq!(answer.code, 0, "{answer:?}");
        assert_eq!(answer.err, "", "nothing but the object: {answer:?}");
        answer.object()
    }

    /// Runs it with `--json`, which must fail, and returns code and sentence.
    pub fn failure(&self, args: &[&str]) -> (String, String) {
        self.run(&[args, &["--json"]].concat()).failure()
    }
}

/// What a child said.
#[derive(Debug)]
pub struct Answer {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Answer {
    pub fn of(output: &Output, args: &[&str]) -> Self {
        let read = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let Some(code) = output.status.code() else { panic!("{args:?}: {:?}", output.status) };
        Self { code, out: read(&output.stdout), err: read(&output.stderr) }
    }

    /// The one object that was printed.
    pub fn object(&self) -> Value {
        let object: Value = serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("not one JSON object: {error}: {self:?}"));
        assert!(object.is_object(), "{self:?}");
        object
    }

    /// It must have failed: code and sentence.
    pub fn failure(&self) -> (String, String) {
        assert_eq!(self.code, 1, "{self:?}");
        let object = self.object();
        let (code, message) = (text(&object["error"]["code"]), text(&object["error"]["message"]));
        assert!(self.err.contains(&message), "people read it too: {self:?}");
        (code, message)
    }
}

/// A child that prints an object per line; killed when dropped.
pub struct Printing {
    child: ChildProcess,
    lines: Receiver<String>,
}

/// Lines that wait to be asked for.
const LINES_MAX: usize = 1024;

impl Printing {
    pub fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = ChildProcess::start(&mut command);
        let out = BufReader::new(child.0.stdout.take().expect("piped"));
        let (lines_end, lines) = sync_channel(LINES_MAX);
        // A thread, so that a line that never comes is a failure, not a wait.
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if lines_end.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// The next line.
    pub fn next(&mut self) -> Value {
        self.next_within(PATIENCE)
    }

    /// The next line of one that has more to do before it than others.
    pub fn next_within(&mut self, patience: Duration) -> Value {
        let line = self.lines.recv_timeout(patience).expect("a line");
        serde_json::from_str(&line).expect("one JSON object")
    }

    /// The next line of that type.
    pub fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let line = self.next();
            if line["type"] == kind {
                return line;
            }
        }
    }

    pub fn signal(&self, signal: Signal) {
        self.child.signal(signal);
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait()
    }
}

/// A broker that serves, as a child; killed when dropped.
pub struct Serving {
    pub banner: Value,
    pub port: u16,
    child: Printing,
}

impl Serving {
    pub fn start(place: &Place) -> Self {
        Self::start_with(place, &[])
    }

    pub fn start_with(place: &Place, env: &[(&str, &str)]) -> Self {
        let mut command = place.command(&["--json"]);
        command.env("BROKER_PORT", "0").envs(env.iter().copied());
        let mut child = Printing::start(command);
        let banner = child.next();
        let port =
            banner["port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
        Self { banner, port, child }
    }

    pub fn signal(&self, signal: Signal) {
        self.child.signal(signal);
    }

    pub fn wait(mut self) -> ExitStatus {
        self.child.wait()
    }
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("text expected: {value}")).to_owned()
}

/// Asks again until the answer is as wanted; for what no line announces.
pub fn ask_until(what: &str, mut ask: impl FnMut() -> bool) {
    let began = Instant::now();
    while !ask() {
        assert!(began.elapsed() < PATIENCE, "asked in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
