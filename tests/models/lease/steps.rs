//! What can happen, one step at a time.

use claudemesh_broker::cluster::books::Renewal;
use claudemesh_broker::cluster::{Acquired, Release};

use super::Model;
use super::node::{
    adopt_stale, crash, granted, hand_out, is_in_time, is_known, is_listed, node_steps, notice,
    put_in_grace, refuse, replace, send, tick,
};
use super::world::{
    Answer, Call, Gone, Grant, InFlight, MESH, Node, Opening, Renewed, Row, Socket, TIMES, World,
    Wrong, gone, held, lease, record,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// A client connects to a node and says hello.
    Hello {
        session: usize,
        node: usize,
    },
    /// A client goes; its node has not noticed.
    Away {
        session: usize,
    },
    /// A node notices that a socket is gone.
    Notice {
        node: usize,
        socket: usize,
    },
    /// A node renews its leases.
    Renew {
        node: usize,
    },
    /// A node reaps.
    Reap {
        node: usize,
    },
    /// Redis runs a node's next call.
    Run {
        node: usize,
    },
    /// A node has the answer to its oldest call.
    Hear {
        node: usize,
    },
    /// A node writes a presence to the store and lets the peer in.
    Open {
        node: usize,
        opening: usize,
    },
    /// Redis runs a call that its node has given up.
    RunOrphan {
        orphan: usize,
    },
    /// A node adopts rows that nobody holds.
    AdoptStale {
        node: usize,
    },
    Tick,
    Wake {
        node: usize,
    },
    /// A node has Redis again, and writes what it holds.
    Heal {
        node: usize,
    },
    // Faults.
    Cut {
        node: usize,
    },
    Sleep {
        node: usize,
    },
    Crash {
        node: usize,
    },
    Wipe,
}

impl Model {
    /// Every step that is possible.
    pub fn steps(&self, world: &World, steps: &mut Vec<Step>) {
        if world.wrong.is_some() {
            return;
        }
        self.clients_steps(world, steps);
        for (node, state) in world.nodes.iter().enumerate() {
            if state.in_flight.iter().any(|call| call.answer.is_none()) {
                steps.push(Step::Run { node });
            }
            if state.is_asleep {
                steps.push(Step::Wake { node });
                continue;
            }
            node_steps(world, node, state, steps);
            if world.faults > 0 {
                self.faults_of(node, state, steps);
            }
        }
        steps.extend((0..world.orphans.len()).map(|orphan| Step::RunOrphan { orphan }));
        if world.faults > 0 && self.faults.wipe && !world.redis.lines().is_empty() {
            steps.push(Step::Wipe);
        }
        if world.now < self.ticks && world.nodes.iter().all(is_in_time) {
            steps.push(Step::Tick);
        }
    }

    fn clients_steps(&self, world: &World, steps: &mut Vec<Step>) {
        for (session, client) in world.clients.iter().enumerate() {
            // Nodes and sessions are alike: the first are the first.
            let is_first = session == 0 || world.clients[session - 1].hello > 0;
            if client.is_here {
                steps.push(Step::Away { session });
            } else if is_first && client.hello < self.hellos {
                let nodes = if world.rows.is_empty() { 1 } else { world.nodes.len() };
                steps.extend((0..nodes).filter_map(|node| {
                    let is_awake = !world.nodes[node].is_asleep;
                    is_awake.then_some(Step::Hello { session, node })
                }));
            }
        }
    }

    fn faults_of(&self, node: usize, state: &Node, steps: &mut Vec<Step>) {
        let has_something = !state.sockets.is_empty() || !state.in_flight.is_empty();
        if self.faults.cut && !state.is_cut {
            steps.push(Step::Cut { node });
        }
        if self.faults.sleep && has_something {
            steps.push(Step::Sleep { node });
        }
        if self.faults.crash && (has_something || !state.openings.is_empty()) {
            steps.push(Step::Crash { node });
        }
    }

    pub fn apply(&self, world: &mut World, step: Step) {
        match step {
            Step::Hello { session, node } => self.hello(world, session, node),
            Step::Away { session } => world.clients[session].is_here = false,
            Step::Notice { node, socket } => notice(world, node, socket),
            Step::Renew { node } => self.renew(world, node),
            Step::Reap { node } => {
                world.nodes[node].has_reaped = true;
                if world.nodes[node].is_cut {
                    self.reap_alone(world, node);
                } else {
                    send(world, node, Call::Reap);
                }
            }
            Step::Run { node } => self.run_next(world, node),
            Step::Hear { node } => self.hear(world, node),
            Step::Open { node, opening } => self.open(world, node, opening),
            Step::RunOrphan { orphan } => {
                let call = world.orphans.remove(orphan);
                self.run(world, &call);
            }
            Step::AdoptStale { .. } => adopt_stale(world),
            Step::Tick => tick(world),
            Step::Wake { node } => world.nodes[node].is_asleep = false,
            Step::Heal { node } => self.heal(world, node),
            Step::Cut { node } => self.cut(world, node),
            Step::Sleep { node } => {
                world.faults -= 1;
                world.nodes[node].is_asleep = true;
            }
            Step::Crash { node } => crash(world, node),
            Step::Wipe => {
                world.faults -= 1;
                world.redis = Default::default();
                world.rows.iter_mut().for_each(|row| row.is_handed = false);
            }
        }
    }

    // --- a hello -------------------------------------------------------------------

    fn hello(&self, world: &mut World, session: usize, node: usize) {
        let client = &mut world.clients[session];
        client.hello += 1;
        client.is_here = true;
        let hello = client.hello;
        let presence = world.rows.len();
        world.rows.push(Row {
            session,
            node,
            is_open: false,
            touched: 0,
            opened: 0,
            left: 0,
            is_handed: false,
        });
        if world.nodes[node].is_cut {
            self.acquire_alone(world, node, session, hello, presence);
            return;
        }
        let epoch_min = world.nodes[node].own.epoch_of(&record(session, node, presence, 0)) + 1;
        send(world, node, Call::Acquire { session, hello, node, presence, epoch_min });
    }

    pub fn acquire_alone(
        &self,
        world: &mut World,
        node: usize,
        session: usize,
        hello: u8,
        presence: usize,
    ) {
        let now_ms = world.now_ms();
        let asked = record(session, node, presence, 0);
        let nodes = u32::try_from(world.nodes.len()).expect("few");
        let acquired = world.nodes[node].own.change().acquire(now_ms, &asked, self.cap, nodes);
        world.saw.alone = true;
        match granted(world, session, hello, node, acquired) {
            Answer::Granted { grant, is_new, yielded, .. } => {
                let opening = Opening { grant, is_new, yielded, heard: None };
                world.nodes[node].openings.push(opening);
            }
            _ => refuse(world, session, hello),
        }
    }

    /// The presence is in the store, and others deliver to it.
    fn open(&self, world: &mut World, node: usize, opening: usize) {
        let Opening { grant, yielded, heard, .. } = world.nodes[node].openings.remove(opening);
        for gone in yielded {
            self.end(world, node, gone);
        }
        let now = world.now;
        let row = &mut world.rows[grant.presence];
        if !row.is_open {
            row.opened += 1;
            row.is_open = true;
        }
        row.touched = now;
        row.node = node;
        let older = world.nodes[node]
            .sockets
            .iter()
            .position(|socket| socket.grant.presence == grant.presence);
        if let Some(older) = older {
            let is_stale = world.nodes[node].sockets[older].grant.epoch > grant.epoch;
            if is_stale && !self.wiring.any_socket_replaces {
                refuse(world, grant.session, grant.hello);
                return;
            }
            let older = world.nodes[node].sockets.remove(older);
            replace(world, &older.grant);
        }
        world.nodes[node].sockets.push(Socket { grant, heard, is_closing: false });
    }

    // --- calls ---------------------------------------------------------------------

    fn run_next(&self, world: &mut World, node: usize) {
        let calls = &world.nodes[node].in_flight;
        let next = calls.iter().position(|call| call.answer.is_none()).expect("one waits");
        let call = world.nodes[node].in_flight[next].call.clone();
        let answer = self.run(world, &call);
        world.nodes[node].in_flight[next].answer = Some(answer);
    }

    /// What Redis does with a call.
    fn run(&self, world: &mut World, call: &Call) -> Answer {
        let now_ms = world.now_ms();
        match call {
            Call::Acquire { session, hello, node, presence, epoch_min } => {
                let asked = record(*session, *node, *presence, epoch_min - 1);
                let cap = self.cap + u32::from(self.wiring.cap_is_off_by_one);
                let acquired = world.redis.change().acquire(now_ms, TIMES, &asked, cap);
                if matches!(acquired, Acquired::New { .. }) && world.redis.len() > self.cap as usize
                {
                    world.note(Wrong::CapExceeded);
                }
                let answer = granted(world, *session, *hello, *node, acquired);
                if let Answer::Granted { yielded, grant, .. } = &answer {
                    world.rows[grant.presence].is_handed = false;
                    hand_out(world, yielded);
                }
                answer
            }
            Call::Renew(grants) => Answer::Renewed(self.run_renewal(world, grants, false)),
            Call::Restore(grants) => Answer::Renewed(self.run_renewal(world, grants, true)),
            Call::Release(grant) => {
                let mut lease = lease(grant);
                if self.wiring.release_ignores_the_epoch
                    && let Some(line) = world.redis.line(&lease.presence)
                {
                    lease.epoch = line.epoch;
                }
                let is_held = world.redis.change().release(now_ms, TIMES, &lease, Release::Grace);
                let is_known = is_held || is_known(world, grant.presence);
                Answer::Released { is_known, grant: *grant }
            }
            Call::Reap => {
                let before = self.wiring.reap_leaves_it_in.then(|| world.redis.clone());
                let reaped = world.redis.change().reap(now_ms, TIMES, 10);
                let reaped: Vec<Gone> = reaped.iter().map(gone).collect();
                if let Some(before) = before.filter(|_| !reaped.is_empty()) {
                    world.redis = before;
                }
                world.saw.reaped |= !reaped.is_empty();
                hand_out(world, &reaped);
                Answer::Reaped(reaped)
            }
        }
    }

    fn run_renewal(&self, world: &mut World, grants: &[Grant], with_records: bool) -> Renewed {
        let now_ms = world.now_ms();
        let mut renewed = Renewed { at: world.now, ..Renewed::default() };
        for grant in grants {
            if !with_records && !is_known(world, grant.presence) {
                renewed.missing.push(*grant);
                continue;
            }
            if !is_listed(world, grant.presence) {
                world.rows[grant.presence].is_handed = false;
            }
            let mut renewal = world.redis.change().renew(now_ms, TIMES, &held(grant));
            let is_forced = (renewal == Renewal::Replaced && self.wiring.renewal_ignores_the_epoch)
                || (renewal == Renewal::Ended && self.wiring.ends_are_forgotten);
            if is_forced {
                world.redis.change().put(now_ms, TIMES, &held(grant));
                renewal = Renewal::Held;
            }
            match renewal {
                Renewal::Held => renewed.held.push(*grant),
                Renewal::Replaced => renewed.replaced.push(*grant),
                Renewal::Ended => renewed.ended.push(*grant),
            }
            world.saw.restored |= with_records;
        }
        renewed
    }

    fn hear(&self, world: &mut World, node: usize) {
        let InFlight { answer, .. } = world.nodes[node].in_flight.remove(0);
        let now_ms = world.now_ms();
        match answer.expect("it was run") {
            Answer::Granted { grant, is_new, yielded, count, at } => {
                let own = &mut world.nodes[node].own;
                own.change().follow(now_ms, &held(&grant));
                own.change().see_count(&MESH, count);
                let opening = Opening { grant, is_new, yielded, heard: Some(at) };
                world.nodes[node].openings.push(opening);
            }
            Answer::Full { session, hello, count } => {
                world.nodes[node].own.change().see_count(&MESH, count);
                refuse(world, session, hello);
            }
            Answer::Renewed(renewed) => self.hear_renewal(world, node, renewed),
            Answer::Released { is_known: true, .. } => {}
            Answer::Released { is_known: false, grant } => {
                if let Some(record) = world.nodes[node].own.record_of(&lease(&grant)) {
                    put_in_grace(world, &record);
                }
            }
            Answer::Reaped(reaped) => {
                world.nodes[node].own.change().reap(now_ms, usize::MAX, true);
                for gone in reaped {
                    self.end(world, node, gone);
                }
            }
        }
    }
}
