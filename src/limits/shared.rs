//! Bounds of what a mesh shares.

use super::DAY_MS;

/// A value that is kept for a mesh, as JSON. Larger: refused as `invalid_argument`.
pub const VALUE_BYTES_MAX: usize = 32 * 1024;

/// Hexadecimal digits of an id.
pub const ID_DIGITS: usize = 32;

/// Digits of an id that a request may name it by, where no other of its kind begins so:
/// as many as clients show in their lists.
pub const ID_BEGINNING_DIGITS_MIN: usize = 8;

/// A name, a key or a tag of what a mesh shares. Longer: refused as `invalid_argument`.
pub const SHARED_NAME_BYTES_MAX: usize = 256;

/// Tags of one thing that a mesh shares. More: refused as `invalid_argument`.
pub const SHARED_TAGS_MAX: usize = 64;
/// Such names, keys or tags in one request. More: refused as `invalid_argument`.
pub const SHARED_NAMES_MAX: usize = 64;

/// Each text beside a vault entry's ciphertext: its nonce, its sealed key, its path, its
/// description. Longer: refused as `invalid_argument`.
pub const VAULT_TEXT_BYTES_MAX: usize = 1024;
/// Streams that one presence subscribes to. More: refused as `quota`.
pub const STREAMS_PER_PRESENCE_MAX: usize = 64;

/// Rows of each kind that a mesh keeps. More: refused as `quota`.
pub const SHARED_ROWS_MAX: i64 = 10_000;

/// Bytes of names and values of each kind that a mesh keeps. More: refused as `quota`.
pub const SHARED_BYTES_MAX: i64 = 64 * 1024 * 1024;

/// What a thing is for, as lists show it. Longer: refused as `invalid_argument`.
pub const DESCRIPTION_BYTES_MAX: usize = 4096;

/// Words to look for in what a mesh shares. Longer: refused as `invalid_argument`.
pub const QUERY_BYTES_MAX: usize = 1024;

/// Memories that `recall` gives when it is not told how many.
pub const RECALL_ROWS: i64 = 20;

/// Memories that `recall` gives at most. More: cut to this.
pub const RECALL_ROWS_MAX: i64 = 100;

/// Contexts that `get_context` gives at most. More: the newest of them.
pub const CONTEXTS_FOUND_MAX: i64 = 20;

/// Things of one mesh of which a node remembers that it has told of them, since it last
/// read them. More: it reads them again.
pub const SHARED_TOLD_MAX: usize = 4096;

/// Changes that a node reads at once to make up for lost events. More: it reads on.
pub const SHARED_CHANGES_READ: i64 = 256;

/// How long what was removed is remembered for nodes that missed it. Longer: they
/// show it until they restart.
pub const SHARED_REMOVED_KEPT_MS: i64 = DAY_MS;

/// Writes to shared state that wait for their commit. More: whoever asks waits.
pub const STATE_QUEUE_MAX: usize = 2048;

/// Writes to shared state of one transaction. More: they go into the next.
pub const STATE_BATCH_MAX: usize = 1024;

/// Writes of one session that are on their way to the store while it is read on. More:
/// its next frame waits.
pub const PIPELINED_MAX: u32 = 64;

/// The part of a node's connections to Postgres, one in so many, that search memories at
/// once. More: a search waits for its turn, and writes find a connection.
pub const SEARCHING_PART: usize = 3;

/// Members that the answer to `get_common_key` names: those without a copy first.
pub const COMMON_KEY_MEMBERS_LISTED: i64 = 1_000;
/// Members that are here and have a key, that are told of one that has not.
pub const COMMON_KEY_HOLDERS_TOLD: usize = 3;
/// Copies of a key in one request. More: refused as `invalid_argument`.
pub const COMMON_KEY_COPIES_MAX: usize = 1_000;
/// A copy of a key, sealed for one member: a nonce and a box of 48 bytes, in base64, take 96.
/// Longer: refused as `invalid_argument`.
pub const KEY_COPY_CHARS_MAX: usize = 128;
/// A SHA-256 in hex.
pub const HASH_HEX_CHARS: usize = 64;
/// The keys before the newest, sealed under it. Longer: refused as `invalid_argument`.
pub const EARLIER_KEYS_CHARS_MAX: usize = 16 * 1024;
