//! Why a send is not taken: stable words, and sentences.
//!
//! Daemons go on trying until they read one of a few words; which sentence has one says
//! whether trying again can help.

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

/// Why something was not sent: a stable word, and the sentence that the sender gets.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: &'static str,
    pub(crate) text: String,
}

impl Refusal {
    pub(super) fn new(reason: &'static str, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unavailable => Self::new("unavailable", STORE_AWAY),
            Refused::Rejected => Self::new("rejected", STORE_REJECTS),
            Refused::Full(Quota::Mailbox) => Self::new("mailbox_full", MAILBOX_FULL),
            Refused::Full(Quota::Sender) => Self::new("sender_full", SENDER_FULL),
            Refused::Full(Quota::Mesh) => Self::new("mesh_full", MESH_FULL),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
pub(super) fn not_read(error: StoreError) -> Refusal {
    tracing::warn!(%error, "a send's target could not be looked up");
    Refusal::new("unavailable", STORE_AWAY)
}
