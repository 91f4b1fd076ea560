//! A hello that is refused: what the peer is told, and what its socket is closed with.

use std::time::Duration;

use crate::auth::ProofError;
use crate::protocol::{CloseReason, ErrorFrame};

/// A hello that is refused: the error frame, then the close.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// What the peer is told.
    pub(crate) error: ErrorFrame,
    /// What the socket is closed with.
    pub(crate) close: CloseReason,
}

/// How long a peer waits that came while this node could take nobody, milliseconds.
const UNAVAILABLE_RETRY_MS: u64 = 2_000;

impl Refusal {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Box<Self> {
        let error = ErrorFrame::new(code, message);
        Box::new(Self { error, close: CloseReason::refused(code) })
    }

    pub(super) fn proof(form: &str, error: ProofError) -> Box<Self> {
        Self::new(error.code(), format!("{form} rejected: {}", error.code()))
    }

    pub(super) fn unauthorized() -> Box<Self> {
        Self::new("unauthorized", "pubkey not found in mesh")
    }

    pub(super) fn anothers_key() -> Box<Self> {
        Self::new("bad_session_pubkey", "sessionPubkey belongs to another member")
    }

    pub(super) fn revoked(mesh_label: &str) -> Box<Self> {
        let text =
            format!("You've been removed from \"{mesh_label}\". Contact the mesh owner to rejoin.");
        Box::new(Self { error: ErrorFrame::new("revoked", text), close: CloseReason::BANNED })
    }

    pub(super) fn too_many(wait: Duration) -> Box<Self> {
        let text = "this member opens new sessions too fast; come again later";
        let mut error = ErrorFrame::new("rate_limit", text);
        error.retry_after_ms = Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        Box::new(Self { error, close: CloseReason::RATE_LIMIT })
    }

    pub(super) fn at_capacity(limit: u32, current: u32, retry_after_ms: u64) -> Box<Self> {
        let mut refusal = Self::new("capacity", "mesh at connection capacity");
        refusal.error.limit = Some(limit);
        refusal.error.current = Some(current);
        refusal.error.retry_after_ms = Some(retry_after_ms);
        refusal
    }

    pub(super) fn unavailable() -> Box<Self> {
        let mut error = ErrorFrame::new(
            "unavailable",
            "this node cannot take new peers right now; try again in a few seconds",
        );
        error.retry_after_ms = Some(UNAVAILABLE_RETRY_MS);
        Box::new(Self { error, close: CloseReason::TRY_AGAIN_LATER })
    }
}
