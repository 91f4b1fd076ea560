//! How fast control frames are read.

use std::time::{Duration, Instant};

use axum::extract::ws::Message;

use crate::limits;

/// The pings and pongs of one socket. Each ping is answered by the library as it
/// is read, and none of them is a request with a cost: so a socket on which more
/// come than the bound is read at that bound's pace.
pub(super) struct Pings {
    left: u32,
    since: Instant,
}

impl Pings {
    pub(super) fn new() -> Self {
        Self { left: limits::PINGS_PER_SECOND_MAX, since: Instant::now() }
    }

    /// Counts a ping that came now; returns until when nothing more is to be read.
    fn add(&mut self, now: Instant) -> Option<Instant> {
        const SECOND: Duration = Duration::from_secs(1);
        if now.saturating_duration_since(self.since) >= SECOND {
            *self = Self { left: limits::PINGS_PER_SECOND_MAX, since: now };
        }
        self.left = self.left.saturating_sub(1);
        (self.left == 0).then_some(self.since + SECOND)
    }

    /// What a message means for the next read: until when it waits.
    pub(super) fn pause_after(&mut self, message: &Message) -> Option<Instant> {
        match message {
            Message::Ping(_) | Message::Pong(_) => self.add(Instant::now()),
            _ => None,
        }
    }
}

/// Waits for that moment, if there is one.
pub(super) async fn pause(until: Option<Instant>) {
    if let Some(until) = until {
        // In a box of its own: nearly no socket ever needs one.
        Box::pin(tokio::time::sleep_until(until.into())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_pings_than_the_bound_are_read_at_its_pace() {
        let start = Instant::now();
        let mut pings = Pings::new();
        let mut now = start;
        let mut read = 0;
        while now < start + Duration::from_secs(60) {
            read += 1;
            now = pings.add(now).unwrap_or(now);
        }
        assert!(read <= 61 * limits::PINGS_PER_SECOND_MAX, "{read} in a minute");
        let mut pings = Pings::new();
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            assert_eq!(pings.add(now), None, "one a second is no flood");
        }
    }
}
