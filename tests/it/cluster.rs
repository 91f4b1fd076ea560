//! One mesh over several nodes: what every `Cluster` must keep, and what peers, and
//! those who mean harm, find in it.

mod conformance;
mod costs;
mod directory;
mod ends;
mod forged;
mod moderation;
mod recovery;
mod redis;
mod regions;
mod restored;
mod visitors;
mod wire;
