//! A stand-in for a session's host: it starts the program's MCP server as its child, speaks
//! the host's side over the pipe, and has an inbox of its own if it is told to.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use claudemesh_broker::auth::SecretKey;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::UnixListener;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::harness::{Member, Node, PATIENCE};

/// A user's data folder, with the peers that have joined.
pub struct User {
    folder: TempDir,
}

impl User {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Has joined the node's mesh as this member.
    pub fn joined(self, node: &Node, member: &Member) -> Self {
        self.joined_at(&node.url(), node.mesh.as_str(), member)
    }

    pub fn joined_at(self, url: &str, mesh: &str, member: &Member) -> Self {
        let file = json!({
            "meshId": mesh,
            "meshSlug": "team",
            "memberId": member.id,
            "name": member.name,
            "brokerUrl": url,
            "publicKey": member.pubkey(),
            "secretKey": SecretKey::to_hex128(&member.key),
        });
        let folder = self.path().join("peers/team");
        std::fs::create_dir_all(&folder).expect("made");
        std::fs::write(folder.join(format!("{}.json", member.name)), file.to_string())
            .expect("written");
        self
    }

    /// The program in this user's environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_claudemesh-broker"));
        command.args(args);
        self.environment(command)
    }

    fn environment(&self, mut command: Command) -> Command {
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("CLAUDEMESH_DATA_DIR", self.path())
            .env("HOME", self.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// A host of a session of that id, which has shaken hands with the server. The test
    /// itself is the host's process.
    pub async fn host(&self, session: &str, env: &[(&str, &str)]) -> Host {
        let mut host = Host::start(self, session, env);
        host.initialize().await;
        host
    }

    /// The same with a process of its own, as where one user has several.
    pub async fn host_apart(&self, session: &str, env: &[(&str, &str)]) -> Host {
        let program = env!("CARGO_BIN_EXE_claudemesh-broker");
        let mut command = Command::new("timeout");
        command.args(["300", program, "claude", "mcp"]);
        let mut host = Host::spawn(self.environment(command), session, env);
        host.initialize().await;
        host
    }
}

/// The host's side of one pipe.
pub struct Host {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    number: i64,
    /// Notifications that came while something else was waited for.
    pub notified: Vec<Value>,
}

impl Host {
    pub fn start(user: &User, session: &str, env: &[(&str, &str)]) -> Self {
        Self::spawn(user.command(&["claude", "mcp"]), session, env)
    }

    pub fn spawn(mut command: Command, session: &str, env: &[(&str, &str)]) -> Self {
        command.env("CLAUDE_CODE_SESSION_ID", session).envs(env.iter().copied());
        let mut child = command.spawn().expect("started");
        let stdin = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, stdin, lines, number: 0, notified: Vec::new() }
    }

    pub async fn initialize(&mut self) -> Value {
        let params = json!({
            "protocolVersion": "2025-11-25",
            "capabilities": { "elicitation": { "form": {} }, "roots": {} },
            "clientInfo": { "name": "stand-in", "version": "1" },
        });
        let answer = self.request("initialize", params).await;
        self.notify("notifications/initialized", json!({})).await;
        answer["result"].clone()
    }

    pub async fn write(&mut self, frame: &Value) {
        let line = format!("{frame}\n");
        let stdin = self.stdin.as_mut().expect("open");
        stdin.write_all(line.as_bytes()).await.expect("written");
        stdin.flush().await.expect("flushed");
    }

    pub async fn notify(&mut self, method: &str, params: Value) {
        self.write(&json!({ "jsonrpc": "2.0", "method": method, "params": params })).await;
    }

    /// Writes a request and waits for nothing; its id.
    pub async fn begin(&mut self, method: &str, params: Value) -> i64 {
        self.number += 1;
        let id = self.number;
        let frame = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        self.write(&frame).await;
        id
    }

    pub async fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.begin(method, params).await;
        loop {
            let frame = self.read().await.expect("an answer before the end");
            if frame["id"] == id {
                return frame;
            }
            self.notified.push(frame);
        }
    }

    pub async fn begin_call(&mut self, tool: &str, arguments: Value) -> i64 {
        self.begin("tools/call", json!({ "name": tool, "arguments": arguments })).await
    }

    /// Calls a tool that must not fail; its text.
    pub async fn call(&mut self, tool: &str, arguments: Value) -> String {
        let (text, is_error) = self.called(tool, arguments).await;
        assert!(!is_error, "{tool}: {text}");
        text
    }

    /// Calls a tool; its text, and whether it says that something is wrong.
    pub async fn called(&mut self, tool: &str, arguments: Value) -> (String, bool) {
        let params = json!({ "name": tool, "arguments": arguments });
        let answer = self.request("tools/call", params).await;
        let result = &answer["result"];
        let content = result["content"].as_array().unwrap_or_else(|| panic!("{tool}: {answer}"));
        assert_eq!(content.len(), 1, "{answer}");
        assert!(result.get("structuredContent").is_none(), "{answer}");
        let text = content[0]["text"].as_str().expect("text").to_owned();
        (text, result["isError"] == true)
    }

    /// Calls a tool until its text says so.
    pub async fn call_until(&mut self, tool: &str, arguments: Value, says: &str) -> String {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let (text, _) = self.called(tool, arguments.clone()).await;
            if text.contains(says) {
                return text;
            }
            assert!(tokio::time::Instant::now() < deadline, "{tool} never said {says:?}: {text}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The next notification of the channel.
    pub async fn channel(&mut self) -> Value {
        let is = |frame: &Value| frame["method"] == "notifications/claude/channel";
        if let Some(at) = self.notified.iter().position(is) {
            return self.notified.remove(at)["params"].clone();
        }
        loop {
            let frame = self.read().await.expect("a notification before the end");
            if is(&frame) {
                return frame["params"].clone();
            }
            self.notified.push(frame);
        }
    }

    /// The next frame; `None` at the end. Whatever is written must be one.
    pub async fn read(&mut self) -> Option<Value> {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await;
        let line = line.expect("a line in time").expect("readable")?;
        let frame: Value = serde_json::from_str(&line).expect("nothing but frames");
        assert_eq!(frame["jsonrpc"], "2.0", "{frame}");
        Some(frame)
    }

    /// Closes the pipe, and waits for the end.
    pub async fn hang_up(mut self) -> ExitStatus {
        drop(self.stdin.take());
        self.ends().await
    }

    pub async fn ends(&mut self) -> ExitStatus {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        ended.expect("an end in time").expect("a status")
    }

    /// Its process is killed; the server finds its pipe closed.
    pub async fn crashes(&mut self) {
        drop(self.stdin.take());
        self.child.kill().await.expect("killed");
    }

    pub fn pid(&self) -> rustix::process::Pid {
        let id = self.child.id().expect("it runs");
        rustix::process::Pid::from_raw(i32::try_from(id).expect("a pid")).expect("no zero")
    }
}

/// The inbox that a host offers to its children.
pub struct Inbox {
    listener: UnixListener,
    path: PathBuf,
    _folder: TempDir,
}

impl Inbox {
    pub const TOKEN: &'static str = "the-inbox-token";

    pub fn open() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("inbox.sock");
        let listener = UnixListener::bind(&path).expect("bound");
        Self { listener, path, _folder: folder }
    }

    pub fn env(&self) -> [(&str, &str); 2] {
        let path = self.path.to_str().expect("UTF-8");
        [("CLAUDE_CODE_MESSAGING_SOCKET", path), ("CLAUDE_CODE_MESSAGING_TOKEN", Self::TOKEN)]
    }

    /// What the next ring says, after it has shown the token.
    pub async fn ring(&self, within: Duration) -> String {
        let accepted = tokio::time::timeout(within, self.listener.accept()).await;
        let (mut stream, _) = accepted.expect("the bell rings in time").expect("a caller");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("UTF-8");
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines[0], json!({ "type": "auth", "token": Self::TOKEN }));
        assert_eq!((lines[1]["type"].as_str(), lines.len()), (Some("user"), 2), "{text}");
        lines[1]["message"]["content"].as_str().expect("text").to_owned()
    }
}
