//! The tasks that write to the store behind those who asked.
//!
//! A caller hands over what is to be written and learns later, if it must, what
//! became of it. What is handed over is bounded, and never written by a task that
//! may be cancelled. Called by [`delivery`](crate::delivery),
//! [`presence`](crate::presence) and [`admission`](crate::admission); run by
//! [`app`](crate::app).
//!
//! - [`batches`]: a queue whose callers wait for what became of their item
//! - [`group_commit`]: many sends, one transaction
//! - [`confirmations`]: deliveries that their peers are done with
//! - [`presences`]: rows of presences that begin or change
//! - [`states`]: shared state

pub(crate) mod batches;
pub(crate) mod confirmations;
pub(crate) mod group_commit;
pub(crate) mod presences;
pub(crate) mod states;
