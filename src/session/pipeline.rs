//! Requests that are on their way to the store while their session's next frames are
//! read.
//!
//! Such requests reach the store in the order in which they came. Any other request
//! waits until they are done, so that a peer reads what it wrote, and its messages leave
//! after what it wrote before. Bounded: one more than [`PIPELINED_MAX`] waits.
//!
//! [`PIPELINED_MAX`]: crate::limits::PIPELINED_MAX

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::Session;
use super::outbox::Owed;
use crate::limits;

/// The requests of one session that are under way.
pub(super) struct Pipeline(Semaphore);

impl Default for Pipeline {
    fn default() -> Self {
        Self(Semaphore::new(limits::PIPELINED_MAX as usize))
    }
}

/// A request under way, until this is dropped; and the room for its answer.
pub(crate) struct Pipelined {
    session: Arc<Session>,
    _owed: Owed,
}

impl Session {
    /// Begins a request that the next one need not wait for; its answer takes at most
    /// so many bytes.
    pub(crate) async fn pipeline(self: &Arc<Self>, answer_bytes: usize) -> Pipelined {
        if let Ok(permit) = self.pipeline.0.acquire().await {
            permit.forget();
        }
        Pipelined { session: Arc::clone(self), _owed: self.outbox.owe(answer_bytes) }
    }

    /// Whether requests are under way that others have to wait for.
    pub(crate) fn has_pipelined(&self) -> bool {
        self.pipeline.0.available_permits() < limits::PIPELINED_MAX as usize
    }

    /// Waits until none is.
    pub(crate) async fn pipelined_is_done(&self) {
        if self.has_pipelined() {
            // Waits behind those under way, and gives all back at once.
            let _ = self.pipeline.0.acquire_many(limits::PIPELINED_MAX).await;
        }
    }
}

impl Drop for Pipelined {
    fn drop(&mut self) {
        self.session.pipeline.0.add_permits(1);
    }
}
