//! Who a multicast is for, and what grants keep away.

use super::Parts;
use super::policy::{self, Capability, Target};
use crate::cluster::MulticastSender;
use crate::id::MemberId;
use crate::metrics;
use crate::record::PresenceRecord;
use crate::registry::Room;
use crate::store::StoredEnvelope;

/// Whether a multicast of that number is to go to that presence, as far as its
/// target goes: not if its daemon, which keeps one inbox for all its sessions,
/// gets it too; of a sealed one, only if it can open it.
#[must_use]
pub(crate) fn includes(
    room: &Room,
    target: Target<'_>,
    is_sealed: bool,
    record: &PresenceRecord,
    seq: i64,
) -> bool {
    let is_named = |record: &PresenceRecord| {
        record.visible && target.includes(record) && (record.opens_sealed || !is_sealed)
    };
    is_named(record) && !room.is_in_daemons_inbox(record, is_named, seq)
}

/// Whether a post of a member's topic is to go to this presence of it: not to the sender,
/// not past its grants, and not where its daemon, which keeps one inbox for all its
/// sessions, has it too.
#[must_use]
pub(crate) fn wants_post(
    parts: &Parts,
    room: &Room,
    record: &PresenceRecord,
    sender: &MulticastSender,
) -> bool {
    // Daemons read what they missed, too: whatever the seq, an open one has it.
    let is_in_daemons = room.is_in_daemons_inbox(record, |_| true, i64::MAX);
    record.member != sender.member
        && !is_in_daemons
        && is_granted(parts, room, &record.member, sender, Capability::Dm)
}

/// Who sent an envelope, as a multicast tells it.
#[must_use]
pub(crate) fn sender_of(envelope: &StoredEnvelope) -> MulticastSender {
    MulticastSender {
        member: envelope.sender_member.clone(),
        member_key: envelope.sender_key.clone(),
        session_key: envelope.sender_session_key.clone(),
    }
}

/// Whether the recipient's grants let this sender's multicasts through: by `broadcast`, or
/// for posts by `dm`.
#[must_use]
pub(crate) fn is_granted(
    parts: &Parts,
    room: &Room,
    recipient: &MemberId,
    sender: &MulticastSender,
    capability: Capability,
) -> bool {
    let Some(member) = room.member(recipient) else { return false };
    let session_key = sender.session_key.as_ref();
    let granted = policy::grants(&member, &sender.member_key, session_key, capability);
    if !granted {
        count_dropped(parts, capability);
    }
    granted
}

/// A grant kept a delivery away.
pub(crate) fn count_dropped(parts: &Parts, capability: Capability) {
    let cap = metrics::Capability { cap: capability.as_str() };
    parts.metrics.messages_dropped_by_grant.get_or_create(&cap).inc();
}
