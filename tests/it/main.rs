//! Tests from outside: over real sockets, real servers, the real program.

#![expect(unreachable_pub, reason = "a test crate has no callers outside")]

mod admin;
mod backup;
mod bench;
mod cli;
mod client;
mod cluster_conformance;
mod cluster_directory;
mod cluster_ends;
mod cluster_faults;
mod cluster_moderation;
mod cluster_recovery;
mod cluster_redis;
mod cluster_up;
mod cluster_wire;
mod costs;
mod crash;
mod dashboard;
mod deploy;
mod harness;
mod layers;
mod licences;
mod model;
mod observability;
mod regions;
mod rolling;
mod soak;
mod store_conformance;
mod store_postgres;
#[cfg(feature = "otel")]
mod traces;
mod walkthrough;
mod wire_admission;
mod wire_backpressure;
mod wire_clients;
mod wire_delivery;
mod wire_grants;
mod wire_handshake;
mod wire_hold;
mod wire_hostile;
mod wire_http;
mod wire_identity;
mod wire_moderation;
mod wire_msgpack;
mod wire_multicast;
mod wire_places;
mod wire_presence;
mod wire_requests;
mod wire_send;
mod wire_sessions;
mod wire_status;
