//! One running node: what its rooms share, in one box without behaviour.
//!
//! [`app`](crate::app) makes the box, [`socket`](crate::socket) is handed it. Every
//! other room has parts of its own and must never name this.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::accounts::Keys;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::jobs::sample::Sampler;
use crate::life::Life;
use crate::metrics::Metrics;
use crate::rates::Rates;
use crate::registry::Registry;
use crate::store::Stores;
use crate::writers::confirmations::Confirmations;
use crate::{admission, delivery, features, presence, webhooks};

/// One running node, shared by reference count.
pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) stores: Stores,
    /// What accounts prove themselves by.
    pub(crate) keys: Arc<Keys>,
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) delivery: Arc<delivery::Parts>,
    pub(crate) presence: Arc<presence::Parts>,
    pub(crate) admission: Arc<admission::Parts>,
    pub(crate) features: Arc<features::Parts>,
    pub(crate) confirmations: Arc<Confirmations>,
    /// The turn to walk an audit chain, of which there is one.
    pub(crate) verifying: Arc<Semaphore>,
    pub(crate) rates: Arc<Rates>,
    pub(crate) metrics: Arc<Metrics>,
    /// How the node does, for operators and the other nodes.
    pub(crate) sampler: Arc<Sampler>,
    /// Who may call, and what is called.
    pub(crate) webhooks: Arc<webhooks::Parts>,
    /// Work that must end, and signals.
    pub(crate) life: Arc<Life>,
}
