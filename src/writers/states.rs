//! Writes to shared state on their way to the store: those that come at once meet in one
//! transaction, like sends.

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::clock::Timestamp;
use crate::limits;
use crate::store::{Result, StateWrite, StateWritten, States};
use crate::writers::batches::{self, Batches, Gathered, Sink};

/// The way in.
pub(crate) type StateWriter = Batches<StateWrite, StateWritten>;

/// The writer's end.
pub(crate) type StateWrites = Gathered<StateWrite, StateWritten>;

/// A writer, and what it reads.
pub(crate) fn writer() -> (StateWriter, StateWrites) {
    batches::batches(limits::STATE_QUEUE_MAX, limits::STATE_BATCH_MAX)
}

/// Writes until `stop`, and then what is left.
pub(crate) async fn run(writes: StateWrites, store: &dyn States, stop: CancellationToken) {
    batches::run(writes, &Writes(store), stop).await;
}

struct Writes<'s>(&'s dyn States);

#[async_trait]
impl Sink<StateWrite, StateWritten> for Writes<'_> {
    async fn write(&self, batch: &[StateWrite]) -> Result<Vec<StateWritten>> {
        self.0.write(Timestamp::now(), batch).await
    }
}
