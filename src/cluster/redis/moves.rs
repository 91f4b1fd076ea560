//! Whether a node's connections still lead to the server that they should.
//!
//! After a failover only some of them notice: a demoted primary answers
//! `PUBLISH` with OK, and keeps its subscribers. So when one connection had to
//! be given up, all the others are opened anew, once.

use tokio::sync::watch;

/// Counts how often that was so.
pub(super) struct Moves {
    count: watch::Sender<u64>,
}

impl Moves {
    pub(super) fn new() -> Self {
        Self { count: watch::Sender::new(0) }
    }

    /// To be asked before a connection is opened.
    pub(super) fn now(&self) -> u64 {
        *self.count.borrow()
    }

    /// A connection that was opened at `seen` had to be given up. Nothing is
    /// new in that if another one said so since.
    pub(super) fn note(&self, seen: u64) {
        self.count.send_if_modified(|count| {
            let is_news = *count == seen;
            *count += u64::from(is_news);
            is_news
        });
    }

    /// Waits until another connection than one of `seen` had to be given up.
    pub(super) async fn after(&self, seen: u64) {
        let mut count = self.count.subscribe();
        // Its sender is this.
        let _ = count.wait_for(|count| *count != seen).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_server_that_goes_is_one_move_however_many_notice() {
        let moves = Moves::new();
        let seen = moves.now();
        moves.note(seen);
        moves.note(seen);
        assert_eq!(moves.now(), seen + 1);
        moves.after(seen).await;
        moves.note(moves.now());
        assert_eq!(moves.now(), seen + 2);
    }
}
