//! What is published to a stream: told to the sessions here that subscribe, but for the
//! publisher.
//!
//! Nothing of it is kept, and what is lost on its way is not made up for. A subscriber
//! that is behind with reading is told the newest data, as far as there is room for
//! events. Called by [`features`](crate::features), and by [`bus`](crate::bus) for what was
//! published elsewhere.

use std::sync::Arc;

use crate::cluster::bus::Published;
use crate::codec::SharedFrame;
use crate::protocol::ServerMessage;
use crate::registry::Room;
use crate::session::outbox::Subject;

/// Tells the subscribers here.
pub(crate) fn tell(room: &Room, published: Published) {
    let Published { by, data } = published;
    let stream = data.stream.clone();
    let frame = SharedFrame::new(ServerMessage::StreamData(data));
    let subject = Arc::new(Subject::of_data());
    room.for_each_session(|session, record| {
        if session.presence != by && record.streams.contains(&stream) {
            session.outbox.tell(frame.bytes(session.codec), &subject);
        }
    });
}
