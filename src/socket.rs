//! Sockets: from an accepted connection to its end.
//!
//! One task owns a socket, everybody else holds a handle to its outbox.
//!
//! - [`address`]: who connects, and how many sockets an address may hold
//! - [`listener`]: accepts connections and serves HTTP on them
//! - [`half_open`]: sockets that have not said hello
//! - [`tap`]: how much a socket has taken, seen below HTTP
//! - [`connection`]: the read and write loops of a WebSocket

pub mod address;
pub mod connection;
pub mod half_open;
pub mod listener;
pub mod tap;
