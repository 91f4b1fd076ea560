//! The stand-in for the host of one coding session: a process that does what the host's
//! documentation says, without a model and without an account.
//!
//! It starts this program's server as its child and this program's hooks as processes of
//! their own, reads the channel, has an inbox if it is told to, and begins a turn for what
//! comes. What it does not have is a model: where one would think, no time passes, and
//! where one would call a tool because of a message, it is called at once. Tools of a busy
//! session are a wait. It ends when its standard input does, as the bench tells it, and
//! decides nothing about whether anything was right.

use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::pipe::Pipe;
use super::said::{Said, Shown, messages_of};
use crate::cli::output;
use crate::lab::bench::args::{HostArgs, SessionState};

/// The method of the channel.
const CHANNEL: &str = "notifications/claude/channel";
/// What the inbox wants to be told first.
const TOKEN: &str = "bench";
/// How long a hook may run.
const HOOK_PATIENCE: Duration = Duration::from_secs(30);
/// A turn's end is put off so often, then hosts end it.
const CONTINUATIONS_MAX: u32 = 8;
/// Bytes of what is posted to the inbox.
const POSTED_MAX: u64 = 1_048_576;

/// Events at which a model can be given messages: the word of the hook, and the name.
type Event = (&'static str, &'static str);
const START: Event = ("session-start", "SessionStart");
const PROMPT: Event = ("user-prompt-submit", "UserPromptSubmit");
const TOOLS: Event = ("post-tool-batch", "PostToolBatch");
const STOP: Event = ("stop", "Stop");
const END: Event = ("session-end", "SessionEnd");

struct Host {
    args: HostArgs,
    pipe: Pipe,
    inbox: Option<UnixListener>,
    prompts: u32,
}

/// Hosts one session until standard input ends.
pub(in crate::lab::bench) async fn run(args: HostArgs) -> anyhow::Result<ExitCode> {
    let ended = CancellationToken::new();
    tokio::spawn(until_told(ended.clone()));
    let inbox = args.state.has_inbox().then(|| UnixListener::bind(socket(&args))).transpose()?;
    hook(&args, 0, START, json!({"source": "startup"})).await?;
    let mut server = this_program(&args, &["claude", "mcp"])?;
    if args.state == SessionState::Channel {
        server.env("CLAUDEMESH_CHANNEL", "1");
    }
    let mut host = Host { pipe: Pipe::open(server).await?, args, inbox, prompts: 0 };
    output::json(&Said::Ready)?;
    if host.args.state.is_busy() {
        host.works(&ended).await?;
    } else {
        host.waits(&ended).await?;
    }
    // What is still there now was not given before.
    host.asks(json!({})).await?;
    hook(&host.args, host.prompts, END, json!({"reason": "other"})).await?;
    let status = host.pipe.hang_up().await?;
    anyhow::ensure!(status.success(), "the session's server ended with {status}");
    Ok(ExitCode::SUCCESS)
}

/// Waits for the end of standard input. Read without a thread of its own, which would keep
/// the process when something fails.
async fn until_told(ended: CancellationToken) {
    let reading = async {
        use std::os::fd::AsFd as _;
        let stdin = std::io::stdin().as_fd().try_clone_to_owned()?;
        pipe::Receiver::from_owned_fd(stdin)?.read_to_end(&mut Vec::new()).await
    };
    if let Err(error) = reading.await {
        tracing::warn!(%error, "the stand-in for a host cannot hear its bench");
    }
    ended.cancel();
}

impl Host {
    /// An idle session: what comes for it begins a turn.
    async fn waits(&mut self, ended: &CancellationToken) -> anyhow::Result<()> {
        loop {
            let frame = tokio::select! {
                biased;
                () = ended.cancelled() => return Ok(()),
                frame = self.pipe.notification() => frame?,
                caller = caller(self.inbox.as_ref()) => {
                    let rung = heard(caller?).await?;
                    self.is_rung(&rung).await?;
                    continue;
                }
            };
            if frame["method"] == CHANNEL && self.args.state == SessionState::Channel {
                self.is_pushed(&frame["params"]).await?;
            }
        }
    }

    /// The channel has a message, which is all of the turn's prompt. The hook of the turn's
    /// start runs before the model does, which then names what it has read.
    async fn is_pushed(&mut self, params: &Value) -> anyhow::Result<()> {
        let content = params["content"].as_str().context("a channel's text")?;
        let messages = messages_of(content);
        let seen: Vec<String> = messages.iter().map(|message| message.id.clone()).collect();
        given("channel", None, messages)?;
        self.begins(content).await?;
        self.asks(json!({"seen": seen})).await?;
        self.hook(TOOLS, json!({"tool_calls": [{"tool_name": "check_messages"}]})).await?;
        self.ends_turn().await
    }

    /// The bell has rung, and has no word of what waits.
    async fn is_rung(&mut self, text: &str) -> anyhow::Result<()> {
        if self.args.state == SessionState::InboxAsked {
            self.prompts += 1;
            self.asks(json!({})).await?;
            self.hook(TOOLS, json!({"tool_calls": [{"tool_name": "check_messages"}]})).await?;
        } else {
            self.begins(text).await?;
        }
        self.ends_turn().await
    }

    /// A busy session: one turn after the other, each with its tools.
    async fn works(&mut self, ended: &CancellationToken) -> anyhow::Result<()> {
        while !ended.is_cancelled() {
            self.begins("go on").await?;
            for _ in 0..self.args.work.turn {
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(self.args.work.tool)) => {}
                    () = ended.cancelled() => break,
                }
                self.hook(TOOLS, json!({"tool_calls": [{"tool_name": "Bash"}]})).await?;
            }
            self.ends_turn().await?;
        }
        Ok(())
    }

    async fn begins(&mut self, prompt: &str) -> anyhow::Result<()> {
        self.prompts += 1;
        self.hook(PROMPT, json!({"prompt": prompt})).await?;
        Ok(())
    }

    /// The model is done, as often as the end is put off.
    async fn ends_turn(&mut self) -> anyhow::Result<()> {
        for again in 0..=CONTINUATIONS_MAX {
            let more = json!({"stop_hook_active": again > 0, "last_assistant_message": "done"});
            if !self.hook(STOP, more).await? {
                return output::json(&Said::Idle);
            }
        }
        anyhow::bail!("a turn does not end")
    }

    /// The model calls `check_messages`.
    async fn asks(&mut self, arguments: Value) -> anyhow::Result<()> {
        let text = self.pipe.call("check_messages", arguments).await?;
        given("tool-result", None, messages_of(&text))
    }

    /// Calls a hook by which a message may come; says whether it had anything to say.
    async fn hook(&self, event: Event, more: Value) -> anyhow::Result<bool> {
        output::json(&Said::Hook)?;
        hook(&self.args, self.prompts, event, more).await
    }
}

/// The next who posts to the inbox, if there is one. Cancel safe.
async fn caller(inbox: Option<&UnixListener>) -> std::io::Result<UnixStream> {
    match inbox {
        Some(inbox) => Ok(inbox.accept().await?.0),
        None => std::future::pending().await,
    }
}

/// What a caller says after it has shown the token.
async fn heard(stream: UnixStream) -> anyhow::Result<String> {
    let (mut text, mut posted) = (String::new(), stream.take(POSTED_MAX));
    let reading = posted.read_to_string(&mut text);
    tokio::time::timeout(HOOK_PATIENCE, reading).await.context("a ring without an end")??;
    let mut lines = text.lines().map(serde_json::from_str::<Value>);
    let auth = lines.next().context("a ring without a word")??;
    anyhow::ensure!(auth == json!({"type": "auth", "token": TOKEN}), "a ring by a stranger");
    let message = lines.next().context("a ring without a message")??;
    let content = message["message"]["content"].as_str().context("a ring without a text")?;
    Ok(content.to_owned())
}

fn given(way: &str, hook_us: Option<u32>, messages: Vec<Shown>) -> anyhow::Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    output::json(&Said::Given { way: way.to_owned(), hook_us, messages })
}

/// Runs one hook as a host does: an object on its standard input, and what it printed once
/// it has ended. Says whether that had a text for the model.
async fn hook(args: &HostArgs, prompts: u32, event: Event, more: Value) -> anyhow::Result<bool> {
    let (word, name) = event;
    let mut input = json!({
        "session_id": args.session, "transcript_path": "/nowhere", "cwd": "/nowhere",
        "hook_event_name": name, "permission_mode": "default",
    });
    if let (Some(fields), Value::Object(more)) = (input.as_object_mut(), more) {
        fields.extend(more);
        if prompts > 0 {
            fields.insert("prompt_id".to_owned(), format!("{}-{prompts}", args.session).into());
        }
    }
    let begun = Instant::now();
    let mut command = this_program(args, &["claude", "hook", word])?;
    command.env("CLAUDE_PID", std::process::id().to_string());
    if args.state.has_inbox() {
        command.env("CLAUDE_CODE_MESSAGING_SOCKET", socket(args));
        command.env("CLAUDE_CODE_MESSAGING_TOKEN", TOKEN);
    }
    let mut child = command.spawn().context("a hook could not be started")?;
    let mut stdin = child.stdin.take().context("its input is not piped")?;
    stdin.write_all(input.to_string().as_bytes()).await?;
    drop(stdin);
    let output = tokio::time::timeout(HOOK_PATIENCE, child.wait_with_output()).await;
    let output = output.with_context(|| format!("the hook {word} does not end"))??;
    anyhow::ensure!(output.status.success(), "the hook {word} ended with {}", output.status);
    let answer: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("the hook {word} answers with what is no JSON"))?;
    let hook_us = u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX);
    let text = answer["hookSpecificOutput"]["additionalContext"].as_str().unwrap_or_default();
    given(word, Some(hook_us), messages_of(text))?;
    Ok(!text.is_empty())
}

fn socket(args: &HostArgs) -> std::path::PathBuf {
    args.folder.join("inbox.sock")
}

/// This program as the host's child, in the environment that hosts give.
fn this_program(args: &HostArgs, words: &[&str]) -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("this program cannot find itself")?;
    let mut command = Command::new(program);
    command
        .args(words)
        .env("CLAUDECODE", "1")
        .env("CLAUDE_CODE_SESSION_ID", &args.session)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    Ok(command)
}
