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
//! - `allowance`: whether a sender may send now, by its rates
//! - `posts`: who may write to a topic, and whom that mentions
//! - `mentions`: names in a post; pure
//! - `rosters`: who is in a topic, read when that changes
//! - `adopt`: posts that other programs wrote
//! - [`addressee`]: whom a key leads to, and who may write to them
//! - `audience`: who a multicast is for
//! - `properties`: what a sender says of a message, and how many answers led to it
//! - `push`: what a peer receives; pure
//! - `refusal`: why a send is not taken
//! - [`policy`]: targets, grants and holds; pure

pub(crate) mod addressee;
pub(crate) mod adopt;
mod allowance;
mod audience;
pub mod deliver;
pub mod drain;
mod mentions;
pub mod policy;
pub(crate) mod posts;
pub(crate) mod properties;
mod push;
pub(crate) mod refusal;
pub(crate) mod rosters;
pub(crate) mod sealed;
pub mod send;
#[cfg(test)]
pub(crate) mod testing;

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::cluster::Cluster;
use crate::config::MessageConfig;
use crate::life::Life;
use crate::metrics::Metrics;
use crate::rates::Rates;
use crate::store::{Mail, Members, Stages, TopicMail};
use crate::webhooks::noted::Noted;
use crate::writers::group_commit::CommitQueue;

/// What the functions of this room work with.
pub struct Parts {
    /// Bounds of messages, and how long a claim holds.
    pub config: MessageConfig,
    /// Who may be written to.
    pub members: Arc<dyn Members>,
    /// Who has what to read.
    pub mail: Arc<dyn Mail>,
    /// How far messages are.
    pub stages: Arc<dyn Stages>,
    /// Topics and their posts.
    pub topics: Arc<dyn TopicMail>,
    /// The way to the other nodes.
    pub cluster: Arc<dyn Cluster>,
    /// The way to the disk.
    pub group_commit: CommitQueue<send::PendingSend>,
    /// Turns of drains to read the store.
    pub drains: Semaphore,
    /// What webhooks are to be told.
    pub(crate) noted: Arc<Noted>,
    /// How much a member may send.
    pub rates: Arc<Rates>,
    /// What operators see.
    pub metrics: Arc<Metrics>,
    /// How the node does.
    pub life: Arc<Life>,
}
