//! Every bound of the system, with what happens on overflow. A build fails where they
//! do not fit together (`limits/relations.rs`).
//!
//! What an operator may want to change is in [`crate::config`] instead. Spans
//! that are added to instants are `i64`, timers are `u64`, both in milliseconds.

mod accounts;
mod api;
mod between_peers;
mod claude;
mod relations;
mod shared;
mod stages;
mod tasks;
mod texts;
mod topics;
mod webhooks;

pub use self::accounts::*;
pub use self::api::*;
pub use self::claude::*;
pub use self::shared::*;
pub use self::stages::*;
pub use self::tasks::*;
pub use self::texts::*;
pub use self::topics::*;
pub use self::webhooks::*;
pub use between_peers::*;

/// A day.
pub(crate) const DAY_MS: i64 = 24 * 60 * 60 * 1000;

// ---- Sockets and frames ----------------------------------------------------

/// From the upgrade to a valid hello. Later: closed with 1008 `hello_timeout`.
pub const HELLO_DEADLINE_MS: u64 = 10_000;

/// From accepting a TCP connection, or from an answer on it, to the next
/// request's complete HTTP header. Later: closed.
pub const HTTP_HEADER_DEADLINE_MS: u64 = 10_000;

/// From a request's header to the end of its body. Later: 408.
pub const HTTP_BODY_DEADLINE_MS: u64 = 10_000;

/// From a request's header to the last byte of its answer. Later: closed.
/// Operators' calls with the right token have no such deadline: streams of
/// events and walks along a chain take as long as they take.
pub const HTTP_EXCHANGE_DEADLINE_MS: u64 = 60_000;

/// For the request of a socket that is one too many from its address, which is
/// answered with 429. Later: closed.
pub const CROWDED_DEADLINE_MS: u64 = 1_000;

/// Sockets of this process that have not said hello yet, upgraded or not, where
/// the limit of open files allows it; else half of the files that are left. More:
/// the oldest of them is closed.
pub const HALF_OPEN_SOCKETS_MAX: usize = 8192;

/// As many may be half open however few files there are.
pub const HALF_OPEN_SOCKETS_MIN: usize = 16;

/// Files kept for what is no socket of a peer, beside the pool of the database.
pub const RESERVED_FILES: u64 = 64;

/// Client addresses whose sockets and hellos are counted. More: of the hellos'
/// the half that was seen longest ago is forgotten.
pub const TRACKED_ADDRESSES_MAX: usize = 65_536;

/// Meshes whose newest signed audit head a node shows at hello. Of more: none is shown.
pub const AUDIT_HEADS_SHOWN_MAX: usize = 10_000;

/// Malformed frames of one socket within a minute. One more: closed with 1008.
pub const MALFORMED_FRAMES_PER_MINUTE_MAX: usize = 10;

/// Lowest value of `MAX_MESSAGE_BYTES`. A hello and the body of a join may be
/// larger, see [`HELLO_BYTES_MAX_FLOOR`]; answers are as large as they are.
pub const MESSAGE_BYTES_MAX_FLOOR: usize = 512;

/// A hello, and the body of a request, may have as many bytes even where
/// `MAX_MESSAGE_BYTES` is less: signatures and an attestation alone are over 512.
pub const HELLO_BYTES_MAX_FLOOR: usize = 8 * 1024;

/// Highest value of `MAX_MESSAGE_BYTES`. A larger frame on the wire than the
/// configured value: closed with 1009.
pub const MESSAGE_BYTES_MAX_CEILING: usize = 256 * 1024;

/// Nesting of arrays and maps in a MessagePack frame. Deeper: malformed. (The
/// JSON parser has the same bound built in.)
pub const MSGPACK_DEPTH_MAX: usize = 128;

/// Messages that one look by the beginning of their ids reads. More: a further
/// look.
pub const FIND_MESSAGES_MAX: u32 = 32;

/// Such looks for one `message_status`. What lies beyond them is not found by
/// so short a beginning.
pub const FIND_PAGES_MAX: usize = 32;

/// Characters of an unknown `type` that a log line may show. More: cut.
pub const LOGGED_TYPE_CHARS: usize = 32;

/// Bytes read from a socket at once. Allocated per socket; more waits in the
/// kernel.
pub const READ_BUFFER_BYTES: usize = 2 * 1024;

/// Bytes of small frames gathered for a socket before they are written in one
/// call. What waits longer than that is the outbox's.
pub const WRITE_BUFFER_BYTES: usize = 1024;

/// Pauses between pings that may pass without a pong. After them the socket
/// counts as dead and its session goes into grace.
pub const PING_INTERVALS_WITHOUT_PONG_MAX: u64 = 3;

/// From sending a close frame to the peer's answer. Later: the TCP connection is
/// dropped.
pub const CLOSE_DEADLINE_MS: u64 = 2_000;

/// How long a node that cannot go on sends its peers away, if `DRAIN_SECONDS` is
/// not less. Then it ends anyway.
pub const FAILED_DRAIN_MS: u64 = 3_000;

/// Between two frames that left for a peer that is behind. A peer that takes not
/// one byte for so long is closed with 1013 `slow_reader`; one that takes little
/// at a time is waited for.
pub const WRITE_DEADLINE_MS: u64 = 120_000;

/// The same in pauses between pings, where those are set to be short: the lesser
/// of the two holds.
pub const PING_INTERVALS_WITHOUT_WRITE_MAX: u64 = 5;

/// Bytes that the kernel takes for a socket beyond what it has sent. More waits
/// in the outbox: there it counts, and a peer's progress shows within so much.
pub const KERNEL_UNSENT_BYTES: u32 = 32 * 1024;

/// Pings and pongs of one socket that are read at once, and per second after
/// that. More: the socket is read at that pace, its requests too.
pub const PINGS_PER_SECOND_MAX: u32 = 10;

/// What a WebSocket library holds for one socket while the kernel takes nothing.
/// One frame that does not fit closes with 1011 `answer_too_large`; the largest
/// push and the largest answer do fit.
pub const SOCKET_WRITE_BYTES_MAX: usize = 2 * 1024 * 1024;

// ---- Outbox ----------------------------------------------------------------

/// Encoded bytes of messages that wait for one socket, with the answers before
/// and between them. More: messages stay in the store until half of it is free;
/// the peer's own requests wait as long to be read.
pub const OUTBOX_BYTES_MAX: usize = 1024 * 1024;

/// Frames that wait for one socket, however small. More: as
/// [`OUTBOX_BYTES_MAX`].
pub const OUTBOX_FRAMES_MAX: usize = 4096;

/// What the answer to a send takes besides the send's own `id`. So much is kept
/// free in the outbox from reading a send to answering it.
pub const ACK_BYTES_MAX: usize = 512;

/// The same for a send that is sealed for many, which names members that get nothing.
pub const SEALED_ACK_BYTES_MAX: usize = ACK_BYTES_MAX + UNSEALED_FOR_MAX * 67;

/// Members that the answer to such a send names. More: it says how many.
pub const UNSEALED_FOR_MAX: usize = 32;

/// Characters of a ciphertext that is sealed for many, with the keys of its recipients.
/// More: the send is refused.
pub const MULTICAST_BYTES_MAX: usize = 256 * 1024;

/// The frame of such a send, with what JSON puts around each key: more than any other may
/// be, for sessions that offer `sealed_multicast`.
pub const SEALED_FRAME_BYTES_MAX: usize =
    MULTICAST_BYTES_MAX + MULTICAST_BYTES_MAX / 16 + PUSH_OVERHEAD_BYTES_MAX;

/// Characters of a ciphertext's key as it is sealed for one recipient: 48 bytes in base64,
/// with room for a number used once before it.
pub const SEALED_KEY_CHARS_MAX: usize = 96;

/// Characters of a signature: 64 bytes in hex.
pub const SIGNATURE_HEX_CHARS: usize = 128;

/// Encoded bytes of events that wait for one socket, besides
/// [`OUTBOX_BYTES_MAX`]. More: the newest of its kind about each presence stays,
/// and of the rest the oldest are dropped. Nobody is closed for them.
pub const OUTBOX_EVENT_BYTES_MAX: usize = 128 * 1024;

/// Events that wait for one socket, however small. More: as
/// [`OUTBOX_EVENT_BYTES_MAX`].
pub const OUTBOX_EVENTS_MAX: usize = 512;

/// All that waits for one socket: messages and answers, the one large answer that
/// was begun while there was room, the events.
pub const OUTBOX_TOTAL_BYTES_MAX: usize =
    OUTBOX_BYTES_MAX + ANSWER_BYTES_MAX + OUTBOX_EVENT_BYTES_MAX;

/// What a push adds to the ciphertext that was sent: names, keys, ids, and the
/// field names around them. Longer names are cut before.
pub const PUSH_OVERHEAD_BYTES_MAX: usize = 8 * 1024;

/// The largest push: the largest frame that can be configured, sent as bytes
/// over MessagePack and delivered as base64 over JSON.
pub const PUSH_BYTES_MAX: usize =
    MESSAGE_BYTES_MAX_CEILING.div_ceil(3) * 4 + PUSH_OVERHEAD_BYTES_MAX;

// ---- Answers ----------------------------------------------------------------

/// An answer, encoded. What is longer comes in pages: `more` and a `cursor` to ask
/// on with.
pub const ANSWER_BYTES_MAX: usize = 512 * 1024;

/// What an answer holds beside its rows: its type, the request's id, a message's
/// id and target, totals, the cursor.
pub const ANSWER_FRAME_BYTES_MAX: usize = 8 * 1024;

/// A cursor, which may hold a name as JSON in base64. Longer: refused as
/// `invalid_argument`.
pub const CURSOR_BYTES_MAX: usize = 2560;

/// Members that an `ambiguous` refusal names. More: it says that there are more.
pub const CANDIDATES_MAX: usize = 8;

/// Hex digits with which a key's beginning may stand for it where somebody is
/// removed. Fewer: it is taken for a name only.
pub const KEY_PREFIX_DIGITS_MIN: usize = 8;

// ---- Accepting and delivering ----------------------------------------------

/// Envelopes of this node that wait for their commit. More: the reading socket
/// waits, and with it its sender.
pub const ACCEPT_QUEUE_ENVELOPES_MAX: usize = 4096;

/// Batches that are written at once, of different meshes; each takes a
/// connection. More meshes: they share.
pub const ACCEPT_LANES: usize = 4;

/// Envelopes of one transaction. More: they go into the next.
pub const ACCEPT_BATCH_ENVELOPES_MAX: usize = 2048;

/// What a waiting message counts for at least, of the bounds of its mailbox, its
/// sender and its mesh: its row has a price however short its text is, and what
/// fills them can then be counted in the end.
pub const WAITING_BYTES_MIN: u64 = 4 * 1024;

/// Of what a quota has left, a node lends itself one part in so many before it
/// measures again. So much may each other node exceed it by.
pub const ALLOWANCE_SHARE: u64 = 8;

/// Near its end, of the whole quota one part in so many.
pub const ALLOWANCE_SHARE_MIN: u64 = 64;

/// How long such an allowance holds. Older: measured again, beside a commit.
pub const ALLOWANCE_MS: u64 = 10_000;

/// How long a full quota is believed to be full. Later: measured again.
pub const QUOTA_FULL_MS: u64 = 5_000;

/// Mailboxes, senders and meshes whose allowances a lane remembers. More: the old
/// ones, else all, are forgotten and measured again.
pub const QUOTA_HOLDERS_MAX: usize = 65_536;

/// How long a sender whom the store does not know is refused without asking it.
pub const UNKNOWN_SENDER_MS: u64 = 60_000;

/// Such senders that a lane remembers. More: they are found out each time.
pub const UNKNOWN_SENDERS_MAX: usize = 1024;

/// Confirmations that wait to be written. More: dropped; those messages are
/// offered again and confirmed then.
pub const CONFIRM_QUEUE_MAX: usize = 8192;

/// Confirmations written at once. More: they go into the next statement.
pub const CONFIRM_BATCH_MAX: usize = 2048;

/// Deliveries of one session that are sent and not confirmed. More: they stay
/// queued until one is confirmed or its claim ends.
pub const INFLIGHT_DELIVERIES_MAX: usize = 256;

/// Multicasts of a mesh that wait for one before them, per mesh. More: the
/// mesh's sessions here read the store.
pub const EARLY_MULTICASTS_MAX: usize = 256;

/// Presences that wait to be opened. More: the hello waits.
pub const PRESENCE_QUEUE_MAX: usize = 1024;

/// Presences opened in one transaction. More: they go into the next.
pub const PRESENCE_BATCH_MAX: usize = 256;

/// Messages in a mailbox that its session must not get (a grant changed). More:
/// a drain ends at them; they run out of time with the others.
pub const REFUSED_DELIVERIES_MAX: usize = 4096;

/// Deliveries per session that are done and not yet marked so in the store.
/// Over it: later ones stay queued until the store has caught up.
pub const DONE_DELIVERIES_MAX: usize = 8192;

/// Direct messages found by the drains of one session that are remembered, so
/// that a late live frame of one is not a second delivery. More: the oldest is
/// forgotten.
pub const FOUND_DELIVERIES_MAX: usize = 256;

/// Live frames that wait while a session drains. More: forgotten, and the
/// session drains once more.
pub const GATE_FRAMES_MAX: usize = 256;

/// Recipients to whom a session that came back has written since, of which is
/// remembered that they have read the store. More: they read it each time.
pub const RESUMED_RECIPIENTS_MAX: usize = 256;

/// Envelopes that a drain claims at once. More: it claims again.
pub const DRAIN_BATCH_ENVELOPES_MAX: usize = 128;

/// Envelopes that a drain claims or reads before it knows how large they are.
/// After them it takes as many as fit into [`DRAIN_BATCH_BYTES_MAX`].
pub const DRAIN_FIRST_ENVELOPES: usize = 8;

/// Bytes of one reading of a drain, but for the last few envelopes in it. More:
/// it reads again, when they are in the outbox.
pub const DRAIN_BATCH_BYTES_MAX: usize = OUTBOX_BYTES_MAX / 2;

/// What a stored envelope takes besides what is sealed in it, about.
pub const ENVELOPE_BYTES: usize = 1024;

/// Drains of a node that read at once; none waits for its peer meanwhile. More:
/// they wait for those.
pub const DRAINS_READING_MAX: usize = 64;

/// How long a message waits for its recipient. Longer: deleted, with an
/// `expired` audit row.
pub const UNDELIVERED_RETENTION_MS: i64 = 7 * DAY_MS;

/// How long a `client_message_id` names the message that it first named. Later:
/// it is a new message.
pub const IDEMPOTENCE_MS: i64 = 7 * DAY_MS;

/// How long somebody who joined by an invite's last use may ask again, because the
/// answer was lost. Later: the invite is exhausted, to its user as to everybody.
pub const JOIN_REPEAT_MS: i64 = DAY_MS;

/// How long a session key can be sent to after it was last seen. Later: it is
/// unknown.
pub const SESSION_KEY_MEMORY_MS: i64 = 7 * DAY_MS;

// ---- Identity --------------------------------------------------------------

/// How far the instant in a hello may be from this node's clock, either way.
/// Farther: `timestamp_skew`.
pub const HELLO_SIGNATURE_WINDOW_MS: i64 = 60_000;

/// How far the clocks of nodes may be apart, where one compares what another wrote
/// with its own. Further: after a database went back, messages to many that a node
/// with a clock behind accepted in its last seconds may stay unread.
pub const CLOCKS_APART_MS: i64 = 60_000;

/// Ends of presences whose answer was lost and that are asked for again. More: their
/// peers learn of them without an event.
pub const UNSETTLED_ENDS_MAX: usize = 65_536;

/// How long a used hello signature is remembered. It could be valid for twice
/// the window, since its instant may lie ahead; the rest is for clocks of nodes
/// that differ.
pub const REPLAY_GUARD_MS: i64 = 2 * HELLO_SIGNATURE_WINDOW_MS + 30_000;

/// How far ahead an attestation of a session key may expire. Farther:
/// `ttl_too_long`.
pub const ATTESTATION_TTL_MS: i64 = DAY_MS;

// ---- What peers send -------------------------------------------------------

/// After how long a send that is refused for now may be repeated, where the broker knows no
/// better: its database is away, its disk is nearly full, a mesh's mail is.
pub const SEND_RETRY_MS: u64 = 2_000;

/// `now` messages to an admin that a member may send at once although one of its rates is
/// used up: that it is stuck gets out. More: they count as all others.
pub const URGENT_SENDS_BURST: u32 = 3;

/// Such messages per minute after that.
pub const URGENT_SENDS_PER_MINUTE: u32 = 6;

/// Members, or pairs of them, of each rate for which a node holds tokens. More: those that
/// have been quiet, else the half that was heard of longest ago, lose what is held, which is
/// less than a lot each.
pub const RATE_LOTS_MAX: usize = 65_536;

// ---- What peers ask --------------------------------------------------------

/// Sessions of one member that together use up its budget; one alone has this
/// part of it. More sessions: they share what their member has.
pub const SESSIONS_TO_SPEND_A_BUDGET: u32 = 4;

/// How long a request that nobody could be told of waits for its member's
/// budget. Longer: dropped, and counted.
pub const UNTOLD_REQUEST_WAIT_MS: u64 = 10_000;

// ---- Presence --------------------------------------------------------------

/// Renewals that fall into the life of a lease. At least three: two may fail and
/// the lease still lives.
pub const LEASE_RENEWALS_PER_TTL: u64 = 3;

/// How long a hook's status waits for its session to connect. Longer: deleted.
pub const PENDING_HOOK_MS: i64 = 10_000;

/// Statuses of hooks that wait for their session. More: the oldest is deleted.
pub const PENDING_HOOKS_MAX: usize = 10_000;

/// Presences that a hook's folder or session id may lead to. More: none of those
/// beyond is looked at, and none that fits only as well as the last is taken.
pub const HOOK_CANDIDATES_MAX: u32 = 64;

/// Processes whose status hooks are counted. More: the half that was seen
/// longest ago is forgotten.
pub const HOOK_BUCKETS_MAX: usize = 10_000;

// ---- Between nodes ---------------------------------------------------------

/// How long a node's word of how it does is believed. Older: whoever it holds counts as
/// gone, where peers wait for them.
pub const NODE_WORD_MS: i64 = 10_000;

/// Frames of other nodes that wait to be routed. More: dropped and taken for a
/// gap; the node drains its sessions from the store.
pub const BUS_INBOX_FRAMES_MAX: usize = 8192;

/// Frames that wait to be published. More: dropped; the sequence shows the gap
/// to the other nodes, which drain.
pub const BUS_OUTBOX_FRAMES_MAX: usize = 8192;

/// Encoded bytes that wait to be published, and as many that wait to be routed.
/// More: dropped, and noticed as a gap.
pub const BUS_QUEUED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Meshes that wait to be subscribed to. More: their first hello waits.
pub const BUS_JOINS_MAX: usize = 1024;

/// Between two probes of the bus.
pub const BUS_PROBE_INTERVAL_MS: u64 = 2_000;

/// Probes that may stay unheard. After them the subscription is built anew and
/// the node drains.
pub const BUS_PROBES_MISSED_MAX: u64 = 2;

// ---- Audit -----------------------------------------------------------------

/// Rows of one `audit_query`. More: the answer ends there.
pub const AUDIT_QUERY_ROWS_MAX: usize = 500;

/// Rows that an `audit_query` reads from the store at once: what it may hold
/// beyond its answer. More: it reads again.
pub const AUDIT_QUERY_READ_ROWS_MAX: usize = 64;

/// The groups that a row about a new presence names, encoded: rows are kept for
/// ever. More: the row says how many it leaves out.
pub const AUDIT_GROUPS_BYTES_MAX: usize = 1024;

/// The payload of one row in an answer, encoded; rows of other programs may hold
/// anything. Larger: left out of the answer, which says how large it is.
pub const AUDIT_PAYLOAD_BYTES_MAX: usize = 64 * 1024;

// ---- Operators ---------------------------------------------------------------

/// Meshes of which a node tells its load to the others. More: only the busiest.
pub const NODE_RECORD_MESHES_MAX: usize = 128;

/// Points of throughput and latency that a node remembers: an hour. More: the
/// oldest is forgotten.
pub const SERIES_POINTS_MAX: usize = 360;

/// Meshes in one listing of the admin API. More: the answer ends there, and
/// says how many there are.
pub const ADMIN_MESHES_MAX: usize = 500;

/// Envelopes of one mesh's queue that the admin API looks at to say who waits
/// for what. More: the answer says so.
pub const ADMIN_QUEUED_MAX: i64 = 1000;

/// Audit rows in one answer of the admin API. More: the answer ends there.
pub const ADMIN_AUDIT_ROWS_MAX: i64 = 500;

/// Rows of each list of what a mesh shares, in one answer of the admin API. More: the
/// answer says so.
pub const ADMIN_SHARED_ROWS_MAX: i64 = 200;

/// Event streams of one node that are open at once. More: refused with 503.
pub const ADMIN_STREAMS_MAX: usize = 16;

/// Events of a stream that wait for their reader. More: the next one waits for
/// room, and tells all that changed meanwhile.
pub const ADMIN_STREAM_EVENTS_MAX: usize = 2;

/// Calls of one address per minute with a wrong admin token. More: every call
/// of that address is refused until the minute is over.
pub const ADMIN_FAILURES_PER_MINUTE: u32 = 10;
