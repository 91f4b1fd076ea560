//! What can go wrong for a client.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use super::trust::Judged;
use crate::protocol::{Ack, ErrorFrame};
use crate::sealing::InvalidRecipient;

/// Close code of a kick.
const KICKED: u16 = 4001;
/// Close code of a ban.
const BANNED: u16 = 4002;

/// Why the broker did not take a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// A sentence, for people.
    pub reason: String,
    /// The same, stable for programs. Older brokers say none.
    pub code: Option<String>,
    /// `rate_limit`: which limit the message is over.
    pub scope: Option<String>,
    /// `rate_limit`: how many messages that limit allows in a minute.
    pub limit: Option<u32>,
    /// When a retry may help.
    pub retry_after_ms: Option<u64>,
}

impl Rejection {
    /// Of which the reason is all that is known.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { reason, code: None, scope: None, limit: None, retry_after_ms: None }
    }
}

impl From<Ack> for Rejection {
    fn from(ack: Ack) -> Self {
        let Ack { error, code, scope, limit, retry_after_ms, .. } = ack;
        let reason = error.unwrap_or_else(|| "no reason given".to_owned());
        let owned = |word: Option<Cow<'static, str>>| word.map(Cow::into_owned);
        Self { reason, code: owned(code), scope: owned(scope), limit, retry_after_ms }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.reason)?;
        match (&self.code, self.retry_after_ms) {
            (Some(code), Some(wait)) => write!(out, " ({code}; again in {wait} ms)"),
            (Some(code), None) => write!(out, " ({code})"),
            (None, _) => Ok(()),
        }
    }
}

/// Why a key that members hold in common is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommonKeyError {
    /// This member has none yet.
    #[error(
        "the key to it was made before you came, and no member that has it is here to hand it \
         on; try again when one is"
    )]
    NotHandedOn,
    /// What was shown before was newer.
    #[error(
        "the broker shows an earlier key than it did before, which members that left may have; \
         nothing is sealed under it: ask who runs the broker"
    )]
    Earlier,
    /// Signature, hash and key do not belong together.
    #[error(
        "the key that the broker shows was not made by the member it names; nothing is sealed \
         under it: ask who runs the broker"
    )]
    Forged,
    /// Others made keys all the time.
    #[error("others made a new key each time; try again")]
    Overtaken,
}

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
    Rejected(Box<Rejection>),
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
    /// There is no key that members hold in common, or not for this one.
    #[error(transparent)]
    CommonKey(#[from] CommonKeyError),
    /// The member is known with another key, or is not certified where all must be, so
    /// nothing was sealed.
    #[error("nothing was sent: {0}")]
    KeyChanged(Box<Judged>),
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
            Self::Rejected(rejection) => rejection.code.as_deref(),
            Self::KeyChanged(judged) if judged.is_refused => Some("not_certified"),
            Self::KeyChanged(_) => Some("key_changed"),
            _ => None,
        }
    }

    /// After how long the same may be asked or sent again, if the broker said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let ms = match self {
            Self::Refused(error) => error.retry_after_ms,
            Self::Rejected(rejection) => rejection.retry_after_ms,
            _ => None,
        };
        ms.map(Duration::from_millis)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_not_taken_says_why_and_when_to_try_again() {
        let ack = Ack {
            error: Some("rate_limit: slow down".to_owned()),
            code: Some("rate_limit".into()),
            scope: Some("pair".into()),
            limit: Some(120),
            retry_after_ms: Some(500),
            ..Ack::default()
        };
        let error = ClientError::Rejected(Box::new(ack.into()));
        assert_eq!(error.code(), Some("rate_limit"));
        assert_eq!(error.retry_after(), Some(Duration::from_millis(500)));
        let text = error.to_string();
        assert!(text.ends_with("rate_limit: slow down (rate_limit; again in 500 ms)"), "{text}");
    }

    #[test]
    fn older_brokers_say_a_sentence_only() {
        let ack = Ack { error: Some("no connected peer".to_owned()), ..Ack::default() };
        let error = ClientError::Rejected(Box::new(ack.into()));
        assert_eq!((error.code(), error.retry_after()), (None, None));
        assert!(error.to_string().ends_with(": no connected peer"));
    }
}
