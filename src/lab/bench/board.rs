//! What all peers of a run share: who has sent what when, and who got it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::frames::Stamp;
use super::outcome::Checks;

/// One run's book of messages.
pub(super) struct Board {
    epoch: Instant,
    /// The instant at which the clock was started, after the epoch.
    go_ns: AtomicU64,
    /// Cancelled when peers may send.
    pub(super) go: CancellationToken,
    /// Cancelled when the run is over.
    pub(super) over: CancellationToken,
    /// Senders by the key that a push names as its sender's.
    pub(super) by_key: HashMap<String, u32>,
    /// The place in the lists below at which each sender's messages begin; one more at
    /// the end.
    offsets: Vec<usize>,
    sent_ns: Vec<AtomicU64>,
    receipts: Vec<AtomicU32>,
    /// The number of recipients of each message.
    fan: Vec<u32>,
    /// What each peer is told as a sender.
    pub(super) senders: Vec<Sender>,
    /// Whether a message is in flight until all have it, not just until its
    /// ack.
    pub(super) until_delivered: bool,
    /// The time between two messages of all senders together, at a fixed rate.
    interval_ns: Option<u64>,
    /// The place of each peer among those that send.
    turns: Vec<u32>,
    /// Frames of any kind.
    pub(super) heard: AtomicU64,
    /// Deliveries, the first time each.
    pub(super) received: AtomicU64,
    pub(super) acked: AtomicU64,
    pub(super) refused: AtomicU64,
    last_receipt_ns: AtomicU64,
}

/// What peers tell a sender.
#[derive(Default)]
pub(super) struct Sender {
    /// The number of its messages that all recipients have.
    pub(super) complete: AtomicU32,
    /// The number that should have been sent by now, at a fixed rate.
    pub(super) due: AtomicU32,
    /// Wakes the sender when something of the above has changed.
    pub(super) wake: Notify,
}

impl Board {
    /// An empty book: for each peer the fan-out of each of its messages.
    pub(super) fn new(
        by_key: HashMap<String, u32>,
        fans: Vec<Vec<u32>>,
        rate: Option<f64>,
        until_delivered: bool,
    ) -> Self {
        let mut offsets = vec![0];
        let mut turns = Vec::with_capacity(fans.len());
        let mut sending: u32 = 0;
        for fan in &fans {
            offsets.push(offsets.last().copied().unwrap_or_default() + fan.len());
            turns.push(sending);
            sending += u32::from(!fan.is_empty());
        }
        let senders = fans.iter().map(|_| Sender::default()).collect();
        let fan: Vec<u32> = fans.into_iter().flatten().collect();
        Self {
            epoch: Instant::now(),
            go_ns: AtomicU64::new(0),
            go: CancellationToken::new(),
            over: CancellationToken::new(),
            by_key,
            offsets,
            sent_ns: fan.iter().map(|_| AtomicU64::new(0)).collect(),
            receipts: fan.iter().map(|_| AtomicU32::new(0)).collect(),
            fan,
            senders,
            until_delivered,
            interval_ns: rate.map(|rate| (1e9 / rate.max(1e-3)) as u64),
            turns,
            heard: AtomicU64::new(0),
            received: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            last_receipt_ns: AtomicU64::new(0),
        }
    }

    pub(super) fn paced(&self) -> bool {
        self.interval_ns.is_some()
    }

    /// Starts the clock.
    pub(super) fn start(&self) {
        self.go_ns.store(self.ns(Instant::now()), Ordering::Relaxed);
        self.go.cancel();
    }

    pub(super) fn ns(&self, at: Instant) -> u64 {
        u64::try_from(at.duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Notes that a message leaves. At a fixed rate what counts is when it should have.
    pub(super) fn sent(&self, stamp: Stamp, at: Instant) {
        let due = self.interval_ns.map(|interval| {
            let turn = u64::from(self.turns[stamp.sender as usize]);
            let senders = u64::from(self.sending());
            let place = u64::from(stamp.number) * senders + turn;
            self.go_ns.load(Ordering::Relaxed) + place * interval
        });
        if let Some(index) = self.index(stamp) {
            self.sent_ns[index].store(due.unwrap_or_else(|| self.ns(at)), Ordering::Relaxed);
        }
    }

    fn sending(&self) -> u32 {
        let sends = |peer: usize| self.offsets[peer + 1] > self.offsets[peer];
        let last = self.turns.len().saturating_sub(1);
        self.turns.last().map_or(0, |turn| turn + u32::from(sends(last)))
    }

    fn index(&self, stamp: Stamp) -> Option<usize> {
        let sender = stamp.sender as usize;
        let index = self.offsets.get(sender)? + stamp.number as usize;
        (index < *self.offsets.get(sender + 1)?).then_some(index)
    }

    /// Microseconds since a message left; `None` if there is no such message.
    pub(super) fn since_sent(&self, stamp: Stamp, at: Instant) -> Option<u32> {
        let sent = self.sent_ns[self.index(stamp)?].load(Ordering::Relaxed);
        let us = self.ns(at).saturating_sub(sent) / 1000;
        Some(u32::try_from(us).unwrap_or(u32::MAX))
    }

    /// Notes that a message was received. Its first receipts count; more are duplicates.
    pub(super) fn receipt(&self, stamp: Stamp) {
        let Some(index) = self.index(stamp) else { return };
        let before = self.receipts[index].fetch_add(1, Ordering::Relaxed);
        if before < self.fan[index] {
            self.received.fetch_add(1, Ordering::Relaxed);
        }
        if self.until_delivered && before + 1 == self.fan[index] {
            let sender = &self.senders[stamp.sender as usize];
            sender.complete.fetch_add(1, Ordering::Release);
            sender.wake.notify_one();
        }
    }

    /// Notes that something was received just now.
    pub(super) fn received_at(&self, at: Instant) {
        self.last_receipt_ns.fetch_max(self.ns(at), Ordering::Relaxed);
    }

    /// The time from the start to the last receipt.
    pub(super) fn elapsed(&self) -> Duration {
        let go = self.go_ns.load(Ordering::Relaxed);
        let last = self.last_receipt_ns.load(Ordering::Relaxed);
        Duration::from_nanos(last.saturating_sub(go))
    }

    /// Messages of all senders.
    pub(super) fn messages(&self) -> u64 {
        self.fan.len() as u64
    }

    /// Deliveries that must be.
    pub(super) fn deliveries(&self) -> u64 {
        self.fan.iter().map(|fan| u64::from(*fan)).sum()
    }

    /// Whether every message was answered and has arrived.
    pub(super) fn is_complete(&self) -> bool {
        let answered = self.acked.load(Ordering::Relaxed) + self.refused.load(Ordering::Relaxed);
        answered >= self.messages() && self.received.load(Ordering::Relaxed) >= self.deliveries()
    }

    /// What the book says in the end. `behind`: deliveries that peers saw after
    /// the same or a later one of its sender.
    pub(super) fn audit(&self, behind: u64) -> Checks {
        let mut checks = Checks {
            sent: self.messages(),
            acked: self.acked.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            expected: self.deliveries(),
            received: self.received.load(Ordering::Relaxed),
            ..Checks::default()
        };
        for (receipts, fan) in self.receipts.iter().zip(&self.fan) {
            let receipts = receipts.load(Ordering::Relaxed);
            checks.duplicates += u64::from(receipts.saturating_sub(*fan));
            checks.lost += u64::from(fan.saturating_sub(receipts));
        }
        // A message that comes again is behind too, unless it was a first elsewhere.
        checks.reordered = behind.saturating_sub(checks.duplicates);
        checks
    }

    /// Lets senders go at the fixed rate until all is sent. Blocks: the
    /// runtime's timers are too coarse to be measured against.
    pub(super) fn pace(&self) {
        let Some(interval) = self.interval_ns else { return };
        let peers: Vec<usize> = (0..self.senders.len())
            .filter(|peer| self.offsets[peer + 1] > self.offsets[*peer])
            .collect();
        let go = self.epoch + Duration::from_nanos(self.go_ns.load(Ordering::Relaxed));
        for place in 0..self.messages() {
            if self.over.is_cancelled() {
                return;
            }
            let due = go + Duration::from_nanos(place * interval);
            let early = due.saturating_duration_since(Instant::now());
            if !early.is_zero() {
                std::thread::sleep(early);
            }
            let place = usize::try_from(place).unwrap_or_default();
            let sender = &self.senders[peers[place % peers.len()]];
            sender.due.fetch_add(1, Ordering::Release);
            sender.wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(rate: Option<f64>) -> Board {
        Board::new(HashMap::new(), vec![vec![1, 1], vec![], vec![3]], rate, true)
    }

    #[test]
    fn the_book_tells_lost_from_doubled() {
        let board = board(None);
        let (first, wide) = (Stamp { sender: 0, number: 0 }, Stamp { sender: 2, number: 0 });
        board.receipt(first);
        board.receipt(first);
        board.receipt(wide);
        board.receipt(wide);
        let checks = board.audit(1);
        assert_eq!((checks.expected, checks.received), (5, 3));
        assert_eq!((checks.duplicates, checks.lost, checks.reordered), (1, 2, 0));
        assert_eq!(board.senders[2].complete.load(Ordering::Relaxed), 0);
        board.receipt(wide);
        assert_eq!(board.senders[2].complete.load(Ordering::Relaxed), 1);
        assert!(board.since_sent(Stamp { sender: 1, number: 0 }, Instant::now()).is_none());
    }

    #[test]
    fn at_a_fixed_rate_time_counts_from_when_it_was_due() {
        let board = board(Some(1000.0));
        board.start();
        let go = board.epoch + Duration::from_nanos(board.go_ns.load(Ordering::Relaxed));
        // Third of all: two senders take turns.
        let stamp = Stamp { sender: 0, number: 1 };
        let late = go + Duration::from_millis(9);
        board.sent(stamp, late);
        assert_eq!(board.since_sent(stamp, late), Some(7000));
    }
}
