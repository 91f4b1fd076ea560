//! Events: what the peers of a mesh are told of each other.
//!
//! - [`shared`]: what a mesh shares is otherwise
//!
//! One word for every feature: an [`Announcement`] is an event, the presence that it is
//! about, and who is not told. Each node tells the sessions that it has; what carries an
//! announcement to the other nodes is the frame of whoever makes it. Called by
//! [`presence`](crate::presence) and [`bus`](crate::bus); an event must never cost a
//! reader its socket.

pub(crate) mod shared;

use std::borrow::Cow;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::cluster::bus::Announcement;
use crate::codec::SharedFrame;
use crate::protocol::{ServerMessage, SystemEvent};
use crate::record::PresenceRecord;
use crate::registry::Room;
use crate::session::outbox::Subject;

/// An event about a presence. `to_own_member`: its member's other sessions are told too.
pub(crate) fn announcement(
    event: &'static str,
    record: &PresenceRecord,
    data: serde_json::Value,
    to_own_member: bool,
) -> Announcement {
    Announcement {
        event: SystemEvent { event: Cow::Borrowed(event), data },
        about: record.id.clone(),
        except_member: (!to_own_member).then(|| record.member.clone()),
    }
}

/// Tells the sessions here. Visitors hear of nobody. A session that is behind with reading
/// is told the newest of each kind about each presence, as far as there is room for
/// events.
pub(crate) fn announce(room: &Room, announcement: &Announcement) {
    let subject = Subject::new(announcement.about.as_str(), announcement.event.event.clone());
    let subject = Arc::new(subject);
    let push = announcement.event.clone().into_push(room.mesh().clone(), Timestamp::now());
    let frame = SharedFrame::new(ServerMessage::Push(Box::new(push)));
    for (session, _) in room.sessions() {
        let told = !session.visitor
            && session.presence != announcement.about
            && announcement.except_member.as_ref() != Some(&session.member);
        if told {
            session.outbox.tell(frame.bytes(session.codec), &subject);
        }
    }
}
