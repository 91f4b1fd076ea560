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

/// Answers `list_members`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MembersList {
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
