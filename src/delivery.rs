//! Delivery: who gets a message, when, and how the message comes there.
//!
//! A message goes out only after its envelope and its audit row are on disk, and
//! never twice to a session that has confirmed it. Called by sockets (through
//! [`features`](crate::features)), by frames of other nodes ([`bus`](crate::bus))
//! and by [`jobs`](crate::jobs).
//!
//! - [`mod@send`]: a `send`'s checks, its recipients, its way into the group commit
//! - [`deliver`]: what follows a commit, and what arrives over the bus
//! - [`drain`]: a session reads its mail from the store
//! - [`policy`]: targets, grants and holds; pure

pub mod deliver;
pub mod drain;
pub mod policy;
pub mod send;
