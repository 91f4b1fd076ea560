//! A peer as a library: what the command line, the tests and the bench use.
//!
//! [`Client::connect`] opens a session and returns two ends: the [`Client`], a
//! cheap handle that sends and asks, and the [`Inbox`], from which messages
//! and events are read. One task owns the socket. Every queue is bounded: a
//! program that does not read its inbox slows its broker down, and one that
//! sends faster than it is acked waits.
//!
//! With [`ClientOptions::reconnect`] a lost connection is replaced behind the
//! handle's back: the same session on whatever node answers, sends repeated
//! under the same idempotence key, deliveries that come twice handed on once.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) mod backoff;
mod common_keys;
mod error;
mod heard;
pub(crate) mod hello;
pub mod http;
mod inbound;
mod kept;
mod many;
mod options;
mod outgoing;
mod pending;
mod requests;
mod seals;
pub(crate) mod socket;
mod task;
mod trust;
mod vetting;

pub use common_keys::{KeptText, RESEAL_NEEDED};
pub use error::{ClientError, CommonKeyError, Rejection};
pub use http::{Enrolled, join};
pub use inbound::{Inbound, Inbox};
pub use kept::{Field, Kept, how_kept};
pub use many::{Secrecy, Sent};
pub use options::{ClientLimits, ClientOptions, HelloKind, Identity};
pub use trust::{Judged, KnownKeys, Trust};

use crate::auth::SecretKey;
use crate::codec::Frame;
use crate::id::{Key, MessageId};
use crate::protocol::{self, Ack, Blob, HelloAck, Priority, Reached};
use crate::sealing::{InvalidRecipient, Sealed};
use common_keys::CommonKeys;
use inbound::Remembered;
use pending::{Pending, PendingSend};
use seals::Seals;
use task::{Command, Task};

/// Commands that wait for the socket's task. More: the caller waits.
const COMMANDS_MAX: usize = 256;

/// A handle on a connected peer. Clones share the connection; when the last is
/// dropped, it closes.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    handle: Arc<Handle>,
}

/// What handles and task share.
struct Shared {
    url: String,
    options: ClientOptions,
    session_key: SecretKey,
    seals: Seals,
    common_keys: CommonKeys,
    hello_ack: Mutex<HelloAck>,
    numbers: AtomicU64,
    /// Targets that may be sealed for.
    vetted: Mutex<HashSet<Key>>,
    in_flight: Arc<Semaphore>,
    /// Cancelled when the task is done.
    closed: CancellationToken,
}

struct Handle {
    closing: CancellationToken,
    abort: AbortHandle,
    _closes: DropGuard,
}

/// What a message holds.
#[derive(Clone, Debug)]
pub enum Body<'a> {
    /// Sealed on the way: for a key encrypted, for a group or everyone not.
    Text(&'a [u8]),
    /// Sealed already.
    Sealed(Sealed),
    /// Sealed already, under a key that members hold in common; with the names that it
    /// mentions, which the broker cannot read in it.
    Kept(Sealed, Vec<String>),
}

impl<'a> From<&'a str> for Body<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text.as_bytes())
    }
}

impl<'a> From<&'a [u8]> for Body<'a> {
    fn from(text: &'a [u8]) -> Self {
        Self::Text(text)
    }
}

impl From<Sealed> for Body<'_> {
    fn from(sealed: Sealed) -> Self {
        Self::Sealed(sealed)
    }
}

/// A message to send, with all that may be said about it.
#[derive(Clone, Debug)]
pub struct Outgoing<'a> {
    /// A key, `@group`, `#topic` or `*`.
    pub target: &'a str,
    /// How urgent.
    pub priority: Priority,
    /// What it holds.
    pub body: Body<'a>,
    /// Idempotence key. A client that reconnects makes one if there is none.
    pub client_message_id: Option<String>,
    /// The message that it answers.
    pub reply_to_id: Option<String>,
    /// The conversation it belongs to.
    pub thread_id: Option<String>,
    /// Whether an answer is waited for.
    pub expects_reply: bool,
    /// After how many milliseconds it must not be delivered any more.
    pub ttl_ms: Option<i64>,
    /// The sender's own id of an earlier message whose place it takes.
    pub supersedes: Option<String>,
    /// At which stage to tell the sender, by an event `message_receipt`.
    pub receipt: Option<Reached>,
}

impl<'a> Outgoing<'a> {
    /// A message for a target.
    pub fn new(target: &'a str, priority: Priority, body: impl Into<Body<'a>>) -> Self {
        Self {
            target,
            priority,
            body: body.into(),
            client_message_id: None,
            reply_to_id: None,
            thread_id: None,
            expects_reply: false,
            ttl_ms: None,
            supersedes: None,
            receipt: None,
        }
    }
}

impl Client {
    /// Connects to `ws://host:port/ws` (or `wss://`) and says hello. Returns
    /// when the session is active; only later losses are made good.
    ///
    /// # Errors
    /// [`ClientError`], with [`ClientError::Refused`] for a refused hello.
    pub async fn connect(url: &str, options: ClientOptions) -> Result<(Self, Inbox), ClientError> {
        let session_key = options.identity.session_key.clone().unwrap_or_else(SecretKey::generate);
        let opened = socket::open(url, &options, &session_key).await?;
        let shown = (options.hello != HelloKind::Member).then(|| session_key.clone());
        let closing = CancellationToken::new();
        let limits = options.limits;
        let shared = Arc::new(Shared {
            url: url.to_owned(),
            seals: Seals::new(options.identity.member_key.clone(), shown),
            common_keys: CommonKeys::default(),
            options,
            session_key,
            hello_ack: Mutex::new(opened.ack.clone()),
            numbers: AtomicU64::new(1),
            vetted: Mutex::default(),
            in_flight: Arc::new(Semaphore::new(limits.in_flight_max.max(1))),
            closed: CancellationToken::new(),
        });
        let (commands, commands_end) = mpsc::channel(COMMANDS_MAX);
        let (inbox_end, queue) = mpsc::channel(limits.inbox_max.max(1));
        let task = Task {
            shared: Arc::clone(&shared),
            commands: commands_end,
            inbox: inbox_end,
            closing: closing.clone(),
            pending: Pending::default(),
            remembered: Remembered::new(limits.remembered_max),
            sealed: Remembered::new(limits.remembered_max),
            parked: std::collections::VecDeque::new(),
            deaf: false,
        };
        let abort = tokio::spawn(task.run(opened)).abort_handle();
        let handle = Handle { closing: closing.clone(), abort, _closes: closing.drop_guard() };
        Ok((Self { shared, commands, handle: Arc::new(handle) }, Inbox { queue }))
    }

    /// Sends, and waits until the broker has the message on disk.
    ///
    /// # Errors
    /// [`ClientError::Rejected`] if the broker did not take it, or why nobody
    /// knows.
    pub async fn send<'a>(
        &self,
        target: &'a str,
        priority: Priority,
        body: impl Into<Body<'a>>,
    ) -> Result<Ack, ClientError> {
        self.send_with(Outgoing::new(target, priority, body)).await
    }

    /// As [`Self::send`], with all fields.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_with(&self, message: Outgoing<'_>) -> Result<Ack, ClientError> {
        let ack = self.send_nowait(message).await?.await?;
        if ack.queued {
            return Ok(ack);
        }
        Err(ClientError::Rejected(Box::new(ack.into())))
    }

    /// Seals a text as a message for that target would be: for what is sent later, or by
    /// another way. What goes to a group or to everyone anybody can read.
    ///
    /// # Errors
    /// If there is no box for the target.
    pub fn seal(&self, target: &str, text: &[u8]) -> Result<Sealed, ClientError> {
        Ok(self.shared.seals.seal(target, text)?)
    }

    /// Puts a message on its way and returns the future of its ack, accepted or
    /// not. Waits only while too many are in flight. Messages go out in the
    /// order of these calls.
    ///
    /// # Errors
    /// If there is no box for the target, or the client is closed.
    pub async fn send_nowait(
        &self,
        message: Outgoing<'_>,
    ) -> Result<impl Future<Output = Result<Ack, ClientError>> + Send + use<>, ClientError> {
        self.send_nowait_to(message, None).await
    }

    /// As [`Self::send_nowait`]; sealed for the members of these keys, if there are any.
    async fn send_nowait_to(
        &self,
        message: Outgoing<'_>,
        recipients: Option<&[Key]>,
    ) -> Result<impl Future<Output = Result<Ack, ClientError>> + Send + use<>, ClientError> {
        let timeout = self.shared.options.limits.answer_timeout;
        let deadline = tokio::time::Instant::now() + timeout;
        let (number, frame, repeatable) = self.send_frame(message, recipients)?;
        let (done, answer) = oneshot::channel();
        let queueing = async {
            let place = Arc::clone(&self.shared.in_flight)
                .acquire_owned()
                .await
                .map_err(|_| ClientError::Gone)?;
            let send = PendingSend { frame, repeatable, done, _place: place };
            let command = Command::Send { number, send };
            self.commands.send(command).await.map_err(|_| ClientError::Gone)
        };
        tokio::time::timeout_at(deadline, queueing)
            .await
            .map_err(|_| ClientError::Timeout(timeout))??;
        Ok(async move {
            match tokio::time::timeout_at(deadline, answer).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(ClientError::Gone),
                Err(_) => Err(ClientError::Timeout(timeout)),
            }
        })
    }

    fn send_frame(
        &self,
        message: Outgoing<'_>,
        recipients: Option<&[Key]>,
    ) -> Result<(u64, tokio_tungstenite::tungstenite::Message, bool), ClientError> {
        let client_message_id = message.client_message_id.or_else(|| {
            let is_named = self.shared.options.reconnect || recipients.is_some();
            is_named.then(crate::id::generate)
        });
        let is_sealed_post =
            message.target.starts_with('#') && matches!(message.body, Body::Kept(..));
        let mentions = match &message.body {
            Body::Kept(_, names) if is_sealed_post => Some(names.clone()),
            _ => None,
        };
        let (sealed, many) = match (message.body, recipients) {
            (Body::Text(text), Some(recipients)) => {
                let mesh = self.shared.options.identity.mesh.as_str();
                let id = client_message_id.as_deref().unwrap_or_default();
                let named = (mesh, message.target, id);
                let sealed = self.shared.seals.seal_for_many(named, recipients, text);
                let (many, signature) = sealed.ok_or(InvalidRecipient)?;
                (many.sealed, Some((many.keys, signature)))
            }
            (Body::Text(text), None) => (self.shared.seals.seal(message.target, text)?, None),
            (Body::Sealed(sealed) | Body::Kept(sealed, _), _) => (sealed, None),
        };
        let (sealed_keys, signature) = many.unzip();
        let sealed_keys: Option<BTreeMap<Key, String>> = sealed_keys;
        let numbered = self.number();
        let number = numbered.to_string();
        let send = protocol::Send {
            id: Some(Cow::Borrowed(&number)),
            target_spec: Cow::Borrowed(message.target),
            priority: message.priority,
            nonce: Blob::from_text(sealed.nonce_b64.as_str()),
            ciphertext: Blob::from_text(sealed.ciphertext_b64.as_str()),
            client_message_id: client_message_id.as_deref().map(Cow::Borrowed),
            request_fingerprint: None,
            reply_to_id: message.reply_to_id.as_deref().map(Cow::Borrowed),
            body_version: is_sealed_post.then_some(2),
            mentions,
            ttl_ms: message.ttl_ms,
            thread_id: message.thread_id.as_deref().map(Cow::Borrowed),
            expects_reply: message.expects_reply.then_some(true),
            supersedes: message.supersedes.as_deref().map(Cow::Borrowed),
            receipt: message.receipt,
            sealed_keys: sealed_keys.map(Box::new),
            signature: signature.map(String::into_boxed_str),
        };
        let frame = Frame { kind: "send", fields: &send, req_id: None::<()> };
        let encoded = socket::encode(self.shared.options.codec, &frame)?;
        Ok((numbered, encoded, client_message_id.is_some()))
    }

    /// Says that a delivery is done, where [`ClientOptions::confirm`] does not.
    ///
    /// # Errors
    /// [`ClientError::Gone`].
    pub async fn confirm(&self, id: &MessageId) -> Result<(), ClientError> {
        match self.shared.confirmation(id) {
            Some(frame) => {
                self.commands.send(Command::Frame(frame)).await.map_err(|_| ClientError::Gone)
            }
            None => Ok(()),
        }
    }

    /// What the broker said last when the session became active.
    #[must_use]
    pub fn hello_ack(&self) -> HelloAck {
        self.shared.hello_ack.lock().clone()
    }

    /// The session's presence.
    #[must_use]
    pub fn presence_id(&self) -> String {
        self.shared.presence_id()
    }

    /// The key by which this client's messages are signed as its own: the
    /// session's, or for [`HelloKind::Member`] the member's.
    #[must_use]
    pub fn pubkey(&self) -> Key {
        match self.shared.options.hello {
            HelloKind::Member => self.shared.options.identity.member_pubkey(),
            HelloKind::MemberWithSessionKey | HelloKind::Session => {
                self.shared.session_key.public_key()
            }
        }
    }

    /// The member's key.
    #[must_use]
    pub fn member_pubkey(&self) -> Key {
        self.shared.options.identity.member_pubkey()
    }

    /// Whether the client has ended: nothing further is sent or received.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.closed.is_cancelled()
    }

    /// Writes what was asked so far, says goodbye and waits for the end, two
    /// seconds at most.
    pub async fn close(&self) {
        self.handle.closing.cancel();
        self.shared.closed.cancelled().await;
    }

    /// Drops the connection as a crash would: no close frame, no return.
    pub fn abort(&self) {
        self.handle.abort.abort();
        self.shared.closed.cancel();
    }

    fn number(&self) -> u64 {
        self.shared.numbers.fetch_add(1, Ordering::Relaxed)
    }
}

impl Shared {
    fn presence_id(&self) -> String {
        self.hello_ack.lock().presence_id.clone()
    }

    fn set_ack(&self, ack: HelloAck) {
        *self.hello_ack.lock() = ack;
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Client")
            .field("url", &self.shared.url)
            .field("mesh", &self.shared.options.identity.mesh)
            .field("member", &self.shared.options.identity.member)
            .finish_non_exhaustive()
    }
}
