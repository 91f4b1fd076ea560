//! The doorbell of a session: a line into the session's own inbox, which its host offers
//! to the session's children and whose address the session's hook has handed over.
//!
//! The bell says how many messages wait and from whom, and never what they say: the host
//! marks the line as not from the user, and the model asks for the bodies by a tool, which
//! frames them. Nothing is read from the socket, no answer is believed, and a line that
//! was taken proves nothing. The socket's path and token never reach a log.

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FileType, stat};
use rustix::process::geteuid;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::home::HostInbox;

/// Between two rings in the long run. Hosts bound what one sender may post.
const GAP: Duration = Duration::from_secs(2);
/// Rings that may follow each other sooner: a session that has read what it was woken for
/// is idle again, and is not to wait for its next message. Hosts take thirty.
const AT_ONCE: u32 = 5;
/// For all of one ring.
const DEADLINE: Duration = Duration::from_secs(1);

/// Rings one session's bell.
#[derive(Debug, Default)]
pub(crate) struct Doorbell {
    /// When all rings so far have had their gap.
    due: Option<Instant>,
    rings: u64,
}

impl Doorbell {
    /// Whether the bell has rung too often lately, and may not ring yet.
    pub(crate) fn rests(&self) -> bool {
        self.due.is_some_and(|due| due > Instant::now() + GAP * (AT_ONCE - 1))
    }

    /// Rings with that text. That counts, whether it was heard or not.
    ///
    /// # Errors
    /// When nobody listens there, or when what listens is not this user's.
    pub(crate) async fn ring(&mut self, inbox: &HostInbox, text: &str) -> io::Result<()> {
        let now = Instant::now();
        self.due = Some(self.due.map_or(now, |due| due.max(now)) + GAP);
        self.rings += 1;
        // Hosts drop a text that they had a moment ago, so each is told apart by its number.
        let text = format!("{text} (bell {})", self.rings);
        let posting = post(Path::new(&inbox.socket), inbox.token.as_deref(), &text);
        tokio::time::timeout(DEADLINE, posting).await.map_err(|_| io::ErrorKind::TimedOut)?
    }
}

async fn post(path: &Path, token: Option<&str>, text: &str) -> io::Result<()> {
    belongs_to_this_user(path)?;
    let mut stream = UnixStream::connect(path).await?;
    let mut lines = String::new();
    if let Some(token) = token {
        lines.push_str(&json!({ "type": "auth", "token": token }).to_string());
        lines.push('\n');
    }
    let message = json!({ "type": "user", "message": { "role": "user", "content": text } });
    lines.push_str(&message.to_string());
    lines.push('\n');
    stream.write_all(lines.as_bytes()).await?;
    stream.shutdown().await
}

/// The token is for this user's host alone.
fn belongs_to_this_user(path: &Path) -> io::Result<()> {
    let found = stat(path)?;
    let is_socket = FileType::from_raw_mode(found.st_mode) == FileType::Socket;
    if path.is_absolute() && is_socket && found.st_uid == geteuid().as_raw() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "the inbox is not this user's socket"))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::UnixListener;

    use super::*;

    fn inbox(path: &Path) -> HostInbox {
        let socket = path.to_str().expect("UTF-8").to_owned();
        HostInbox { socket, token: Some("secret".to_owned()) }
    }

    #[tokio::test]
    async fn a_ring_is_the_token_and_one_line_and_no_two_say_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("inbox.sock");
        let listener = UnixListener::bind(&path).expect("bound");
        let mut bell = Doorbell::default();
        assert!(!bell.rests());
        let mut said = Vec::new();
        for _ in 0..2 {
            bell.ring(&inbox(&path), "2 messages wait").await.expect("heard");
            let (mut stream, _) = listener.accept().await.expect("a caller");
            let mut text = String::new();
            stream.read_to_string(&mut text).await.expect("UTF-8");
            let lines: Vec<serde_json::Value> =
                text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
            assert_eq!(lines[0], json!({ "type": "auth", "token": "secret" }));
            assert_eq!(lines[1]["message"]["role"], "user");
            assert_eq!(lines.len(), 2);
            said.push(lines[1]["message"]["content"].clone());
        }
        assert!(said[0].as_str().is_some_and(|text| text.starts_with("2 messages wait")));
        assert_ne!(said[0], said[1]);
    }

    #[tokio::test]
    async fn a_bell_rings_a_few_times_at_once_and_then_rests() {
        let folder = tempfile::tempdir().expect("a folder");
        let gone = inbox(&folder.path().join("gone.sock"));
        let mut bell = Doorbell::default();
        for _ in 0..AT_ONCE {
            assert!(!bell.rests());
            bell.ring(&gone, "1 message waits").await.expect_err("nobody is there");
        }
        assert!(bell.rests(), "whether it was heard or not");
    }

    #[tokio::test]
    async fn a_bell_that_nobody_answers_is_an_error_and_what_is_no_socket_gets_no_token() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut bell = Doorbell::default();
        let gone = folder.path().join("gone.sock");
        assert!(bell.ring(&inbox(&gone), "1 message waits").await.is_err());
        let file = folder.path().join("file");
        std::fs::write(&file, "").expect("written");
        let refused = bell.ring(&inbox(&file), "1 message waits").await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(std::fs::read(&file).expect("there"), b"");
    }
}
