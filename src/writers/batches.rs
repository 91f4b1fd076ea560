//! Work for the store that gathers while the last batch is written, and whose callers
//! wait for what became of it.
//!
//! Batches grow with load, and nobody waits for company when there is none. An item that
//! the store never takes costs the others of its batch nothing. The queue is bounded:
//! a caller that finds it full waits.

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::store::{Result, StoreError};

/// An item, and who waits for it.
type Waiting<T, R> = (T, oneshot::Sender<Result<R>>);

/// The way in.
pub(crate) struct Batches<T, R>(mpsc::Sender<Waiting<T, R>>);

/// The writer's end.
pub(crate) struct Gathered<T, R> {
    waiting: mpsc::Receiver<Waiting<T, R>>,
    batch_max: usize,
}

/// A queue of so many items, written so many at a time.
pub(crate) fn batches<T, R>(queue_max: usize, batch_max: usize) -> (Batches<T, R>, Gathered<T, R>) {
    let (sender, waiting) = mpsc::channel(queue_max);
    (Batches(sender), Gathered { waiting, batch_max })
}

impl<T, R> Batches<T, R> {
    /// Has an item written with others that come now; returns what became of it.
    pub(crate) async fn write(&self, item: T) -> Result<R> {
        let gone = || StoreError::Unavailable("the node is stopping".to_owned());
        let (reply, answer) = oneshot::channel();
        self.0.send((item, reply)).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// Where batches are written.
#[async_trait]
pub(crate) trait Sink<T, R>: Send + Sync {
    /// Writes a batch, and answers for each item in order.
    async fn write(&self, batch: &[T]) -> Result<Vec<R>>;
}

/// Writes what gathers until `stop`, and then what is left. Never cancelled: the sink
/// holds transactions.
pub(crate) async fn run<T: Send + Sync, R: Send>(
    gathered: Gathered<T, R>,
    sink: &dyn Sink<T, R>,
    stop: CancellationToken,
) {
    let Gathered { mut waiting, batch_max } = gathered;
    let mut batch = Vec::new();
    loop {
        let count = tokio::select! {
            count = waiting.recv_many(&mut batch, batch_max) => count,
            () = stop.cancelled(), if !waiting.is_closed() => {
                waiting.close();
                continue;
            }
        };
        if count == 0 {
            return;
        }
        let (items, replies): (Vec<T>, Vec<_>) = batch.drain(..).unzip();
        match sink.write(&items).await {
            Ok(answers) => {
                let mut answers = answers.into_iter();
                for reply in replies {
                    let _ = reply.send(answers.next().ok_or_else(not_answered));
                }
            }
            Err(error) if items.len() == 1 || error.is_retryable() => {
                for reply in replies {
                    let _ = reply.send(Err(again(&error)));
                }
            }
            Err(_) => one_by_one(sink, &items, replies).await,
        }
    }
}

async fn one_by_one<T: Send + Sync, R: Send>(
    sink: &dyn Sink<T, R>,
    items: &[T],
    replies: Vec<oneshot::Sender<Result<R>>>,
) {
    for (item, reply) in items.iter().zip(replies) {
        let written = sink.write(std::slice::from_ref(item)).await;
        let answer =
            written.and_then(|answers| answers.into_iter().next().ok_or_else(not_answered));
        let _ = reply.send(answer);
    }
}

/// The same failure, for each who waited.
fn again(error: &StoreError) -> StoreError {
    let text = error.to_string();
    match error {
        StoreError::Unknown(_) => StoreError::Unknown(text),
        StoreError::Broken(_) | StoreError::Full(_) => StoreError::Broken(text),
        StoreError::Conflict(_) => StoreError::Conflict(text),
        StoreError::NotFound(_) => StoreError::NotFound(text),
        StoreError::Unavailable(_) => StoreError::Unavailable(text),
    }
}

fn not_answered() -> StoreError {
    StoreError::Broken("the store did not answer for each of a batch".to_owned())
}
