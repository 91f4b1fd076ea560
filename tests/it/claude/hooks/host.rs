//! A stand-in for the host of coding sessions, which does what its documentation says:
//! it calls hooks with an object on standard input, and refuses whatever a host would
//! refuse or take for something else.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::id::{MemberId, MeshId};
use serde_json::{Value, json};

use super::mail::Mail;
use crate::harness::child::ChildProcess;
use crate::harness::program::Place;
use crate::harness::{Member, PATIENCE};

/// Characters of a text of a hook. A host puts a longer one into a file.
const TEXT_MAX: usize = 10_000;

/// Events whose answer a model reads, in the form of Claude Code.
const SHOWN: [&str; 6] = [
    "SessionStart",
    "UserPromptSubmit",
    "PostToolBatch",
    "PostToolUse",
    "PostToolUseFailure",
    "Stop",
];

/// Which host it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Claude,
    /// One that names no prompt yet.
    OldClaude,
    Codex,
}

/// A user with peers that have joined, as `peer join` leaves them.
pub struct User {
    pub place: Place,
}

/// A running host with one session open.
pub struct Host<'a> {
    pub user: &'a User,
    pub kind: Kind,
    /// The host's id of its session.
    pub session: String,
    prompts: u32,
    /// What else it says in its environment.
    pub env: Vec<(&'static str, String)>,
    pid: u32,
    /// The running host, where nothing else stands for it.
    _process: Option<ChildProcess>,
}

impl User {
    pub fn new(peers: &[&str]) -> Self {
        let user = Self { place: Place::new() };
        let mesh = MeshId::generate();
        for name in peers {
            let (id, key) = (MemberId::generate(), SecretKey::generate());
            let member = Member { id, key, name: (*name).to_owned() };
            user.joins("ws://127.0.0.1:9/ws", &mesh, &member);
        }
        user
    }

    /// Is that member, by the broker at that address.
    pub fn joins(&self, url: &str, mesh: &MeshId, member: &Member) {
        let file = json!({
            "meshId": mesh, "meshSlug": "team", "memberId": member.id,
            "name": member.name, "brokerUrl": url,
            "publicKey": member.pubkey(), "secretKey": member.key.to_hex128(),
        });
        let folder = self.place.path().join("peers/team");
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join(format!("{}.json", member.name));
        std::fs::write(path, file.to_string()).expect("written");
    }

    /// The folder of the sessions.
    pub fn folder(&self) -> PathBuf {
        self.place.path().join("claude")
    }

    /// What hooks have said went wrong.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder().join("hooks.log")).unwrap_or_default()
    }

    /// A host that has just been started, with a new session.
    pub fn host(&self, kind: Kind) -> Host<'_> {
        let session = claudemesh_broker::id::generate();
        self.host_of(kind, &session)
    }

    /// One with that session.
    pub fn host_of(&self, kind: Kind, session: &str) -> Host<'_> {
        let mut command = Command::new("sleep");
        let process = ChildProcess::start(command.arg("600").stdin(Stdio::null()));
        let pid = process.0.id();
        let mut host = self.host_at(kind, session, pid);
        host._process = Some(process);
        host
    }

    /// One that is a process which runs already.
    pub fn host_at(&self, kind: Kind, session: &str, pid: u32) -> Host<'_> {
        let session = session.to_owned();
        Host { user: self, kind, session, prompts: 0, env: Vec::new(), pid, _process: None }
    }
}

impl Host<'_> {
    /// Codex names no process: it is whoever calls the hook.
    pub fn pid(&self) -> u32 {
        match self.kind {
            Kind::Codex => std::process::id(),
            Kind::Claude | Kind::OldClaude => self.pid,
        }
    }

    /// Ends without a word to anybody.
    pub fn crashes(self) {
        drop(self);
    }

    /// Starts, or goes on: `startup`, `resume`, `clear`, `compact`, `fork`. What the model
    /// is shown.
    pub fn starts(&self, source: &str) -> Option<String> {
        self.calls("session-start", "SessionStart", json!({ "source": source }))
    }

    /// The user types.
    pub fn prompt(&mut self, text: &str) -> Option<String> {
        self.prompts += 1;
        self.calls("user-prompt-submit", "UserPromptSubmit", json!({ "prompt": text }))
    }

    /// Tools have run, and the model is about to be asked again.
    pub fn tools(&self) -> Option<String> {
        let tool = json!({ "tool_name": "Bash", "tool_input": {}, "tool_response": "x" });
        match self.kind {
            Kind::Claude => {
                let calls = json!({ "tool_calls": [tool] });
                self.calls("post-tool-batch", "PostToolBatch", calls)
            }
            Kind::OldClaude | Kind::Codex => self.calls("post-tool-use", "PostToolUse", tool),
        }
    }

    /// The turn is about to end; `again` when it was to end before and went on.
    pub fn stops(&self, again: bool) -> Option<String> {
        let last = json!({ "stop_hook_active": again, "last_assistant_message": "done" });
        self.calls("stop", "Stop", last)
    }

    /// The turn ends as often as it is put off; what the model is shown meanwhile.
    pub fn turn_ends(&self) -> Vec<String> {
        let mut shown = Vec::new();
        while let Some(text) = self.stops(!shown.is_empty()) {
            shown.push(text);
            // A host gives up after eight.
            assert!(shown.len() <= 8, "it goes round in circles: {shown:?}");
        }
        shown
    }

    /// Tells its user something of that type.
    pub fn notifies(&self, kind: &str) {
        let more = json!({ "message": "x", "notification_type": kind });
        assert_eq!(self.calls("notification", "Notification", more), None);
    }

    pub fn ends(&self, reason: &str) {
        let shown = self.calls("session-end", "SessionEnd", json!({ "reason": reason }));
        assert_eq!(shown, None);
    }

    /// Calls a hook and reads its answer as a host does.
    pub fn calls(&self, word: &str, event: &str, more: Value) -> Option<String> {
        let mut input = self.common(event);
        let fields = input.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        let began = Instant::now();
        let output = self.run(word, &input.to_string());
        assert!(began.elapsed() < PATIENCE, "a host would have given up");
        assert!(output.status.success(), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
        self.read(event, &output.stdout)
    }

    fn common(&self, event: &str) -> Value {
        let mut input = json!({
            "session_id": self.session, "transcript_path": "/nowhere/x.jsonl", "cwd": "/nowhere",
            "hook_event_name": event, "permission_mode": "default",
        });
        let prompt = match self.kind {
            Kind::Claude => "prompt_id",
            Kind::Codex => "turn_id",
            Kind::OldClaude => return input,
        };
        if self.prompts > 0 {
            input[prompt] = json!(format!("{}-{}", self.session, self.prompts));
        }
        input
    }

    /// What a hook answers to any bytes.
    pub fn run(&self, word: &str, input: &str) -> Output {
        let mut child = self.start(word);
        let mut to = child.stdin.take().expect("piped");
        // A hook that does not read to the end is no error of its host.
        to.write_all(input.as_bytes()).ok();
        drop(to);
        child.wait_with_output().expect("it ends")
    }

    /// Starts a hook, which waits for its input.
    pub fn start(&self, word: &str) -> Child {
        let mut args = vec!["claude", "hook", word];
        if self.kind == Kind::Codex {
            args.push("--codex");
        }
        let mut command = self.user.place.command(&args);
        if self.kind != Kind::Codex {
            command.env("CLAUDE_PID", self.pid().to_string());
            command.env("CLAUDE_CODE_SESSION_ID", &self.session).env("CLAUDECODE", "1");
        }
        for (name, value) in &self.env {
            command.env(name, value);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("it starts")
    }

    /// What an answer gives the model; panics where a host would not take it.
    fn read(&self, event: &str, out: &[u8]) -> Option<String> {
        let text = std::str::from_utf8(out).expect("UTF-8");
        assert!(text.starts_with('{'), "anything else is no answer: {text:?}");
        let answer: Value = serde_json::from_str(text.trim_end()).expect("one JSON object");
        let fields = answer.as_object().expect("an object");
        if fields.is_empty() {
            return None;
        }
        let shown = if fields.contains_key("decision") {
            assert!(event == "Stop" && self.kind != Kind::Claude, "{answer}");
            assert_eq!(fields.len(), 2, "{answer}");
            assert_eq!(answer["decision"], "block");
            &answer["reason"]
        } else {
            assert_eq!(fields.len(), 1, "{answer}");
            let inner = answer["hookSpecificOutput"].as_object().expect("an object");
            assert_eq!(inner.len(), 2, "{answer}");
            assert_eq!(inner["hookEventName"], event, "{answer}");
            assert!(SHOWN.contains(&event) && !(self.kind == Kind::Codex && event == "Stop"));
            &answer["hookSpecificOutput"]["additionalContext"]
        };
        let shown = shown.as_str().expect("a text");
        assert!(!shown.is_empty() && shown.encode_utf16().count() <= TEXT_MAX);
        Some(shown.to_owned())
    }

    /// The file that binds this host.
    pub fn binding_file(&self) -> PathBuf {
        self.user.folder().join("processes").join(format!("{}.json", self.pid()))
    }

    /// Which session in the mesh this host has.
    pub fn mesh_session(&self) -> String {
        let text = std::fs::read_to_string(self.binding_file()).expect("it is bound");
        let binding: Value = serde_json::from_str(&text).expect("JSON");
        binding["session"].as_str().expect("a session").to_owned()
    }

    /// The mail of that session.
    pub async fn mail(&self) -> Mail {
        Mail::open(&self.user.folder().join("sessions").join(self.mesh_session())).await
    }
}

/// The messages that a text shows, in their order. Everything in it that is no message
/// stands outside of the tags.
pub fn messages_of(text: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let mut tag: Option<&str> = None;
    for line in text.lines() {
        match tag {
            None => tag = line.strip_prefix("<claudemesh-").and_then(|rest| rest.strip_suffix('>')),
            Some(open) if line == format!("</claudemesh-{open}>") => tag = None,
            Some(_) => found.push(serde_json::from_str(line).expect("one object in a line")),
        }
    }
    assert_eq!(tag, None, "a frame is closed: {text}");
    found
}

/// The ids of the messages in texts.
pub fn ids_of<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let messages = texts.into_iter().flat_map(|text| messages_of(text));
    messages.map(|message| message["id"].as_str().expect("an id").to_owned()).collect()
}

/// The mode of a file, and of nothing else in it.
pub fn mode_of(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}
