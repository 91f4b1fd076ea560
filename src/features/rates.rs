//! `budget`: what a member has left of each limit.

use super::{Context, Refusal};
use crate::cluster::{ClusterError, ClusterHealth};
use crate::delivery::addressee;
use crate::delivery::policy::Target;
use crate::id::MemberId;
use crate::limits;
use crate::protocol::{Allowed, Budget, BudgetResult, Waiting};
use crate::rates::Level;
use crate::store::Holder;

/// What is left.
pub(super) async fn budget(context: &Context<'_>, ask: Budget) -> Result<BudgetResult, Refusal> {
    let Context { parts, session, .. } = context;
    let (rates, cluster) = (&parts.rates, &*parts.cluster);
    let to = match &ask.to {
        Some(target) => addressed(context, target).await?,
        None => None,
    };
    let member = &session.member;
    let left = rates.left_to_send(cluster, member, to.as_ref()).await.map_err(not_told)?;
    let requests = rates.left_to_ask(cluster, member).await.map_err(not_told)?;
    Ok(BudgetResult {
        member: left.member.map(allowed),
        pair: left.pair.map(allowed),
        multicast: left.multicast.map(allowed),
        urgent: left.urgent.map(allowed),
        requests: requests.map(allowed),
        waiting: waiting(context).await?,
        stale: cluster.health() == ClusterHealth::Degraded,
    })
}

fn allowed(level: Level) -> Allowed {
    let Level { per_minute, burst, left, next_ms, full_ms } = level;
    let next_in_ms = (left == 0).then_some(next_ms);
    Allowed { per_minute, burst, left, next_in_ms, full_in_ms: full_ms }
}

/// The member that a target leads to, if it is one that leads to a member.
async fn addressed(context: &Context<'_>, target: &str) -> Result<Option<MemberId>, Refusal> {
    if target.len() > limits::TARGET_SPEC_BYTES_MAX || target.contains('\0') {
        return Err(Refusal::invalid("`to` is a target, as a send has one"));
    }
    let Target::Key(key) = Target::parse(target) else { return Ok(None) };
    let (delivery, room) = (&context.parts.presence.delivery, context.room);
    let candidates = room.addressed_by(key);
    let record = candidates.first().map(|candidate| &*candidate.record);
    let member = addressee::of(delivery, Some(room), room.mesh(), key, record).await?;
    let member = member.ok_or_else(|| Refusal::new("no_peer", "nobody here has that key"))?;
    Ok(Some(member.id.clone()))
}

/// What waits of the member's messages, where that has a bound.
async fn waiting(context: &Context<'_>) -> Result<Option<Waiting>, Refusal> {
    let bytes_max = context.parts.presence.delivery.config.quotas.sender_bytes_max;
    if bytes_max == 0 {
        return Ok(None);
    }
    let (mesh, member) = (context.room.mesh().clone(), context.session.member.clone());
    let rows_max = bytes_max.div_ceil(limits::WAITING_BYTES_MIN);
    let asked = [(Holder::Sender { mesh, member }, rows_max)];
    let loads = context.parts.stores.envelopes.waiting_load(&asked).await?;
    Ok(loads.first().map(|load| Waiting { bytes: load.bytes, bytes_max }))
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn not_told(error: ClusterError) -> Refusal {
    tracing::debug!(%error, "a budget could not be looked up");
    Refusal::new("unavailable", "the cluster's shared state did not answer; try again")
        .after_ms(limits::SEND_RETRY_MS)
}
