//! What stores promise. The modules named after a feature have its properties, which
//! [`conformance`] runs against each implementation; `postgres` has what only that one does.

mod accept;
mod accounts;
mod admin;
mod admission;
mod api_keys;
mod audit;
mod claims;
mod confirm;
mod conformance;
mod departure;
mod duplicates;
pub(crate) mod fixture;
mod invites;
mod life;
mod moderation;
mod other;
mod postgres;
mod presence;
mod queue;
mod retention;
mod states;
mod streams;
mod topics;
mod vault;
mod workspaces;
