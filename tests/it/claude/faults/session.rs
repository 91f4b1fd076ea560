//! A session of a stand-in host: its server over the pipe and its hooks, of one process.

use std::time::Duration;

use claudemesh_broker::id;
use serde_json::json;
use tokio::process::Command;

use super::TURNS_MAX;
use crate::claude::hooks::host::{Host as Hooks, Kind, User, ids_of};
use crate::claude::host::{Host as Server, Inbox};
use crate::harness::PATIENCE;

/// What the host is doing when messages come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Busy,
    TurnEnds,
    IdleWithChannel,
    IdleWithoutChannel,
    Typing,
    Compacted,
    Resumed,
    Restarted,
}

pub struct Session<'a> {
    pub state: State,
    user: &'a User,
    pub server: Server,
    pub hooks: Hooks<'a>,
    pub inbox: Option<Inbox>,
}

impl<'a> Session<'a> {
    /// A host that has just been started, with a new session.
    pub async fn start(user: &'a User, state: State) -> Self {
        let inbox = (state == State::IdleWithoutChannel).then(Inbox::open);
        Self::open(user, state, inbox, &id::generate(), "startup").await.0
    }

    /// A process of a host, and what its start has shown.
    pub async fn open(
        user: &'a User,
        state: State,
        inbox: Option<Inbox>,
        session: &str,
        source: &str,
    ) -> (Self, Option<String>) {
        // The server's parent is the host's process.
        let mut command = Command::new("timeout");
        command
            .args(["600", env!("CARGO_BIN_EXE_claudemesh-broker"), "claude", "mcp"])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("CLAUDEMESH_DATA_DIR", user.place.path())
            .env("HOME", user.place.path())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true);
        let mut env = Vec::new();
        if state == State::IdleWithChannel {
            env.push(("CLAUDEMESH_CHANNEL", "1"));
        }
        if let Some(inbox) = &inbox {
            env.extend(inbox.env());
        }
        let mut server = Server::spawn(command, session, &env);
        let pid = server.pid().as_raw_nonzero().get().unsigned_abs();
        let hooks = user.host_at(Kind::Claude, session, pid);
        let shown = hooks.starts(source);
        server.initialize().await;
        (Self { state, user, server, hooks, inbox }, shown)
    }

    /// Gets where messages are to find it.
    pub fn settles(&mut self) {
        match self.state {
            State::Busy | State::TurnEnds | State::Compacted => {
                assert_eq!(self.hooks.prompt("begin"), None, "nothing is left from before");
            }
            State::IdleWithChannel
            | State::IdleWithoutChannel
            | State::Typing
            | State::Resumed
            | State::Restarted => {
                assert!(self.hooks.turn_ends().is_empty(), "nothing is left from before");
            }
        }
    }

    /// Does what its host does in its state, with these in its spool. What its model is
    /// shown by that.
    pub async fn acts(&mut self, waiting: &[String]) -> Vec<String> {
        match self.state {
            State::Busy => until_nothing(|| self.hooks.tools()),
            State::TurnEnds => {
                let mut shown = ids_of(&self.hooks.turn_ends());
                shown.extend(ids_of(&self.hooks.prompt("go on")));
                shown
            }
            State::IdleWithChannel => self.hears(waiting).await,
            State::IdleWithoutChannel => self.is_rung(waiting).await,
            State::Typing => until_nothing(|| self.hooks.prompt("go on")),
            State::Compacted => ids_of(&self.hooks.starts("compact")),
            State::Resumed => {
                let session = self.hooks.session.clone();
                self.is_another_process(&session, "resume").await
            }
            State::Restarted => self.is_another_process(&id::generate(), "startup").await,
        }
    }

    /// The host's process ends without a word, and another one begins.
    async fn is_another_process(&mut self, session: &str, source: &str) -> Vec<String> {
        self.server.crashes().await;
        let (next, shown) = Self::open(self.user, self.state, None, session, source).await;
        *self = next;
        ids_of(&shown)
    }

    /// Reads the channel until these have come, and then names each as a model that has read
    /// them.
    async fn hears(&mut self, waiting: &[String]) -> Vec<String> {
        let mut shown: Vec<String> = Vec::new();
        while !waiting.iter().all(|id| shown.contains(id)) {
            let content = self.server.channel().await["content"].as_str().expect("text").to_owned();
            shown.extend(ids_of(&[content]));
        }
        for id in shown.clone() {
            let named = self.server.call("message_status", json!({ "id": id })).await;
            // What is urgent and has not gone to the channel yet stands under an answer.
            shown.extend(ids_of(&[named]));
        }
        shown
    }

    /// Hears the bell, and has its model look.
    async fn is_rung(&mut self, waiting: &[String]) -> Vec<String> {
        let inbox = self.inbox.as_ref().expect("it has one");
        inbox.ring(PATIENCE).await;
        let mut shown: Vec<String> = Vec::new();
        while !waiting.iter().all(|id| shown.contains(id)) {
            let page = self.server.call("check_messages", json!({ "limit": 50 })).await;
            shown.extend(ids_of(&[page]));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        shown
    }

    /// The user goes on until nothing more is shown, and the turn ends.
    pub fn goes_on(&mut self) -> Vec<String> {
        let mut shown = until_nothing(|| self.hooks.prompt("go on"));
        shown.extend(ids_of(&self.hooks.turn_ends()));
        shown
    }
}

fn until_nothing(mut shows: impl FnMut() -> Option<String>) -> Vec<String> {
    let mut shown = Vec::new();
    for _ in 0..TURNS_MAX {
        let more = ids_of(&shows());
        if more.is_empty() {
            return shown;
        }
        shown.extend(more);
    }
    panic!("there is no end of it: {shown:?}");
}
