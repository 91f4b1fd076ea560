//! Tests from outside: over real sockets, real servers, the real program.

#![expect(unreachable_pub, reason = "a test crate has no callers outside")]

mod claude;
mod cli;
mod cluster;
mod deploy;
mod faults;
mod harness;
mod house;
mod operators;
mod store;
mod wire;
