//! The environment variables by which a session's launcher, or its user, says what the
//! session is.

/// Which peer a session is: `NAME` or `MESH/NAME`.
pub(super) const PEER: &str = "CLAUDEMESH_PEER";
/// The session's own name, which others see; the peer's where nobody says it.
pub(super) const DISPLAY_NAME: &str = "CLAUDEMESH_DISPLAY_NAME";
/// `1` in a session whose host listens to our channel.
pub(super) const CHANNEL: &str = "CLAUDEMESH_CHANNEL";
