//! Bounds of accounts, and of what their command lines ask for.

use super::DAY_MS;

/// From the making of a sign-in code to its end. Later: expired.
pub const DEVICE_CODE_MS: i64 = 5 * 60_000;

/// Wrong keys for one sign-in code. After so many: the code is dead.
pub const DEVICE_CODE_TRIES_MAX: i32 = 10;

/// How long a command line stays signed in. Later: it signs in again.
pub const CLI_TOKEN_MS: i64 = 30 * DAY_MS;

/// How long a token to fetch an account's meshes by is good, and once.
pub const SYNC_TOKEN_MS: i64 = 15 * 60_000;

/// From the claim of an invite by a client without a key of its own to its first
/// hello. Later: the claim is forgotten.
pub const UNBOUND_MEMBER_MS: i64 = 10 * 60_000;

/// How long an invite made over HTTP can be used.
pub const CLI_INVITE_MS: i64 = 7 * DAY_MS;

/// Meshes of one name whose slugs are told apart by a number. More: 409.
pub const SLUG_NUMBERS_MAX: u32 = 100;

/// Characters of an account's name, of its address, and of what a command line says
/// of its machine. More: cut.
pub const ACCOUNT_TEXT_BYTES_MAX: usize = 256;
