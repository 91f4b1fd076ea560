//! What runs brokers of its own on this machine: the demo, the bench with the
//! relay that it compares them to, and a cluster with its databases.
//!
//! The root of the command line calls it. It may use whatever an operator's
//! command uses, and no part of a broker that serves may ever import it.

pub(crate) mod bench;
pub(crate) mod cluster;
pub(crate) mod demo;
mod relay;
mod scratch;
