//! What a client is and how it behaves.

use std::sync::Arc;
use std::time::Duration;

use super::trust::KnownKeys;
use crate::auth::SecretKey;
use crate::codec::Codec;
use crate::id::{Key, MemberId, MeshId};
use crate::protocol::capability;
use crate::protocol::handshake::About;

/// Who a client is. Its secrets never print.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The mesh to enter.
    pub mesh: MeshId,
    /// The member, as `/join` named it.
    pub member: MemberId,
    /// The member's key.
    pub member_key: SecretKey,
    /// The session's key; one is made where the hello needs one and there is
    /// none. It stays the same across reconnects.
    pub session_key: Option<SecretKey>,
    /// What to be called; the member's own name if `None`.
    pub display_name: Option<String>,
}

impl Identity {
    /// A member without a session key of its own.
    #[must_use]
    pub const fn new(mesh: MeshId, member: MemberId, member_key: SecretKey) -> Self {
        Self { mesh, member, member_key, session_key: None, display_name: None }
    }

    /// The same identity under that name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.display_name = Some(name.into());
        self
    }

    /// The member's public key: where to send what must reach it, now or later.
    #[must_use]
    pub fn member_pubkey(&self) -> Key {
        self.member_key.public_key()
    }
}

/// How a client introduces itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelloKind {
    /// `hello` with the member's key alone, as daemons do.
    Member,
    /// `hello` that also names a session key, as one-shot commands do.
    MemberWithSessionKey,
    /// `session_hello`: a session key that the member vouches for.
    Session,
}

/// How long a client waits, and how much it holds.
#[derive(Clone, Copy, Debug)]
pub struct ClientLimits {
    /// For TCP, TLS and the upgrade together.
    pub connect_timeout: Duration,
    /// From hello to `hello_ack`.
    pub hello_timeout: Duration,
    /// From a send or request to its answer, including the wait for a place
    /// in the queue.
    pub answer_timeout: Duration,
    /// Between pings on a silent connection. After two and a half of these
    /// without a sign of life the connection counts as lost.
    pub ping_interval: Duration,
    /// Messages and events that wait for the program. More: nothing further
    /// is read from the socket until it takes one.
    pub inbox_max: usize,
    /// Sends without an ack yet. More: the next waits.
    pub in_flight_max: usize,
    /// Message ids remembered to recognise a delivery that comes twice; 0
    /// hands every delivery on.
    pub remembered_max: usize,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            hello_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(30),
            inbox_max: 1024,
            in_flight_max: 1024,
            remembered_max: 4096,
        }
    }
}

/// All that [`Client::connect`](super::Client::connect) needs beside the URL.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Who connects.
    pub identity: Identity,
    /// In which form.
    pub hello: HelloKind,
    /// Whether it comes for one thing only, as commands do: it is given what is
    /// addressed to its own session key, and nobody is told of it. Not for sessions.
    pub visit: bool,
    /// JSON, or MessagePack by its subprotocol.
    pub codec: Codec,
    /// What it says of itself: session id, folder, groups ... The display name
    /// is the identity's.
    pub about: About,
    /// Whether a message is confirmed as soon as the program has taken it
    /// from the inbox's queue; else [`Client::confirm`](super::Client::confirm)
    /// does that, or nobody.
    pub confirm: bool,
    /// Whether to come back after a lost connection.
    pub reconnect: bool,
    /// How long it waits and how much it holds.
    pub limits: ClientLimits,
    /// What this user knows of the members' keys; without it, the broker is believed.
    pub known: Option<Arc<dyn KnownKeys>>,
}

impl ClientOptions {
    /// A session that confirms what it gets and comes back when it is cut off.
    #[must_use]
    pub fn session(identity: Identity) -> Self {
        Self::new(identity, HelloKind::Session, "claudemesh-session")
    }

    /// A member's own connection, otherwise as [`Self::session`].
    #[must_use]
    pub fn member(identity: Identity) -> Self {
        Self::new(identity, HelloKind::Member, "claudemesh-daemon")
    }

    /// Any kind of hello. The broker expects confirmations from the channels
    /// `claudemesh-session` and `claudemesh-daemon`, and from whoever has sent
    /// one.
    #[must_use]
    pub fn new(identity: Identity, hello: HelloKind, channel: &str) -> Self {
        let about = About {
            session_id: crate::id::generate(),
            pid: i32::try_from(std::process::id()).unwrap_or(0),
            peer_type: Some("ai".to_owned()),
            channel: Some(channel.to_owned()),
            capabilities: vec![capability::SEALED_MULTICAST.to_owned()],
            ..About::default()
        };
        Self {
            identity,
            hello,
            visit: false,
            codec: Codec::Json,
            about,
            confirm: true,
            reconnect: true,
            limits: ClientLimits::default(),
            known: None,
        }
    }
}
