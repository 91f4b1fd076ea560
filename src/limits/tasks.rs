//! Bounds of tasks, and of messages that are sent later.

use std::ops::RangeInclusive;

use super::DAY_MS;

/// How long a claim of a task may last unless it is renewed. Others: refused as
/// `invalid_argument`.
pub const TASK_LEASE_MS: RangeInclusive<i64> = 1_000..=7 * DAY_MS;

/// Tasks of one answer. More: the rest is asked for again.
pub const TASKS_LISTED: usize = 100;

/// How long a task is kept that is done, unless the mesh is full before. Longer: it is
/// forgotten.
pub const TASK_DONE_KEPT_MS: i64 = 30 * DAY_MS;

/// Done tasks that one statement forgets.
pub const TASKS_FORGOTTEN_AT_ONCE: i64 = 100;

/// Claims of tasks whose end one look notes. More: the next look.
pub const TASK_CLAIMS_ENDED_AT_ONCE: i64 = 256;

/// How far ahead a message may be scheduled. Farther: refused as `invalid_argument`.
pub const SCHEDULE_AHEAD_MS: i64 = 366 * DAY_MS;

/// How much later than it was to be a message may be sent before it says that it is late.
pub const SCHEDULE_LATE_MS: i64 = 5_000;

/// Messages whose time has come that one transaction sends. More: the next.
pub const SCHEDULES_FIRED_AT_ONCE: i64 = 100;

/// Of a member's scheduled messages, those among which one is looked for by the beginning
/// of its id.
pub const SCHEDULES_SEARCHED: i64 = 1_000;
