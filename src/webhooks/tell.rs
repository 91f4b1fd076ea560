//! What waits for an address is told, in its order, by one node at a time.
//!
//! A claim says which node; one that dies leaves it to run out. An event that fails is
//! tried again, later each time, for a day. What was taken is told again only where the
//! answer was lost, under the same id.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::{Parts, call};
use crate::clock::{Timestamp, retry_pause_ms};
use crate::limits;
use crate::store::{OutClaim, Outcome, Told, Waiting, WaitingEvent};

/// Looks for addresses whose time has come, and tells each in a task of its own.
pub(crate) async fn tick(parts: &Arc<Parts>) {
    let free = i64::try_from(parts.calls.available_permits()).unwrap_or(i64::MAX);
    if free == 0 {
        return;
    }
    let now = Timestamp::now();
    let claim = OutClaim {
        id: crate::id::generate(),
        until: now.plus_ms(limits::WEBHOOK_CLAIM_MS),
        limit: free,
        events: limits::WEBHOOK_EVENTS_CLAIMED,
    };
    let claimed = match parts.store.claim(now, &claim).await {
        Ok(claimed) => claimed,
        Err(error) => return tracing::debug!(%error, "webhooks wait for the database"),
    };
    for waiting in claimed {
        let Ok(turn) = Arc::clone(&parts.calls).try_acquire_owned() else { return };
        let (parts, claim) = (Arc::clone(parts), claim.id.clone());
        let tasks = parts.life.tasks.clone();
        tasks.spawn(async move { tell(&parts, &claim, &waiting, turn).await });
    }
}

async fn tell(parts: &Parts, claim: &str, to: &Waiting, _turn: OwnedSemaphorePermit) {
    let mut attempts = to.attempts;
    for (at, event) in to.events.iter().enumerate() {
        let stopped = &parts.life.stopped;
        let tried = tokio::select! {
            biased;
            () = stopped.cancelled() => None,
            tried = call::call(to, event, parts.allows_private) => Some(tried),
        };
        let outcome = match tried {
            None => Outcome::Left,
            Some(Ok(())) => Outcome::Taken { event: event.id },
            Some(Err(error)) => failed(event, error, attempts),
        };
        if let Some(error) = outcome_error(&outcome) {
            tracing::debug!(error, webhook = to.webhook, mesh = %to.mesh, "a webhook failed");
        }
        let goes_on = matches!(outcome, Outcome::Taken { .. }) && at + 1 < to.events.len();
        let until = goes_on.then(|| Timestamp::now().plus_ms(limits::WEBHOOK_CLAIM_MS));
        let told = Told { claim: claim.to_owned(), webhook: to.webhook.clone(), outcome, until };
        match parts.store.settle(Timestamp::now(), &told).await {
            Ok(true) if goes_on => attempts = 0,
            Ok(_) => return,
            // It is told again when the claim has run out.
            Err(error) => return tracing::debug!(%error, "what a webhook took was not noted"),
        }
    }
}

fn outcome_error(outcome: &Outcome) -> Option<&str> {
    match outcome {
        Outcome::Failed { error, .. } | Outcome::GivenUp { error, .. } => Some(error),
        _ => None,
    }
}

/// What becomes of an event whose try failed after so many others.
fn failed(event: &WaitingEvent, error: String, attempts: i64) -> Outcome {
    let now = Timestamp::now();
    if now.ms_since(event.created_at) >= limits::WEBHOOK_RETRIED_MS {
        return Outcome::GivenUp { event: event.id, error };
    }
    let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
    let (first, max) = (limits::WEBHOOK_RETRY_MS, limits::WEBHOOK_RETRY_MAX_MS);
    let pause = retry_pause_ms(attempts, first, max);
    Outcome::Failed { error, next_at: now.plus_ms(pause) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(age_ms: i64) -> WaitingEvent {
        let created_at = Timestamp::now().plus_ms(-age_ms);
        WaitingEvent { id: 7, event: "peer_left".to_owned(), data: json!({}), created_at }
    }

    #[test]
    fn each_try_comes_later_and_none_after_a_day() {
        let pause = |attempts| match failed(&event(0), "e".to_owned(), attempts) {
            Outcome::Failed { next_at, .. } => next_at.ms_since(Timestamp::now()),
            other => panic!("{other:?}"),
        };
        for attempts in 0..40 {
            let most =
                (limits::WEBHOOK_RETRY_MS << attempts.min(20)).min(limits::WEBHOOK_RETRY_MAX_MS);
            let pause = pause(attempts);
            assert!(pause <= most && pause >= most / 2 - 1000, "{attempts}: {pause}");
        }
        let old = failed(&event(limits::WEBHOOK_RETRIED_MS), "e".to_owned(), 3);
        assert_eq!(old, Outcome::GivenUp { event: 7, error: "e".to_owned() });
    }
}
