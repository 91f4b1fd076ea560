//! `mcp_register`, `mcp_unregister`, `mcp_list`, `mcp_call`: servers that peers host.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::relaying::{Silence, check_text, relayed};
use super::{Context, Refusal};
use crate::clock::Timestamp;
use crate::id::{CallId, PresenceId};
use crate::limits;
use crate::paging::{Budget, from_cursor, to_cursor};
use crate::presence::servers::{self, Crowded, names_of};
use crate::protocol::budget::{cut, value_bytes};
use crate::protocol::{
    Ack, Forward, McpCall, McpCallForward, McpCallResult, McpList, McpListResult, McpRegister,
    McpRegisterAck, McpServerInfo, McpUnregister, Reply,
};
use crate::record::McpServer;
use crate::registry::{Candidate, Hosted};
use crate::store::KeptServer;

/// Rows of servers that outlived their hosts, read at once.
const KEPT_READ: i64 = 16;

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
    // A session that has ended hosts nothing.
    if let Some(record) = room.record(&session.presence) {
        servers::may_host(&record, &server).map_err(crowded)?;
        write(context, &server).await?;
        servers::register(presence, room, session, server).await.map_err(crowded)?;
    }
    Ok(McpRegisterAck { server_name, tool_count })
}

/// The row of a server that outlives its host; of another one that took over such a name,
/// there is none any more.
async fn write(context: &Context<'_>, server: &McpServer) -> Result<(), Refusal> {
    let (kept, author) = (&context.parts.presence.mcp_servers, context.author());
    if server.persistent {
        kept.keep(Timestamp::now(), &author, server).await?;
    } else if kept.named(context.room.mesh(), &server.name).await?.is_some() {
        kept.forget(Timestamp::now(), &author, &server.name).await?;
    }
    Ok(())
}

fn crowded(why: Crowded) -> Refusal {
    let text = match why {
        Crowded::Servers => {
            format!("this session hosts {} servers already", limits::MCP_SERVERS_PER_PRESENCE_MAX)
        }
        Crowded::Bytes(bytes) => format!(
            "names and descriptions of this session's servers have {bytes} bytes; they may have {}",
            limits::MCP_BYTES_PER_PRESENCE_MAX
        ),
    };
    Refusal::new("quota", text)
}

/// The session hosts it no more. One that it does not host stays as it is.
pub(super) async fn unregister(context: &Context<'_>, ask: McpUnregister) -> Result<Ack, Refusal> {
    let (presence, room, session) = (&context.parts.presence, context.room, context.session);
    let record = room.record(&session.presence);
    let own = record.as_ref().and_then(|record| record.mcp_server(&ask.server_name));
    if own.is_some_and(|own| own.persistent) {
        let (kept, author) = (&presence.mcp_servers, context.author());
        kept.forget(Timestamp::now(), &author, &ask.server_name).await?;
    }
    servers::unregister(presence, room, session, &ask.server_name).await;
    Ok(context.done())
}

/// Where a list goes on.
#[derive(Clone, Serialize, Deserialize)]
enum Cursor {
    /// After that registration of a presence.
    Hosted(Timestamp, PresenceId),
    /// After that name, of those that nobody hosts now.
    Kept(String),
}

/// A part of the list.
struct Part {
    budget: Budget,
    rows: Vec<McpServerInfo>,
    last: Option<Cursor>,
}

impl Part {
    /// Takes a row; `false` if there is no room for it.
    fn take(&mut self, row: McpServerInfo, position: Cursor) -> bool {
        let fits = self.budget.takes(value_bytes(&row));
        if fits {
            self.rows.push(row);
            self.last = Some(position);
        }
        fits
    }
}

/// The servers of the mesh: those that somebody hosts, the newest first; then those that
/// outlived their hosts, by name.
pub(super) async fn list(context: &Context<'_>, ask: McpList) -> Result<McpListResult, Refusal> {
    let after = from_cursor::<Cursor>(ask.cursor.as_deref())?;
    let mut part = Part { budget: Budget::default(), rows: Vec::new(), last: None };
    let mut hosted = context.room.hosted();
    let names: HashSet<String> = hosted.iter().map(|hosted| hosted.server.name.clone()).collect();
    let mut after_name = String::new();
    match after {
        None => {}
        Some(Cursor::Hosted(at, host)) => hosted.retain(|hosted| hosted.since() < (at, &host)),
        Some(Cursor::Kept(name)) => {
            hosted.clear();
            after_name = name;
        }
    }
    let is_whole = take_hosted(context, &mut part, &hosted).await
        && take_kept(context, &mut part, &names, after_name).await?;
    let cursor = part.last.filter(|_| !is_whole).map(|last| to_cursor(&last));
    Ok(McpListResult { servers: part.rows, more: cursor.is_some(), cursor })
}

async fn take_hosted(context: &Context<'_>, part: &mut Part, hosted: &[Hosted]) -> bool {
    let hosts: Vec<_> = hosted.iter().map(|hosted| Arc::clone(&hosted.host)).collect();
    let silent = context.parts.presence.relay.silent_among(&hosts).await;
    hosted.iter().all(|Hosted { server, host }| {
        let (hosted_by, hosted_by_session) = names_of(context.room, host);
        let online = host.online && !silent.contains(&host.id);
        let row = McpServerInfo {
            name: server.name.clone(),
            description: server.description.clone(),
            hosted_by,
            hosted_by_session,
            tools: server.tools.clone(),
            online,
            offline_since: (!online).then_some(host.last_seen_at),
        };
        part.take(row, Cursor::Hosted(server.registered_at, host.id.clone()))
    })
}

async fn take_kept(
    context: &Context<'_>,
    part: &mut Part,
    hosted: &HashSet<String>,
    mut after: String,
) -> Result<bool, Refusal> {
    let (store, mesh) = (&context.parts.presence.mcp_servers, context.room.mesh());
    loop {
        let found = store.list(mesh, &after, KEPT_READ).await?;
        let is_last = i64::try_from(found.len()).unwrap_or(KEPT_READ) < KEPT_READ;
        for kept in found {
            after.clone_from(&kept.server.name);
            if hosted.contains(&after) {
                continue;
            }
            let row = McpServerInfo {
                hosted_by: host_name(context, &kept),
                hosted_by_session: None,
                name: kept.server.name,
                description: kept.server.description,
                tools: kept.server.tools,
                online: false,
                offline_since: Some(kept.heard_at),
            };
            if !part.take(row, Cursor::Kept(after.clone())) {
                return Ok(false);
            }
        }
        if is_last {
            return Ok(true);
        }
    }
}

/// The enrolled name of whoever hosted a server that is kept.
fn host_name(context: &Context<'_>, kept: &KeptServer) -> String {
    let member = context.room.member(&kept.member);
    let name = member.as_ref().map_or(&kept.hosted_by, |member| &member.display_name);
    cut(name, limits::DISPLAY_NAME_BYTES_MAX).to_owned()
}

/// Calls a tool, wherever its host is. What goes wrong there is the answer's error.
pub(super) async fn call(context: &Context<'_>, ask: McpCall) -> Result<McpCallResult, Refusal> {
    let McpCall { server_name, tool_name, args } = ask;
    check_text("serverName", &server_name, limits::MCP_NAME_BYTES_MAX)?;
    check_text("toolName", &tool_name, limits::MCP_NAME_BYTES_MAX)?;
    let Some(host) = context.room.host_of(&server_name) else {
        let kept = &context.parts.presence.mcp_servers;
        return Ok(match kept.named(context.room.mesh(), &server_name).await? {
            Some(kept) => offline(&server_name, &host_name(context, &kept), kept.heard_at),
            None => {
                let text = format!("MCP server \"{server_name}\" not found in mesh");
                McpCallResult::failed(text)
            }
        });
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
