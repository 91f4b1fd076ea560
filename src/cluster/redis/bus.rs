//! The fast path between nodes. It may lose frames, and notices when it did.
//!
//! - [`Bus::publish`] numbers a frame and queues it; [`publisher`] sends.
//! - [`subscriber`] keeps a connection of its own that hears the channels of
//!   the joined meshes, and rebuilds it whenever it might be deaf.
//! - A probe goes out by the publisher and must come in by the subscriber.
//! - [`reader`] sorts what arrives into messages and gaps.
//!
//! A gap is told when a number is missing, when a queue of this node was full,
//! and for every joined mesh when the subscription was rebuilt.

mod channel;
mod frame;
mod outbox;
mod probe;
mod publisher;
mod reader;
mod shared;
mod subscriber;

use std::sync::Arc;

use tokio::sync::mpsc;

pub(super) use self::frame::Origin;
pub(super) use self::reader::Push;
pub(super) use self::shared::{Bus, BusQueues};
use super::connection::Opener;
use super::link::Link;
use super::work::Work;
use crate::cluster::ClusterEvent;

/// Starts the bus's tasks.
pub(super) fn start(
    bus: &Arc<Bus>,
    queues: BusQueues,
    (opener, link): (&Arc<Opener>, Arc<Link>),
    events: &mpsc::Sender<ClusterEvent>,
    work: &Work,
) {
    let stop = &work.stop;
    let BusQueues { outbox, joins } = queues;
    work.spawn("the publishing link", {
        let (bus, link, stop) = (Arc::clone(bus), Arc::clone(&link), stop.clone());
        // A probe that found no connection is not waited for.
        async move { link.run(stop, || bus.probe.due.notify_one()).await }
    });
    let publisher = publisher::run(Arc::clone(bus), link, outbox, stop.clone());
    work.spawn("the publisher", publisher);
    let (intake, pushes) = reader::Intake::new();
    let opener = Arc::clone(opener);
    let subscriber = subscriber::run(Arc::clone(bus), opener, intake, joins, stop.clone());
    work.spawn("the subscriber", subscriber);
    let reader = reader::run(Arc::clone(bus), pushes, events.clone(), stop.clone());
    work.spawn("the reader", reader);
}
