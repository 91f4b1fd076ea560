//! What a load did and heard, and what must be true of it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::{RECEIVERS, SENDERS};

/// What was accepted, in the order of its sender.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) message: String,
    /// The receiver; `None`: all.
    pub(super) to: Option<usize>,
    /// How long its sender tried.
    pub(super) took: Duration,
    pub(super) at: Instant,
}

/// One message that came.
#[derive(Clone, Debug)]
pub(super) struct Push {
    pub(super) connection: u32,
    pub(super) sender: usize,
    pub(super) number: usize,
    pub(super) message: String,
    pub(super) at: Instant,
}

/// What one receiver heard.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// In the order of arrival.
    pub(super) pushes: Vec<Push>,
    /// Who left, by key.
    pub(super) left: Vec<String>,
    pub(super) connections: u32,
    pub(super) presences: BTreeSet<String>,
}

#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) sent: [Vec<Sent>; SENDERS],
    pub(super) heard: [Heard; RECEIVERS],
    pub(super) sender_presences: [BTreeSet<String>; SENDERS],
    /// Sends that were refused, and sends that had no answer.
    pub(super) refused: u32,
    pub(super) unanswered: u32,
    /// From the loss of a socket to the next welcome.
    pub(super) returns: Vec<Duration>,
}

/// A load that is over, in numbers. Nothing was lost, or there were none.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Accepted.
    pub messages: usize,
    /// Received, without repeats.
    pub deliveries: usize,
    /// Received once more, on a later connection.
    pub repeats: usize,
    pub refused: u32,
    pub unanswered: u32,
    /// Peers that had to connect anew, and how long the slowest took.
    pub returns: usize,
    pub slowest_return: Duration,
    /// From the first attempt to its ack.
    pub slowest_ack: Duration,
    /// From a message's ack to its arrival.
    pub slowest_delivery: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { messages, deliveries, repeats, refused, unanswered, returns, .. } = self;
        write!(
            f,
            "{messages} messages, {deliveries} deliveries, 0 lost, {repeats} repeated to peers \
             that reconnected; {refused} sends refused, {unanswered} unanswered; {returns} \
             reconnected, slowest {:.1} s; slowest ack {:.1} s, slowest delivery {:.1} s",
            self.slowest_return.as_secs_f64(),
            self.slowest_ack.as_secs_f64(),
            self.slowest_delivery.as_secs_f64(),
        )
    }
}

impl Record {
    /// Accepted, for that receiver, and not heard.
    pub(super) fn missing(&self, receiver: usize) -> Vec<(usize, usize)> {
        let heard: HashSet<(usize, usize)> =
            self.heard[receiver].pushes.iter().map(|push| (push.sender, push.number)).collect();
        let mut missing = Vec::new();
        for (sender, sent) in self.sent.iter().enumerate() {
            for (number, message) in sent.iter().enumerate() {
                let is_for_it = message.to.is_none_or(|to| to == receiver);
                if is_for_it && !heard.contains(&(sender, number)) {
                    missing.push((sender, number));
                }
            }
        }
        missing
    }

    pub(super) fn has_all(&self) -> bool {
        (0..RECEIVERS).all(|receiver| self.missing(receiver).is_empty())
    }

    pub(super) fn connections(&self) -> [u32; RECEIVERS] {
        self.heard.each_ref().map(|heard| heard.connections)
    }

    pub(super) fn check_deliveries(&self) {
        for (receiver, heard) in self.heard.iter().enumerate() {
            assert!(self.missing(receiver).is_empty());
            let mut seen_on: HashSet<(u32, &str)> = HashSet::new();
            let mut first_seen: HashSet<(usize, usize)> = HashSet::new();
            let mut newest: BTreeMap<usize, usize> = BTreeMap::new();
            for Push { connection, sender, number, message, .. } in &heard.pushes {
                assert!(
                    seen_on.insert((*connection, message)),
                    "receiver {receiver}: {sender}/{number} came twice on connection {connection}"
                );
                // One whose ack was lost and never asked for again is not in the list.
                let Some(sent) = self.sent[*sender].get(*number) else { continue };
                assert_eq!(&sent.message, message, "the id that was acked");
                assert!(sent.to.is_none_or(|to| to == receiver), "not for receiver {receiver}");
                if !first_seen.insert((*sender, *number)) {
                    continue;
                }
                if let Some(before) = newest.insert(*sender, *number) {
                    assert!(
                        before < *number,
                        "receiver {receiver}: {sender}/{number} came after {sender}/{before}\n{}",
                        self.around(receiver, *sender, *number)
                    );
                }
            }
        }
    }

    /// What a receiver heard of a sender about when that message came, a line each.
    fn around(&self, receiver: usize, sender: usize, number: usize) -> String {
        let heard = self.heard[receiver].pushes.iter().filter(|push| push.sender == sender);
        let heard: Vec<_> = heard.collect();
        let at = heard.iter().position(|push| push.number == number).expect("it came");
        let around = &heard[at.saturating_sub(8)..heard.len().min(at + 8)];
        let line = |push: &&Push| {
            let sent = self.sent[sender].get(push.number);
            let to = sent.map_or("?", |sent| if sent.to.is_some() { "one" } else { "all" });
            let (id, connection) = (&push.message, push.connection);
            let late = sent.map(|sent| push.at.saturating_duration_since(sent.at));
            format!("{} ({id}) to {to}, on connection {connection}, {late:?} late", push.number)
        };
        around.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// Whoever came back was the same presence.
    pub(super) fn check_presences(&self) {
        let all = self.heard.iter().map(|heard| &heard.presences).chain(&self.sender_presences);
        for presences in all {
            assert_eq!(presences.len(), 1, "it lost its presence: {presences:?}");
        }
    }

    /// Nobody was told twice of one that left, nor of any that came back.
    pub(super) fn check_left(&self, receivers: &[String]) {
        for (receiver, heard) in self.heard.iter().enumerate() {
            let mut told: HashMap<&str, u32> = HashMap::new();
            for key in &heard.left {
                *told.entry(key).or_default() += 1;
            }
            assert!(told.values().all(|times| *times == 1), "told twice: {told:?}");
            let came_back = receivers.iter().find(|key| told.contains_key(key.as_str()));
            assert_eq!(came_back, None, "receiver {receiver} was told that it left");
        }
    }

    pub(super) fn report(&self) -> Report {
        let mut first: HashMap<(usize, usize, usize), Instant> = HashMap::new();
        let mut repeats = 0;
        for (receiver, heard) in self.heard.iter().enumerate() {
            for push in &heard.pushes {
                let before = first.insert((receiver, push.sender, push.number), push.at);
                if let Some(before) = before {
                    first.insert((receiver, push.sender, push.number), before);
                    repeats += 1;
                }
            }
        }
        let slowest_delivery = first
            .iter()
            .filter_map(|((_, sender, number), heard)| {
                let sent = self.sent[*sender].get(*number)?;
                Some(heard.saturating_duration_since(sent.at))
            })
            .max();
        let sent = || self.sent.iter().flatten();
        Report {
            messages: sent().count(),
            deliveries: first.len(),
            repeats,
            refused: self.refused,
            unanswered: self.unanswered,
            returns: self.returns.len(),
            slowest_return: self.returns.iter().max().copied().unwrap_or_default(),
            slowest_ack: sent().map(|sent| sent.took).max().unwrap_or_default(),
            slowest_delivery: slowest_delivery.unwrap_or_default(),
        }
    }
}
