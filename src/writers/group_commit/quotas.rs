//! How much may wait: per mailbox, per sender, per mesh.
//!
//! Counting what waits for each message would cost more than to write it. So a
//! lane measures a holder once and then lends itself an *allowance*: a part of
//! what is left, which it spends from memory and never gives back. A new
//! measurement follows when the allowance is spent, and beside a commit when it
//! is old. What was delivered meanwhile is then seen, so mail that goes straight
//! to live sessions is measured seldom, and fills nothing.
//!
//! A mesh stays in its lane, so a node alone keeps its quotas to the letter.
//! Several nodes exceed one together by what the others have lent themselves:
//! at most [`ALLOWANCE_SHARE`](crate::limits::ALLOWANCE_SHARE) of what was left,
//! or one batch, each.
//!
//! Pure, but for the hash: it is told what was measured, and when.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use crate::config::QuotaConfig;
use crate::limits;
use crate::store::{Holder, NewEnvelope, WaitingLoad};

/// Which bound a send would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quota {
    /// What waits for one key.
    Mailbox,
    /// What waits of one member's sends in a mesh.
    Sender,
    /// What waits in a mesh.
    Mesh,
}

const ALL: [Quota; 3] = [Quota::Mailbox, Quota::Sender, Quota::Mesh];

/// What may become of a send, as far as quotas are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The send was taken from the allowances.
    Taken,
    Full(Quota),
    /// Some allowance does not reach: measure first.
    Unmeasured,
}

/// A holder that is to be measured.
#[derive(Debug)]
pub(super) struct Due {
    /// Whose mail.
    pub(super) holder: Holder,
    /// Rows beyond which it is full, whatever they hold.
    pub(super) rows_max: u64,
    key: u64,
    quota: Quota,
    /// What the sends in hand want of it.
    need: Amount,
    /// What the allowance was when the measurement was ordered.
    before: Option<Amount>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amount {
    messages: u64,
    bytes: u64,
}

impl Amount {
    fn covers(self, other: Self) -> bool {
        self.messages >= other.messages && self.bytes >= other.bytes
    }

    fn zip(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self { messages: of(self.messages, other.messages), bytes: of(self.bytes, other.bytes) }
    }

    fn minus(self, other: Self) -> Self {
        self.zip(other, u64::saturating_sub)
    }

    fn plus(self, other: Self) -> Self {
        self.zip(other, u64::saturating_add)
    }
}

struct Allowance {
    left: Amount,
    /// Until when it holds; of a full one, until when it is not measured again.
    until: Instant,
    full: bool,
}

/// The allowances of one lane.
pub(super) struct Quotas {
    max: QuotaConfig,
    hasher: RandomState,
    /// By the hash of kind and names.
    allowances: HashMap<u64, Allowance>,
    stale: Vec<Due>,
}

impl Quotas {
    pub(super) fn new(max: QuotaConfig) -> Self {
        Self { max, hasher: RandomState::new(), allowances: HashMap::new(), stale: Vec::new() }
    }

    /// Takes a send from its allowances, from all of them or from none.
    /// `measured`: what lacked has just been granted, so what does not reach now
    /// is full.
    pub(super) fn spend(
        &mut self,
        now: Instant,
        envelope: &NewEnvelope,
        measured: bool,
    ) -> Verdict {
        // A multicast waits for nobody in particular: it is kept like what was
        // delivered, and bounded like that by rate, retention and the disk.
        if envelope.reach.is_many() {
            return Verdict::Taken;
        }
        let cost = cost_of(envelope);
        let mut keys = [None; ALL.len()];
        for (slot, quota) in keys.iter_mut().zip(ALL) {
            if self.limit(quota).is_none() {
                continue;
            }
            let key = self.key(quota, envelope);
            *slot = Some(key);
            let reaches = match self.allowances.get_mut(&key) {
                Some(allowance) if allowance.full && now < allowance.until => {
                    return Verdict::Full(quota);
                }
                Some(allowance) => {
                    let reaches = !allowance.full && allowance.left.covers(cost);
                    if measured && !reaches {
                        allowance.full = true;
                        allowance.until = now + HOLD;
                        return Verdict::Full(quota);
                    }
                    reaches
                }
                None => false,
            };
            if !reaches {
                return Verdict::Unmeasured;
            }
        }
        for (key, quota) in keys.into_iter().zip(ALL) {
            if let Some(key) = key {
                self.take(now, key, quota, envelope, cost);
            }
        }
        Verdict::Taken
    }

    fn take(&mut self, now: Instant, key: u64, quota: Quota, envelope: &NewEnvelope, cost: Amount) {
        let Some(allowance) = self.allowances.get_mut(&key) else { return };
        let before = allowance.left;
        allowance.left = before.minus(cost);
        if allowance.until <= now {
            allowance.until = now + KEPT;
            let due = self.due(quota, key, envelope, Some(before));
            self.stale.push(due);
        }
    }

    /// What the sends that [`Verdict::Unmeasured`] was said of lack.
    pub(super) fn lacking<'a>(
        &self,
        envelopes: impl IntoIterator<Item = &'a NewEnvelope>,
    ) -> Vec<Due> {
        let mut at: HashMap<u64, usize> = HashMap::new();
        let mut due: Vec<Due> = Vec::new();
        for envelope in envelopes {
            let cost = cost_of(envelope);
            for quota in ALL {
                let key = self.key(quota, envelope);
                if self.limit(quota).is_none() {
                    continue;
                }
                let index = *at.entry(key).or_insert_with(|| {
                    due.push(self.due(quota, key, envelope, None));
                    due.len() - 1
                });
                due[index].need = due[index].need.plus(cost);
            }
        }
        due.retain(|due| {
            let known = self.allowances.get(&due.key);
            !known.is_some_and(|known| !known.full && known.left.covers(due.need))
        });
        due
    }

    /// Old allowances that were spent from: to be measured beside the commit.
    pub(super) fn stale(&mut self) -> Vec<Due> {
        std::mem::take(&mut self.stale)
    }

    /// Lends anew, now that this much waits.
    pub(super) fn grant(&mut self, now: Instant, due: &Due, load: WaitingLoad) {
        let Some(max) = self.limit(due.quota) else { return };
        let left = max.minus(Amount { messages: load.messages, bytes: load.bytes });
        let share = left.zip(max, |left, max| {
            (left / limits::ALLOWANCE_SHARE).max(max / limits::ALLOWANCE_SHARE_MIN)
        });
        let mut granted = share.zip(due.need, u64::max).zip(left, u64::min);
        // What was spent while it was measured may not have been seen.
        if let (Some(before), Some(known)) = (due.before, self.allowances.get(&due.key)) {
            granted = granted.minus(before.minus(known.left));
        }
        self.make_room(now);
        let allowance = Allowance { left: granted, until: now + KEPT, full: false };
        self.allowances.insert(due.key, allowance);
    }

    fn make_room(&mut self, now: Instant) {
        if self.allowances.len() < limits::QUOTA_HOLDERS_MAX {
            return;
        }
        self.allowances.retain(|_, allowance| allowance.until > now);
        if self.allowances.len() >= limits::QUOTA_HOLDERS_MAX {
            self.allowances.clear();
        }
    }

    /// `None` when it is off.
    fn limit(&self, quota: Quota) -> Option<Amount> {
        let QuotaConfig { mailbox_messages_max, mailbox_bytes_max, .. } = self.max;
        let (messages, bytes) = match quota {
            Quota::Mailbox => (mailbox_messages_max, mailbox_bytes_max),
            Quota::Sender => (0, self.max.sender_bytes_max),
            Quota::Mesh => (0, self.max.mesh_bytes_max),
        };
        let or_endless = |max| if max == 0 { u64::MAX } else { max };
        (messages > 0 || bytes > 0)
            .then(|| Amount { messages: or_endless(messages), bytes: or_endless(bytes) })
    }

    fn key(&self, quota: Quota, envelope: &NewEnvelope) -> u64 {
        let mesh = envelope.mesh.as_str();
        match quota {
            Quota::Mailbox => self.hasher.hash_one((0_u8, mesh, envelope.target_spec.as_str())),
            Quota::Sender => self.hasher.hash_one((1_u8, mesh, envelope.sender_member.as_str())),
            Quota::Mesh => self.hasher.hash_one((2_u8, mesh)),
        }
    }

    fn due(&self, quota: Quota, key: u64, of: &NewEnvelope, before: Option<Amount>) -> Due {
        let mesh = of.mesh.clone();
        let holder = match quota {
            Quota::Mailbox => Holder::Mailbox { mesh, target: of.target_spec.clone() },
            Quota::Sender => Holder::Sender { mesh, member: of.sender_member.clone() },
            Quota::Mesh => Holder::Mesh { mesh },
        };
        let max = self.limit(quota).unwrap_or_default();
        let rows_max = max.messages.min(max.bytes.div_ceil(limits::WAITING_BYTES_MIN));
        Due { holder, rows_max, key, quota, need: Amount::default(), before }
    }
}

const KEPT: Duration = Duration::from_millis(limits::ALLOWANCE_MS);
const HOLD: Duration = Duration::from_millis(limits::QUOTA_FULL_MS);

fn cost_of(envelope: &NewEnvelope) -> Amount {
    let bytes = (envelope.nonce.len() + envelope.ciphertext.len()) as u64;
    Amount { messages: 1, bytes: bytes.max(limits::WAITING_BYTES_MIN) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::direct;
    use super::*;
    use crate::store::Reach;

    const MAX: QuotaConfig = QuotaConfig {
        mailbox_messages_max: 800,
        mailbox_bytes_max: 0,
        sender_bytes_max: 0,
        mesh_bytes_max: 0,
    };

    fn load(messages: u64) -> WaitingLoad {
        WaitingLoad { messages, bytes: messages * limits::WAITING_BYTES_MIN }
    }

    /// Spends until a measurement is asked for or the mailbox is full.
    fn spent(quotas: &mut Quotas, now: Instant) -> u64 {
        let envelope = direct("member", "key");
        (0..).find(|_| quotas.spend(now, &envelope, false) != Verdict::Taken).expect("bounded")
    }

    fn measure(quotas: &mut Quotas, now: Instant, waiting: u64) -> Verdict {
        let envelope = direct("member", "key");
        for due in quotas.lacking([&envelope]) {
            quotas.grant(now, &due, load(waiting));
        }
        quotas.spend(now, &envelope, true)
    }

    #[test]
    fn nothing_is_taken_before_a_measurement() {
        let (mut quotas, now) = (Quotas::new(MAX), Instant::now());
        assert_eq!(quotas.spend(now, &direct("member", "key"), false), Verdict::Unmeasured);
        assert_eq!(measure(&mut quotas, now, 0), Verdict::Taken);
        assert_eq!(spent(&mut quotas, now), 99, "an eighth of what is left, less the first");
        assert_eq!(quotas.spend(now, &direct("member", "key"), false), Verdict::Unmeasured);
        assert_eq!(quotas.spend(now, &direct("member", "other"), false), Verdict::Unmeasured);
    }

    #[test]
    fn one_node_keeps_a_quota_to_the_letter() {
        let (mut quotas, now) = (Quotas::new(MAX), Instant::now());
        let mut waiting = 0;
        while measure(&mut quotas, now, waiting) == Verdict::Taken {
            waiting += 1 + spent(&mut quotas, now);
        }
        assert_eq!(waiting, 800);
    }

    #[test]
    fn what_is_full_is_refused_from_memory_for_a_while_and_then_measured_again() {
        let (mut quotas, now) = (Quotas::new(MAX), Instant::now());
        assert_eq!(measure(&mut quotas, now, 800), Verdict::Full(Quota::Mailbox));
        let envelope = direct("member", "key");
        assert_eq!(quotas.spend(now, &envelope, false), Verdict::Full(Quota::Mailbox));
        let later = now + HOLD;
        assert_eq!(quotas.spend(later, &envelope, false), Verdict::Unmeasured);
        assert_eq!(measure(&mut quotas, later, 10), Verdict::Taken);
    }

    #[test]
    fn deliveries_that_are_confirmed_fill_nothing() {
        let (mut quotas, now) = (Quotas::new(MAX), Instant::now());
        let mut sent = 0;
        while sent < 10_000 {
            assert_eq!(measure(&mut quotas, now, 0), Verdict::Taken);
            sent += 1 + spent(&mut quotas, now);
        }
    }

    #[test]
    fn an_old_allowance_is_spent_from_and_measured_beside() {
        let (mut quotas, now) = (Quotas::new(MAX), Instant::now());
        assert_eq!(measure(&mut quotas, now, 0), Verdict::Taken);
        let (later, envelope) = (now + KEPT, direct("member", "key"));
        assert_eq!(quotas.spend(later, &envelope, false), Verdict::Taken);
        assert_eq!(quotas.spend(later, &envelope, false), Verdict::Taken);
        let stale = quotas.stale();
        assert_eq!(stale.len(), 1, "once");
        assert!(quotas.stale().is_empty());
        // Others have filled it meanwhile: two of what is left are spent already.
        quotas.grant(later, &stale[0], load(796));
        assert_eq!(spent(&mut quotas, later), 2);
    }

    #[test]
    fn a_batch_gets_what_it_needs_and_no_more_than_is_left() {
        let (mut quotas, now) = (Quotas::new(MAX), Instant::now());
        let batch: Vec<_> = (0..700).map(|_| direct("member", "key")).collect();
        let due = quotas.lacking(&batch);
        assert_eq!(due.len(), 1);
        quotas.grant(now, &due[0], load(300));
        let taken = batch.iter().filter(|e| quotas.spend(now, e, true) == Verdict::Taken).count();
        assert_eq!(taken, 500);
    }

    #[test]
    fn a_multicast_and_a_quota_that_is_off_cost_nothing() {
        let now = Instant::now();
        let multicast = NewEnvelope { reach: Reach::Multicast, ..direct("member", "*") };
        assert_eq!(Quotas::new(MAX).spend(now, &multicast, false), Verdict::Taken);
        let off = QuotaConfig { mailbox_messages_max: 0, ..MAX };
        assert_eq!(Quotas::new(off).spend(now, &direct("m", "k"), false), Verdict::Taken);
    }

    #[test]
    fn a_sender_is_bounded_over_all_mailboxes_and_a_mesh_over_all_senders() {
        let kib = |count| count * limits::WAITING_BYTES_MIN;
        let now = Instant::now();
        let max = QuotaConfig {
            mailbox_messages_max: 0,
            mailbox_bytes_max: 0,
            sender_bytes_max: kib(2),
            mesh_bytes_max: kib(3),
        };
        let mut quotas = Quotas::new(max);
        let batch: Vec<_> = [("a", "1"), ("a", "2"), ("a", "3"), ("b", "1"), ("c", "1")]
            .map(|(sender, key)| direct(sender, key))
            .into();
        for due in quotas.lacking(&batch) {
            quotas.grant(now, &due, load(0));
        }
        let verdicts: Vec<Verdict> = batch.iter().map(|e| quotas.spend(now, e, true)).collect();
        let (taken, full) = (Verdict::Taken, Verdict::Full);
        assert_eq!(verdicts, [taken, taken, full(Quota::Sender), taken, full(Quota::Mesh)]);
    }

    #[test]
    fn the_table_is_bounded() {
        let (mut quotas, now) = (Quotas::new(MAX), Instant::now());
        for number in 0..=limits::QUOTA_HOLDERS_MAX {
            for due in quotas.lacking([&direct("member", &number.to_string())]) {
                quotas.grant(now, &due, load(0));
            }
        }
        assert!(quotas.allowances.len() <= limits::QUOTA_HOLDERS_MAX);
    }
}
