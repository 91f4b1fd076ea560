//! What each request costs, in units: one is what a frame costs that is no request.
//!
//! A session and its member have a budget of such units, so that what one peer
//! asks for slows that peer and nobody else. Messages have a rate of their own,
//! and confirmations that belong to a delivery are free.

/// A frame that is no request, and a send over its rate.
pub(crate) const OF_NOISE: u32 = 1;

/// A confirmation of something that is not on its way on this socket: the store
/// has to look for it.
pub(crate) const OF_STRAY_CONFIRMATION: u32 = 1;

/// A call of the HTTP API, whose key is looked for and whose answer may be a list.
pub(crate) const OF_API_CALL: u32 = 20;

/// Peers that can be told, or listed, for one unit.
const PEERS_PER_UNIT: usize = 25;

/// An answer is cut at [`ANSWER_BYTES_MAX`](crate::limits::ANSWER_BYTES_MAX), and the
/// rest is asked for again: no page lists more peers than this pays for.
const OF_FULL_PAGE: u32 = 50;

/// A message's whole id leads straight to it; by a beginning it is looked for.
const WHOLE_ID_CHARS: usize = 32;

/// What everybody is told of, in a mesh of that many presences.
pub(crate) fn told_to(presences: usize, besides: u32) -> u32 {
    besides + of_all(presences)
}

/// A page of a list of that many presences.
pub(crate) fn page_of(presences: usize) -> u32 {
    4 + of_all(presences).min(OF_FULL_PAGE)
}

/// A look for each of so many names.
pub(crate) fn of_names(names: usize) -> u32 {
    4 + u32::try_from(names).unwrap_or(u32::MAX).min(OF_FULL_PAGE)
}

/// What became of a message, told for each of that many presences.
pub(crate) fn look_up(id: &str, presences: usize) -> u32 {
    if id.len() < WHOLE_ID_CHARS { 20 } else { page_of(presences) }
}

/// A presence that begins: a row, an audit row, and everybody is told.
pub(crate) fn of_new_presence(presences: usize) -> u32 {
    told_to(presences, 10)
}

fn of_all(presences: usize) -> u32 {
    u32::try_from(presences / PEERS_PER_UNIT).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_to_everybody_costs_more_the_more_there_are() {
        assert!(told_to(1_000, 10) > told_to(10, 10));
        assert!(of_new_presence(1_000) > of_new_presence(10));
        assert!(page_of(1_000) > page_of(10));
    }

    #[test]
    fn a_message_that_has_to_be_looked_for_costs_more() {
        assert!(look_up(&"a".repeat(8), 0) > look_up(&"a".repeat(32), 0));
    }

    #[test]
    fn however_large_the_mesh_a_cost_is_a_number() {
        assert!(page_of(1_000_000) < 100_000);
    }
}
