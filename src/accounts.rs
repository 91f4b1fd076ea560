//! What accounts prove themselves by, and what they make: sessions of command lines,
//! meshes, invites.
//!
//! Nothing is remembered here but the key that the nodes share: a session that was
//! revoked is so at the next request, on every node. No key, token or code ever reaches
//! a log line. Called by [`http`](crate::http), by [`cli`](crate::cli) for operators,
//! and by [`admission`](crate::admission) for marks of addresses.

mod invites;
mod keys;
mod sessions;

pub use self::invites::InviteTerms;
pub(crate) use self::invites::{
    SignedInvite, canonical_of, random_root_key, sealed_root_key, signed_invite, with_code,
};
pub(crate) use self::keys::Keys;
pub(crate) use self::sessions::{
    CodeChars, SessionKind, begin_session, generate_sign_in_key, sync_token,
};
