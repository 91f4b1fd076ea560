//! What a node does with answers, and without them.

use claudemesh_broker::cluster::books::Renewal;
use claudemesh_broker::cluster::redis::fallback::{Ended, Reseed};
use claudemesh_broker::cluster::{Acquired, HeldLease, LeaseState, Release};
use claudemesh_broker::record::PresenceRecord;

use super::Model;
use super::steps::Step;
use super::world::{
    Answer, Call, Gone, Grant, InFlight, MESH, Node, Opening, Renewed, STALE_TICKS, TICK_MS, TIMES,
    World, Wrong, gone, held, id, lease, number_of, record,
};

/// The steps of a node that is awake.
pub fn node_steps(world: &World, node: usize, state: &Node, steps: &mut Vec<Step>) {
    if state.in_flight.first().is_some_and(|call| call.answer.is_some()) {
        steps.push(Step::Hear { node });
    }
    steps.extend((0..state.openings.len()).map(|opening| Step::Open { node, opening }));
    for (socket, one) in state.sockets.iter().enumerate() {
        if one.is_closing || !world.has_client(&one.grant) {
            steps.push(Step::Notice { node, socket });
        }
    }
    let is_renewing =
        state.in_flight.iter().any(|it| matches!(it.call, Call::Renew(_) | Call::Restore(_)));
    if !state.has_renewed && !is_renewing && !state.sockets.is_empty() {
        steps.push(Step::Renew { node });
    }
    if !state.has_reaped && has_expired(world, state) {
        steps.push(Step::Reap { node });
    }
    if state.is_cut {
        steps.push(Step::Heal { node });
    } else if !stale(world).is_empty() {
        steps.push(Step::AdoptStale { node });
    }
}

fn has_expired(world: &World, state: &Node) -> bool {
    let now_ms = world.now_ms();
    if state.is_cut {
        let own = state.own.knowledge(&MESH);
        return own.lines.iter().any(|line| line.expires_ms <= now_ms);
    }
    world.redis.lines().iter().any(|line| line.expires_ms <= now_ms)
}

/// Calls take less than a tick, and every lease is renewed once in it.
pub fn is_in_time(node: &Node) -> bool {
    let is_idle = node.in_flight.is_empty() && node.openings.is_empty();
    node.is_asleep || (is_idle && (node.has_renewed || node.sockets.is_empty()))
}

pub fn tick(world: &mut World) {
    world.now += 1;
    let now = world.now;
    for node in &mut world.nodes {
        node.has_renewed = false;
        node.has_reaped = false;
        if !node.is_asleep {
            for socket in &node.sockets {
                world.rows[socket.grant.presence].touched = now;
            }
        }
    }
}

pub fn send(world: &mut World, node: usize, call: Call) {
    world.nodes[node].in_flight.push(InFlight { call, answer: None });
}

// --- the end of a hello --------------------------------------------------------------

pub fn granted(
    world: &mut World,
    session: usize,
    hello: u8,
    node: usize,
    acquired: Acquired,
) -> Answer {
    let count = u32::try_from(world.redis.len()).expect("few");
    let (lease, is_new, yielded) = match acquired {
        Acquired::New { lease, yielded } => (lease, true, yielded),
        Acquired::Reattached { lease, .. } => (lease, false, Vec::new()),
        Acquired::AtCapacity { .. } => {
            world.saw.full = true;
            return Answer::Full { session, hello, count };
        }
    };
    world.saw.takeover |= !is_new;
    world.saw.yielded |= !yielded.is_empty();
    let client = &mut world.clients[session];
    client.grants += 1;
    client.epoch_max = client.epoch_max.max(lease.epoch);
    let presence = number_of(&lease.presence);
    let grant = Grant { session, hello, node, presence, epoch: lease.epoch };
    let yielded = yielded.iter().map(gone).collect();
    Answer::Granted { grant, is_new, yielded, count, at: world.now }
}

/// The peer is told no, or to come back.
pub fn refuse(world: &mut World, session: usize, hello: u8) {
    let client = &mut world.clients[session];
    if client.hello == hello {
        client.is_here = false;
    }
}

/// A socket is closed since another holds its lease.
pub fn replace(world: &mut World, grant: &Grant) {
    world.saw.replaced = true;
    if world.is_newest(grant) {
        world.note(Wrong::ReplacedByAnOlderOne);
    }
    refuse(world, grant.session, grant.hello);
}

pub fn notice(world: &mut World, node: usize, socket: usize) {
    let now_ms = world.now_ms();
    let state = &mut world.nodes[node];
    let grant = state.sockets.remove(socket).grant;
    let is_up = !state.is_cut;
    state.own.change().release(now_ms, &lease(&grant), Release::Grace);
    if is_up {
        send(world, node, Call::Release(grant));
    }
}

// --- ends ----------------------------------------------------------------------------

pub fn hand_out(world: &mut World, all: &[Gone]) {
    for gone in all {
        if std::mem::replace(&mut world.rows[gone.presence].is_handed, true) {
            world.note(Wrong::ReapedTwice);
        }
    }
}

impl Model {
    /// Ends a presence: whoever changes the row tells the peers. Nobody does if
    /// it came back on another node meanwhile.
    pub fn end(&self, world: &mut World, node: usize, gone: Gone) {
        let presence = gone.presence;
        let is_its = world.rows[presence].node == gone.node || self.wiring.anybody_ends;
        let is_open = world.rows[presence].is_open && is_its;
        world.rows[presence].is_open &= !is_open;
        if is_open {
            world.rows[presence].left += 1;
            if world.rows[presence].left > world.rows[presence].opened {
                world.note(Wrong::LeftWithoutAnEnd);
            }
            let ttl = TIMES.ttl_ms / TICK_MS;
            let is_held = |one: &Node| {
                !one.is_asleep
                    && one.sockets.iter().any(|socket| {
                        socket.grant.presence == presence
                            && !socket.is_closing
                            && world.is_newest(&socket.grant)
                            && socket.heard.is_some_and(|heard| heard + ttl > world.now)
                    })
            };
            if world.nodes.iter().any(is_held) {
                world.note(Wrong::EndedWhileHere);
            }
        }
        // Its socket here is closed; others hear of it, or find out.
        let here = world.nodes[node].sockets.iter().position(|it| it.grant.presence == presence);
        if let Some(here) = here {
            let socket = world.nodes[node].sockets.remove(here);
            refuse(world, socket.grant.session, socket.grant.hello);
        }
    }

    pub fn reap_alone(&self, world: &mut World, node: usize) {
        let now_ms = world.now_ms();
        for record in world.nodes[node].own.change().reap(now_ms, usize::MAX, false) {
            self.end(world, node, gone(&record));
        }
    }

    // --- renewals --------------------------------------------------------------------

    pub fn renew(&self, world: &mut World, node: usize) {
        let grants: Vec<Grant> =
            world.nodes[node].sockets.iter().map(|socket| socket.grant).collect();
        if world.nodes[node].is_cut {
            renew_alone(world, node, &grants);
        } else {
            send(world, node, Call::Renew(grants));
        }
    }

    pub fn hear_renewal(&self, world: &mut World, node: usize, renewed: Renewed) {
        let Renewed { replaced, ended, mut missing, held: kept, at } = renewed;
        let now_ms = world.now_ms();
        for grant in replaced.iter().chain(&ended) {
            world.nodes[node].own.change().forget(&lease(grant));
        }
        for grant in &kept {
            world.nodes[node].own.change().follow_renewal(now_ms, &held(grant));
            let sockets = &mut world.nodes[node].sockets;
            if let Some(socket) = sockets.iter_mut().find(|socket| socket.grant == *grant) {
                socket.heard = Some(at);
            }
        }
        close(world, node, &replaced, true);
        close(world, node, &ended, false);
        missing.retain(|grant| !world.nodes[node].own.has_let_go(now_ms, &lease(grant)));
        if missing.is_empty() {
            world.nodes[node].has_renewed = true;
        } else {
            let call = InFlight { call: Call::Restore(missing), answer: None };
            world.nodes[node].in_flight.push(call);
        }
    }

    // --- without Redis -----------------------------------------------------------------

    pub fn cut(&self, world: &mut World, node: usize) {
        world.faults -= 1;
        world.nodes[node].is_cut = true;
        for InFlight { call, answer } in std::mem::take(&mut world.nodes[node].in_flight) {
            if answer.is_none() {
                world.orphans.push(call.clone());
            }
            match call {
                Call::Acquire { session, hello, presence, .. } => {
                    self.acquire_alone(world, node, session, hello, presence);
                }
                Call::Renew(grants) | Call::Restore(grants) => renew_alone(world, node, &grants),
                Call::Release(_) => {}
                Call::Reap => self.reap_alone(world, node),
            }
        }
    }

    /// The connection is back: Redis is told what this node holds.
    pub fn heal(&self, world: &mut World, node: usize) {
        world.nodes[node].is_cut = false;
        let now_ms = world.now_ms();
        let Reseed { open, in_grace, ended } = world.nodes[node].own.change().take_reseed();
        for ended in ended {
            let books = world.redis.change();
            match ended {
                Ended::Holding(lease) if self.wiring.anybody_ends => {
                    books.revoke(now_ms, &lease.presence);
                }
                Ended::Holding(lease) => {
                    books.release(now_ms, TIMES, &lease, Release::Now);
                }
                Ended::Presence(_, presence) => books.revoke(now_ms, &presence),
            }
        }
        for held in open {
            let presence = number_of(&held.lease.presence);
            let own = &world.nodes[node].own;
            if !is_known(world, presence) && own.has_let_go(now_ms, &held.lease) {
                continue;
            }
            if !is_listed(world, presence) {
                world.rows[presence].is_handed = false;
            }
            match world.redis.change().renew(now_ms, TIMES, &held) {
                Renewal::Held => {}
                Renewal::Replaced | Renewal::Ended => {
                    world.nodes[node].own.change().forget(&held.lease);
                }
            }
        }
        for record in in_grace {
            put_in_grace(world, &record);
        }
    }
}

fn close(world: &mut World, node: usize, grants: &[Grant], is_replaced: bool) {
    for grant in grants {
        let sockets = &mut world.nodes[node].sockets;
        let Some(socket) = sockets.iter_mut().find(|socket| socket.grant == *grant) else {
            continue;
        };
        if std::mem::replace(&mut socket.is_closing, true) {
            continue;
        }
        if is_replaced {
            replace(world, grant);
        } else {
            world.saw.ended = true;
            refuse(world, grant.session, grant.hello);
        }
    }
}

fn renew_alone(world: &mut World, node: usize, grants: &[Grant]) {
    let now_ms = world.now_ms();
    for grant in grants {
        match world.nodes[node].own.change().renew(now_ms, &held(grant)) {
            Renewal::Held => {}
            Renewal::Replaced => close(world, node, &[*grant], true),
            Renewal::Ended => close(world, node, &[*grant], false),
        }
    }
    world.nodes[node].has_renewed = true;
}

/// What Redis may not know: a grace that began on a node.
pub fn put_in_grace(world: &mut World, record: &PresenceRecord) {
    let now_ms = world.now_ms();
    let presence = number_of(&record.id);
    if !is_known(world, presence) {
        adopt(world, record);
    }
    let lease = HeldLease {
        lease: claudemesh_broker::cluster::LeaseRef {
            mesh: MESH.clone(),
            presence: record.id.clone(),
            epoch: record.epoch,
        },
        record: record.clone().into(),
    };
    world.redis.change().release(now_ms, TIMES, &lease.lease, Release::Grace);
}

fn adopt(world: &mut World, record: &PresenceRecord) {
    let now_ms = world.now_ms();
    let presence = number_of(&record.id);
    if !is_listed(world, presence) {
        world.rows[presence].is_handed = false;
    }
    world.redis.change().adopt(now_ms, TIMES, record);
    world.saw.readopted = true;
}

/// Open rows that nobody was heard of for long and that have no lease.
fn stale(world: &World) -> Vec<usize> {
    let is_stale = |presence: &usize| {
        let row = &world.rows[*presence];
        row.is_open && row.touched + STALE_TICKS <= world.now && !is_listed(world, *presence)
    };
    (0..world.rows.len()).filter(is_stale).collect()
}

pub fn adopt_stale(world: &mut World) {
    for presence in stale(world) {
        let row = &world.rows[presence];
        let record = record(row.session, row.node, presence, 0);
        adopt(world, &record);
    }
}

pub fn crash(world: &mut World, node: usize) {
    world.faults -= 1;
    let Node { sockets, in_flight, openings, .. } = std::mem::take(&mut world.nodes[node]);
    let openings = openings.into_iter().map(|opening: Opening| opening.grant);
    for grant in sockets.into_iter().map(|socket| socket.grant).chain(openings) {
        refuse(world, grant.session, grant.hello);
    }
    for InFlight { call, answer } in in_flight {
        if let Call::Acquire { session, hello, .. } = call {
            refuse(world, session, hello);
        }
        if answer.is_none() {
            world.orphans.push(call);
        }
    }
}

pub fn is_listed(world: &World, presence: usize) -> bool {
    world.redis.line(&id(presence)).is_some()
}

/// In the books, or remembered as ended.
pub fn is_known(world: &World, presence: usize) -> bool {
    is_listed(world, presence) || world.redis.has_ended(world.now_ms(), &id(presence))
}

pub fn is_online(world: &World, presence: usize) -> bool {
    world.redis.line(&id(presence)).is_some_and(|line| line.state == LeaseState::Online)
}
