//! Identifiers as the wire and the tables spell them.
//!
//! Every id is opaque text behind its own type, so that a mesh id cannot be
//! passed where a member id is meant. Cloning one is a reference count, not a
//! copy: ids travel with every message.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id as it stands on the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The same, shared: what a statement's parameter wants.
            #[must_use]
            pub fn shared(&self) -> Arc<str> {
                Arc::clone(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(Arc::from(text))
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(Arc::from(text))
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }
    };
}

macro_rules! made_here {
    ($($name:ident),*) => {$(
        impl $name {
            /// A new id: UUIDv7 as 32 lower-case hex digits. It fits wherever
            /// 32 base62 characters are expected, and sorts by time.
            #[must_use]
            pub fn generate() -> Self {
                Self(Arc::from(uuid::Uuid::now_v7().simple().to_string()))
            }
        }
    )*};
}

text_id!(
    /// A mesh: the tenant.
    MeshId
);
text_id!(
    /// A member: a permanent identity in a mesh.
    MemberId
);
text_id!(
    /// A presence: one session that is, or was a moment ago, connected.
    PresenceId
);
text_id!(
    /// An envelope that the broker has accepted.
    MessageId
);
text_id!(
    /// A topic of a mesh.
    TopicId
);
text_id!(
    /// An account: a person, whose command lines sign in.
    AccountId
);
text_id!(
    /// A broker node, stable across its restarts.
    NodeId
);
text_id!(
    /// A member's or a session's public key: 64 lower-case hex digits.
    Key
);

text_id!(
    /// Something that a peer asks of another through the broker, while it waits.
    CallId
);

impl CallId {
    /// A new id that nobody can guess: whoever is asked learns it, and nobody else.
    #[must_use]
    pub fn random() -> Self {
        Self::from(random())
    }
}

made_here!(MeshId, MemberId, PresenceId, MessageId, AccountId);

impl Key {
    /// The first 12 characters: as much of a key as a log line may hold.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

/// A new id for a row that is no mesh, member, presence or message.
#[must_use]
pub fn generate() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

/// A new id that says nothing of when it was made: 32 hex digits, whose first ones tell
/// two of them apart. For what people type the beginning of.
#[must_use]
pub fn random() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_differ_within_their_first_eight_digits() {
        let begins: std::collections::HashSet<String> =
            (0..1000).map(|_| random()[..8].to_owned()).collect();
        assert_eq!(begins.len(), 1000);
    }

    #[test]
    fn ids_made_here_are_32_hex_digits_and_sort_by_time() {
        let first = MessageId::generate();
        let second = MessageId::generate();
        assert_eq!(first.as_str().len(), 32);
        assert!(first.as_str().bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()));
        assert!(first < second, "{first} was made before {second}");
    }
}
