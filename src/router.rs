//! Delivery policy: who gets a message, when, and what the mesh is told.
//!
//! - [`mod@send`]: a `send`'s checks, its recipients, its way into the
//!   group commit
//! - [`deliver`]: what follows a commit, and what arrives over the bus
//! - [`presence`]: what peers are told of each other, and how a presence ends
//! - [`bus`]: frames of other nodes
//! - [`status`]: idle, working, do not disturb, and what follows
//! - [`said`]: what a visitor on another node says for a session here
//! - [`policy`]: targets, grants and holds; pure

pub mod bus;
pub mod deliver;
pub mod policy;
pub mod presence;
pub mod said;
pub mod send;
pub mod status;
