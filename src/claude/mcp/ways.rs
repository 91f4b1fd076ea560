//! Which way a message takes to an idle session: pure decisions, no clock and no socket of
//! their own.
//!
//! The channel comes first where the session's launcher said that it is on. A written
//! channel message is only offered, since hosts drop them without a word: when its lease
//! ends unseen, the channel counts as silent until a message that went there is proven
//! seen. Then the doorbell, once for each message; after that nothing wakes the session
//! for it, and it comes with the next prompt. A busy session is left to the hooks.

use std::collections::HashSet;

/// How long a message that was written to the channel is left to it, while nothing has
/// shown yet that the channel is heard.
pub(super) const UNPROVEN_LEASE_MS: i64 = 8_000;
/// The same once that was shown: the model may think before it names the message.
pub(super) const PROVEN_LEASE_MS: i64 = 60_000;
/// Messages remembered as pushed or rung for. More: all are forgotten, and may wake the
/// session once more.
const REMEMBERED_MAX: usize = 16_384;

/// What is known of the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channel {
    /// Nobody said that it is on.
    Off,
    /// The launcher said so.
    Said,
    /// A message that went there was seen.
    Proven,
    /// A message that went there was not seen in time.
    Silent,
}

/// What to do now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Moves {
    /// To write to the channel.
    pub(super) push: Vec<i64>,
    /// To ring for.
    pub(super) ring: Vec<i64>,
}

/// What this process has tried.
#[derive(Debug)]
pub(super) struct Ways {
    channel: Channel,
    pushed: HashSet<i64>,
    rung: HashSet<i64>,
}

impl Ways {
    pub(super) fn new(channel_is_on: bool) -> Self {
        let channel = if channel_is_on { Channel::Said } else { Channel::Off };
        Self { channel, pushed: HashSet::new(), rung: HashSet::new() }
    }

    /// How long the channel holds what is written to it now.
    pub(super) fn lease_ms(&self) -> i64 {
        match self.channel {
            Channel::Proven => PROVEN_LEASE_MS,
            Channel::Off | Channel::Said | Channel::Silent => UNPROVEN_LEASE_MS,
        }
    }

    /// A tool call has named these messages: where nothing else has shown them, the model
    /// had them from the channel.
    pub(super) fn named(&mut self, rows: &[i64]) {
        for row in rows {
            if self.pushed.remove(row) {
                self.channel = Channel::Proven;
            }
            self.rung.remove(row);
        }
    }

    /// These messages are shown in the answer of a tool.
    pub(super) fn shown(&mut self, rows: &[i64]) {
        for row in rows {
            self.pushed.remove(row);
            self.rung.remove(row);
        }
    }

    /// The rows were written to the channel.
    pub(super) fn pushed(&mut self, rows: &[i64]) {
        remember(&mut self.pushed, rows);
    }

    /// The bell was rung for the rows.
    pub(super) fn rung(&mut self, rows: &[i64]) {
        remember(&mut self.rung, rows);
    }

    /// Another session has the process now: its messages have numbers of their own.
    pub(super) fn moved(&mut self) {
        self.pushed.clear();
        self.rung.clear();
    }

    /// What an idle session is to be told of the messages that wait and that no way holds;
    /// `has_bell` if it has an inbox of its own.
    pub(super) fn idle(&mut self, has_bell: bool, free: &[i64]) -> Moves {
        // One that went to the channel and is free again was not seen within its lease.
        let in_vain = free.iter().any(|row| self.pushed.contains(row));
        if in_vain && self.channel == Channel::Said {
            self.channel = Channel::Silent;
        }
        let mut moves = Moves::default();
        for &row in free {
            if self.goes_by_channel(row, has_bell) {
                moves.push.push(row);
            } else if has_bell && !self.rung.contains(&row) {
                moves.ring.push(row);
            }
        }
        moves
    }

    /// A message takes the channel once. One that is silent is still tried where nothing
    /// else could wake the session.
    fn goes_by_channel(&self, row: i64, has_bell: bool) -> bool {
        let is_heard = match self.channel {
            Channel::Off => false,
            Channel::Said | Channel::Proven => true,
            Channel::Silent => !has_bell,
        };
        is_heard && !self.pushed.contains(&row)
    }

    /// What is known of the channel now.
    pub(super) const fn channel(&self) -> Channel {
        self.channel
    }
}

fn remember(rows: &mut HashSet<i64>, new: &[i64]) {
    if rows.len() + new.len() > REMEMBERED_MAX {
        rows.clear();
    }
    rows.extend(new);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_channel_the_bell_rings_once_for_each_message() {
        let mut ways = Ways::new(false);
        assert_eq!(ways.idle(true, &[1, 2]).ring, [1, 2]);
        ways.rung(&[1, 2]);
        let moves = ways.idle(true, &[1, 2, 3]);
        assert_eq!((moves.push.as_slice(), moves.ring.as_slice()), (&[][..], &[3][..]));
        assert_eq!(ways.idle(false, &[4]), Moves::default(), "no bell: nothing wakes it");
    }

    #[test]
    fn a_channel_that_is_switched_off_silently_costs_one_lease_and_then_the_bell_rings() {
        let mut ways = Ways::new(true);
        assert_eq!(ways.idle(true, &[1]).push, [1]);
        ways.pushed(&[1]);
        assert_eq!(ways.idle(true, &[]), Moves::default(), "the channel holds it");
        let moves = ways.idle(true, &[1, 2]);
        assert_eq!((moves.push.len(), moves.ring.as_slice()), (0, &[1, 2][..]));
        assert_eq!(ways.channel(), Channel::Silent);
    }

    #[test]
    fn where_nothing_else_wakes_the_session_a_silent_channel_is_tried_once_for_each() {
        let mut ways = Ways::new(true);
        ways.pushed(&[1]);
        assert_eq!(ways.idle(false, &[1, 2]).push, [2]);
        ways.pushed(&[2]);
        assert_eq!(ways.idle(false, &[1, 2]), Moves::default());
    }

    #[test]
    fn a_message_that_is_proven_seen_proves_the_channel() {
        let mut ways = Ways::new(true);
        ways.pushed(&[1]);
        ways.idle(true, &[1]);
        assert_eq!(ways.channel(), Channel::Silent);
        ways.rung(&[9]);
        ways.named(&[9]);
        assert_eq!(ways.channel(), Channel::Silent, "that one came by the bell");
        ways.named(&[1]);
        assert_eq!(ways.channel(), Channel::Proven);
        assert_eq!(ways.lease_ms(), PROVEN_LEASE_MS);
        assert_eq!(ways.idle(true, &[2]).push, [2]);
    }

    #[test]
    fn a_proven_channel_that_loses_one_message_has_the_bell_rung_for_it() {
        let mut ways = Ways::new(true);
        ways.pushed(&[1]);
        ways.named(&[1]);
        ways.pushed(&[2]);
        let moves = ways.idle(true, &[2, 3]);
        assert_eq!((moves.push.as_slice(), moves.ring.as_slice()), (&[3][..], &[2][..]));
    }

    #[test]
    fn what_a_tool_has_shown_proves_nothing_of_the_channel() {
        let mut ways = Ways::new(true);
        ways.pushed(&[1]);
        ways.shown(&[1]);
        ways.named(&[1]);
        assert_eq!(ways.channel(), Channel::Said);
    }
}
