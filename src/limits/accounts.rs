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

/// Entries of a member's grants, where an account sets them. More: 409, and none is set.
pub const GRANT_ENTRIES_MAX: usize = 1024;

/// Entries of grants in one request. More: 400.
pub const GRANT_CHANGES_MAX: usize = 256;

/// Capabilities of one such entry. More: 400.
pub const GRANT_CAPABILITIES_MAX: usize = 16;

/// The length of one of them, and of the key that it is granted to. Longer: 400.
pub const GRANT_TEXT_BYTES_MAX: usize = 128;

/// Meshes that an account owns and that are not archived. More: 409, and none is made.
pub const ACCOUNT_MESHES_MAX: usize = 200;

/// Sessions of an account that go on, where it begins one by itself. More: 409.
pub const ACCOUNT_SESSIONS_MAX: i64 = 200;

/// Rows of one page of what an account is shown. More: 400.
pub const ACCOUNT_PAGE_ROWS_MAX: u32 = 200;

/// Rows of each list in an account's export. More: the newest come, and the answer names
/// the list.
pub const EXPORT_ROWS_MAX: u32 = 1000;

/// Uses of one invite that an account makes. More: 400.
pub const INVITE_USES_MAX: i32 = 1000;

/// Days that such an invite can be used. More: 400.
pub const INVITE_DAYS_MAX: i64 = 365;
