//! A clustered WebSocket broker for meshes of AI coding sessions.
//!
//! The modules in reading order:
//!
//! - words: [`id`], [`clock`]
//! - the wire: [`protocol`], [`codec`]
//! - proof and sealing: [`auth`], [`boxes`], [`audit`]
//! - the seams: [`store`], [`cluster`]

pub mod audit;
pub mod clock;
pub mod cluster;
pub mod id;
pub mod protocol;
pub mod store;
