//! How far a message is with each of its recipients: the stages, and `withdraw`.

use serde::{Deserialize, Serialize};

use super::ask::{Answer, Ask, Unasked};

/// How far a message is with one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// On disk; nobody has been sent it.
    Kept,
    /// Written to a socket of the recipient.
    Pushed,
    /// The recipient's client has it.
    Confirmed,
    /// The recipient's model, or person, was given it.
    Surfaced,
    /// Too old: it never comes.
    Expired,
    /// Taken back by its sender: it never comes.
    Withdrawn,
    /// Kept away by the recipient's grants when it was to be delivered: it never comes.
    Blocked,
}

impl Stage {
    /// The word on the wire and in the tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Pushed => "pushed",
            Self::Confirmed => "confirmed",
            Self::Surfaced => "surfaced",
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
            Self::Blocked => "blocked",
        }
    }

    /// The stage with this name, if a message may end there without having been confirmed.
    #[must_use]
    pub fn parse_end(text: &str) -> Option<Self> {
        match text {
            "pushed" => Some(Self::Pushed),
            "expired" => Some(Self::Expired),
            "withdrawn" => Some(Self::Withdrawn),
            "blocked" => Some(Self::Blocked),
            _ => None,
        }
    }

    /// Whether the recipient's client has, or had, the message.
    #[must_use]
    pub fn is_delivered(self) -> bool {
        matches!(self, Self::Confirmed | Self::Surfaced)
    }
}

/// What a recipient says of a message, and a sender wants to be told.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Reached {
    /// The recipient's client has it.
    #[default]
    Confirmed,
    /// The recipient's model, or person, was given it.
    Surfaced,
}

impl Reached {
    /// The word on the wire and in the tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Surfaced => "surfaced",
        }
    }

    /// The one with this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "confirmed" => Some(Self::Confirmed),
            "surfaced" => Some(Self::Surfaced),
            _ => None,
        }
    }
}

/// `withdraw`: takes back a message that nobody has yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Withdraw {
    /// The whole id of a message that the member sent.
    #[serde(default)]
    pub message_id: String,
}

impl Ask for Withdraw {
    const TYPE: &'static str = "withdraw";
    const UNASKED: Unasked = Unasked::Refused;
    type Answer = WithdrawResult;
}

/// Answers `withdraw`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WithdrawResult {
    /// The message's id, as asked.
    pub message_id: String,
    /// Whether the message was taken back: nobody gets it who has not got it already.
    pub withdrawn: bool,
    /// How far it is. Of a message to many: with whom it is furthest.
    pub stage: Stage,
}

impl Answer for WithdrawResult {
    const TYPE: &'static str = "withdraw_result";
}
