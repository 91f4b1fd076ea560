//! Webhooks: who may call, and what the broker calls.
//!
//! A call that the broker makes carries ids, names and numbers, never what is in a
//! message; what it is about is in the store before, so that a node that dies leaves it
//! to the next. A secret or an address must never reach a log line. Called by
//! [`http`](crate::http), [`features`](crate::features) and [`jobs`](crate::jobs);
//! [`delivery`](crate::delivery) and [`admission`](crate::admission) note what happened.
//!
//! - [`signing`]: Standard Webhooks, and GitHub's way; pure
//! - [`address`]: which addresses may be called; pure
//! - [`call`]: one call
//! - [`tell`]: what waits is told, by one node at a time
//! - [`noted`]: events that have no row of their own

pub(crate) mod address;
mod call;
pub(crate) mod noted;
pub(crate) mod signing;
pub(crate) mod tell;

use std::sync::Arc;

use tokio::sync::Semaphore;

use self::noted::Noted;
use crate::config::WebhookConfig;
use crate::id::MeshId;
use crate::life::Life;
use crate::limits;
use crate::store::Webhooks;

/// What the functions of this room work with.
pub(crate) struct Parts {
    pub(crate) store: Arc<dyn Webhooks>,
    pub(crate) life: Arc<Life>,
    /// What the broker's own HTTP addresses begin with.
    pub(crate) base_url: String,
    /// Whether addresses of private networks may be called.
    pub(crate) allows_private: bool,
    /// Events that have no row of their own, until they are written.
    pub(crate) noted: Arc<Noted>,
    /// Turns to call an address.
    calls: Arc<Semaphore>,
}

impl Parts {
    pub(crate) fn new(
        config: &WebhookConfig,
        base_url: String,
        store: Arc<dyn Webhooks>,
        noted: Arc<Noted>,
        life: Arc<Life>,
    ) -> Self {
        Self {
            store,
            life,
            base_url,
            allows_private: config.allows_private,
            noted,
            calls: Arc::new(Semaphore::new(limits::WEBHOOK_CALLS_MAX)),
        }
    }

    /// The address that others call.
    pub(crate) fn address_of(&self, mesh: &MeshId, secret: &str) -> String {
        format!("{}/hook/{mesh}/{secret}", self.base_url)
    }
}
