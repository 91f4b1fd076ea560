//! What a host calls at each of its events.

mod doorbell;
mod failing;
pub mod host;
mod identity;
mod mail;
mod matrix;
