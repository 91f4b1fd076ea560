//! A cluster of many nodes over Redis 7 or Valkey, one server or a Redis
//! Cluster.
//!
//! Everything here is a lease on attention: it has an expiry on the server's
//! clock, and can be lost at any moment. What was lost is written again by the
//! nodes from their live sockets, within one renewal, or at once when they see
//! Redis come back.
//!
//! Whoever writes Redis is not one of the nodes by that: what they say there is
//! signed by the cluster's key ([`seals`]), and what is not is ignored. Signed are
//! the frames of the bus and the probe, the records, the entries of the sets of
//! nodes and what nodes say of themselves, and hooks' words. Not signed is what
//! the scripts count and compare (leases, clocks, tokens, digests): it can be lost, made
//! up or put back, and then peers look present or gone, sockets are closed and
//! limits do not hold; no message is lost or made up, and no identity.
//!
//! `P` is `claudemesh:C:D:`, C the cluster's id out of its database and D the
//! number of the database in `REDIS_URL`: clusters that share a Redis do not
//! meet. `{M}` is the mesh's id as a hash tag. Names that an earlier release
//! used are not read: its nodes and this one's are apart, and what they kept
//! expires. An S is a signature.
//!
//! | key | type: fields | TTL | writer | what its loss means |
//! | --- | --- | --- | --- | --- |
//! | `P{M}:online` | zset: presence → expiry of the lease of an open socket | the books' | lease scripts | the next renewal restores the lease |
//! | `P{M}:grace` | zset: presence → end of its grace | the books' | lease scripts | the store lists the presence, and a node adopts it |
//! | `P{M}:sessions` | hash: session identity → presence | the books' | lease scripts | with the leases |
//! | `P{M}:leases` | hash: presence → epoch, state, node, identity (packed) | the books' | lease scripts | with the leases |
//! | `P{M}:records` | hash: presence → S and record (MessagePack map) | the books' | lease scripts | with the leases |
//! | `P{M}:ended` | zset: `l:`/`r:` + presence → when it is forgotten, 1 h | the books' | lease scripts | a node that slept through a presence's end restores it; it ends again when its socket does |
//! | `P{M}:clock` | hash: speed, paused, tick, started, version, grid, due, ticker, until | the books' | `sim_clock.lua`; lease scripts stop it with the mesh's last lease | a clock that runs goes on from what its ticker knows; one that stands is gone |
//! | `P{M}:nodes` | zset: S, incarnation and node → 40 s after it last said it joined | 40 s | each node, every 10 s | nodes learn of each other at the next reading; until then they publish to whom they know |
//! | `Pdue` | zset: mesh → when something of it expires | none: one member per mesh with leases | lease scripts (in a Redis Cluster: the node after each) | expired presences wait for the mesh's next renewal or newcomer |
//! | `Pnodes` | zset: S, incarnation and node → 30 s after its last sign | 30 s | each node, every 2 s | as `P{M}:nodes`; a node alone takes the whole cap for its share |
//! | `Pnode:N` | string: S and what incarnation and node N says of itself (MessagePack map) | 10 s | each node, every 2 s | operators do not see the node until it says it again |
//! | `Ponce:D` | string `1`, D a digest | as asked | `use_once` | the digest can be used again on another node until it is too old |
//! | `Ptokens:{O}:B` | hash: parts, at; O whose bucket B is | until the bucket is full again | `tokens.lua` | the bucket is full |
//! | `Ppending:PID:H` | string: S and a status; H a hash of the folder | 10 s | `put_pending_status` | the session begins idle |
//!
//! The books' TTL is an hour more than twice a lease with its grace: by then
//! every node would have renewed or reaped. Channels: `P{M}:bus` for a mesh's
//! frames, `Pbeats` for the last numbers of all channels, `Pprobe:N` where node
//! N hears itself.
//!
//! While Redis cannot be reached, or takes no writes, the `fallback` module
//! decides for this node. The node counts as degraded then, and also while its
//! bus does not hear itself or while nodes are there that sign otherwise.

mod bus;
mod clock;
mod cluster;
mod connection;
mod examine;
mod extras;
pub mod fallback;
mod keeper;
mod keys;
mod leases;
mod link;
mod members;
mod moves;
mod nodes;
mod rows;
mod scripts;
pub mod seals;
mod settings;
mod sim_clocks;
mod work;

pub use self::cluster::RedisCluster;
pub use self::examine::{Need, RedisFacts, examine};
pub use self::settings::RedisSettings;
