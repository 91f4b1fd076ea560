//! Placeholder until the audit module lands.
/// An event.
#[derive(Clone, Debug)]
pub struct AuditEvent;
