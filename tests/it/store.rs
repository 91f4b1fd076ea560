//! What stores promise. The modules named after a feature have its properties, which
//! [`conformance`] runs against each implementation; `postgres` has what only that one does.

mod accept;
mod accounts;
mod admin;
mod admission;
mod api_keys;
mod audit;
mod audit_heads;
mod claims;
mod confirm;
mod conformance;
mod contexts;
mod departure;
mod duplicates;
pub(crate) mod fixture;
mod inventory;
mod invites;
mod life;
mod mcp_servers;
mod memories;
mod missing;
mod moderation;
mod other;
mod postgres;
mod presence;
mod queue;
mod retention;
mod schedules;
mod skills;
mod stages;
mod states;
mod streams;
mod tasks;
mod topics;
mod vault;
mod webhooks;
mod workspaces;
