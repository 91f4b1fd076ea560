//! Events: what the peers of a mesh are told of each other.
//!
//! - [`shared`]: what a mesh shares is otherwise
//! - [`streams`]: what is published to a stream
//!
//! One word for every feature: an [`Announcement`] is an event, the presence that it is
//! about, and who is not told. Each node tells the sessions that it has; what carries an
//! announcement to the other nodes is the frame of whoever makes it. Called by
//! [`presence`](crate::presence), [`bus`](crate::bus) and [`jobs`](crate::jobs); an event
//! must never cost a reader its socket.

pub(crate) mod shared;
pub(crate) mod streams;

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::json;

use crate::clock::Timestamp;
use crate::cluster::SimClock;
use crate::cluster::bus::Announcement;
use crate::codec::SharedFrame;
use crate::id::MemberId;
use crate::protocol::{Push, ServerMessage, SystemEvent, webhooks};
use crate::record::PresenceRecord;
use crate::registry::Room;
use crate::session::Session;
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

/// Tells one session here, also of itself.
pub(crate) fn tell(room: &Room, session: &Session, announcement: &Announcement) {
    let (frame, subject) = framed(room, announcement);
    session.outbox.tell(frame.bytes(session.codec), &subject);
}

fn framed(room: &Room, announcement: &Announcement) -> (SharedFrame, Arc<Subject>) {
    let subject = Subject::new(announcement.about.as_str(), announcement.event.event.clone());
    let push = announcement.event.clone().into_push(room.mesh().clone(), Timestamp::now());
    (SharedFrame::new(ServerMessage::Push(Box::new(push))), Arc::new(subject))
}

/// Tells the sessions here. Visitors hear of nobody. A session that is behind with reading
/// is told the newest of each kind about each presence, as far as there is room for
/// events.
pub(crate) fn announce(room: &Room, announcement: &Announcement) {
    let (frame, subject) = framed(room, announcement);
    for (session, _) in room.sessions() {
        let told = !session.visitor
            && session.presence != announcement.about
            && announcement.except_member.as_ref() != Some(&session.member);
        if told {
            session.outbox.tell(frame.bytes(session.codec), &subject);
        }
    }
}

/// Events for those alone whose client asked for `stages`.
const OF_STAGES: [&str; 2] = ["message_receipt", "message_withdrawn"];

/// Tells the sessions of one member here, visitors excepted: of events of one kind, one
/// that is behind with reading is told the newest.
pub(crate) fn tell_member(room: &Room, member: &MemberId, event: &SystemEvent) {
    let push = event.clone().into_push(room.mesh().clone(), Timestamp::now());
    let is_of_stages = OF_STAGES.contains(&&*event.event);
    // Of receipts the newest does not say what the others did.
    let about = if is_of_stages { push.message_id.as_str() } else { member.as_str() };
    let subject = Arc::new(Subject::new(about, event.event.clone()));
    let frame = SharedFrame::new(ServerMessage::Push(Box::new(push)));
    for (session, record) in room.sessions() {
        let is_told = !is_of_stages || record.stages;
        if is_told && !session.visitor && session.member == *member {
            session.outbox.tell(frame.bytes(session.codec), &subject);
        }
    }
}

/// Tells the sessions here, hidden ones too, that the mesh's simulation clock has ticked;
/// of each tick once. Visitors came for something else.
pub(crate) fn tick(room: &Room, clock: &SimClock) {
    room.tell_tick(clock, || {
        let data = json!({ "tick": clock.tick, "simTime": clock.sim_time(), "speed": clock.speed });
        let event = SystemEvent { event: Cow::Borrowed("tick"), data };
        let push = event.into_push(room.mesh().clone(), Timestamp::now());
        let frame = SharedFrame::new(ServerMessage::Push(Box::new(push)));
        let subject = Arc::new(Subject::new("clock", "tick"));
        room.for_each_session(|session, _| {
            if !session.visitor {
                session.outbox.tell(frame.bytes(session.codec), &subject);
            }
        });
    });
}

/// Hands what another program posted to the sessions here, but for those whose daemon,
/// which keeps one inbox for all its sessions, has it. A session that is behind with
/// reading may miss it: a post is kept nowhere.
pub(crate) fn post(room: &Room, push: Push) {
    let subject = Arc::new(Subject::new(push.message_id.as_str(), "webhook"));
    let framed = |push| SharedFrame::new(ServerMessage::Push(Box::new(push)));
    let (text, whole) = (webhooks::as_text(&push).map(framed), framed(push));
    for (session, record) in room.sessions() {
        if session.visitor || room.is_in_daemons_inbox(&record, |_| true, i64::MAX) {
            continue;
        }
        let frame = match &text {
            Some(text) if record.shows_texts_only() => text,
            _ => &whole,
        };
        session.outbox.tell(frame.bytes(session.codec), &subject);
    }
}
