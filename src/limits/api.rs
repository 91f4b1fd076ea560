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

/// Topics in one answer of the HTTP API. More: the answer says so.
pub const API_TOPICS_MAX: i64 = 1000;

/// Posts of a topic that count as not read. More: so many.
pub const API_UNREAD_MAX: i64 = 1000;

/// Characters of the id of what a post of the HTTP API answers.
pub const API_REPLY_CHARS_MAX: usize = 128;

/// Streams of topics that a node serves. More: refused with 429.
pub const API_STREAMS_MAX: usize = 256;

/// Streams of topics of one member on a node. More: refused with 429.
pub const API_STREAMS_PER_MEMBER_MAX: usize = 16;

/// Posts of a stream that wait for its reader. While they do, nothing more is read.
pub const API_STREAM_POSTS_MAX: usize = 16;

/// How often it is looked whether a stream may go on, and whether it missed a post.
pub const API_STREAM_LOOK_MS: u64 = 1000;

/// A stream says that it lives after so long.
pub const API_HEARTBEAT_MS: u64 = 30_000;

/// Members without a topic's key in one answer of the HTTP API.
pub const API_PENDING_SEALS_MAX: i64 = 50;

/// Mentions in one answer of the HTTP API about one mesh.
pub const API_MENTIONS_MAX: i64 = 50;

/// Mentions in one answer of the HTTP API about all meshes of a user.
pub const API_MY_MENTIONS_MAX: i64 = 100;

/// Mentions that one call of the HTTP API marks as read.
pub const API_MARKED_MAX: usize = 200;

/// Posts in one answer of the HTTP API about all meshes of a user.
pub const API_ACTIVITY_MAX: i64 = 200;

/// Posts that a search by the HTTP API looks through.
pub const API_SEARCHED_MAX: i64 = 2000;

/// What a search by the HTTP API answers at most, of each kind.
pub const API_FOUND_MAX: i64 = 200;

/// Characters of a post that lists of the HTTP API show, in UTF-16 units.
pub const API_SNIPPET_UNITS: usize = 240;

/// Cost of a search by the HTTP API beside the call's own: it reads many posts.
pub const API_SEARCH_COST: u32 = 100;
