//! Texts and counts that peers give, about messages and about themselves.

/// `client_message_id`. Longer: the send is refused.
pub const CLIENT_MESSAGE_ID_BYTES_MAX: usize = 128;

/// `_reqId`. Longer: the request counts as one without.
pub const REQ_ID_BYTES_MAX: usize = 128;

/// `targetSpec`. Longer: the send is refused.
pub const TARGET_SPEC_BYTES_MAX: usize = 256;

/// A group's name. Longer: refused as `invalid_argument`; dropped from a hello.
pub const GROUP_NAME_BYTES_MAX: usize = 128;

/// Groups of one presence. More: refused as `invalid_argument`; dropped from a
/// hello.
pub const GROUPS_PER_PRESENCE_MAX: usize = 64;

// What a presence says of itself is in everybody's `list_peers`, so it is counted
// as it is encoded: as JSON, where a control character takes six bytes.

/// A display name, encoded. Longer: cut at a character's edge.
pub const DISPLAY_NAME_BYTES_MAX: usize = 256;

/// A summary, encoded. Longer: cut at a character's edge.
pub const SUMMARY_BYTES_MAX: usize = 2048;

/// A profile, encoded. Longer: refused as `invalid_argument`; one that was saved
/// by another program is not restored.
pub const PROFILE_BYTES_MAX: usize = 4096;

/// A hello's folder, encoded. Longer: cut at a character's edge.
pub const HELLO_CWD_BYTES_MAX: usize = 1024;

/// Each of a hello's other texts, encoded: session id, host name, kind of peer,
/// channel, model. Longer: cut at a character's edge.
pub const HELLO_TEXT_BYTES_MAX: usize = 256;

/// Those texts: how many there are.
pub(super) const HELLO_TEXTS: usize = 5;

/// The groups of one presence, encoded. More: refused as `invalid_argument`;
/// dropped from a hello.
pub const GROUPS_BYTES_MAX: usize = 2048;

/// What a presence's row is made of beside what its peer chooses: field names,
/// keys, instants, words, counters.
pub const RECORD_FIXED_BYTES_MAX: usize = 1024;

/// A presence's row in `list_peers`, encoded, without its profile. Each part has
/// its own bound; they add up to no more.
pub const RECORD_BYTES_MAX: usize = 8 * 1024;

/// The whole row. One that another program or an older node wrote may be larger:
/// it is cut where it is listed.
pub const PEER_ROW_BYTES_MAX: usize = RECORD_BYTES_MAX + PROFILE_BYTES_MAX;

/// The groups that `peer_joined` and `peer_returned` name, encoded. More: the
/// event says how many it leaves out.
pub const EVENT_GROUPS_BYTES_MAX: usize = 1024;
