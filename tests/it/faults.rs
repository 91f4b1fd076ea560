//! What fails while peers work: programs killed, servers and networks that fail, releases
//! mixed, all of it at random, and what holds all the same.

mod cluster;
mod crash;
mod model;
mod rolling;
mod soak;
