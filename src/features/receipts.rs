//! Receipts: a sender is told how far its message came, if it wished to be.
//!
//! Best effort: what is lost on its way is not made up for, and `message_status` says how
//! it is. Only sessions hear of them whose client asked for `stages`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Context;
use crate::clock::Timestamp;
use crate::cluster::BusMessage;
use crate::events;
use crate::id::MemberId;
use crate::limits;
use crate::protocol::{Reached, SystemEvent};
use crate::store::Wished;

/// Tells the senders that the asker's session reached that stage with their messages.
pub(super) fn tell(context: &Context<'_>, stage: Reached, wished: Vec<Wished>) {
    let Some(record) = context.room.record(&context.session.presence) else { return };
    let at = Timestamp::now();
    let mut by_sender: BTreeMap<MemberId, Vec<Value>> = BTreeMap::new();
    for Wished { message, client_message_id, sender } in wished {
        let mut receipt = json!({
            "messageId": message,
            "recipient": record.routing_key(),
            "name": record.display_name,
            "stage": stage,
            "at": at,
        });
        if let Some(client_message_id) = client_message_id {
            receipt["clientMessageId"] = json!(client_message_id);
        }
        by_sender.entry(sender).or_default().push(receipt);
    }
    for (sender, receipts) in by_sender {
        for receipts in receipts.chunks(limits::RECEIPTS_AT_ONCE_MAX) {
            let data = json!({ "receipts": receipts });
            let event = SystemEvent { event: Cow::Borrowed("message_receipt"), data };
            to_member(context, sender.clone(), event);
        }
    }
}

/// Tells a member's sessions on every node.
pub(super) fn to_member(context: &Context<'_>, member: MemberId, event: SystemEvent) {
    events::tell_member(context.room, &member, &event);
    let message = BusMessage::ToMember { member, event };
    context.parts.cluster.publish(context.room.mesh(), &message);
}
