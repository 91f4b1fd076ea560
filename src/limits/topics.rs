//! Topics: their rosters, posts and mentions.

/// Topics of a mesh whose rosters a node keeps in memory. More: it forgets them all and
/// reads those that it needs again.
pub const ROSTERS_MAX: usize = 1024;

/// What a topic is about, in bytes. Longer: refused as `invalid_argument`.
pub const TOPIC_DESCRIPTION_BYTES_MAX: usize = 4096;

/// A sealed topic key, in base64. Longer: refused as `invalid_argument`.
pub const SEAL_BYTES_MAX: usize = 4096;

/// Members for whom a key that is made here is sealed at once, beside its topic's maker.
/// More: a member that has it seals it for them.
pub const TOPIC_SEALS_MAX: usize = 1000;

/// Posts of one `topic_history` that names no limit.
pub const HISTORY_POSTS: i64 = 50;

/// Posts of one `topic_history`. More are asked for: so many come.
pub const HISTORY_POSTS_MAX: i64 = 200;

/// Names that one post may mention. More: the first count.
pub const MENTIONS_MAX: usize = 16;

/// Members that one post's mentions may reach, since names are not unique. More: so many.
pub const MENTIONED_MEMBERS_MAX: usize = 32;

/// Bytes of a name that is mentioned. A longer one mentions nobody.
pub const MENTION_BYTES_MAX: usize = 64;

/// Posts of other programs that are given their place at once. More: the next ones follow
/// at the next look.
pub const ADOPTED_POSTS_MAX: u32 = 200;

/// The pause before posts of other programs are looked for again, after that failed once;
/// each later one is twice as long.
pub const ADOPTION_RETRY_MS: i64 = 1_000;

/// The longest of these pauses.
pub const ADOPTION_RETRY_MAX_MS: i64 = 60_000;
