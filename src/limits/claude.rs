//! Bounds of coding sessions as peers: what a session's machine keeps, and what its model
//! is shown at once.

/// Messages that wait in a session's spool. More: the next is not taken, so it is not
/// confirmed and stays with the broker.
pub const SPOOL_WAITING_MAX: i64 = 2_000;

/// Bytes of text that wait there. More: as [`SPOOL_WAITING_MAX`].
pub const SPOOL_BYTES_MAX: i64 = 8 * 1024 * 1024;

/// Messages that are done (seen, expired, withdrawn) and still known, so that one that
/// comes again is recognised. More: the oldest are forgotten.
pub const SPOOL_DONE_MAX: i64 = 1_000;

/// Of those, how many can still be read again. More: the oldest lose their text.
pub const SPOOL_READABLE_MAX: i64 = 200;

/// How long one way holds a message before the next may take it.
pub const OFFER_MS: i64 = 10_000;

/// A message that a busy session has not been shown for so long goes in between two
/// tools, however little it is urgent.
pub const HELD_MAX_MS: i64 = 10 * 60 * 1000;

/// How often the end of one turn may be put off for messages. More: they wait.
pub const CONTINUATIONS_MAX: i64 = 2;

/// Characters that a host takes from a hook are 10,000; ours end here, and the rest is
/// named and waits.
pub const HOOK_TEXT_CHARS_MAX: usize = 8_000;

/// Characters of one message, escapes counted, in a hook's text. Longer: cut, which is
/// said; the whole can be read with the tool.
pub const HOOK_BODY_CHARS_MAX: usize = 3_000;

/// Characters of a name that a model is shown. Longer: cut.
pub const SHOWN_NAME_CHARS_MAX: usize = 64;

/// Bytes of an event of a host. More: it is answered with nothing.
pub const HOOK_INPUT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// From a hook's start to its end. Later: it ends with nothing said.
pub const HOOK_DEADLINE_MS: u64 = 4_000;

/// How long a process waits to wake its idle session. Later: it ends, and the next turn's
/// end starts another. Hosts end one after ten minutes.
pub const WAITER_MS: i64 = 9 * 60 * 1000;

/// For how long a session has been idle, and a message waited, before that process rings:
/// the channel and the host's own inbox come first, and one may hold a message as long as
/// [`OFFER_MS`].
pub const WAITER_PATIENCE_MS: i64 = 3_000;

/// After whose ringing so ever, how long that process rings no more unless something was
/// seen.
pub const WAITER_QUIET_MS: i64 = 60_000;

/// Names that a doorbell has.
pub const RUNG_NAMES_MAX: u32 = 5;

/// Bytes of the log of hooks. More: it is put aside, and the one put aside before it is
/// gone.
pub const HOOK_LOG_BYTES_MAX: u64 = 256 * 1024;

/// Sessions of hosts and processes that are remembered. More: those not seen for longest
/// are forgotten.
pub const BINDINGS_MAX: usize = 512;
