//! A TCP proxy that misbehaves as it is told to, each direction for itself,
//! while connections go through it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Chunks under way in one direction. More: the side that sends waits.
const CHUNKS_MAX: usize = 256;
const CHUNK_BYTES: usize = 16 * 1024;

/// What happens to the bytes of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing bad.
    Pass,
    /// Connections end, and new ones end at once.
    Cut,
    /// Nobody reads: what was sent waits, and arrives when this is over.
    Stall,
    /// Everything is read and nothing arrives, also later on the same
    /// connection: it is open and deaf for good.
    Swallow,
    /// Everything arrives so much later.
    Delay(Duration),
}

/// A running proxy; its connections end with it.
pub struct Proxy {
    pub address: SocketAddr,
    to_server: watch::Sender<Fault>,
    to_client: watch::Sender<Fault>,
    server: watch::Sender<SocketAddr>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Before the server at `server`.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (to_server, server_faults) = watch::channel(Fault::Pass);
        let (to_client, client_faults) = watch::channel(Fault::Pass);
        let (server, leads_to) = watch::channel(server);
        let accepting = tokio::spawn(async move {
            // Aborted with this task.
            let mut open = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                while open.try_join_next().is_some() {}
                let server = *leads_to.borrow();
                open.spawn(join(client, server, server_faults.clone(), client_faults.clone()));
            }
        });
        Self { address, to_server, to_client, server, accepting }
    }

    /// New connections go there; those that are open stay where they are, as
    /// when a name leads elsewhere.
    pub fn lead_to(&self, server: SocketAddr) {
        self.server.send_replace(server);
    }

    /// The same for both directions.
    pub fn set(&self, fault: Fault) {
        self.set_each(fault, fault);
    }

    /// Each direction for itself.
    pub fn set_each(&self, to_server: Fault, to_client: Fault) {
        self.to_server.send_replace(to_server);
        self.to_client.send_replace(to_client);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn join(
    client: TcpStream,
    server: SocketAddr,
    to_server: watch::Receiver<Fault>,
    to_client: watch::Receiver<Fault>,
) {
    let is_cut = |fault: &Fault| *fault == Fault::Cut;
    let (mut cut_server, mut cut_client) = (to_server.clone(), to_client.clone());
    let carrying = async {
        let Ok(server) = TcpStream::connect(server).await else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (from_client, into_client) = client.into_split();
        let (from_server, into_server) = server.into_split();
        tokio::join!(
            carry(from_client, into_server, to_server),
            carry(from_server, into_client, to_client),
        );
    };
    // Dropping the halves closes both sockets.
    tokio::select! {
        () = carrying => {}
        _ = cut_server.wait_for(is_cut) => {}
        _ = cut_client.wait_for(is_cut) => {}
    }
}

async fn carry(from: OwnedReadHalf, into: OwnedWriteHalf, faults: watch::Receiver<Fault>) {
    let (chunks, late) = mpsc::channel(CHUNKS_MAX);
    tokio::join!(read(from, chunks, faults), write(into, late));
}

async fn read(
    mut from: OwnedReadHalf,
    chunks: mpsc::Sender<(Instant, Vec<u8>)>,
    mut faults: watch::Receiver<Fault>,
) {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut is_deaf = false;
    loop {
        let fault = *faults.borrow_and_update();
        if fault == Fault::Stall {
            if faults.changed().await.is_err() {
                return;
            }
            continue;
        }
        let length = tokio::select! {
            changed = faults.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            read = from.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(length) => length,
            },
        };
        is_deaf |= fault == Fault::Swallow;
        if is_deaf {
            continue;
        }
        let delay = if let Fault::Delay(delay) = fault { delay } else { Duration::ZERO };
        if chunks.send((Instant::now() + delay, buffer[..length].to_vec())).await.is_err() {
            return;
        }
    }
}

async fn write(mut into: OwnedWriteHalf, mut late: mpsc::Receiver<(Instant, Vec<u8>)>) {
    while let Some((at, bytes)) = late.recv().await {
        tokio::time::sleep_until(at).await;
        if into.write_all(&bytes).await.is_err() {
            return;
        }
    }
    let _ = into.shutdown().await;
}
