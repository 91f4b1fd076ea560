//! Every bound of the system, with what happens on overflow, and the relations
//! between them that must hold.
//!
//! What an operator may want to change is in [`crate::config`] instead. Spans
//! that are added to instants are `i64`, timers are `u64`, both in milliseconds.

// ---- Sockets and frames ----------------------------------------------------

/// From the upgrade to a valid hello. Later: closed with 1008 `hello_timeout`.
pub const HELLO_DEADLINE_MS: u64 = 10_000;

/// From accepting a TCP connection to its complete HTTP header. Later: closed.
pub const HTTP_HEADER_DEADLINE_MS: u64 = 10_000;

/// Sockets of this process that have not said hello yet, upgraded or not. More:
/// the oldest of them is closed.
pub const HALF_OPEN_SOCKETS_MAX: usize = 8192;

/// Client addresses whose sockets and hellos are counted. More: the address
/// that was seen longest ago is forgotten.
pub const TRACKED_ADDRESSES_MAX: usize = 65_536;

/// Malformed frames of one socket within a minute. One more: closed with 1008.
pub const MALFORMED_FRAMES_PER_MINUTE_MAX: usize = 10;

/// Lowest value of `MAX_MESSAGE_BYTES`: below it a hello would not fit.
pub const MESSAGE_BYTES_MAX_FLOOR: usize = 1024;

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

/// The largest answer to a request, encoded. A longer one is given in parts, or
/// ends there and says so.
pub const ANSWER_BYTES_MAX: usize = 512 * 1024;

/// What the answer to a send takes besides the send's own `id`. So much is kept
/// free in the outbox from reading a send to answering it.
pub const ACK_BYTES_MAX: usize = 512;

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

// ---- Accepting and delivering ----------------------------------------------

/// Envelopes of this node that wait for their commit. More: the reading socket
/// waits, and with it its sender.
pub const ACCEPT_QUEUE_ENVELOPES_MAX: usize = 4096;

/// Batches that are written at once, of different meshes; each takes a
/// connection. More meshes: they share.
pub const ACCEPT_LANES: usize = 4;

/// Envelopes of one transaction. More: they go into the next.
pub const ACCEPT_BATCH_ENVELOPES_MAX: usize = 2048;

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

/// How long a session key can be sent to after it was last seen. Later: it is
/// unknown.
pub const SESSION_KEY_MEMORY_MS: i64 = 7 * DAY_MS;

// ---- Text of peers ---------------------------------------------------------

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

/// A display name. Longer: cut at a character's edge.
pub const DISPLAY_NAME_BYTES_MAX: usize = 256;

/// A summary. Longer: cut at a character's edge.
pub const SUMMARY_BYTES_MAX: usize = 2048;

/// A profile, encoded as JSON. Longer: refused as `invalid_argument`.
pub const PROFILE_BYTES_MAX: usize = 4096;

/// Each of a hello's other texts: folder, host name, model, channel, session id.
/// Longer: cut at a character's edge.
pub const HELLO_TEXT_BYTES_MAX: usize = 1024;

// ---- Identity --------------------------------------------------------------

/// How far the instant in a hello may be from this node's clock, either way.
/// Farther: `timestamp_skew`.
pub const HELLO_SIGNATURE_WINDOW_MS: i64 = 60_000;

/// How long a used hello signature is remembered. It could be valid for twice
/// the window, since its instant may lie ahead; the rest is for clocks of nodes
/// that differ.
pub const REPLAY_GUARD_MS: i64 = 2 * HELLO_SIGNATURE_WINDOW_MS + 30_000;

/// How far ahead an attestation of a session key may expire. Farther:
/// `ttl_too_long`.
pub const ATTESTATION_TTL_MS: i64 = DAY_MS;

// ---- Presence --------------------------------------------------------------

/// Renewals that fall into the life of a lease. At least three: two may fail and
/// the lease still lives.
pub const LEASE_RENEWALS_PER_TTL: u64 = 3;

/// How long a hook's status waits for its session to connect. Longer: deleted.
pub const PENDING_HOOK_MS: i64 = 10_000;

/// Statuses of hooks that wait for their session. More: the oldest is deleted.
pub const PENDING_HOOKS_MAX: usize = 10_000;

/// Processes whose status hooks are counted. More: the one seen longest ago is
/// forgotten.
pub const HOOK_BUCKETS_MAX: usize = 10_000;

// ---- Between nodes ---------------------------------------------------------

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

/// Event streams of one node that are open at once. More: refused with 503.
pub const ADMIN_STREAMS_MAX: usize = 16;

/// Events of a stream that wait for their reader. More: the next one waits for
/// room, and tells all that changed meanwhile.
pub const ADMIN_STREAM_EVENTS_MAX: usize = 2;

/// Calls of one address per minute with a wrong admin token. More: every call
/// of that address is refused until the minute is over.
pub const ADMIN_FAILURES_PER_MINUTE: u32 = 10;

// ---- What must hold --------------------------------------------------------

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

const KEY_HEX_BYTES: usize = 64;

// Whatever else waits, a push fits where there is room: a drain comes forward.
const _: () = assert!(OUTBOX_BYTES_MAX >= 2 * PUSH_BYTES_MAX);
// Every push and every answer fits into what is held for the kernel, with the
// small frames before it, a frame's head, and a control frame or two.
const _: () = assert!(
    SOCKET_WRITE_BYTES_MAX >= ANSWER_BYTES_MAX + WRITE_BUFFER_BYTES + 4 * 256
        && SOCKET_WRITE_BYTES_MAX >= PUSH_BYTES_MAX + WRITE_BUFFER_BYTES + 4 * 256
);
// A drain begins with less than it may take.
const _: () = assert!(DRAIN_FIRST_ENVELOPES <= DRAIN_BATCH_ENVELOPES_MAX);
// A frame that waits in the kernel is not yet slow at a kilobyte a second.
const _: () = assert!(WRITE_DEADLINE_MS as u128 > 3 * KERNEL_UNSENT_BYTES as u128);
// All that may be in flight to a session, and the gate behind it, fit as frames.
const _: () = assert!(OUTBOX_FRAMES_MAX >= INFLIGHT_DELIVERIES_MAX + GATE_FRAMES_MAX);
// A drain alone cannot exceed what may be in flight.
const _: () = assert!(DRAIN_BATCH_ENVELOPES_MAX <= INFLIGHT_DELIVERIES_MAX);
// The next batch can fill while one is written.
const _: () = assert!(ACCEPT_QUEUE_ENVELOPES_MAX >= 2 * ACCEPT_BATCH_ENVELOPES_MAX);
const _: () = assert!(CONFIRM_QUEUE_MAX >= 2 * CONFIRM_BATCH_MAX);
// One session that confirms all it has in flight loses none of it.
const _: () = assert!(CONFIRM_QUEUE_MAX >= INFLIGHT_DELIVERIES_MAX);
// A lease outlives two renewals that fail.
const _: () = assert!(LEASE_RENEWALS_PER_TTL > 2);
// One late pong kills nobody.
const _: () = assert!(PING_INTERVALS_WITHOUT_PONG_MAX >= 2);
// A captured hello is dead before it is forgotten.
const _: () = assert!(REPLAY_GUARD_MS > 2 * HELLO_SIGNATURE_WINDOW_MS);
// A queued message's target and its idempotence key outlive it.
const _: () = assert!(SESSION_KEY_MEMORY_MS >= UNDELIVERED_RETENTION_MS);
const _: () = assert!(IDEMPOTENCE_MS >= UNDELIVERED_RETENTION_MS);
// Every group, and every key, can be written as a target.
const _: () = assert!(TARGET_SPEC_BYTES_MAX > GROUP_NAME_BYTES_MAX);
const _: () = assert!(TARGET_SPEC_BYTES_MAX >= KEY_HEX_BYTES);
// The texts that a push adds fit into its overhead, escaped at their worst.
const _: () = assert!(
    PUSH_OVERHEAD_BYTES_MAX
        >= 6 * (DISPLAY_NAME_BYTES_MAX + TARGET_SPEC_BYTES_MAX + CLIENT_MESSAGE_ID_BYTES_MAX)
            + 2048
);
// A profile that is allowed can be sent under the default frame size.
const _: () = assert!(PROFILE_BYTES_MAX + SUMMARY_BYTES_MAX < 64 * 1024);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SETTINGS;

    #[test]
    fn the_default_frame_size_lies_between_floor_and_ceiling() {
        let default = SETTINGS
            .iter()
            .find(|setting| setting.name == "MAX_MESSAGE_BYTES")
            .and_then(|setting| setting.default.parse::<usize>().ok())
            .expect("a number");
        assert!((MESSAGE_BYTES_MAX_FLOOR..=MESSAGE_BYTES_MAX_CEILING).contains(&default));
        assert!(default > PROFILE_BYTES_MAX + SUMMARY_BYTES_MAX);
    }
}
