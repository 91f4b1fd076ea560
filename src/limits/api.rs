//! Bounds of API keys, and of what is read by them.

use super::DAY_MS;

/// How long an API key that was revoked or has run out is still listed. Later: deleted
/// when the mesh's next one is made.
pub const API_KEY_KEPT_MS: i64 = DAY_MS;

/// How exactly it is known when an API key was last used. Uses within so long of the
/// last that was noted are not noted.
pub const API_KEY_USE_MS: i64 = 60_000;

/// How long whoever called by an API key counts as a peer.
pub const API_CALLER_MS: i64 = 5 * 60_000;

/// Calls of the HTTP API per minute and address, with whatever key. More: refused with
/// 429.
pub const API_CALLS_PER_MINUTE: u32 = 600;

/// Shared values in one answer of the HTTP API. More: the answer says so.
pub const API_STATES_MAX: i64 = 500;

/// Tasks in one answer of the HTTP API. More: the answer says so.
pub const API_TASKS_MAX: i64 = 200;

/// Memories in one answer of the HTTP API. More: the answer says so.
pub const API_MEMORIES_MAX: i64 = 200;

/// How old what the HTTP API lists may be, where nothing else is asked for: tasks that
/// were done, and what was remembered.
pub const API_RECENT_MS: i64 = 30 * DAY_MS;
