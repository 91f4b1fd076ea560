//! `claude hook wait`: a process in the background that wakes its idle session, for hosts
//! that show what such a process says when it ends with code 2.
//!
//! It rings only: how many messages wait, and from whom. The other ways come first; it
//! rings when they have shown nothing for a while. There is one for each session: the next
//! one that is started ends the one before it. Where nobody sits at the host it ends at
//! once: a host that was given one prompt would not end before it.

use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use super::event::session_of;
use super::{Harness, Home, deliver};
use crate::claude::framing;
use crate::claude::home::{Host, Start};
use crate::claude::spool::Spool;
use crate::clock::Timestamp;
use crate::config::process_env;
use crate::protocol::Status;
use crate::{id, limits};

/// The word by which it is called.
pub(super) const WORD: &str = "wait";

/// How a process says that what it wrote is to be shown, and the session woken.
const WAKES: u8 = 2;

/// How a host in a terminal says that it is one.
const INTERACTIVE: &str = "cli";

/// Between two looks at the spool.
const LOOK: Duration = Duration::from_millis(500);

/// Waits until there is something to ring for, or until it is not needed any more.
pub(super) async fn run(home: &Home, codex: bool) -> anyhow::Result<ExitCode> {
    if process_env("CLAUDE_CODE_ENTRYPOINT").as_deref() != Some(INTERACTIVE) {
        return Ok(ExitCode::SUCCESS);
    }
    let harness = if codex { Harness::Codex } else { Harness::Claude };
    let read = || session_of(io::stdin().lock().take(limits::HOOK_INPUT_BYTES_MAX));
    let Some(session) = tokio::task::spawn_blocking(read).await?? else {
        return Ok(ExitCode::SUCCESS);
    };
    let process = deliver::host_process(harness);
    let host = Host { session: &session, process, start: Start::Unknown, inbox: None };
    let Some(binding) = home.of_host(&host)? else { return Ok(ExitCode::SUCCESS) };
    let spool = home.spool(&binding.session).await?;
    let own = id::random();
    spool.begin_to_wait(&own).await?;
    let until = Timestamp::now().plus_ms(limits::WAITER_MS);
    while process.runs() && Timestamp::now() < until && spool.still_waits(&own).await? {
        if let Some(text) = rings(&spool, Timestamp::now()).await? {
            io::stderr().write_all(text.as_bytes())?;
            return Ok(ExitCode::from(WAKES));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(ExitCode::SUCCESS)
}

/// What to ring with, if it is time.
async fn rings(spool: &Spool, now: Timestamp) -> anyhow::Result<Option<String>> {
    let turn = spool.turn().await?;
    if turn.status != Status::Idle || now.ms_since(turn.since) < limits::WAITER_PATIENCE_MS {
        return Ok(None);
    }
    let counts = spool.counts(now).await?;
    let waited =
        counts.oldest.is_some_and(|oldest| now.ms_since(oldest) >= limits::WAITER_PATIENCE_MS);
    if counts.free == 0 || !waited || !spool.may_ring(limits::WAITER_QUIET_MS, now).await? {
        return Ok(None);
    }
    let senders = spool.senders(limits::RUNG_NAMES_MAX, now).await?;
    Ok(Some(framing::doorbell(counts.free, &senders)))
}
