//! How `peer status` reaches the `peer listen` that it is about: a socket
//! beside the key file. A status belongs to a session, and only the session's
//! own connection can change it.

use std::io;
use std::path::PathBuf;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::cli::Failure;
use crate::client::Client;
use crate::keyring::Kept;
use crate::protocol::{SetStatus, Status};

/// Bytes of a request; a longer one is cut, and then is none.
const LINE_BYTES_MAX: u64 = 4096;

#[derive(Serialize, Deserialize)]
struct Ask {
    status: Status,
}

#[derive(Serialize, Deserialize)]
struct Reply {
    error: Option<String>,
}

/// The socket of a listening peer; removed when dropped.
pub(super) struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn socket_path(kept: &Kept) -> PathBuf {
    kept.path.with_extension("sock")
}

/// Opens the socket; `None` if another process listens as this peer already.
pub(super) async fn open(kept: &Kept) -> io::Result<Option<Control>> {
    let path = socket_path(kept);
    let listener = match UnixListener::bind(&path) {
        Ok(listener) => listener,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if UnixStream::connect(&path).await.is_ok() {
                return Ok(None);
            }
            // A process that was killed has left the socket.
            std::fs::remove_file(&path)?;
            UnixListener::bind(&path)?
        }
        Err(error) => return Err(error),
    };
    Ok(Some(Control { listener, path }))
}

impl Control {
    /// Answers one request; cancel safe between requests.
    pub(super) async fn serve(&self, client: &Client) {
        loop {
            let Ok((stream, _)) = self.listener.accept().await else { return };
            let client = client.clone();
            tokio::spawn(async move {
                if let Err(error) = answer(stream, &client).await {
                    tracing::debug!(%error, "a status request broke off");
                }
            });
        }
    }
}

async fn answer(stream: UnixStream, client: &Client) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(LINE_BYTES_MAX)).read_line(&mut line).await?;
    let error = match serde_json::from_str::<Ask>(&line) {
        Ok(Ask { status }) => {
            client.ask(&SetStatus { status }).await.err().map(|error| error.to_string())
        }
        Err(_) => Some("this is no request".to_owned()),
    };
    let mut reply = serde_json::to_vec(&Reply { error })?;
    reply.push(b'\n');
    write.write_all(&reply).await
}

/// Asks the listening process to change its status.
pub(super) async fn ask(kept: &Kept, status: Status) -> anyhow::Result<()> {
    let path = socket_path(kept);
    let Ok(mut stream) = UnixStream::connect(&path).await else {
        let message = format!(
            "{} does not listen on this machine; start `claudemesh-broker peer listen --as {}` first",
            kept.file.name,
            kept.file.full_name()
        );
        return Err(Failure::new("not_listening", message).into());
    };
    let mut line = serde_json::to_vec(&Ask { status })?;
    line.push(b'\n');
    stream.write_all(&line).await.context("the listening peer went away")?;
    let mut reply = String::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut reply).await?;
    let reply: Reply = serde_json::from_str(&reply).context("the listening peer went away")?;
    match reply.error {
        None => Ok(()),
        Some(error) => Err(Failure::new("rejected", error).into()),
    }
}
