//! How much of each kind a mesh keeps, and how much it may.
//!
//! The database counts rows and bytes as they are written; a change that grew either is
//! held against the bound before it commits ([`Usage::check`]). Called by the bodies of
//! the stores.

use crate::limits;
use crate::store::{Result, StoreError};

/// What is counted by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Shared state.
    State,
    /// Topics, whatever is said in them.
    Topics,
    /// Webhooks.
    Webhook,
    /// Servers that outlive their hosts.
    McpServer,
    /// Tasks.
    Task,
    /// Messages that are sent later.
    Schedule,
    /// What the mesh remembers.
    Memory,
    /// Skills.
    Skill,
    /// What members work on.
    Context,
    /// What members keep for themselves.
    Vault,
    /// Keys by which programs call.
    ApiKey,
    /// Streams.
    Stream,
}

impl Kind {
    /// The kind's name in rows and in sentences.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Topics => "topics",
            Self::Webhook => "webhook",
            Self::McpServer => "mcp_server",
            Self::Task => "task",
            Self::Schedule => "scheduled_message",
            Self::Memory => "memory",
            Self::Skill => "skill",
            Self::Context => "context",
            Self::Vault => "vault",
            Self::ApiKey => "api_key",
            Self::Stream => "stream",
        }
    }
}

/// How much of one kind a mesh keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Rows.
    pub rows: i64,
    /// Bytes of names and values.
    pub bytes: i64,
}

impl Usage {
    /// Refuses what is more than a mesh may keep.
    ///
    /// # Errors
    /// [`StoreError::Full`].
    pub fn check(self, kind: Kind) -> Result<()> {
        let fits = self.rows <= limits::SHARED_ROWS_MAX && self.bytes <= limits::SHARED_BYTES_MAX;
        fits.then_some(()).ok_or(StoreError::Full(Full { kind, usage: self }))
    }
}

/// A mesh may keep no more of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the mesh may keep {} of {} and no more: {}", self.bound(), self.kind.as_str(), self.advice())]
pub struct Full {
    /// Of what.
    pub kind: Kind,
    /// What would be kept.
    pub usage: Usage,
}

impl Full {
    /// The bound that is passed, and what would be kept, in its unit.
    #[must_use]
    pub const fn numbers(&self) -> (i64, i64) {
        match self.is_by_rows() {
            true => (limits::SHARED_ROWS_MAX, self.usage.rows),
            false => (limits::SHARED_BYTES_MAX, self.usage.bytes),
        }
    }

    const fn is_by_rows(&self) -> bool {
        self.usage.rows > limits::SHARED_ROWS_MAX
    }

    fn bound(&self) -> String {
        let unit = if self.is_by_rows() { "rows" } else { "bytes" };
        format!("{} {unit}", self.numbers().0)
    }

    fn advice(&self) -> String {
        format!("with this there would be {}; remove some first", self.numbers().1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_which_bound_and_by_how_much() {
        assert!(Usage { rows: 10_000, bytes: 1 }.check(Kind::State).is_ok());
        let many = Usage { rows: 10_001, bytes: i64::MAX };
        let text = many.check(Kind::State).expect_err("too many").to_string();
        assert!(text.contains("10000 rows of state") && text.contains("10001"), "{text}");
        let large = Usage { rows: 1, bytes: limits::SHARED_BYTES_MAX + 1 };
        let text = large.check(Kind::State).expect_err("too large").to_string();
        assert!(text.contains("67108864 bytes"), "{text}");
    }
}
