//! Bounds of webhooks.

use super::DAY_MS;

/// The body of a call to a webhook. Larger: 413.
pub const WEBHOOK_BODY_BYTES_MAX: usize = 64 * 1024;

/// Calls to one webhook per minute, on all nodes together. More: 429.
pub const WEBHOOK_CALLS_PER_MINUTE: u32 = 60;

/// How long a call is answered again as before. Later: it is a new one.
pub const WEBHOOK_REPEAT_MS: i64 = DAY_MS;

/// The key by which a caller names its call. Longer: 400.
pub const WEBHOOK_KEY_BYTES_MAX: usize = 256;

/// How far the instant in a signed call may be from this node's clock, either way, in
/// seconds. Farther: 401.
pub const WEBHOOK_CLOCK_SECONDS: u64 = 300;

/// The address that a webhook has the broker call. Longer: refused as
/// `invalid_argument`.
pub const WEBHOOK_URL_BYTES_MAX: usize = 2048;

/// Addresses that a node calls at once. More: they wait, or another node calls them.
pub const WEBHOOK_CALLS_MAX: usize = 16;

/// For the whole of a call that the broker makes. Longer: the call failed.
pub const WEBHOOK_CALL_MS: u64 = 10_000;

/// How long a node has an address for itself between two events. Longer: another may
/// take over.
pub const WEBHOOK_CLAIM_MS: i64 = 15_000;

/// Events that are told under one claim. More: under the next.
pub const WEBHOOK_EVENTS_CLAIMED: i64 = 64;

/// The pause after the first try that failed; each later one is twice as long.
pub const WEBHOOK_RETRY_MS: i64 = 500;

/// The longest of these pauses.
pub const WEBHOOK_RETRY_MAX_MS: i64 = 60 * 60 * 1000;

/// How long an event is tried again. Longer: it is given up, and counted.
pub const WEBHOOK_RETRIED_MS: i64 = DAY_MS;

/// Events without a row of their own that wait to be written. More: dropped.
pub const WEBHOOK_NOTES_MAX: usize = 4096;

/// Members that are away for whom a post is kept in one transaction. More: in the next.
pub const WEBHOOK_KEPT_AT_ONCE: usize = 64;
