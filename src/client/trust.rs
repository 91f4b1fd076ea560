//! What a user knows of the keys of a mesh's members, beyond what the broker says of them.
//! Words and a seam: who keeps the knowledge, and where, is no business of the client's.

use std::fmt;

use crate::id::Key;
use crate::protocol::MemberListed;

/// How far a member's key can be relied upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The mesh's owner let it in, or this user has compared it.
    Verified,
    /// That it is the member's, only the broker says.
    Unverified,
    /// It is another than the member had when it was met: nothing is sealed for it.
    Changed,
}

impl Trust {
    /// The word that lists show.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Unverified => "unverified",
            Self::Changed => "changed",
        }
    }
}

/// A member as the broker lists it, and what is to be thought of that.
#[derive(Clone, Debug)]
pub struct Judged {
    /// As listed.
    pub member: MemberListed,
    /// How far its key can be relied upon.
    pub trust: Trust,
    /// The mesh takes only who is certified, and this one is not: nothing is sealed for it.
    pub is_refused: bool,
    /// What is odd about it, as words about "it"; with a key that has changed also what to
    /// do.
    pub why: Option<String>,
}

impl Judged {
    /// Whether things are sealed for it.
    #[must_use]
    pub fn is_sealed_for(&self) -> bool {
        self.trust != Trust::Changed && !self.is_refused
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "the key of {} is {}", self.member.name, self.trust.as_str())?;
        match &self.why {
            Some(why) => write!(out, ": {why}"),
            None => Ok(()),
        }
    }
}

/// What is known of a mesh's members. It may read and write files.
pub trait KnownKeys: fmt::Debug + Send + Sync {
    /// Judges all members of the mesh as the broker lists them, and notes those that are
    /// new; and whether the mesh takes only who is certified, from which no broker comes
    /// back.
    fn judge(&self, members: Vec<MemberListed>, certified_required: bool) -> Vec<Judged>;

    /// Whether things can be sealed for that key without asking the broker about it.
    fn holds(&self, key: &Key) -> bool;
}
