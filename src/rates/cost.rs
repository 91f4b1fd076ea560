//! What each request costs, in units: one is what a frame costs that is no request.
//!
//! A session and its member have a budget of such units, so that what one peer
//! asks for slows that peer and nobody else. Messages have a rate of their own,
//! and confirmations that belong to a delivery are free.

use crate::protocol::ClientMessage;

/// A frame that is no request, and a send over its rate.
pub const OF_NOISE: u32 = 1;

/// A confirmation of something that is not on its way on this socket: the store
/// has to look for it.
pub const OF_STRAY_CONFIRMATION: u32 = 1;

/// Peers that can be told, or listed, for one unit.
const PEERS_PER_UNIT: usize = 25;

/// An answer is cut at [`ANSWER_BYTES_MAX`](crate::limits::ANSWER_BYTES_MAX), and the
/// rest is asked for again: no page lists more peers than this pays for.
const OF_FULL_PAGE: u32 = 50;

/// A message's whole id leads straight to it; by a beginning it is looked for.
const WHOLE_ID_CHARS: usize = 32;

/// What a request costs in a mesh of that many presences.
#[must_use]
pub fn of(message: &ClientMessage<'_>, presences: usize) -> u32 {
    let to_all = of_all(presences);
    match message {
        // Metered by themselves.
        ClientMessage::Send(_) | ClientMessage::ClientAck(_) => 0,
        ClientMessage::Hello(_) | ClientMessage::SessionHello(_) => OF_NOISE,
        ClientMessage::ListPeers(_) => 4 + to_all.min(OF_FULL_PAGE),
        ClientMessage::MessageStatus(ask) => {
            if ask.message_id.len() < WHOLE_ID_CHARS {
                20
            } else {
                4 + to_all.min(OF_FULL_PAGE)
            }
        }
        ClientMessage::SetStatus(_)
        | ClientMessage::SetSummary(_)
        | ClientMessage::SetProfile(_)
        | ClientMessage::SetStats(_)
        | ClientMessage::JoinGroup(_)
        | ClientMessage::LeaveGroup(_) => 4,
        ClientMessage::SetVisible(_) => 10 + to_all,
        ClientMessage::Kick(_)
        | ClientMessage::Disconnect(_)
        | ClientMessage::Ban(_)
        | ClientMessage::Unban(_) => 20 + to_all,
        ClientMessage::Empty(_) => OF_NOISE,
        ClientMessage::ListBans(_) => 10,
        ClientMessage::AuditQuery(_) => 20,
        // The whole chain is read.
        ClientMessage::AuditVerify => 200,
    }
}

/// A presence that begins: a row, an audit row, and everybody is told.
#[must_use]
pub fn of_new_presence(presences: usize) -> u32 {
    10 + of_all(presences)
}

fn of_all(presences: usize) -> u32 {
    u32::try_from(presences / PEERS_PER_UNIT).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{MessageStatus, PageRequest, Status};

    fn list<'a>() -> ClientMessage<'a> {
        ClientMessage::ListPeers(PageRequest::default())
    }

    #[test]
    fn what_is_told_to_everybody_costs_more_the_more_there_are() {
        let visible = ClientMessage::SetVisible(true);
        assert!(of(&visible, 1_000) > of(&visible, 10));
        assert!(of_new_presence(1_000) > of_new_presence(10));
        assert!(of(&list(), 1_000) > of(&list(), 10));
        let status = ClientMessage::SetStatus(Status::Idle);
        assert_eq!(of(&status, 1_000), of(&status, 10));
    }

    #[test]
    fn a_message_that_has_to_be_looked_for_costs_more() {
        let ask = |length| {
            ClientMessage::MessageStatus(MessageStatus {
                message_id: "a".repeat(length),
                cursor: None,
            })
        };
        assert!(of(&ask(8), 0) > of(&ask(32), 0));
    }

    #[test]
    fn however_large_the_mesh_a_cost_is_a_number() {
        assert!(of(&list(), 1_000_000) < 100_000);
    }
}
