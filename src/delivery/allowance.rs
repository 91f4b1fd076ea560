//! Whether a sender may send now: by its rates, and what they count it as.
//!
//! Whom a key leads to is looked for in memory first, so that a send takes all that it
//! counts towards in one step. What its sender has sent before, under the same id, is kept
//! already and refused for no pair and no multicast: the group commit knows.

use super::policy::Target;
use super::refusal::Refusal;
use crate::delivery::Parts;
use crate::id::MemberId;
use crate::protocol::{Priority, Send};
use crate::rates::{Counted, OverRate, Scope, Whom};
use crate::registry::Room;
use crate::session::Session;
use crate::store::{Member, Role};
use crate::writers::group_commit::Refused;

/// What a send has taken of its sender's rates.
pub(crate) struct Allowance {
    counted: Counted,
    /// Why it is refused, unless it is one that was sent before.
    over: Option<Refusal>,
    /// Whether the recipient is still to be paid for.
    owes_pair: bool,
}

impl Allowance {
    /// Of what costs nothing.
    pub(crate) const fn free() -> Self {
        Self { counted: Counted::nothing(), over: None, owes_pair: false }
    }

    /// Takes what a send costs, as far as memory tells whom it is for.
    pub(super) async fn take(
        parts: &Parts,
        room: &Room,
        session: &Session,
        send: &Send<'_>,
    ) -> Result<Self, Refusal> {
        if !parts.rates.meter_sends() {
            return Ok(Self::free());
        }
        let member = match Target::parse(&send.target_spec) {
            Target::Key(key) => room.member_behind(key),
            Target::Everyone | Target::Group(_) | Target::Topic(_) => None,
        };
        let is_one = matches!(Target::parse(&send.target_spec), Target::Key(_));
        let whom = match &member {
            Some(member) => Whom::Member(&member.id),
            None if is_one => Whom::Unknown,
            None => Whom::Many,
        };
        let is_urgent = is_urgent(send.priority, member.as_deref());
        let (rates, cluster) = (&parts.rates, &*parts.cluster);
        let over = match rates.may_send(cluster, &session.member, whom, is_urgent).await {
            Ok(counted) => {
                let owes_pair = whom == Whom::Unknown;
                return Ok(Self { counted, over: None, owes_pair });
            }
            Err(over) => over,
        };
        if over.scope == Scope::Member || !has_id(send) {
            return Err(over.into());
        }
        // Looked up as one that may have been sent before, it counts towards the member.
        let counted = rates.may_send(cluster, &session.member, Whom::Unknown, false).await?;
        Ok(Self { counted, over: Some(over.into()), owes_pair: false })
    }

    /// Takes what is left to take, now that the recipient is known.
    pub(super) async fn reach(
        &mut self,
        parts: &Parts,
        room: &Room,
        session: &Session,
        to: &MemberId,
        (priority, is_repeatable): (Priority, bool),
    ) -> Result<(), Refusal> {
        if !std::mem::take(&mut self.owes_pair) {
            return Ok(());
        }
        let is_urgent = is_urgent(priority, room.member(to).as_deref());
        let from = &session.member;
        match parts.rates.may_reach(&*parts.cluster, from, to, is_urgent).await {
            Ok(counted) => self.counted = counted,
            Err(over) if is_repeatable => self.over = Some(over.into()),
            Err(over) => return Err(over.into()),
        }
        Ok(())
    }

    /// Whether it is to be taken only as one that was sent before.
    pub(super) fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// The message is kept, and is a new one.
    pub(super) fn spend(&mut self) {
        self.counted.spend();
    }

    /// Why a send is not kept.
    pub(super) fn refusal(&mut self, refused: Refused) -> Refusal {
        match self.over.take() {
            Some(over) if refused == Refused::OverRate => over,
            _ => refused.into(),
        }
    }
}

/// Whether the sender has an id of its own for a send, by which it may come again.
pub(super) fn has_id(send: &Send<'_>) -> bool {
    send.client_message_id.as_deref().is_some_and(|id| !id.is_empty())
}

/// Whether a message tells somebody who can help that its sender is stuck.
fn is_urgent(priority: Priority, to: Option<&Member>) -> bool {
    let may_help = |member: &Member| member.role == Role::Admin || member.is_owner;
    priority == Priority::Now && to.is_some_and(may_help)
}

impl From<OverRate> for Refusal {
    fn from(over: OverRate) -> Self {
        Self {
            retry_after_ms: Some(over.wait_ms()),
            scope: Some(over.scope.as_str()),
            limit: Some(over.per_minute),
            ..Self::new("rate_limit", over.text())
        }
    }
}
