//! When everything goes quiet: no more faults, no more clients.

use super::Model;
use super::node::is_online;
use super::steps::Step;
use super::world::{NODES, STALE_TICKS, TICK_MS, TIMES, World};

/// What is left once it is quiet, if it is not as it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unsettled {
    /// A step on the way went wrong.
    Wrong,
    /// Two sockets of one session, and both nodes have renewed.
    TwoOwners,
    /// The books have another number of leases than there are sockets.
    Leaked,
    /// A socket's lease is not in the books.
    Unheld,
    /// The store says otherwise than the sockets.
    Rows,
    /// Somebody left and was not told of, or was told of more than once.
    Told,
}

impl Model {
    /// Lets everything go quiet; what is not as it must be then.
    pub fn settled(&self, world: &World) -> Option<Unsettled> {
        let mut world = world.clone();
        world.faults = 0;
        world.orphans.clear();
        let world = &mut world;
        for node in 0..NODES {
            self.apply(world, Step::Wake { node });
            if world.nodes[node].is_cut {
                self.apply(world, Step::Heal { node });
            }
        }
        // Twice: what one node's renewal takes away the other finds out.
        for _ in 0..2 {
            self.round(world);
        }
        let is_one = |session: usize| {
            let sockets = world.nodes.iter().flat_map(|node| &node.sockets);
            sockets.filter(|it| it.grant.session == session && !it.is_closing).count() <= 1
        };
        if !(0..world.clients.len()).all(is_one) {
            return Some(Unsettled::TwoOwners);
        }
        let ticks = (TIMES.ttl_ms + TIMES.grace_ms) / TICK_MS * 2 + STALE_TICKS;
        for _ in 0..ticks {
            self.notice_all(world);
            self.round(world);
            if world.wrong.is_some() {
                return Some(Unsettled::Wrong);
            }
            // Nothing is left: it is quiet.
            unsettled(world)?;
            self.apply(world, Step::Tick);
        }
        unsettled(world)
    }

    /// Every node renews, reaps, and finishes what is under way.
    fn round(&self, world: &mut World) {
        for node in 0..NODES {
            self.finish(world, node);
            world.nodes[node].has_renewed = false;
            world.nodes[node].has_reaped = false;
            if !world.nodes[node].sockets.is_empty() {
                self.apply(world, Step::Renew { node });
                self.finish(world, node);
            }
            self.apply(world, Step::Reap { node });
            self.finish(world, node);
            self.apply(world, Step::AdoptStale { node });
        }
    }

    fn finish(&self, world: &mut World, node: usize) {
        loop {
            if world.nodes[node].in_flight.iter().any(|call| call.answer.is_none()) {
                self.apply(world, Step::Run { node });
            } else if !world.nodes[node].in_flight.is_empty() {
                self.apply(world, Step::Hear { node });
            } else if !world.nodes[node].openings.is_empty() {
                self.apply(world, Step::Open { node, opening: 0 });
            } else {
                return;
            }
        }
    }

    fn notice_all(&self, world: &mut World) {
        for node in 0..NODES {
            loop {
                let gone = world.nodes[node]
                    .sockets
                    .iter()
                    .position(|socket| socket.is_closing || !world.has_client(&socket.grant));
                let Some(socket) = gone else { break };
                self.apply(world, Step::Notice { node, socket });
                self.finish(world, node);
            }
        }
    }
}

fn unsettled(world: &World) -> Option<Unsettled> {
    let sockets: Vec<usize> = world
        .nodes
        .iter()
        .flat_map(|node| &node.sockets)
        .map(|socket| socket.grant.presence)
        .collect();
    if !sockets.iter().all(|presence| is_online(world, *presence)) {
        return Some(Unsettled::Unheld);
    }
    if world.redis.len() != sockets.len() {
        return Some(Unsettled::Leaked);
    }
    for (presence, row) in world.rows.iter().enumerate() {
        let is_here = sockets.contains(&presence);
        if row.is_open != is_here {
            return Some(Unsettled::Rows);
        }
        if row.left + u8::from(is_here) != row.opened {
            return Some(Unsettled::Told);
        }
    }
    None
}
