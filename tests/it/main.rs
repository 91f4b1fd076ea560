//! Tests from outside: over real sockets, real servers, the real program.

#![expect(unreachable_pub, reason = "a test crate has no callers outside")]

mod cli;
mod client;
mod cluster_conformance;
mod cluster_redis;
mod crash;
mod harness;
mod layers;
mod model;
mod store_conformance;
mod walkthrough;
mod wire_delivery;
mod wire_handshake;
mod wire_hold;
mod wire_identity;
mod wire_msgpack;
mod wire_places;
mod wire_presence;
