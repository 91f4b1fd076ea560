//! The accept loop.
//!
//! Our own rather than the framework's, for what that does not have: a
//! deadline for the request's head, a bound on sockets that have not said who
//! they are, and a drain that answers health checks to the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::SocketPeer;
use super::half_open::{HalfOpen, HalfOpenGuard};
use super::tap::Tapped;
use crate::limits;

/// After an accept that failed for want of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What a request's head may take; the smallest that the library allows.
const HEAD_BYTES: usize = 8 * 1024;

/// The guard of a socket, handed from the listener to the upgrade.
#[derive(Clone)]
pub struct Entering(pub Arc<parking_lot::Mutex<Option<HalfOpenGuard>>>);

/// Accepts until `stopped`.
pub async fn run(
    listener: TcpListener,
    routes: Router,
    half_open: HalfOpen,
    tasks: TaskTracker,
    stopped: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Small frames should leave at once; a socket that cannot do
                // that still works.
                let _ = stream.set_nodelay(true);
                let (routes, guard) = (routes.clone(), half_open.enter());
                tasks.spawn(serve(stream, peer, routes, guard, stopped.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a socket could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    routes: Router,
    guard: HalfOpenGuard,
    stopped: CancellationToken,
) {
    let evicted = guard.evicted();
    let (stream, tap) = Tapped::new(stream);
    let entering = Entering(Arc::new(parking_lot::Mutex::new(Some(guard))));
    let service = {
        routes.map_request(move |request: hyper::Request<Incoming>| {
            let mut request: Request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(SocketPeer(peer));
            request.extensions_mut().insert(entering.clone());
            request.extensions_mut().insert(tap.clone());
            request
        })
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits::HTTP_HEADER_DEADLINE_MS))
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .with_upgrades();
    tokio::select! {
        // Errors here are strangers' business: resets, bad requests.
        _ = connection => {}
        // Silent once the upgrade has taken the socket away: then the future
        // above is done.
        () = evicted.cancelled() => {}
        () = stopped.cancelled() => {}
    }
}
