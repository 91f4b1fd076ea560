//! Presence: what peers are told of each other, and how a presence ends.
//!
//! A presence begins and ends once in the cluster, whichever nodes try; its peers
//! hear of each exactly once, and never of a hidden one.
//!
//! - [`changes`]: announcements, ends and removals
//! - [`status`]: idle, working, do not disturb, and what follows
//! - [`said`]: what a visitor on another node says for a session here
//! - [`transcript`]: the status that a session's own transcript shows

pub mod changes;
pub mod said;
pub mod status;
pub mod transcript;
