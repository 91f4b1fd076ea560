//! Ports for what a test starts.

use std::net::TcpListener;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below those that `cluster up` takes for itself, and those that the system
/// gives to whoever asks for any and to the near end of every connection.
const FIRST: u16 = 10_000;
const COUNT: u16 = 10_000;

/// A port that nobody listens on, and that no other test of this process gets:
/// it stays free until its server listens, and while that server is away.
/// Another process may take it, so whoever starts a server there makes sure
/// that it is the one that answers.
pub(crate) fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> =
        LazyLock::new(|| AtomicU16::new(rand::random_range(0..COUNT)));
    let ports = std::iter::repeat_with(|| {
        let step = |next: u16| Some((next + 1) % COUNT);
        let next = NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        FIRST + next.expect("there is always a next one")
    });
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.take(usize::from(COUNT)).find(is_free).expect("a free port")
}
