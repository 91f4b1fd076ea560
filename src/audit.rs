//! The audit trail: which events it knows, and the chain that binds them.
//! Pure: the stores keep the rows.
//!
//! Metadata only: who did what, to which target, when. Never a nonce, a
//! ciphertext, a state value or a secret key.
//!
//! Each row of a mesh holds the SHA-256 of
//! `previous hash|mesh|event|actor|payload|time`; the first row's previous
//! hash is [`GENESIS`]. Whoever appends takes the lock [`chain_lock_key`], so
//! that a chain has one end. Existing verifiers compute the same bytes, so the
//! payload is hashed as JavaScript prints it ([`canonical_json`]), not as the
//! database happens to spell it.
//!
//! The row's number and the name that the actor's session had are not in that hash. A
//! second one beside it covers both ([`row_hash`]); it is a chain of its own over the first.
//! Rows of earlier releases have one that covers the name alone ([`name_hash`]), or none,
//! as those of other programs: a chain goes on behind them, and once it has one of the
//! second kind none of the others may follow.
//!
//! The chain of a mesh that this broker made begins with a row that says so
//! ([`GENESIS_EVENT`]), and the mesh knows its number.
//!
//! A chain shows that rows were altered, removed or inserted, but not that its
//! newest ones are missing, nor that all of it was written anew: for that, heads are kept
//! elsewhere ([`Anchor`]), and nodes sign them by the clock, as rows of the chain itself
//! ([`SignedHeads`]): who writes it anew needs the key.

mod anchor;
mod chain;
mod event;
mod signed;

pub use self::anchor::{Anchor, AnchorError, KnownHeads, Mismatch};
pub use self::chain::{
    ChainRow, ChainVerifier, GENESIS, GENESIS_EVENT, NameHead, ROW_HASH_BYTES, Verdict,
    chain_lock_key, entry_hash, entry_hash_at, name_hash, row_hash,
};
pub use self::event::{AuditEvent, message_sent_payload};
pub use self::signed::{HEAD_EVENT, HeadError, NewestHead, SignedHeads};
pub use crate::auth::canonical_json;
