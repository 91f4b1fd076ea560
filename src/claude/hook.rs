//! `claude hook <event>`: what a session's host calls at each of its events.
//!
//! A hook says where the host is in its work, and shows the model the messages that this
//! event is for. Standard output is one JSON object and the exit code 0, whatever
//! happens: a host takes anything else for an order to stop its turn, or shows it to the
//! user. What went wrong stands in a log of ours. A hook never touches the network, and
//! ends within its deadline. (`wait` alone is no such hook: see [`wait`].)

use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use parking_lot::Mutex;

use super::home::Home;
use super::variables;
use crate::limits;

mod deliver;
mod event;
mod harness;
mod log;
mod wait;

use event::Call;
use harness::Harness;

/// Arguments of `claude hook`.
#[derive(Debug, Args)]
pub(crate) struct HookArgs {
    /// The event: session-start, user-prompt-submit, post-tool-batch, post-tool-use,
    /// post-tool-use-failure, stop, notification, session-end; or wait, which wakes an idle
    /// session
    pub(crate) event: String,
    /// Answer as Codex wants it
    #[arg(long)]
    pub(crate) codex: bool,
    /// Which peer the session is, when there are several: NAME or MESH/NAME
    #[arg(long = "as", value_name = "NAME", env = variables::PEER)]
    pub(crate) name: Option<String>,
}

/// Standard output, on which is spoken once.
#[derive(Clone, Default)]
struct Mouth(Arc<Mutex<bool>>);

/// Answers one event.
pub(super) async fn run(args: HookArgs) -> ExitCode {
    let Ok(home) = Home::of_user() else {
        // A user without a folder has no peers, and no place for a log.
        Mouth::default().says(harness::NOTHING).ok();
        return ExitCode::SUCCESS;
    };
    if args.event == wait::WORD {
        return wait::run(&home, args.codex).await.unwrap_or_else(|error| {
            log::write(&home, &args.event, &error);
            ExitCode::SUCCESS
        });
    }
    let mouth = Mouth::default();
    // A task of its own: what does not end in time is left behind with the process, and
    // no statement is cut short in the middle.
    let task = tokio::spawn(answer(home.clone(), args.event.clone(), args, mouth.clone()));
    let deadline = Duration::from_millis(limits::HOOK_DEADLINE_MS);
    let failed = match tokio::time::timeout(deadline, task).await {
        Ok(Ok((_, Ok(())))) => None,
        Ok(Ok((event, Err(error)))) => Some((event, error)),
        Ok(Err(panicked)) => Some(("hook".to_owned(), panicked.into())),
        Err(_) => Some(("hook".to_owned(), anyhow::anyhow!("it was not done in time"))),
    };
    if let Some((event, error)) = failed {
        log::write(&home, &event, &error);
    }
    // Nobody is left to tell when this fails.
    mouth.says(harness::NOTHING).ok();
    ExitCode::SUCCESS
}

async fn answer(
    home: Home,
    event: String,
    args: HookArgs,
    mouth: Mouth,
) -> (String, anyhow::Result<()>) {
    let answered = async {
        let harness = if args.codex { Harness::Codex } else { Harness::Claude };
        let call = heard(&event).await?;
        let peer = args.name.as_deref().map(str::trim).filter(|name| !name.is_empty());
        match call {
            Some(call) => deliver::run(&home, &call, harness, peer, &mouth).await,
            None => Ok(()),
        }
    };
    let answered = answered.await;
    (event, answered)
}

/// What the host says on standard input; `None` where there is nothing to do.
async fn heard(event: &str) -> anyhow::Result<Option<Call>> {
    let event = event.to_owned();
    let read = move || {
        let input = io::stdin().lock().take(limits::HOOK_INPUT_BYTES_MAX);
        Call::read(&event, io::BufReader::with_capacity(64 * 1024, input))
    };
    tokio::task::spawn_blocking(read).await?
}

impl Mouth {
    /// Says this, unless something has been said. Returns whether it is written and
    /// flushed: from then on the host has it.
    fn says(&self, text: &str) -> io::Result<bool> {
        let mut spoken = self.0.lock();
        if std::mem::replace(&mut *spoken, true) {
            return Ok(false);
        }
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.write_all(b"\n")?;
        out.flush()?;
        Ok(true)
    }
}
