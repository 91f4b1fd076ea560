//! `mcp_register`, `mcp_unregister`, `mcp_list`, `mcp_call`: servers that peers host.

use super::paging::{Page, from_cursor, page};
use super::relaying::{Silence, check_text, relayed};
use super::{Context, Refusal};
use crate::clock::Timestamp;
use crate::id::{CallId, PresenceId};
use crate::limits;
use crate::presence::servers::{self, Crowded, names_of};
use crate::protocol::{
    Ack, Forward, McpCall, McpCallForward, McpCallResult, McpList, McpListResult, McpRegister,
    McpRegisterAck, McpServerInfo, McpUnregister, Reply,
};
use crate::record::McpServer;
use crate::registry::{Candidate, Hosted};

/// The session hosts a server from now on.
pub(super) async fn register(
    context: &Context<'_>,
    ask: McpRegister,
) -> Result<McpRegisterAck, Refusal> {
    let McpRegister { server_name, description, tools, persistent } = ask;
    check_text("serverName", &server_name, limits::MCP_NAME_BYTES_MAX)?;
    let tool_count = tools.len();
    if tool_count > limits::MCP_TOOLS_PER_SERVER_MAX {
        let max = limits::MCP_TOOLS_PER_SERVER_MAX;
        return Err(Refusal::new("quota", format!("{tool_count} tools; a server has {max}")));
    }
    for tool in &tools {
        check_text("a tool's name", &tool.name, limits::MCP_NAME_BYTES_MAX)?;
    }
    let server = McpServer {
        name: server_name.clone(),
        description,
        tools,
        persistent,
        registered_at: Timestamp::now(),
    };
    let (presence, room, session) = (&context.parts.presence, context.room, context.session);
    servers::register(presence, room, session, server).await.map_err(|crowded| {
        let text = match crowded {
            Crowded::Servers => {
                format!(
                    "this session hosts {} servers already",
                    limits::MCP_SERVERS_PER_PRESENCE_MAX
                )
            }
            Crowded::Bytes(bytes) => format!(
                "names and descriptions of this session's servers have {bytes} bytes; they may \
                 have {}",
                limits::MCP_BYTES_PER_PRESENCE_MAX
            ),
        };
        Refusal::new("quota", text)
    })?;
    Ok(McpRegisterAck { server_name, tool_count })
}

/// The session hosts it no more. One that it does not host stays as it is.
pub(super) async fn unregister(context: &Context<'_>, ask: McpUnregister) -> Result<Ack, Refusal> {
    let (presence, room, session) = (&context.parts.presence, context.room, context.session);
    servers::unregister(presence, room, session, &ask.server_name).await;
    Ok(context.done())
}

/// Where a list goes on: after that registration.
type Cursor = (Timestamp, PresenceId);

/// The servers of the mesh, the newest first.
pub(super) async fn list(context: &Context<'_>, ask: McpList) -> Result<McpListResult, Refusal> {
    let after = from_cursor::<Cursor>(ask.cursor.as_deref())?;
    let mut hosted = context.room.hosted();
    if let Some(after) = after {
        hosted.retain(|hosted| cursor_of(hosted) < after);
    }
    let hosts: Vec<_> = hosted.iter().map(|hosted| hosted.host.clone()).collect();
    let silent = context.parts.presence.relay.silent_among(&hosts).await;
    let row = |hosted: &Hosted| {
        let Hosted { server, host } = hosted;
        let (hosted_by, host_session) = names_of(context.room, host);
        let online = host.online && !silent.contains(&host.id);
        McpServerInfo {
            name: server.name.clone(),
            description: server.description.clone(),
            hosted_by,
            host_session,
            tools: server.tools.clone(),
            online,
            offline_since: (!online).then_some(host.last_seen_at),
        }
    };
    let Page { rows: servers, cursor } = page(hosted, cursor_of, row);
    Ok(McpListResult { servers, more: cursor.is_some(), cursor })
}

fn cursor_of(hosted: &Hosted) -> Cursor {
    (hosted.server.registered_at, hosted.host.id.clone())
}

/// Calls a tool, wherever its host is. What goes wrong there is the answer's error.
pub(super) async fn call(context: &Context<'_>, ask: McpCall) -> Result<McpCallResult, Refusal> {
    let McpCall { server_name, tool_name, args } = ask;
    check_text("serverName", &server_name, limits::MCP_NAME_BYTES_MAX)?;
    check_text("toolName", &tool_name, limits::MCP_NAME_BYTES_MAX)?;
    let Some(host) = context.room.host_of(&server_name) else {
        let text = format!("MCP server \"{server_name}\" not found in mesh");
        return Ok(McpCallResult::failed(text));
    };
    if !is_there(&host) {
        let (hosted_by, _) = names_of(context.room, &host.record);
        return Ok(offline(&server_name, &hosted_by, host.record.last_seen_at));
    }
    let own = context.room.record(&context.session.presence);
    let (caller_name, caller_session) =
        own.map(|own| names_of(context.room, &own)).unwrap_or_default();
    let call = CallId::random();
    let forward = Forward::McpCallForward(McpCallForward {
        call_id: call.to_string(),
        server_name: server_name.clone(),
        tool_name,
        args,
        caller_name,
        caller_session,
        deadline_ms: limits::MCP_CALL_MS,
    });
    Ok(match relayed(context, &host, (call, forward), limits::MCP_CALL_MS).await? {
        Ok(Reply::Mcp(answer)) => answer,
        Err(Silence::Gone) => {
            McpCallResult::failed(format!("MCP server \"{server_name}\" host disconnected"))
        }
        _ => McpCallResult::failed("MCP call timed out (30s)"),
    })
}

fn is_there(host: &Candidate) -> bool {
    host.record.online && host.session.as_ref().is_none_or(|session| session.outbox.is_open())
}

fn offline(server: &str, hosted_by: &str, since: Timestamp) -> McpCallResult {
    let gone = ago(Timestamp::now().ms_since(since));
    McpCallResult::failed(format!(
        "Server '{server}' is offline — hosted by {hosted_by} who disconnected {gone} ago. \
         It will restore when they reconnect."
    ))
}

/// A span in the largest unit that it has one of.
fn ago(span_ms: i64) -> String {
    let seconds = span_ms.max(0) / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_in_its_largest_unit() {
        for (span_ms, text) in
            [(-5, "0s"), (59_999, "59s"), (60_000, "1m"), (3_600_000, "1h"), (90_000_000, "1d")]
        {
            assert_eq!(ago(span_ms), text);
        }
    }
}
