//! The commands of operators and of peers at a terminal.
//!
//! Standard output holds the answer and nothing else: text for people, or with
//! `--json` exactly one JSON object (`audit export` and the commands that
//! follow something print one object per line). What goes wrong is a sentence
//! on standard error, with `--json` also `{"error":{"code","message"}}` on
//! standard output.
//!
//! Exit codes: 0 done; 1 not done, or the answer is bad (a broken audit chain,
//! a failed check); 2 the command or the configuration is wrong.
//!
//! The commands may use the store, and the client as any peer would. They must
//! never import [`crate::command`] or `lab`, which call them.

pub(crate) mod account;
pub(crate) mod audit;
pub(crate) mod config;
pub(crate) mod doctor;
pub mod enrol;
mod failure;
pub(crate) mod health;
pub(crate) mod invite;
pub(crate) mod listen;
pub(crate) mod lookup;
pub(crate) mod member;
pub(crate) mod mesh;
pub(crate) mod migrate;
pub(crate) mod peer;
mod probe;
pub(crate) mod queue;
pub(crate) mod serve;
pub(crate) mod top;

pub use failure::report;
pub(crate) use failure::report_usage;

pub(crate) use crate::output::{self, Failure};
