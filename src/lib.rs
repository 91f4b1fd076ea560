//! A clustered WebSocket broker for meshes of AI coding sessions.
//!
//! The modules in reading order:
//!
//! - words: [`id`], [`clock`], [`limits`], [`config`]
//! - the wire: [`protocol`], [`codec`]
//! - proof and sealing: [`auth`], [`boxes`], [`audit`]
//! - the seams: [`store`], [`cluster`]

pub mod audit;
pub mod auth;
pub mod boxes;
pub mod clock;
pub mod cluster;
pub mod codec;
pub mod config;
pub mod id;
pub mod limits;
pub mod logging;
pub mod outbox;
pub mod protocol;
pub mod store;
