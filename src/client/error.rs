//! What can go wrong for a client.

use std::time::Duration;

use crate::protocol::ErrorFrame;
use crate::sealing::InvalidRecipient;

/// Close code of a kick.
const KICKED: u16 = 4001;
/// Close code of a ban.
const BANNED: u16 = 4002;

/// Why a client did not get what it asked for.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is none.
    #[error("{0:?} is no broker's address; write ws://host:port/ws or wss://host/ws")]
    Address(String),
    /// Nobody answers there, or not in this protocol.
    #[error("no broker answers at {url}: {reason}")]
    Unreachable {
        /// The address that was tried.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// The broker refused before the upgrade, or answered an HTTP request so.
    #[error("the broker answered {status}: {message}")]
    Http {
        /// The status.
        status: u16,
        /// The broker's answer.
        message: String,
    },
    /// An `error` frame: a refused hello or request.
    #[error("{} ({})", .0.message, .0.code)]
    Refused(Box<ErrorFrame>),
    /// An `ack` that says no.
    #[error("the broker did not take the message: {0}")]
    Rejected(String),
    /// The broker closed the connection for good.
    #[error("the broker closed the connection: {code} {reason}")]
    Closed {
        /// The close code; 1006 if there was none.
        code: u16,
        /// The reason, stable for programs.
        reason: String,
    },
    /// The connection was lost before the answer. What was sent with a
    /// `client_message_id` may be sent again.
    #[error("the connection was lost before the answer came")]
    Lost,
    /// This client was closed.
    #[error("this client is closed")]
    Gone,
    /// No answer in time.
    #[error("the broker did not answer within {0:?}")]
    Timeout(Duration),
    /// An answer of another kind than asked for.
    #[error("the broker answered something else: {0}")]
    Unexpected(String),
    /// There is no box for that key.
    #[error(transparent)]
    Recipient(#[from] InvalidRecipient),
}

impl ClientError {
    /// The broker's stable code, if it gave one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(error) => Some(&error.code),
            _ => None,
        }
    }

    /// Whether connecting again cannot help: kicked, banned, replaced by a
    /// newer connection of the same session, or not a member.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        match self {
            Self::Closed { code, reason } => is_terminal(*code, reason),
            Self::Refused(error) => {
                matches!(error.code.as_ref(), "revoked" | "unauthorized" | "bad_signature")
            }
            Self::Address(_) => true,
            _ => false,
        }
    }
}

/// Whether a close with that code and reason is for good.
pub(super) fn is_terminal(code: u16, reason: &str) -> bool {
    matches!(code, KICKED | BANNED) || (code == 1000 && reason == "session_replaced")
}
