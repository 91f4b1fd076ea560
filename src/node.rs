//! One running node: what its rooms share, in one box.
//!
//! Made by [`app`](crate::app) and handed to [`socket`](crate::socket). Rooms further
//! down take their own parts from it, never all of it.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::cluster::Cluster;
use crate::config::Config;
use crate::life::Life;
use crate::metrics::Metrics;
use crate::rates::Rates;
use crate::registry::Registry;
use crate::store::Stores;
use crate::vitals::Vitals;
use crate::writers::confirmations::Confirmations;
use crate::{admission, delivery, features, presence};

/// One running node. Made by [`app`](crate::app), shared by reference count.
pub struct Node {
    /// Its configuration.
    pub config: Config,
    /// The durable side.
    pub stores: Stores,
    /// What nodes share.
    pub cluster: Arc<dyn Cluster>,
    /// Live sessions and the mirrored directory.
    pub registry: Arc<Registry>,
    /// How messages come to their peers.
    pub delivery: Arc<delivery::Parts>,
    /// What peers are told of each other.
    pub presence: Arc<presence::Parts>,
    /// How a hello becomes a session.
    pub admission: Arc<admission::Parts>,
    /// How requests are answered.
    pub features: Arc<features::Parts>,
    /// Deliveries that are done.
    pub confirmations: Arc<Confirmations>,
    /// The turn to walk an audit chain, of which there is one.
    pub verifying: Arc<Semaphore>,
    /// Rate limits.
    pub rates: Arc<Rates>,
    /// What `/metrics` exports.
    pub metrics: Arc<Metrics>,
    /// What operators see of the last hour.
    pub vitals: Vitals,
    /// How it does.
    pub life: Arc<Life>,
}
