//! `mcp_register`, `mcp_unregister`, `mcp_list`, `mcp_call`: servers that peers host for
//! their mesh.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::ask::{Answer, Ask, Unasked};
use super::delivery::Ack;
use crate::clock::Timestamp;

/// A tool of a server, as its mesh is told of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct McpTool {
    /// What it is called by.
    pub name: String,
    /// What it does.
    #[serde(default)]
    pub description: String,
}

/// `mcp_register`: this session answers calls of that server from now on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct McpRegister {
    /// The server's name, one of each in a mesh: a later registration takes it over.
    pub server_name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// What can be called.
    #[serde(default)]
    pub tools: Vec<McpTool>,
    /// Whether it stays listed when its host has gone, and comes back with it.
    #[serde(default)]
    pub persistent: bool,
}

impl Ask for McpRegister {
    const TYPE: &'static str = "mcp_register";
    type Answer = McpRegisterAck;
}

/// Answers `mcp_register`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct McpRegisterAck {
    /// The server's name.
    pub server_name: String,
    /// How many tools it has.
    pub tool_count: usize,
}

impl Answer for McpRegisterAck {
    const TYPE: &'static str = "mcp_register_ack";
}

/// `mcp_unregister`: this session answers for that server no more.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct McpUnregister {
    /// The server's name.
    pub server_name: String,
}

impl Ask for McpUnregister {
    const TYPE: &'static str = "mcp_unregister";
    const UNASKED: Unasked = Unasked::Silent;
    type Answer = Ack;
}

/// `mcp_list`: the servers of the mesh.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct McpList {
    /// From an answer that was cut: the list goes on there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Ask for McpList {
    const TYPE: &'static str = "mcp_list";
    type Answer = McpListResult;
}

/// Answers `mcp_list`: the servers, the newest registration first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct McpListResult {
    /// One for each name.
    pub servers: Vec<McpServerInfo>,
    /// Whether there are more than fit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// With which the next ones are asked for; only with `more`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Answer for McpListResult {
    const TYPE: &'static str = "mcp_list_result";
}

/// One server of a mesh.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct McpServerInfo {
    /// The server's name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// The enrolled name of the member that hosts it.
    pub hosted_by: String,
    /// The hosting session's own name, where that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosted_by_session: Option<String>,
    /// What can be called.
    pub tools: Vec<McpTool>,
    /// Whether it can be called now.
    pub online: bool,
    /// Since when it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline_since: Option<Timestamp>,
}

/// `mcp_call`: calls a tool of a server, on whichever node its host is.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct McpCall {
    /// The server's name.
    pub server_name: String,
    /// The tool's name.
    pub tool_name: String,
    /// The arguments, which the broker hands on as they are.
    #[serde(default)]
    pub args: Value,
}

impl Ask for McpCall {
    const TYPE: &'static str = "mcp_call";
    type Answer = McpCallResult;
}

/// Answers `mcp_call`: what the host said, or why it did not.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct McpCallResult {
    /// What the tool gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Why it gave nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl McpCallResult {
    /// An answer without a result.
    #[must_use]
    pub fn failed(error: impl Into<String>) -> Self {
        Self { result: None, error: Some(error.into()) }
    }
}

impl Answer for McpCallResult {
    const TYPE: &'static str = "mcp_call_result";

    fn refusal(&self) -> Option<&str> {
        self.error.as_deref()
    }
}

/// `mcp_call_forward`: a host is called.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct McpCallForward {
    /// What the answer names.
    pub call_id: String,
    /// The server's name.
    pub server_name: String,
    /// The tool's name.
    pub tool_name: String,
    /// The arguments as the caller gave them.
    pub args: Value,
    /// The enrolled name of the member that calls.
    pub caller_name: String,
    /// The calling session's own name, where that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller_session: Option<String>,
    /// How many milliseconds the caller waits.
    pub deadline_ms: u64,
}

/// `mcp_call_response`: what a host says to a call. No request: it has no answer.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct McpCallResponse {
    /// Which call.
    pub call_id: String,
    /// What the tool gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Why it gave nothing.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "text_of_error")]
    pub error: Option<String>,
}

impl McpCallResponse {
    /// The frame's type.
    pub const TYPE: &'static str = "mcp_call_response";
}

/// An error as hosts write it: text, or whatever they have instead. Empty text is none.
pub(super) fn text_of_error<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    Ok(match Option::<Value>::deserialize(deserializer)? {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text).filter(|text| !text.is_empty()),
        Some(other) => Some(other.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_hosts_error_is_text_whatever_it_wrote() {
        for (given, read) in [
            (json!("no"), Some("no")),
            (json!(""), None),
            (json!(null), None),
            (json!({ "code": 1 }), Some("{\"code\":1}")),
        ] {
            let frame = json!({ "callId": "c", "error": given });
            let response: McpCallResponse = serde_json::from_value(frame).expect("a response");
            assert_eq!(response.error.as_deref(), read);
        }
    }
}
