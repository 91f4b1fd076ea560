//! The host's side of the pipe to a session's server: JSON-RPC, one object a line.
//!
//! It does what a host does with the server of one session and no more: the handshake,
//! calls of tools, and notifications, which wait their turn while a call is open.

use std::collections::VecDeque;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// The revision of the protocol that hosts speak on such a pipe.
const REVISION: &str = "2025-11-25";
/// Notifications that wait while a call is open. More: the server has gone mad.
const KEPT_MAX: usize = 1024;
/// For the answer to a call, and for the server's end.
const PATIENCE: Duration = Duration::from_secs(30);

/// The pipe, and the server behind it.
pub(super) struct Pipe {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    number: u64,
    kept: VecDeque<Value>,
}

impl Pipe {
    /// Starts the server and shakes hands with it.
    pub(super) async fn open(mut command: Command) -> anyhow::Result<Self> {
        let mut child = command.spawn().context("the session's server could not be started")?;
        let stdin = child.stdin.take().context("its input is not piped")?;
        let stdout = child.stdout.take().context("its output is not piped")?;
        let lines = BufReader::new(stdout).lines();
        let mut pipe = Self { child, stdin, lines, number: 0, kept: VecDeque::new() };
        let hello = json!({
            "protocolVersion": REVISION,
            "capabilities": {"elicitation": {"form": {}}, "roots": {}},
            "clientInfo": {"name": "claudemesh-bench", "version": env!("CARGO_PKG_VERSION")},
        });
        pipe.request("initialize", hello).await?;
        pipe.write(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await?;
        Ok(pipe)
    }

    /// Calls a tool; the text that the model gets.
    pub(super) async fn call(&mut self, tool: &str, arguments: Value) -> anyhow::Result<String> {
        let params = json!({"name": tool, "arguments": arguments});
        let result = self.request("tools/call", params).await?;
        let text = result["content"][0]["text"].as_str();
        Ok(text.with_context(|| format!("{tool} answers without a text"))?.to_owned())
    }

    /// The next notification. Cancel safe.
    pub(super) async fn notification(&mut self) -> anyhow::Result<Value> {
        if let Some(kept) = self.kept.pop_front() {
            return Ok(kept);
        }
        loop {
            let frame = self.read().await?;
            if frame.get("id").is_none() {
                return Ok(frame);
            }
        }
    }

    /// Closes the pipe, by which a server knows that its host is gone.
    pub(super) async fn hang_up(mut self) -> anyhow::Result<ExitStatus> {
        drop(self.stdin);
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        Ok(ended.context("the session's server does not end")??)
    }

    async fn request(&mut self, method: &str, params: Value) -> anyhow::Result<Value> {
        self.number += 1;
        let id = self.number;
        let frame = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.write(&frame).await?;
        let answer = tokio::time::timeout(PATIENCE, self.answer(id)).await;
        let mut answer = answer.with_context(|| format!("{method} is not answered"))??;
        anyhow::ensure!(answer.get("error").is_none(), "{method} is an error: {answer}");
        Ok(answer["result"].take())
    }

    async fn answer(&mut self, id: u64) -> anyhow::Result<Value> {
        loop {
            let frame = self.read().await?;
            if frame["id"] == id {
                return Ok(frame);
            }
            anyhow::ensure!(self.kept.len() < KEPT_MAX, "too many notifications at once");
            self.kept.push_back(frame);
        }
    }

    async fn read(&mut self) -> anyhow::Result<Value> {
        let line = self.lines.next_line().await?.context("the session's server has ended")?;
        serde_json::from_str(&line).context("the session's server says what is no frame")
    }

    async fn write(&mut self, frame: &Value) -> anyhow::Result<()> {
        self.stdin.write_all(format!("{frame}\n").as_bytes()).await?;
        Ok(self.stdin.flush().await?)
    }
}
