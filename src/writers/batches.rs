//! Work for the store that gathers while the last batch is written, and whose callers
//! wait for what became of it.
//!
//! Batches grow with load, and nobody waits for company when there is none. An item that
//! the store never takes costs the others of its batch nothing. The queue is bounded:
//! a caller that finds it full waits. What follows from the items of a batch happens in
//! their order, in a second task, while the next batch is written.

use std::panic::{AssertUnwindSafe, catch_unwind};

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::store::{Result, StoreError};

/// An item, and who waits for it.
type Waiting<T, R> = (T, Caller<R>);

/// Batches that are written, while what follows from them has not happened.
const FOLLOWING_MAX: usize = 2;

/// What follows from an item before its caller hears of it.
type Then<R> = Box<dyn FnOnce(&R) + Send>;

/// Who waits for what became of an item.
struct Caller<R> {
    then: Option<Then<R>>,
    reply: oneshot::Sender<Result<R>>,
}

impl<R> Caller<R> {
    fn hear(self, answer: Result<R>) {
        if let (Some(then), Ok(answer)) = (self.then, &answer) {
            // A panic in what follows is a defect; it must not take the writer with it.
            if catch_unwind(AssertUnwindSafe(|| then(answer))).is_err() {
                tracing::error!("what follows from a write panicked");
            }
        }
        let _ = self.reply.send(answer);
    }
}

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
        self.hand_over(item, None).await
    }

    /// As [`Self::write`]; `then` is called with what became of it before that of any
    /// item handed over later. Must not block.
    pub(crate) async fn write_then(
        &self,
        item: T,
        then: impl FnOnce(&R) + Send + 'static,
    ) -> Result<R> {
        self.hand_over(item, Some(Box::new(then))).await
    }

    async fn hand_over(&self, item: T, then: Option<Then<R>>) -> Result<R> {
        let gone = || StoreError::Unavailable("the node is stopping".to_owned());
        let (reply, answer) = oneshot::channel();
        self.0.send((item, Caller { then, reply })).await.map_err(|_| gone())?;
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
pub(crate) async fn run<T: Send + Sync, R: Send + 'static>(
    gathered: Gathered<T, R>,
    sink: &dyn Sink<T, R>,
    stop: CancellationToken,
) {
    let Gathered { mut waiting, batch_max } = gathered;
    let (written, mut following) = mpsc::channel::<Vec<(Caller<R>, Result<R>)>>(FOLLOWING_MAX);
    let follower = tokio::spawn(async move {
        while let Some(batch) = following.recv().await {
            for (caller, answer) in batch {
                caller.hear(answer);
            }
        }
    });
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
            break;
        }
        let (items, callers): (Vec<T>, Vec<_>) = batch.drain(..).unzip();
        let answers = write(sink, &items).await;
        if written.send(callers.into_iter().zip(answers).collect()).await.is_err() {
            break;
        }
    }
    drop(written);
    if let Err(error) = follower.await {
        tracing::error!(%error, "what follows from the last writes did not happen");
    }
}

/// Writes a batch; an answer for each of its items.
async fn write<T: Send + Sync, R: Send>(sink: &dyn Sink<T, R>, items: &[T]) -> Vec<Result<R>> {
    match sink.write(items).await {
        Ok(answers) => {
            let answers = answers.into_iter().map(Ok);
            answers.chain(std::iter::repeat_with(not_answered)).take(items.len()).collect()
        }
        Err(error) if items.len() == 1 || error.is_retryable() => {
            items.iter().map(|_| Err(again(&error))).collect()
        }
        Err(_) => {
            let mut answers = Vec::with_capacity(items.len());
            for item in items {
                let answer = sink.write(std::slice::from_ref(item)).await;
                let first = |answers: Vec<R>| answers.into_iter().next();
                answers.push(answer.and_then(|all| first(all).map_or_else(not_answered, Ok)));
            }
            answers
        }
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

fn not_answered<R>() -> Result<R> {
    Err(StoreError::Broken("the store did not answer for each of a batch".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    /// Answers each item with itself; never takes 13, and answers for one less than it is
    /// asked where 7 is the last.
    struct Echo;

    #[async_trait]
    impl Sink<u32, u32> for Echo {
        async fn write(&self, batch: &[u32]) -> Result<Vec<u32>> {
            if batch.contains(&13) {
                return Err(StoreError::Broken("never".to_owned()));
            }
            let short = usize::from(batch.last() == Some(&7));
            Ok(batch[..batch.len() - short].to_vec())
        }
    }

    /// Writes these at once; what each caller heard.
    async fn written(items: &[u32], then: impl Fn(u32) + Send + Sync + 'static) -> Vec<bool> {
        let (way_in, gathered) = batches::<u32, u32>(64, 64);
        let (stop, then) = (CancellationToken::new(), Arc::new(then));
        let callers = async {
            let each = items.iter().map(|item| {
                let then = Arc::clone(&then);
                way_in.write_then(*item, move |answer| then(*answer))
            });
            let answers = futures_util::future::join_all(each).await;
            stop.cancel();
            answers
                .iter()
                .zip(items)
                .map(|(answer, item)| matches!(answer, Ok(a) if a == item))
                .collect()
        };
        tokio::join!(callers, run(gathered, &Echo, stop.clone())).0
    }

    #[tokio::test]
    async fn what_follows_happens_in_order_before_its_caller_hears() {
        let items: Vec<u32> = (20..60).collect();
        let followed = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&followed);
        let heard = written(&items, move |answer| noted.lock().push(answer)).await;
        assert!(heard.iter().all(|is_written| *is_written));
        assert_eq!(*followed.lock(), items);
    }

    #[tokio::test]
    async fn an_item_that_is_never_taken_costs_the_others_nothing() {
        let followed = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&followed);
        let heard = written(&[1, 13, 2, 7], move |answer| noted.lock().push(answer)).await;
        assert_eq!(heard, [true, false, true, false], "nobody answered for 7");
        assert_eq!(*followed.lock(), [1, 2], "what was not written has no sequel");
    }

    #[tokio::test]
    async fn a_panic_in_what_follows_takes_nobody_with_it() {
        let heard = written(&[1, 2, 3], |answer| assert_ne!(answer, 2, "on purpose")).await;
        assert_eq!(heard, [true, true, true]);
    }
}
