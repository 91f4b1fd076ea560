//! What a peer receives of an envelope: made once, moved from there on. Pure.

use std::sync::Arc;

use crate::codec::SharedFrame;
use crate::id::MemberId;
use crate::protocol::{Blob, Push, ServerMessage};
use crate::registry::Room;
use crate::session::inbox::{Delivery, Route};
use crate::store::StoredEnvelope;

/// The push of a direct message. Old daemons drop pushes that carry their own
/// member's key, so it is left out among sessions of one member.
#[must_use]
pub(crate) fn direct(room: &Room, envelope: StoredEnvelope, recipient: &MemberId) -> Push {
    let same_member = envelope.sender_member == *recipient;
    let mut push = of(room, envelope);
    if same_member {
        push.sender_member_pubkey = None;
    }
    push.reply_to_id = None;
    push
}

/// The push of a multicast.
#[must_use]
pub(crate) fn multicast(room: &Room, envelope: StoredEnvelope) -> Push {
    let mut push = of(room, envelope);
    push.client_message_id = None;
    push.request_fingerprint = None;
    push
}

fn of(room: &Room, envelope: StoredEnvelope) -> Push {
    let StoredEnvelope { sender_key, sender_session_key, .. } = envelope;
    Push {
        message_id: envelope.id,
        mesh_id: room.mesh().clone(),
        sender_pubkey: sender_session_key.unwrap_or_else(|| sender_key.clone()),
        sender_member_pubkey: Some(sender_key),
        sender_member_id: Some(envelope.sender_member),
        sender_name: Some(envelope.sender_name),
        priority: envelope.priority,
        nonce: Blob::from_text(envelope.nonce),
        ciphertext: Blob::from_text(envelope.ciphertext),
        created_at: envelope.created_at,
        client_message_id: envelope.client_message_id,
        request_fingerprint: envelope.request_fingerprint,
        reply_to_id: envelope.reply_to_id,
        subtype: None,
        event: None,
        event_data: None,
    }
}

/// A delivery of a push.
#[must_use]
pub(crate) fn delivery(push: Push, route: Route) -> Delivery {
    Delivery {
        id: push.message_id.clone(),
        route,
        priority: push.priority,
        client_message_id: push.client_message_id.as_deref().map(Arc::from),
        frame: Arc::new(SharedFrame::new(ServerMessage::Push(Box::new(push)))),
    }
}
