//! Sockets: from an accepted connection to its end.
//!
//! One task owns a socket, everybody else holds a handle to its outbox.
//!
//! - [`address`]: who connects, and how many sockets an address may hold
//! - [`listener`]: accepts connections and serves HTTP on them
//! - [`half_open`]: sockets that have not said hello
//! - [`tap`]: how much a socket has taken, seen below HTTP
//! - [`connection`]: the read and write loops of a WebSocket

pub(crate) mod address;
pub(crate) mod connection;
pub(crate) mod half_open;
pub(crate) mod listener;
pub(crate) mod tap;
