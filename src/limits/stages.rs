//! How far messages are, how old they get, and how many answers follow each other.

/// Messages that one `client_ack` names. More: refused.
pub const CONFIRMED_AT_ONCE_MAX: usize = 100;

/// Receipts in one event. More: in the next.
pub const RECEIPTS_AT_ONCE_MAX: usize = 100;

/// Members that are told that a message to many was withdrawn. More: they find it withdrawn
/// when they read the store, or have it already.
pub const TOLD_OF_WITHDRAWAL_MAX: usize = 100;

/// The shortest time that a message can be given. Less: refused.
pub const TTL_MS_MIN: i64 = 1_000;

/// Overdue messages that one call ends. More: by the next.
pub const OVERDUE_AT_ONCE: i64 = 500;

/// From the write of a delivery that nobody confirms to the store's learning that it is on
/// a socket, milliseconds.
pub const PUSHED_NOTED_AFTER_MS: i64 = 500;
