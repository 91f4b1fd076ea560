//! One broker, as its peers find it: the sockets and the HTTP side of its port.

mod admission;
mod answers;
mod attribution;
mod backpressure;
mod clients;
mod delivery;
mod empty;
mod grants;
mod handshake;
mod hold;
pub(crate) mod hooks;
mod hostile;
mod http;
mod identity;
pub(crate) mod inbox;
mod metering;
mod moderation;
mod msgpack;
mod multicast;
mod places;
mod presence;
mod quotas;
mod requests;
mod send;
mod sessions;
mod status;
pub(crate) mod visitors;
