//! One mesh's channel as this node sees it: pure, with the instant as a
//! parameter.
//!
//! Going out, every frame gets the next sequence number, also one that is not
//! sent because nobody else is there, or that is dropped: whoever does hear of
//! the channel then sees the gap. Coming in, the last number of each origin is
//! kept and compared.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::frame::Origin;

/// How long a node that was seen in a mesh counts as being there. Longer than
/// two readings of the mesh's set of nodes.
const MEMBER_LIFE: Duration = Duration::from_secs(25);

/// How long a reading of the set of nodes is believed.
const READING_LIFE: Duration = Duration::from_secs(25);

/// How long it is remembered that a frame was kept back.
const SKIP_MEMORY: Duration = Duration::from_secs(120);

/// How long a channel that is not joined is kept after its last frame.
const IDLE_LIFE: Duration = Duration::from_secs(60);

/// How long an origin that fell silent is remembered.
const ORIGIN_LIFE: Duration = Duration::from_secs(600);

/// How often the last number of a channel is told after a frame.
const BEATS_PER_FRAME: u8 = 4;

/// What an arriving frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The next one.
    InOrder,
    /// Some before it are missing.
    AfterGap,
    /// This frame, or a later one, was here already.
    Old,
}

/// The number of an outgoing frame, and what goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    pub(super) seq: u64,
    pub(super) first: bool,
}

/// One mesh's channel.
#[derive(Debug)]
pub(super) struct Channel {
    joins: u32,
    seq: u64,
    is_new: bool,
    last_used: Instant,
    told_seq: u64,
    beats_left: u8,
    skipped_at: Option<Instant>,
    members: HashMap<Origin, Instant>,
    read_at: Option<Instant>,
    heard: HashMap<Origin, (u64, Instant)>,
}

impl Channel {
    /// A channel that counts from `seq`: not lower than it ever was.
    pub(super) fn new(now: Instant, seq: u64) -> Self {
        Self {
            joins: 0,
            seq,
            is_new: true,
            last_used: now,
            told_seq: seq,
            beats_left: 0,
            skipped_at: None,
            members: HashMap::new(),
            read_at: None,
            heard: HashMap::new(),
        }
    }

    // ---- Membership ----

    pub(super) fn join(&mut self) {
        self.joins += 1;
    }

    /// Whether that was the last of those who joined.
    pub(super) fn leave(&mut self, now: Instant) -> bool {
        self.joins = self.joins.saturating_sub(1);
        self.last_used = now;
        if self.joins == 0 {
            self.members.clear();
            self.heard.clear();
            self.read_at = None;
        }
        self.joins == 0
    }

    pub(super) fn is_joined(&self) -> bool {
        self.joins > 0
    }

    /// Another node is in the mesh. Whether it may have missed frames, because
    /// it was not known before.
    pub(super) fn see_member(&mut self, now: Instant, origin: &Origin) -> bool {
        let is_new = self.members.insert(origin.clone(), now).is_none();
        is_new && self.skipped_at.is_some_and(|at| now - at < SKIP_MEMORY)
    }

    /// The set of nodes was read: these are the others.
    pub(super) fn see_members(&mut self, now: Instant, others: &[Origin]) -> bool {
        self.read_at = Some(now);
        let mut may_have_lost = false;
        for origin in others {
            may_have_lost |= self.see_member(now, origin);
        }
        may_have_lost
    }

    pub(super) fn lose_member(&mut self, origin: &Origin) {
        self.members.remove(origin);
        self.heard.remove(origin);
    }

    pub(super) fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    fn is_surely_alone(&self, now: Instant) -> bool {
        self.is_joined()
            && self.read_at.is_some_and(|at| now - at < READING_LIFE)
            && self.members.values().all(|seen| now - *seen >= MEMBER_LIFE)
    }

    // ---- Out ----

    /// Counts a frame that nobody needs, if that is sure.
    pub(super) fn keep_back(&mut self, now: Instant) -> bool {
        let is_alone = self.is_surely_alone(now);
        if is_alone {
            self.seq += 1;
            self.last_used = now;
            self.skipped_at = Some(now);
        }
        is_alone
    }

    /// The number of the next frame.
    pub(super) fn next(&mut self, now: Instant) -> Outgoing {
        self.seq += 1;
        self.last_used = now;
        self.beats_left = BEATS_PER_FRAME;
        Outgoing { seq: self.seq, first: std::mem::take(&mut self.is_new) }
    }

    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    /// Something of the channel was not sent: its number is told again.
    pub(super) fn note_unsent(&mut self, now: Instant) {
        self.last_used = now;
        self.beats_left = BEATS_PER_FRAME;
    }

    /// The number to tell now, if any: that of a moment ago, so that it does
    /// not overtake the frame itself.
    pub(super) fn beat(&mut self) -> Option<u64> {
        let told = std::mem::replace(&mut self.told_seq, self.seq);
        self.beats_left = self.beats_left.checked_sub(1)?;
        Some(told)
    }

    /// Forgets whoever is gone; whether the channel itself can be forgotten.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        self.members.retain(|_, seen| now - *seen < MEMBER_LIFE);
        let members = &self.members;
        self.heard
            .retain(|origin, (_, at)| members.contains_key(origin) || now - *at < ORIGIN_LIFE);
        !self.is_joined() && self.beats_left == 0 && now - self.last_used >= IDLE_LIFE
    }

    // ---- In ----

    pub(super) fn hear(&mut self, now: Instant, origin: &Origin, seq: u64, first: bool) -> Arrival {
        let Some((last, at)) = self.heard.get_mut(origin) else {
            self.heard.insert(origin.clone(), (seq, now));
            // What it sent before, while this node was deaf or its own link was
            // down, may be missing.
            return if first { Arrival::InOrder } else { Arrival::AfterGap };
        };
        // An origin's numbers never go back, also where it counts anew: what says
        // so is put on the bus again by somebody.
        if seq <= *last {
            return Arrival::Old;
        }
        let is_next = first || seq == *last + 1;
        (*last, *at) = (seq, now);
        if is_next { Arrival::InOrder } else { Arrival::AfterGap }
    }

    /// An origin told its last number beside its frames. Whether some are
    /// missing; an origin never heard before may have sent any.
    pub(super) fn hear_last(&mut self, now: Instant, origin: &Origin, seq: u64) -> bool {
        match self.heard.get_mut(origin) {
            Some((last, at)) => {
                let is_behind = seq > *last;
                (*last, *at) = (seq.max(*last), now);
                is_behind
            }
            None => {
                self.heard.insert(origin.clone(), (seq, now));
                true
            }
        }
    }

    /// Whether the origin's numbers are known.
    pub(super) fn knows(&self, origin: &Origin) -> bool {
        self.heard.contains_key(origin)
    }

    /// The subscription was away: whatever came meanwhile is not known.
    pub(super) fn forget_heard(&mut self) {
        self.heard.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(incarnation: u64) -> Origin {
        Origin { node: "n".to_owned(), incarnation }
    }

    #[test]
    fn a_missing_frame_shows_at_the_next_or_at_a_beat() {
        let now = Instant::now();
        let mut channel = Channel::new(now, 0);
        assert_eq!(channel.hear(now, &origin(1), 5, false), Arrival::AfterGap, "never heard");
        assert_eq!(channel.hear(now, &origin(1), 6, false), Arrival::InOrder);
        assert_eq!(channel.hear(now, &origin(1), 6, false), Arrival::Old);
        assert_eq!(channel.hear(now, &origin(1), 8, false), Arrival::AfterGap);
        assert!(!channel.hear_last(now, &origin(1), 8));
        assert!(channel.hear_last(now, &origin(1), 9));
        assert!(!channel.hear_last(now, &origin(1), 9));
        assert!(channel.hear_last(now, &origin(2), 1), "never heard: anything may be missing");
        assert_eq!(channel.hear(now, &origin(1), 12, true), Arrival::InOrder, "it counts anew");
        assert_eq!(channel.hear(now, &origin(1), 12, true), Arrival::Old, "said again");
    }

    #[test]
    fn frames_are_kept_back_only_while_surely_alone_and_a_newcomer_is_told() {
        let start = Instant::now();
        let mut channel = Channel::new(start, 0);
        assert!(!channel.keep_back(start), "not joined: nothing is known");
        channel.join();
        assert!(!channel.keep_back(start), "not read yet");
        assert!(!channel.see_members(start, &[]));
        assert!(channel.keep_back(start));
        assert!(channel.see_member(start, &origin(1)), "it may have missed that one");
        assert!(!channel.see_member(start, &origin(1)));
        assert!(!channel.keep_back(start));
        assert_eq!(channel.next(start), Outgoing { seq: 2, first: true });
        let later = start + MEMBER_LIFE;
        assert!(!channel.keep_back(later), "the reading is too old to be believed");
        channel.see_members(later, &[]);
        assert!(channel.keep_back(later), "the other one was not seen for long");
    }

    #[test]
    fn beats_follow_a_frame_and_never_overtake_it() {
        let now = Instant::now();
        let mut channel = Channel::new(now, 10);
        assert_eq!(channel.beat(), None);
        assert_eq!(channel.next(now), Outgoing { seq: 11, first: true });
        assert_eq!(channel.next(now), Outgoing { seq: 12, first: false });
        assert_eq!(channel.beat(), Some(10));
        assert_eq!(channel.beat(), Some(12));
        assert_eq!(channel.beat(), Some(12));
        assert_eq!(channel.beat(), Some(12));
        assert_eq!(channel.beat(), None);
        assert!(!channel.expire(now));
        assert!(channel.expire(now + IDLE_LIFE));
    }
}
