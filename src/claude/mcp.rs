//! `claude mcp`: the server by which a coding session's host makes the session a peer.
//!
//! It speaks MCP on standard input and output, and lives as long as the host keeps it: a
//! broker that is away is no reason to end, the end of standard input is. Nothing is
//! written to standard output but frames of the protocol. It answers the handshake before
//! it has touched a network.

use std::process::ExitCode;
use std::sync::Arc;

use parking_lot::Mutex;
use rmcp::ServiceExt as _;
use rmcp::service::ServerInitializeError;
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::stdio_pipes;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

mod at;
mod calls;
mod evidence;
mod idle;
mod instructions;
mod live;
mod pipe;
mod seat;
mod server;
mod shown;
mod tools;
mod ways;

use crate::claude::home::Home;
use crate::claude::link::Link;
use crate::claude::variables;
use calls::Calls;
use pipe::Pipe;
use seat::Seat;
use server::Server;
use ways::Ways;

/// Bytes of one frame of the host. Longer: it is passed over.
const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Serves one session of a host to its end.
pub(crate) async fn run() -> anyhow::Result<ExitCode> {
    let home = Home::of_user()?;
    let ended = CancellationToken::new();
    let calls = Arc::new(Calls::default());
    let is_on = std::env::var(variables::CHANNEL).is_ok_and(|said| said == "1");
    let ways = Arc::new(Mutex::new(Ways::new(is_on)));
    let (seat, following) = Seat::new(home.clone());
    let (host, host_seen) = watch::channel(None);
    let work = async {
        tokio::join!(
            following,
            evidence::run(Arc::clone(&calls)),
            idle::run(seat.clone(), host_seen, Arc::clone(&ways)),
            live::run(seat.clone(), home, Arc::clone(&ways)),
        );
    };
    let server =
        Server { seat: seat.clone(), calls: Arc::clone(&calls), ways: Arc::clone(&ways), host };
    let (read, write) = stdio_pipes();
    let transport = AsyncRwTransport::new(read, write).with_max_line_length(FRAME_BYTES_MAX);
    let pipe = Pipe::new(transport, Arc::clone(&calls), ended.clone());
    let code = tokio::select! {
        code = serve(server, pipe) => code,
        () = ended.cancelled() => ExitCode::SUCCESS,
        () = told_to_end() => ExitCode::SUCCESS,
        () = work => ExitCode::FAILURE,
    };
    evidence::finish(&calls).await;
    seat.close().await;
    Ok(code)
}

async fn serve<T>(server: Server, pipe: Pipe<T, Link>) -> ExitCode
where
    T: rmcp::transport::Transport<rmcp::RoleServer> + 'static,
{
    match server.serve(pipe).await {
        Ok(running) => {
            let _ = running.waiting().await;
            ExitCode::SUCCESS
        }
        Err(ServerInitializeError::ConnectionClosed(_)) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::warn!(%error, "the host does not shake hands");
            ExitCode::FAILURE
        }
    }
}

/// A host that ends its children, or a terminal that does.
async fn told_to_end() {
    let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
    let [terminate, interrupt, hangup] = kinds.map(signal);
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = (terminate, interrupt, hangup)
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = hangup.recv() => {}
    }
}
