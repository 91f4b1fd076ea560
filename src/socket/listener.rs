//! The accept loop.
//!
//! Our own rather than the framework's, for what that does not have: a
//! deadline for everything from the accept to an answer, bounds on sockets that
//! have not said who they are, in all and per address, and a drain that answers
//! health checks to the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::address::{AddressGuard, Addresses, Arrival, SocketPeer, too_many_sockets};
use super::half_open::{HalfOpen, HalfOpenGuard};
use super::tap::Tapped;
use crate::limits;

/// After an accept that failed for want of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What a request's head may take; the smallest that the library allows.
const HEAD_BYTES: usize = 8 * 1024;

/// What a socket holds on its way from the accept to an answer or an upgrade.
#[derive(Clone)]
pub(crate) struct Entering(Arc<Held>);

struct Held {
    half_open: HalfOpen,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    /// The socket's guard while it has not said who it is.
    guard: Option<HalfOpenGuard>,
    /// The socket's guard among those of its address.
    place: Option<AddressGuard>,
    /// Whether the address has too many sockets.
    is_crowded: bool,
    /// Until when what it does now must be over.
    due: Option<Instant>,
}

impl Entering {
    fn new(half_open: &HalfOpen, place: Option<AddressGuard>, is_crowded: bool) -> Self {
        let state = State { guard: Some(half_open.enter()), place, is_crowded, due: Some(due()) };
        let half_open = half_open.clone();
        Self(Arc::new(Held { half_open, state: Mutex::new(state), changed: Notify::new() }))
    }

    /// A request has come, which has its own deadline.
    fn begin(&self) {
        self.0.state.lock().due = Some(due());
        self.0.changed.notify_one();
    }

    /// Notes that the socket is an operator's, which may take its time.
    pub(crate) fn leave(&self) {
        let mut state = self.0.state.lock();
        (state.guard, state.due) = (None, None);
        self.0.changed.notify_one();
    }

    /// Whether it counts among its address's sockets already.
    pub(crate) fn is_counted(&self) -> bool {
        self.0.state.lock().place.is_some()
    }

    /// What it holds, for the upgrade that takes the socket over.
    pub(crate) fn take(&self) -> (HalfOpenGuard, Option<AddressGuard>) {
        let mut state = self.0.state.lock();
        state.due = None;
        self.0.changed.notify_one();
        (state.guard.take().unwrap_or_else(|| self.0.half_open.enter()), state.place.take())
    }

    fn is_crowded(&self) -> bool {
        self.0.state.lock().is_crowded
    }

    /// Waits until it is told to go, or is overdue.
    async fn over(&self) {
        loop {
            let (evicted, due) = {
                let state = self.0.state.lock();
                (state.guard.as_ref().map(HalfOpenGuard::evicted), state.due)
            };
            let evicted = async move {
                match evicted {
                    Some(evicted) => evicted.cancelled_owned().await,
                    None => std::future::pending().await,
                }
            };
            let overdue = async move {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = evicted => return,
                () = overdue => return,
                () = self.0.changed.notified() => {}
            }
        }
    }
}

fn due() -> Instant {
    Instant::now() + Duration::from_millis(limits::HTTP_EXCHANGE_DEADLINE_MS)
}

/// Whom the accept loop lets in.
#[derive(Clone)]
pub(crate) struct Door {
    /// What is served.
    pub routes: Router,
    /// Sockets that have not said who they are.
    pub half_open: HalfOpen,
    /// Open sockets per address.
    pub addresses: Addresses,
    /// Paths that are answered also on one socket too many from an address.
    pub always_served: &'static [&'static str],
}

/// Accepts until `stopped`.
pub(crate) async fn run(
    listener: TcpListener,
    mut door: Door,
    tasks: TaskTracker,
    stopped: CancellationToken,
) {
    door.routes =
        door.routes.layer(middleware::from_fn_with_state(door.always_served, refuse_crowded));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Some(entering) = door.enter(peer) {
                    // Small frames should leave at once; a socket that cannot do
                    // that still works.
                    let _ = stream.set_nodelay(true);
                    let routes = door.routes.clone();
                    tasks.spawn(serve(stream, peer, routes, entering, stopped.clone()));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a socket could not be accepted");
                // Where files are short, those that have said nothing make room.
                door.half_open.make_room();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Door {
    /// `None`: it is closed without a word.
    fn enter(&self, peer: SocketAddr) -> Option<Entering> {
        let (place, is_crowded) = match self.addresses.arrive(peer.ip()) {
            Arrival::Uncounted => (None, false),
            Arrival::Counted(place) => (Some(place), false),
            Arrival::Crowded(place) => (Some(place), true),
            Arrival::Refused => return None,
        };
        Some(Entering::new(&self.half_open, place, is_crowded))
    }
}

/// A socket too many from its address learns that, or how the broker does, and
/// nothing else.
async fn refuse_crowded(
    extract::State(always_served): extract::State<&'static [&'static str]>,
    request: Request,
    next: Next,
) -> Response {
    let is_crowded = request.extensions().get::<Entering>().is_some_and(Entering::is_crowded);
    if is_crowded && !always_served.contains(&request.uri().path()) {
        return too_many_sockets();
    }
    next.run(request).await
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    routes: Router,
    entering: Entering,
    stopped: CancellationToken,
) {
    let is_crowded = entering.is_crowded();
    let (stream, tap) = Tapped::new(stream);
    let service = {
        let entering = entering.clone();
        routes.map_request(move |request: hyper::Request<Incoming>| {
            let mut request: Request = request.map(axum::body::Body::new);
            entering.begin();
            request.extensions_mut().insert(SocketPeer(peer));
            request.extensions_mut().insert(entering.clone());
            request.extensions_mut().insert(tap.clone());
            request
        })
    };
    let head_ms = match is_crowded {
        true => limits::CROWDED_DEADLINE_MS,
        false => limits::HTTP_HEADER_DEADLINE_MS,
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // Between two requests, too: an idle connection ends.
        .header_read_timeout(Duration::from_millis(head_ms))
        .keep_alive(!is_crowded)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .with_upgrades();
    tokio::select! {
        // Errors here are strangers' business: resets, bad requests.
        _ = connection => {}
        // Silent once the upgrade has taken the socket away: then the future
        // above is done.
        () = entering.over() => {}
        () = stopped.cancelled() => {}
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::config::Config;

    /// What is answered on a socket that comes from there.
    async fn ask(door: &Door, from: &str, path: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let mut client = TcpStream::connect(address).await.expect("a connection");
        let (stream, _) = listener.accept().await.expect("it came");
        let peer = SocketAddr::new(from.parse().expect("an address"), 4000);
        let Some(entering) = door.enter(peer) else { return "nothing".to_owned() };
        let routes = door
            .routes
            .clone()
            .layer(middleware::from_fn_with_state(door.always_served, refuse_crowded));
        let stopped = CancellationToken::new();
        let served = tokio::spawn(serve(stream, peer, routes, entering, stopped));
        let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        client.write_all(head.as_bytes()).await.expect("open");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("an answer");
        served.await.expect("no panic");
        answer.lines().next().unwrap_or_default().to_owned()
    }

    /// Whether it may still go on.
    async fn waits(entering: &Entering) -> bool {
        tokio::select! {
            biased;
            () = entering.over() => false,
            () = tokio::task::yield_now() => true,
        }
    }

    #[tokio::test]
    async fn sockets_that_say_nothing_count_against_their_address() {
        let mut config = Config::for_tests(Path::new("."));
        config.http.connections_per_ip_max = 2;
        let answer = || async { "here" };
        let routes = Router::new().route("/ws", get(answer)).route("/health", get(answer));
        let half_open = HalfOpen::new(100);
        let addresses = Addresses::new(&config);
        let door = Door { routes, half_open, addresses, always_served: &["/health"] };
        let peer = SocketAddr::from(([203, 0, 113, 1], 4000));
        let silent = [door.enter(peer), door.enter(peer)];
        assert_eq!(ask(&door, "203.0.113.1", "/ws").await, "HTTP/1.1 429 Too Many Requests");
        assert_eq!(ask(&door, "203.0.113.1", "/health").await, "HTTP/1.1 200 OK");
        assert_eq!(ask(&door, "203.0.113.2", "/ws").await, "HTTP/1.1 200 OK", "another address");
        let crowd = [door.enter(peer), door.enter(peer)];
        assert_eq!(ask(&door, "203.0.113.1", "/ws").await, "nothing", "a flood");
        drop((silent, crowd));
        assert_eq!(ask(&door, "203.0.113.1", "/ws").await, "HTTP/1.1 200 OK", "given back");
        assert_eq!(door.half_open.count(), 0);
    }

    #[tokio::test]
    async fn an_operators_stream_is_not_among_those_that_are_told_to_go() {
        let half_open = HalfOpen::new(1);
        let operator = Entering::new(&half_open, None, false);
        operator.leave();
        let stranger = Entering::new(&half_open, None, false);
        let another = Entering::new(&half_open, None, false);
        stranger.over().await;
        assert_eq!(half_open.count(), 1);
        assert!(waits(&operator).await, "it stays");
        assert!(waits(&another).await, "so does the youngest");
        // A connection that a proxy uses again may still become a peer's.
        let (guard, _) = operator.take();
        assert_eq!(half_open.count(), 1);
        drop(guard);
    }

    #[tokio::test]
    async fn what_takes_too_long_is_cut_unless_it_is_an_operators() {
        let half_open = HalfOpen::new(10);
        let entering = Entering::new(&half_open, None, false);
        let left = entering.0.state.lock().due.expect("a deadline") - Instant::now();
        assert!(left <= Duration::from_millis(limits::HTTP_EXCHANGE_DEADLINE_MS), "{left:?}");
        let overdue = || entering.0.state.lock().due = Some(Instant::now());
        overdue();
        entering.over().await;
        entering.begin();
        assert!(waits(&entering).await, "each request has its own");
        overdue();
        entering.leave();
        assert!(waits(&entering).await);
    }
}
