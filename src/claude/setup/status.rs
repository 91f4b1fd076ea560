//! `claude status`: the sessions of this machine that are peers; and the one line for a
//! host's status line.
//!
//! Only files of this user are read: hosts ask for their status line many times a minute.

use std::io::Read as _;
use std::process::ExitCode;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::claude::home::{Binding, Home};
use crate::clock::Timestamp;
use crate::output;

/// Bytes of what a host says to its status line.
const INPUT_BYTES_MAX: u64 = 1024 * 1024;

/// Arguments of `claude status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// One line of the session that standard input is about, for a host's status line
    #[arg(long)]
    line: bool,
}

/// A session of this machine, as it is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    /// The peer: mesh/name.
    peer: String,
    /// The session's id in the mesh.
    session: String,
    /// The host's id of its session.
    host_session: String,
    /// The host's process.
    pid: i32,
    /// Whether it has a socket to its broker.
    connected: bool,
    /// How many peers are in the mesh, and how many of them are there.
    peers: Option<u32>,
    online: Option<u32>,
    /// Whether the channel was proven to reach the model.
    channel: bool,
    /// Messages that its model has not seen.
    unread: i64,
    /// When the oldest of them came.
    oldest: Option<Timestamp>,
}

/// Runs it.
pub(crate) async fn run(args: &StatusArgs, as_json: bool) -> anyhow::Result<ExitCode> {
    if args.line {
        // A host shows whatever a status line prints, and an error would be in the way.
        let line = line().await.unwrap_or_default();
        output::line(&output::printable(&line))?;
        return Ok(ExitCode::SUCCESS);
    }
    let home = Home::of_user()?;
    let mut sessions = Vec::new();
    for binding in home.bindings()? {
        sessions.extend(shown(&home, &binding).await?);
    }
    sessions.sort_by(|a, b| (&a.peer, a.pid).cmp(&(&b.peer, b.pid)));
    if as_json {
        output::json(&json!({ "sessions": sessions }))?;
    } else if sessions.is_empty() {
        output::line("no session on this machine is a peer now")?;
    } else {
        output::table(
            ["peer", "broker", "online", "unread", "oldest", "channel", "process"],
            sessions.iter().map(row),
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn shown(home: &Home, binding: &Binding) -> anyhow::Result<Option<Shown>> {
    let Some(session) = home.session(&binding.session)? else { return Ok(None) };
    let live = home.live(&binding.session)?;
    let counts = home.spool(&binding.session).await?.counts(Timestamp::now()).await?;
    Ok(Some(Shown {
        peer: session.peer,
        session: binding.session.clone(),
        host_session: binding.host_session.clone(),
        pid: binding.process.pid,
        connected: live.as_ref().is_some_and(|live| live.connected),
        peers: live.as_ref().map(|live| live.peers),
        online: live.as_ref().map(|live| live.online),
        channel: live.as_ref().is_some_and(|live| live.channel_proven),
        unread: counts.unread,
        oldest: counts.oldest,
    }))
}

fn row(shown: &Shown) -> [String; 7] {
    let online = match (shown.online, shown.peers) {
        (Some(online), Some(peers)) => format!("{online} of {peers}"),
        _ => "-".to_owned(),
    };
    [
        shown.peer.clone(),
        if shown.connected { "connected" } else { "away" }.to_owned(),
        online,
        shown.unread.to_string(),
        output::or_dash(shown.oldest),
        if shown.channel { "proven" } else { "-" }.to_owned(),
        shown.pid.to_string(),
    ]
}

/// The line; nothing for a session that is no peer.
async fn line() -> anyhow::Result<String> {
    #[derive(Deserialize)]
    struct Said {
        session_id: Option<String>,
    }
    let mut input = Vec::new();
    std::io::stdin().lock().take(INPUT_BYTES_MAX).read_to_end(&mut input)?;
    let said = serde_json::from_slice::<Said>(&input).ok().and_then(|said| said.session_id);
    let home = Home::of_user()?;
    let binding = match said {
        Some(id) => home.bindings()?.into_iter().find(|bound| bound.host_session == id),
        None => home.of_ancestors()?,
    };
    let Some(binding) = binding else { return Ok(String::new()) };
    Ok(shown(&home, &binding).await?.map(|shown| line_of(&shown)).unwrap_or_default())
}

fn line_of(shown: &Shown) -> String {
    let there = match (shown.connected, shown.online, shown.peers) {
        (false, ..) => "away".to_owned(),
        (true, Some(online), Some(peers)) => format!("{online}/{peers} online"),
        (true, ..) => "connected".to_owned(),
    };
    format!("{} · {there} · {} unread", shown.peer, shown.unread)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(connected: bool, online: Option<u32>) -> Shown {
        Shown {
            peer: "team/ada".to_owned(),
            session: "s".to_owned(),
            host_session: "h".to_owned(),
            pid: 7,
            connected,
            peers: online.map(|online| online + 1),
            online,
            channel: false,
            unread: 2,
            oldest: None,
        }
    }

    #[test]
    fn the_line_says_mesh_peers_and_unread_mail() {
        assert_eq!(line_of(&shown(true, Some(3))), "team/ada · 3/4 online · 2 unread");
        assert_eq!(line_of(&shown(true, None)), "team/ada · connected · 2 unread");
        assert_eq!(line_of(&shown(false, Some(3))), "team/ada · away · 2 unread");
    }
}
