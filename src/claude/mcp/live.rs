//! How the session does, for whoever looks without a socket: the status line reads the
//! file that is written here, and nothing is decided by it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::seat::Seat;
use super::ways::{Channel, Ways};
use crate::claude::home::{Home, Live};
use crate::claude::link::{Link, State};
use crate::clock::Timestamp;
use crate::protocol::PeerRole;

/// How old the file may be while the process lives.
const EVERY: Duration = Duration::from_secs(30);

/// Writes until it is dropped.
pub(super) async fn run(seat: Seat, home: Home, ways: Arc<Mutex<Ways>>) {
    loop {
        let link = seat.link().await;
        let live = look(&link, &ways).await;
        let (home, session) = (home.clone(), link.party().session.clone());
        let writing = tokio::task::spawn_blocking(move || home.say(&session, &live)).await;
        if let Err(error) = writing.map_err(anyhow::Error::from).and_then(|written| written) {
            tracing::debug!(error = format!("{error:#}"), "the status line is not told");
        }
        tokio::select! {
            () = link.turned() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn look(link: &Link, ways: &Mutex<Ways>) -> Live {
    let mut live = Live {
        connected: false,
        peers: 0,
        online: 0,
        channel_proven: ways.lock().channel() == Channel::Proven,
        at_ms: Timestamp::now().as_ms(),
    };
    if let State::Here(client) = link.state() {
        live.connected = true;
        if let Ok(peers) = client.list_peers().await {
            let sessions = peers.iter().filter(|peer| peer.peer_role == PeerRole::Session).count();
            live.peers = u32::try_from(sessions).unwrap_or(u32::MAX);
            live.online = live.peers;
        }
    }
    live
}
