//! Sends queued frames, in order, without waiting for one answer before the
//! next batch: across regions an answer takes long.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt as _, TryStreamExt as _};
use redis::{Cmd, Pipeline, RedisError, RedisResult};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::frame;
use super::outbox::{Queued, QueuedFrame};
use super::shared::Bus;
use crate::cluster::redis::connection::Connection;
use crate::cluster::redis::link::Link;

/// Frames sent at once. More: they go into the next batch.
const BATCH_FRAMES_MAX: usize = 512;

/// Batches whose answers are awaited. More: the queue waits.
const BATCHES_MAX: usize = 32;

/// As above in a Redis Cluster, whose client does not keep the order of
/// requests.
const SHARDED_BATCHES_MAX: usize = 1;

/// From sending a batch to its answers. Later: it counts as lost.
const BATCH_TIMEOUT: Duration = Duration::from_secs(3);

/// A batch that failed: its frames, and how it did.
type Lost = (Vec<QueuedFrame>, u64, RedisError);

type Sending = Pin<Box<dyn Future<Output = Option<Lost>> + Send>>;

/// Publishes until `stop`.
pub(super) async fn run(
    bus: Arc<Bus>,
    link: Arc<Link>,
    outbox: mpsc::Receiver<Queued>,
    stop: CancellationToken,
) {
    let batches_max = if bus.keys.is_cluster() { SHARDED_BATCHES_MAX } else { BATCHES_MAX };
    let under_way = FuturesUnordered::new();
    let mut publisher = Publisher { bus, link, under_way, batches_max };
    tokio::select! {
        () = stop.cancelled() => {}
        () = publisher.run(outbox) => {}
    }
}

struct Publisher {
    bus: Arc<Bus>,
    link: Arc<Link>,
    under_way: FuturesUnordered<Sending>,
    batches_max: usize,
}

impl Publisher {
    async fn run(&mut self, mut outbox: mpsc::Receiver<Queued>) {
        let mut batch = Vec::with_capacity(BATCH_FRAMES_MAX);
        loop {
            tokio::select! {
                count = outbox.recv_many(&mut batch, BATCH_FRAMES_MAX),
                    if self.under_way.len() < self.batches_max =>
                {
                    if count == 0 {
                        return;
                    }
                    self.send_batch(&mut batch).await;
                }
                () = self.bus.probe.due.notified() => self.send(vec![self.bus.probe_frame()]).await,
                Some(lost) = self.under_way.next() => self.finish(lost),
            }
        }
    }

    async fn send_batch(&mut self, batch: &mut Vec<Queued>) {
        let mut frames = Vec::with_capacity(batch.len());
        for queued in batch.drain(..) {
            match queued {
                Queued::Frame(frame) => frames.push(frame),
                Queued::Flush(done) => {
                    self.send(std::mem::take(&mut frames)).await;
                    while let Some(lost) = self.under_way.next().await {
                        self.finish(lost);
                    }
                    let _ = done.send(());
                }
            }
        }
        self.send(frames).await;
    }

    async fn send(&mut self, frames: Vec<QueuedFrame>) {
        if frames.is_empty() {
            return;
        }
        self.bus.outbox.taken(&frames);
        let Ok((generation, connection)) = self.link.connection() else {
            self.bus.note_unsent(&frames);
            return;
        };
        let cmds = frames
            .iter()
            .map(|frame| (frame.channel.clone(), self.publish_cmd(frame, &connection)))
            .collect();
        let mut sending: Sending = Box::pin(tokio::task::unconstrained(async move {
            match tokio::time::timeout(BATCH_TIMEOUT, transmit(connection, cmds)).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some((frames, generation, error)),
                Err(_) => {
                    let error = std::io::Error::from(std::io::ErrorKind::TimedOut);
                    Some((frames, generation, error.into()))
                }
            }
        }));
        // Polled once here, in order: that hands the batch to the connection.
        match std::future::poll_fn(|context| Poll::Ready(sending.as_mut().poll(context))).await {
            Poll::Ready(lost) => self.finish(lost),
            Poll::Pending => self.under_way.push(sending),
        }
    }

    fn publish_cmd(&self, frame: &QueuedFrame, connection: &Connection) -> Cmd {
        let number = (frame.seq, frame.first);
        let Bus { seals, origin, .. } = &*self.bus;
        let bytes = frame::encode(seals, &frame.channel, origin, number, &frame.payload);
        let mut publish = redis::cmd(match connection {
            Connection::Plain(_) => "PUBLISH",
            Connection::Sharded(_) => "SPUBLISH",
        });
        publish.arg(&frame.channel).arg(bytes);
        publish
    }

    fn finish(&self, lost: Option<Lost>) {
        if let Some((frames, generation, error)) = lost {
            tracing::debug!(%error, frames = frames.len(), "frames may not have been published");
            self.bus.note_unsent(&frames);
            self.link.note_failure(generation, &error);
        }
    }
}

/// One server takes a batch as it is. In a Redis Cluster the frames of a
/// channel stay together, and so in order; channels do not wait for each other.
async fn transmit(connection: Connection, cmds: Vec<(String, Cmd)>) -> RedisResult<()> {
    let mut pipelines: HashMap<String, Pipeline> = HashMap::new();
    for (channel, cmd) in cmds {
        let together = match connection {
            Connection::Plain(_) => String::new(),
            Connection::Sharded(_) => channel,
        };
        pipelines.entry(together).or_default().add_command(cmd).ignore();
    }
    let sending: FuturesUnordered<_> = pipelines
        .into_values()
        .map(|pipeline| {
            let mut connection = connection.clone();
            async move { pipeline.query_async::<()>(&mut connection).await }
        })
        .collect();
    sending.try_collect().await
}
