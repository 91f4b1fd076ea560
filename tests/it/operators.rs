//! What whoever runs a broker works with: the admin API, the dashboard, metrics, traces
//! and backups.

pub(crate) mod admin;
mod backup;
mod dashboard;
pub(crate) mod observability;
#[cfg(feature = "otel")]
mod traces;
