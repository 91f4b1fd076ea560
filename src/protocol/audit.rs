//! `audit_query`, `audit_row` and `audit_verify`; and what a hello is shown of the chain.

use serde::{Deserialize, Serialize};

use super::ask::{Answer, Ask, Unasked};
use crate::clock::Timestamp;
use crate::id::Key;

/// Rows of an `audit_query` that names no limit.
pub const AUDIT_ROWS_DEFAULT: i64 = 50;

/// `audit_query`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditQuery {
    /// At most this many rows; 50 if not given, never more than 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
    /// Rows to pass over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    /// Only rows of this type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// From an answer that was cut: the rows go on there. Instead of `offset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Ask for AuditQuery {
    const TYPE: &'static str = "audit_query";
    const UNASKED: Unasked = Unasked::Refused;
    type Answer = AuditResult;
}

/// Answers `audit_query`, newest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AuditResult {
    /// The rows.
    pub entries: Vec<AuditRow>,
    /// How many there are in all.
    pub total: i64,
    /// Whether more were asked for than fit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// With which the next ones are asked for; only with `more`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Answer for AuditResult {
    const TYPE: &'static str = "audit_result";
}

/// One row of a mesh's audit trail.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditRow {
    /// The row's seq in the chain.
    pub id: i64,
    /// What happened.
    pub event_type: String,
    /// Who did it: the name that the member is enrolled under, else its id; for the
    /// broker itself `system`, for an operator what it is called.
    pub actor: String,
    /// The member's id; none for the broker and for operators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_id: Option<String>,
    /// The member's key, if it still is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_pubkey: Option<String>,
    /// What the member's session called itself: its own choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_name: Option<String>,
    /// The event's details.
    pub payload: serde_json::Value,
    /// The chain's hash up to and with this row.
    pub hash: String,
    /// When the event happened.
    pub created_at: Timestamp,
}

/// Where the mesh's chain ended, signed by a node that has the operator's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignedHead {
    /// The number of the row that is signed.
    pub row_id: i64,
    /// That row's hash.
    pub hash: String,
    /// Its second hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_hash: Option<String>,
    /// When.
    pub taken_at: Timestamp,
    /// By which key.
    pub public_key: Key,
    /// The signature: 128 hex digits.
    pub signature: String,
}

/// `audit_row`: the hashes of one row, for any member: whether what was once signed is in
/// the chain still.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditRowQuery {
    /// The number of the row.
    pub row_id: i64,
}

impl Ask for AuditRowQuery {
    const TYPE: &'static str = "audit_row";
    const UNASKED: Unasked = Unasked::Refused;
    type Answer = AuditRowResult;
}

/// Answers `audit_row`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditRowResult {
    /// The number of the row.
    pub row_id: i64,
    /// The row's hash; none if the mesh's chain has no such row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Its second hash, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_hash: Option<String>,
}

impl Answer for AuditRowResult {
    const TYPE: &'static str = "audit_row_result";
}

/// `audit_verify`: whether the chain holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AuditVerify {}

impl Ask for AuditVerify {
    const TYPE: &'static str = "audit_verify";
    const UNASKED: Unasked = Unasked::Refused;
    type Answer = AuditVerifyResult;
}

/// Answers `audit_verify`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditVerifyResult {
    /// Whether every row is what its hash says and follows the one before.
    pub valid: bool,
    /// How many rows were walked.
    pub entries: i64,
    /// The first row that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken_at: Option<i64>,
}

impl Answer for AuditVerifyResult {
    const TYPE: &'static str = "audit_verify_result";
}
