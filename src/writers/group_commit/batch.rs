//! What becomes of a batch: refused from memory, written together, or written in
//! halves until the one is found that the store does not take.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::quotas::{Due, Quotas, Verdict};
use super::{Outcome, Refused};
use crate::clock::Timestamp;
use crate::config::QuotaConfig;
use crate::id::{MemberId, MeshId};
use crate::limits;
use crate::store::{Accepted, Envelopes, Holder, NewEnvelope, Result, StoreError, WaitingLoad};

/// What a lane knows from one batch to the next.
pub(super) struct Writer {
    quotas: Quotas,
    /// Senders that the store does not know, and until when that is believed.
    unknown: HashMap<(MeshId, MemberId), Instant>,
}

/// Some envelopes of a batch, in its order, with their positions in it.
type Part = Vec<(usize, NewEnvelope)>;

/// The fates of a batch, a slot per envelope.
struct Fates(Vec<Option<(NewEnvelope, Outcome)>>);

impl Fates {
    fn decide(&mut self, (at, envelope): (usize, NewEnvelope), outcome: Outcome) {
        self.0[at] = Some((envelope, outcome));
    }

    fn decide_all(&mut self, part: Part, outcome: &Outcome) {
        for positioned in part {
            self.decide(positioned, outcome.clone());
        }
    }
}

impl Writer {
    pub(super) fn new(quotas: QuotaConfig) -> Self {
        Self { quotas: Quotas::new(quotas), unknown: HashMap::new() }
    }

    /// Decides a batch. The envelopes come back in their order, as many as went
    /// in, each with its outcome. `only_known`: those, by position, that are taken only if
    /// they were sent before.
    pub(super) async fn write(
        &mut self,
        store: &dyn Envelopes,
        envelopes: Vec<NewEnvelope>,
        only_known: &[usize],
    ) -> (Vec<NewEnvelope>, Vec<Outcome>) {
        let now = Instant::now();
        let refusals = self.weigh(store, now, &envelopes, only_known).await;
        let stale = self.quotas.stale();
        if refusals.is_empty() {
            let (accepted, loads) =
                tokio::join!(store.accept(Timestamp::now(), &envelopes), measure(store, &stale));
            self.grant(&stale, loads);
            return match settled(accepted, envelopes.len()) {
                Ok(outcomes) => (envelopes, outcomes),
                Err(error) => self.in_parts(store, envelopes, refusals, Some(error)).await,
            };
        }
        let loads = measure(store, &stale).await;
        self.grant(&stale, loads);
        self.in_parts(store, envelopes, refusals, None).await
    }

    /// Envelopes that are refused without being written, by position.
    async fn weigh(
        &mut self,
        store: &dyn Envelopes,
        now: Instant,
        envelopes: &[NewEnvelope],
        only_known: &[usize],
    ) -> HashMap<usize, Refused> {
        let mut refusals: HashMap<_, _> =
            only_known.iter().map(|at| (*at, Refused::OverRate)).collect();
        let mut unmeasured = Vec::new();
        for (at, envelope) in envelopes.iter().enumerate() {
            if self.is_unknown(now, envelope) {
                refusals.insert(at, Refused::Rejected);
                continue;
            }
            if refusals.contains_key(&at) {
                continue;
            }
            match self.quotas.spend(now, envelope, false) {
                Verdict::Taken => {}
                Verdict::Full(quota) => {
                    refusals.insert(at, Refused::Full(quota));
                }
                Verdict::Unmeasured => unmeasured.push(at),
            }
        }
        if unmeasured.is_empty() {
            return refusals;
        }
        let due = self.quotas.lacking(unmeasured.iter().map(|at| &envelopes[*at]));
        let loads = measure(store, &due).await;
        let is_measured = loads.is_some();
        self.grant(&due, loads);
        for at in unmeasured {
            let refusal = match self.quotas.spend(now, &envelopes[at], is_measured) {
                Verdict::Taken => continue,
                Verdict::Full(quota) => Refused::Full(quota),
                Verdict::Unmeasured => Refused::Unavailable,
            };
            refusals.insert(at, refusal);
        }
        refusals
    }

    fn grant(&mut self, due: &[Due], loads: Option<Vec<WaitingLoad>>) {
        let now = Instant::now();
        for (due, load) in due.iter().zip(loads.into_iter().flatten()) {
            self.quotas.grant(now, due, load);
        }
    }

    /// `refused`: the batch as a whole was not taken, for that reason.
    async fn in_parts(
        &mut self,
        store: &dyn Envelopes,
        envelopes: Vec<NewEnvelope>,
        mut refusals: HashMap<usize, Refused>,
        refused: Option<StoreError>,
    ) -> (Vec<NewEnvelope>, Vec<Outcome>) {
        let mut fates = Fates(envelopes.iter().map(|_| None).collect());
        let (mut part, mut over) = (Part::new(), Part::new());
        for (at, envelope) in envelopes.into_iter().enumerate() {
            match refusals.remove(&at) {
                None => part.push((at, envelope)),
                Some(refusal @ (Refused::Full(_) | Refused::OverRate))
                    if envelope.client_message_id.is_some() =>
                {
                    refusals.insert(at, refusal);
                    over.push((at, envelope));
                }
                Some(refusal) => fates.decide((at, envelope), Err(refusal)),
            }
        }
        repeat_or_refuse(store, over, &refusals, &mut fates).await;
        match refused {
            Some(error) => self.divide(store, part, &error, Vec::new(), &mut fates).await,
            None => self.halve(store, vec![part], &mut fates).await,
        }
        fates.0.into_iter().map(|fate| fate.expect("each was decided")).unzip()
    }

    /// Writes the parts, last first; one that is refused is halved, so that what
    /// cannot be taken costs the others a few transactions and not one each.
    async fn halve(&mut self, store: &dyn Envelopes, mut parts: Vec<Part>, fates: &mut Fates) {
        while let Some(part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let (positions, envelopes): (Vec<usize>, Vec<NewEnvelope>) = part.into_iter().unzip();
            let accepted = store.accept(Timestamp::now(), &envelopes).await;
            let settled = settled(accepted, envelopes.len());
            let part: Part = positions.into_iter().zip(envelopes).collect();
            match settled {
                Ok(outcomes) => {
                    for (positioned, outcome) in part.into_iter().zip(outcomes) {
                        fates.decide(positioned, outcome);
                    }
                }
                Err(error) => parts = self.split(part, &error, parts, fates),
            }
        }
    }

    /// As [`Self::halve`], when the whole was refused already.
    async fn divide(
        &mut self,
        store: &dyn Envelopes,
        part: Part,
        error: &StoreError,
        parts: Vec<Part>,
        fates: &mut Fates,
    ) {
        let parts = self.split(part, error, parts, fates);
        self.halve(store, parts, fates).await;
    }

    /// A part that was not taken: its halves are next, or its one envelope is
    /// refused, and with it all others of a sender that is not there.
    fn split(
        &mut self,
        mut part: Part,
        error: &StoreError,
        mut parts: Vec<Part>,
        fates: &mut Fates,
    ) -> Vec<Part> {
        if part.len() > 1 {
            tracing::warn!(%error, envelopes = part.len(), "a batch was refused; in halves");
            let later = part.split_off(part.len() / 2);
            parts.push(later);
            parts.push(part);
            return parts;
        }
        let Some((at, envelope)) = part.pop() else { return parts };
        tracing::warn!(
            %error, message_id = %envelope.id, mesh = %envelope.mesh, "a send was refused"
        );
        if matches!(error, StoreError::NotFound(_)) {
            self.note_unknown(&envelope);
        }
        fates.decide((at, envelope), Err(Refused::Rejected));
        let now = Instant::now();
        let mut left = Vec::with_capacity(parts.len());
        for part in parts {
            let (unknown, known) =
                part.into_iter().partition(|(_, envelope)| self.is_unknown(now, envelope));
            fates.decide_all(unknown, &Err(Refused::Rejected));
            left.push(known);
        }
        left
    }

    fn is_unknown(&self, now: Instant, envelope: &NewEnvelope) -> bool {
        if self.unknown.is_empty() {
            return false;
        }
        let sender = (envelope.mesh.clone(), envelope.sender_member.clone());
        self.unknown.get(&sender).is_some_and(|until| now < *until)
    }

    fn note_unknown(&mut self, envelope: &NewEnvelope) {
        let now = Instant::now();
        self.unknown.retain(|_, until| now < *until);
        if self.unknown.len() < limits::UNKNOWN_SENDERS_MAX {
            let until = now + Duration::from_millis(limits::UNKNOWN_SENDER_MS);
            self.unknown.insert((envelope.mesh.clone(), envelope.sender_member.clone()), until);
        }
    }
}

/// The outcomes of a part as long as it is; an error only if it may be tried in
/// smaller parts.
fn settled(accepted: Result<Vec<Accepted>>, count: usize) -> Result<Vec<Outcome>> {
    match accepted {
        Ok(accepted) => {
            if accepted.len() != count {
                tracing::error!(
                    answers = accepted.len(),
                    envelopes = count,
                    "the store did not answer for each envelope"
                );
            }
            let mut outcomes: Vec<Outcome> = accepted.into_iter().map(Ok).collect();
            outcomes.resize(count, Err(Refused::Unavailable));
            Ok(outcomes)
        }
        Err(error) if error.is_retryable() => {
            tracing::warn!(%error, envelopes = count, "sends refused: nothing was kept");
            Ok(vec![Err(Refused::Unavailable); count])
        }
        Err(error) => Err(error),
    }
}

/// A full quota, or a rate that is used up, does not take a message twice, so it does not
/// refuse one that is kept already either.
async fn repeat_or_refuse(
    store: &dyn Envelopes,
    over: Part,
    refusals: &HashMap<usize, Refused>,
    fates: &mut Fates,
) {
    if over.is_empty() {
        return;
    }
    let (positions, envelopes): (Vec<usize>, Vec<NewEnvelope>) = over.into_iter().unzip();
    let mut known = match store.repeats(&envelopes).await {
        Ok(known) => known,
        Err(error) => {
            tracing::warn!(%error, "sends over a bound could not be looked up");
            let over = positions.into_iter().zip(envelopes).collect();
            return fates.decide_all(over, &Err(Refused::Unavailable));
        }
    };
    known.resize(envelopes.len(), None);
    for ((at, envelope), known) in positions.into_iter().zip(envelopes).zip(known) {
        let outcome = match known {
            Some(id) => Ok(Accepted::Duplicate { id }),
            None => Err(refusals.get(&at).copied().unwrap_or(Refused::Rejected)),
        };
        fates.decide((at, envelope), outcome);
    }
}

/// What waits for each; `None` if the store does not say.
async fn measure(store: &dyn Envelopes, due: &[Due]) -> Option<Vec<WaitingLoad>> {
    if due.is_empty() {
        return Some(Vec::new());
    }
    let asked: Vec<(Holder, u64)> =
        due.iter().map(|due| (due.holder.clone(), due.rows_max)).collect();
    match store.waiting_load(&asked).await {
        Ok(loads) if loads.len() == due.len() => Some(loads),
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(%error, "what waits could not be measured");
            None
        }
    }
}

#[cfg(test)]
mod tests;
