//! Who is in a mesh, here or away: `list_members`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::ask::{Answer, Ask};
use crate::id::{Key, MemberId};

/// `list_members`: whom a message to many is sealed for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ListMembers {
    /// From an answer that was cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Ask for ListMembers {
    const TYPE: &'static str = "list_members";
    type Answer = MembersList;
}

/// What a mesh asks of messages to groups, to everyone and to topics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SealingPolicy {
    /// Clients send them in clear.
    Off,
    /// Clients seal them if all that are here can open them.
    #[default]
    Preferred,
    /// Those in clear are refused.
    Required,
}

impl SealingPolicy {
    /// The word in the tables and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Preferred => "preferred",
            Self::Required => "required",
        }
    }

    /// The one with this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Off, Self::Preferred, Self::Required]
            .into_iter()
            .find(|policy| policy.as_str() == text)
    }
}

/// Answers `list_members`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MembersList {
    /// What the mesh asks of messages to many.
    #[serde(default)]
    pub sealing: SealingPolicy,
    /// By id.
    pub members: Vec<MemberListed>,
    /// Whether nobody joins without a certificate: nothing is to be sealed for who has none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub certified_required: bool,
    /// Whether there are more than fit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// With which the next ones are asked for; only with `more`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Answer for MembersList {
    const TYPE: &'static str = "members_list";
}

/// A member that has not been revoked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberListed {
    /// Its id.
    pub member_id: MemberId,
    /// Its key, for which things are sealed.
    pub pubkey: Key,
    /// The name it was enrolled under.
    pub name: String,
    /// `admin` or `member`.
    pub role: Cow<'static, str>,
    /// Whether its newest client opens messages to many that are sealed.
    pub sealed: bool,
    /// Whether one of its connections is here.
    pub online: bool,
    /// The proof that the mesh's owner let this key in, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}
