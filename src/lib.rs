//! A clustered WebSocket broker for meshes of AI coding sessions.
//!
//! The modules in reading order:
//!
//! - words: [`id`], [`clock`], [`limits`], [`config`], [`metrics`], [`logging`]
//! - the wire: [`protocol`], [`codec`]; answers that may be long: `paging`
//! - proof and sealing: [`auth`], [`sealing`], [`audit`]
//! - a presence as all of them know it: [`record`]
//! - the seams: [`store`] (durable), [`cluster`] (shared between nodes)
//! - what a node knows: [`session`], [`registry`], [`rates`]
//!   [`admission`], [`features`], [`webhooks`], [`jobs`]
//! - what it does: [`writers`], [`delivery`], `events`, `relay`, [`presence`], [`bus`],
//! - its doors: [`socket`], [`http`]; what operators see: [`vitals`]
//! - all of it together: [`node`], [`supervisor`], [`app`]
//! - a peer as a library: [`client`], and its key files: `keyring`, `private`
//! - the command line: [`command`], with the commands of operators and peers in [`cli`],
//!   those of coding sessions in `claude`, and in `lab` those that run brokers of their
//!   own; what they print: `output`

mod accounts;
mod admission;
pub mod app;
pub mod audit;
pub mod auth;
mod bus;
mod claude;
pub mod cli;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod codec;
pub mod command;
pub mod config;
pub mod delivery;
mod events;
mod features;
pub mod http;
pub mod id;
mod jobs;
mod keyring;
mod lab;
mod life;
pub mod limits;
pub mod logging;
mod metrics;
mod node;
mod output;
mod paging;
mod presence;
mod private;
pub mod protocol;
mod rates;
pub mod record;
pub mod registry;
mod relay;
mod sealing;
pub mod session;
mod socket;
pub mod store;
mod supervisor;
pub mod traces;
mod vitals;
mod webhooks;
mod writers;
