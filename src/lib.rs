//! A clustered WebSocket broker for meshes of AI coding sessions.
//!
//! The modules in reading order:
//!
//! - words: [`id`], [`clock`], [`limits`], [`config`], [`metrics`], [`logging`]
//! - the wire: [`protocol`], [`codec`]
//! - proof and sealing: [`auth`], [`boxes`], [`audit`]
//! - the seams: [`store`] (durable), [`cluster`] (shared between nodes)
//! - inward, from a socket to the disk: [`http`], [`connection`], [`session`],
//!   [`handlers`], [`router`], [`accept`]
//! - outward, from the disk to sockets: [`router`], [`redelivery`],
//!   [`registry`], [`outbox`]
//! - beside them: [`ledger`], [`journal`], [`rates`], [`jobs`], [`transcript`],
//!   [`vitals`]
//! - all of it together: [`node`], [`supervisor`], [`app`]
//! - a peer as a library: [`client`]; the command line: [`command`], with the
//!   commands of operators and peers in [`cli`], and in [`lab`] those that run
//!   brokers of their own

pub mod accept;
pub mod app;
pub mod audit;
pub mod auth;
pub mod boxes;
pub mod cli;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod codec;
pub mod command;
pub mod config;
pub mod connection;
pub mod handlers;
pub mod http;
pub mod id;
pub mod jobs;
pub mod journal;
mod lab;
pub mod ledger;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod node;
pub mod outbox;
pub mod protocol;
pub mod rates;
pub mod redelivery;
pub mod registry;
pub mod router;
pub mod session;
pub mod store;
pub mod supervisor;
pub mod traces;
pub mod transcript;
pub mod vitals;
