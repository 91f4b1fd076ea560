//! `peer_file_request`, `peer_dir_request`: what lies on another peer's disk, as far as
//! that peer shows it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::RequestId;
use super::ask::{Answer, Ask};
use super::mcp::text_of_error;

/// `peer_file_request`: a file, or a part of one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerFileRequest {
    /// The member's key or the session's.
    pub target_pubkey: String,
    /// The path, as the peer understands it.
    pub file_path: String,
    /// From which byte on; only for peers that read in parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// How many bytes at most; only for peers that read in parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
}

impl Ask for PeerFileRequest {
    const TYPE: &'static str = "peer_file_request";
    type Answer = PeerFileResponseForward;
}

/// Answers `peer_file_request`.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerFileResponseForward {
    /// The path.
    pub file_path: String,
    /// The content, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// From which byte on this is, where the peer reads in parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// How many bytes the whole file has, where the peer says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
}

impl Answer for PeerFileResponseForward {
    const TYPE: &'static str = "peer_file_response_forward";

    fn refusal(&self) -> Option<&str> {
        self.error.as_deref()
    }
}

/// `peer_dir_request`: what is in a folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerDirRequest {
    /// The member's key or the session's.
    pub target_pubkey: String,
    /// The path, as the peer understands it.
    pub dir_path: String,
    /// Which names, as the peer understands it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
}

impl Ask for PeerDirRequest {
    const TYPE: &'static str = "peer_dir_request";
    type Answer = PeerDirResponseForward;
}

/// Answers `peer_dir_request`.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerDirResponseForward {
    /// The path.
    pub dir_path: String,
    /// What is there, in the peer's own form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<Value>,
    /// Why there is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Answer for PeerDirResponseForward {
    const TYPE: &'static str = "peer_dir_response_forward";

    fn refusal(&self) -> Option<&str> {
        self.error.as_deref()
    }
}

/// `peer_file_request_forward`: a peer is asked for a file.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerFileRequestForward {
    /// The key of whoever asks: the session's, else the member's.
    pub requester_pubkey: String,
    /// The path.
    pub file_path: String,
    /// From which byte on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// How many bytes at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// The requester's, which the answer repeats.
    #[serde(default, rename = "_reqId", skip_serializing_if = "Option::is_none")]
    pub req_id: Option<RequestId>,
}

/// `peer_dir_request_forward`: a peer is asked for the names in a folder.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerDirRequestForward {
    /// The key of whoever asks: the session's, else the member's.
    pub requester_pubkey: String,
    /// The path.
    pub dir_path: String,
    /// Which names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// The requester's, which the answer repeats.
    #[serde(default, rename = "_reqId", skip_serializing_if = "Option::is_none")]
    pub req_id: Option<RequestId>,
}

/// `peer_file_response`: what a peer says to that. No request: it has no answer, and the
/// `_reqId` beside it is the requester's.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerFileResponse {
    /// The key of whoever asked.
    pub requester_pubkey: String,
    /// The path.
    #[serde(default)]
    pub file_path: String,
    /// The content, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "text_of_error")]
    pub error: Option<String>,
    /// From which byte on this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// How many bytes the whole file has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
}

impl PeerFileResponse {
    /// The frame's type.
    pub const TYPE: &'static str = "peer_file_response";
}

/// `peer_dir_response`: as above, of a folder.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerDirResponse {
    /// The key of whoever asked.
    pub requester_pubkey: String,
    /// The path.
    #[serde(default)]
    pub dir_path: String,
    /// What is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<Value>,
    /// Why there is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "text_of_error")]
    pub error: Option<String>,
}

impl PeerDirResponse {
    /// The frame's type.
    pub const TYPE: &'static str = "peer_dir_response";
}
