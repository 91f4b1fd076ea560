//! How the bounds must fit together: checked while the broker is built.

use super::*;

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
// What must fit before the configured size holds is no larger than it may be.
const _: () = assert!(HELLO_BYTES_MAX_FLOOR <= MESSAGE_BYTES_MAX_CEILING);
// A profile that is allowed can be sent under the default frame size.
const _: () = assert!(PROFILE_BYTES_MAX + SUMMARY_BYTES_MAX < 64 * 1024);
// The parts of a presence's row, the member's enrolled name among them, fit into
// the row.
const _: () = assert!(
    RECORD_FIXED_BYTES_MAX
        + 2 * DISPLAY_NAME_BYTES_MAX
        + SUMMARY_BYTES_MAX
        + HELLO_CWD_BYTES_MAX
        + HELLO_TEXTS * HELLO_TEXT_BYTES_MAX
        + GROUPS_BYTES_MAX
        <= RECORD_BYTES_MAX
);
// One group that is allowed can be joined, escaped at its worst.
const _: () = assert!(GROUPS_BYTES_MAX >= 2 * 6 * GROUP_NAME_BYTES_MAX + 32);
// A page holds many rows of any list, and always one.
const _: () = assert!(ANSWER_BYTES_MAX >= 32 * PEER_ROW_BYTES_MAX + ANSWER_FRAME_BYTES_MAX);
const _: () = assert!(ANSWER_BYTES_MAX >= 4 * AUDIT_PAYLOAD_BYTES_MAX + ANSWER_FRAME_BYTES_MAX);
// What stands around the rows, escaped at its worst.
const _: () = assert!(
    ANSWER_FRAME_BYTES_MAX
        >= 6 * (REQ_ID_BYTES_MAX + TARGET_SPEC_BYTES_MAX) + CURSOR_BYTES_MAX + 1024
);
// Clients that wait for half a minute, or a quarter, hear why there was no answer.
const _: () = assert!(MCP_CALL_MS <= 28_000 && PEER_FILE_MS <= 14_000);
// What is handed on finds room beside whatever else an outbox may hold.
const _: () = assert!(RELAYED_BYTES_MAX < OUTBOX_BYTES_MAX / 2);
// An event with all that it may name is small among events.
const _: () = assert!(
    8 * (EVENT_TOOLS_BYTES_MAX + EVENT_DESCRIPTION_BYTES_MAX + 4 * MCP_NAME_BYTES_MAX)
        <= OUTBOX_EVENT_BYTES_MAX
);
// One server that is allowed can be listed.
const _: () = assert!(ANSWER_BYTES_MAX >= 8 * MCP_BYTES_PER_PRESENCE_MAX + ANSWER_FRAME_BYTES_MAX);
// An answer waits in an empty outbox together with a push.
const _: () = assert!(OUTBOX_BYTES_MAX >= ANSWER_BYTES_MAX + PUSH_BYTES_MAX);

// A cursor holds the longest name there is, each byte of it escaped.
const _: () = assert!(CURSOR_BYTES_MAX >= (6 * SHARED_NAME_BYTES_MAX + 2).div_ceil(3) * 4);
// One value fits into an answer and into what events may take.
const _: () = assert!(ANSWER_BYTES_MAX >= 2 * VALUE_BYTES_MAX + ANSWER_FRAME_BYTES_MAX);
const _: () = assert!(OUTBOX_EVENT_BYTES_MAX >= 2 * VALUE_BYTES_MAX);

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
