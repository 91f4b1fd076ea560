//! Why a send is not taken: stable words, and sentences.
//!
//! Daemons go on trying until they read one of a few words; which sentence has one says
//! whether trying again can help.

use std::borrow::Cow;

use crate::limits;
use crate::protocol::Ack;
use crate::store::StoreError;
use crate::writers::group_commit::{Quota, Refused};

/// Free of the words that daemons take for a permanent failure.
pub(super) const STORE_AWAY: &str =
    "unavailable: the broker cannot keep messages right now, try again";
pub(super) const DISK_LOW: &str = "unavailable: the broker's disk is nearly full, try again later";
/// "forbidden" ends a daemon's retries: what waits for somebody who is away does
/// not get less within the ten minutes that it would try.
pub(super) const MAILBOX_FULL: &str = "mailbox_full: as many messages wait for this recipient as may; more \
                            are forbidden until it has read some";
pub(super) const SENDER_FULL: &str = "sender_full: as many of your messages wait for others as may; more are \
                           forbidden until some were read";
/// Free of such words: it is not this sender's doing.
pub(super) const MESH_FULL: &str =
    "mesh_full: as many messages wait in this mesh as may, try again later";
pub(super) const STORE_REJECTS: &str = "rejected: the broker's database does not take this message";

/// A send whose rates are used up, where nobody remembers which.
const OVER_RATE: &str = "rate_limit: too many messages — slow down";

/// Why something was not sent: a stable word, and the sentence that the sender gets.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: &'static str,
    pub(crate) text: String,
    /// When the same may be sent.
    pub(crate) retry_after_ms: Option<u64>,
    /// Which limit it is over, and how much that allows.
    pub(super) scope: Option<&'static str>,
    pub(super) limit: Option<u32>,
}

impl Refusal {
    pub(super) fn new(reason: &'static str, text: impl Into<String>) -> Self {
        Self { reason, text: text.into(), retry_after_ms: None, scope: None, limit: None }
    }

    /// As [`Self::new`], of what passes by itself.
    pub(super) fn for_now(reason: &'static str, text: impl Into<String>) -> Self {
        Self { retry_after_ms: Some(limits::SEND_RETRY_MS), ..Self::new(reason, text) }
    }

    /// The answer to the send of that id.
    pub(super) fn into_ack(self, id: String) -> Ack {
        let Self { reason, text, retry_after_ms, scope, limit } = self;
        Ack {
            id,
            error: Some(text),
            code: Some(Cow::Borrowed(reason)),
            retry_after_ms,
            scope: scope.map(Cow::Borrowed),
            limit,
            ..Ack::default()
        }
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unavailable => Self::for_now("unavailable", STORE_AWAY),
            Refused::Rejected => Self::new("rejected", STORE_REJECTS),
            Refused::Full(Quota::Mailbox) => Self::new("mailbox_full", MAILBOX_FULL),
            Refused::Full(Quota::Sender) => Self::new("sender_full", SENDER_FULL),
            Refused::Full(Quota::Mesh) => Self::for_now("mesh_full", MESH_FULL),
            Refused::OverRate => Self::for_now("rate_limit", OVER_RATE),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
pub(super) fn not_read(error: StoreError) -> Refusal {
    tracing::warn!(%error, "a send's target could not be looked up");
    Refusal::for_now("unavailable", STORE_AWAY)
}
