//! What peers host for each other, and what they ask of each other.

use super::{ANSWER_BYTES_MAX, ANSWER_FRAME_BYTES_MAX};

/// Servers that one presence hosts. More: `quota`.
pub const MCP_SERVERS_PER_PRESENCE_MAX: usize = 32;

/// Tools of one server. More: `quota`.
pub const MCP_TOOLS_PER_SERVER_MAX: usize = 256;

/// The name of a server or of a tool. Longer: `invalid_argument`.
pub const MCP_NAME_BYTES_MAX: usize = 256;

/// What a presence says of all its servers, encoded: each node of its mesh has it, and
/// hears it again whenever the presence changes. More: `quota`.
pub const MCP_BYTES_PER_PRESENCE_MAX: usize = 32 * 1024;

/// A description in `mcp_registered`, encoded. Longer: cut there.
pub const EVENT_DESCRIPTION_BYTES_MAX: usize = 2048;

/// The tools that `mcp_registered` names, encoded. More: the event says how many it
/// leaves out.
pub const EVENT_TOOLS_BYTES_MAX: usize = 4096;

/// How long a call waits for its host. Longer: answered with an error.
pub const MCP_CALL_MS: u64 = 28_000;

/// How long a request for a file or a folder waits for its host. Clients wait 15 s.
/// Longer: answered with an error.
pub const PEER_FILE_MS: u64 = 14_000;

/// A path, a pattern. Longer: `invalid_argument`.
pub const PEER_PATH_BYTES_MAX: usize = 4096;

/// Requests between peers in flight on one node: those that wait on it, and those that its
/// sockets have to answer. More: `quota`.
pub const RELAYED_MAX: usize = 4096;

/// Of them, those of one session. More: `quota`.
pub const RELAYED_PER_CALLER_MAX: usize = 16;

/// Of them, those to one host. More: `quota`.
pub const RELAYED_PER_HOST_MAX: usize = 64;

/// What one peer hands to another, encoded. More: refused, or answered with an error.
pub const RELAYED_BYTES_MAX: usize = ANSWER_BYTES_MAX - ANSWER_FRAME_BYTES_MAX;
