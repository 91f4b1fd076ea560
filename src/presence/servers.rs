//! The servers that presences host for their mesh: registered, given up, taken over.
//!
//! A registration is a part of its host's record and goes wherever that goes: into the
//! directory, to the other nodes, to the node that a session comes back to. Called by
//! [`features`](crate::features), by [`admission`](crate::admission) where a session enters,
//! and by [`bus`](crate::bus). The rows of those that outlive their hosts are written by
//! whoever registers them.

use std::sync::Arc;

use serde_json::json;

use super::Parts;
use super::changes::tell_others;
use crate::clock::Timestamp;
use crate::cluster::bus::Announcement;
use crate::events;
use crate::limits;
use crate::protocol::budget::{cut, text_bytes, value_bytes};
use crate::record::{McpServer, PresenceRecord};
use crate::registry::{Change, Room};
use crate::session::Session;
use crate::store::KeptServer;

/// Why a registration is one too many: what there would be, and how much there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crowded {
    Servers,
    Bytes(usize),
}

/// Who hosts a server, in words that its mesh knows: the enrolled name of the member, and
/// the session's own where that is another.
pub(crate) fn names_of(room: &Room, host: &PresenceRecord) -> (String, Option<String>) {
    let own = cut(&host.display_name, limits::DISPLAY_NAME_BYTES_MAX);
    let enrolled = room.member(&host.member);
    let enrolled = enrolled
        .as_ref()
        .map_or(own, |member| cut(&member.display_name, limits::DISPLAY_NAME_BYTES_MAX));
    (enrolled.to_owned(), (own != enrolled).then(|| own.to_owned()))
}

/// A session hosts a server from now on, in place of whoever did. Its peers are told.
pub(crate) async fn register(
    parts: &Arc<Parts>,
    room: &Arc<Room>,
    session: &Arc<Session>,
    server: McpServer,
) -> Result<(), Crowded> {
    let name = server.name.clone();
    let server = dated(room, server);
    let mut crowded = None;
    let edit = |record: &mut PresenceRecord| match with_server(record, server) {
        Ok(servers) => {
            record.mcp_servers = servers;
            true
        }
        Err(why) => {
            crowded = Some(why);
            false
        }
    };
    let changed = room.update(session, edit);
    if let Some(why) = crowded {
        return Err(why);
    }
    // A session that has ended hosts nothing.
    let Some(record) = changed else { return Ok(()) };
    let told = record.mcp_server(&name).map(|server| registered(room, &record, server));
    if let Some(told) = &told {
        events::announce(room, told);
    }
    tell_others(parts, &session.lease, &record, told).await;
    displace(parts, room, &record);
    Ok(())
}

/// Whether a presence may host that server too.
pub(crate) fn may_host(record: &PresenceRecord, server: &McpServer) -> Result<(), Crowded> {
    with_server(record, server.clone()).map(|_| ())
}

/// A member is back: servers of its that outlived their hosts are hosted by this session
/// from now on, and everybody is told, the session too. What another presence of the member
/// hosts, or may come back to, stays that one's.
pub(crate) async fn restore(parts: &Arc<Parts>, room: &Arc<Room>, session: &Arc<Session>) {
    let limit = i64::try_from(limits::MCP_SERVERS_PER_PRESENCE_MAX).unwrap_or(i64::MAX);
    let kept = match parts.mcp_servers.of_member(&session.mesh, &session.member, limit).await {
        Ok(kept) => kept,
        Err(error) => {
            return tracing::warn!(%error, "servers of a member wait for its next hello");
        }
    };
    for KeptServer { server, .. } in kept {
        if room.host_of(&server.name).is_some() {
            continue;
        }
        let name = server.name.clone();
        let edit = |record: &mut PresenceRecord| match with_server(record, server) {
            Ok(servers) => {
                record.mcp_servers = servers;
                true
            }
            Err(_) => false,
        };
        let Some(record) = room.update(session, edit) else { continue };
        let told = about_server(room, &record, "mcp_restored", &name);
        events::announce(room, &told);
        events::tell(room, session, &told);
        tell_others(parts, &session.lease, &record, Some(told)).await;
        if let Err(error) = parts.mcp_servers.rehost(&session.mesh, &name, &record.id).await {
            tracing::debug!(%error, "a server's row names an earlier host");
        }
    }
}

/// A session hosts a server no more; whether it did. Its peers are told.
pub(crate) async fn unregister(
    parts: &Arc<Parts>,
    room: &Arc<Room>,
    session: &Arc<Session>,
    name: &str,
) -> bool {
    let drop_it = |record: &mut PresenceRecord| {
        let before = record.mcp_servers.len();
        record.mcp_servers.retain(|server| server.name != name);
        record.mcp_servers.len() != before
    };
    let Some(record) = room.update(session, drop_it) else { return false };
    let told = about_server(room, &record, "mcp_unregistered", name);
    events::announce(room, &told);
    tell_others(parts, &session.lease, &record, Some(told)).await;
    true
}

/// What a presence hosts, sessions here host no more that registered it before.
pub(crate) fn displace(parts: &Arc<Parts>, room: &Arc<Room>, by: &PresenceRecord) {
    if by.mcp_servers.is_empty() {
        return;
    }
    let is_later = |own: &McpServer| {
        by.mcp_server(&own.name).is_some_and(|other| other.registered_at > own.registered_at)
    };
    let mut displaced = Vec::new();
    room.for_each_session(|session, record| {
        if record.id != by.id && record.mcp_servers.iter().any(is_later) {
            displaced.push(Arc::clone(session));
        }
    });
    for session in displaced {
        let give_up = |record: &mut PresenceRecord| {
            let before = record.mcp_servers.len();
            record.mcp_servers.retain(|own| !is_later(own));
            record.mcp_servers.len() != before
        };
        let Some(record) = room.update(&session, give_up) else { continue };
        let (parts, tasks) = (Arc::clone(parts), parts.life.tasks.clone());
        tasks.spawn(async move { tell_others(&parts, &session.lease, &record, None).await });
    }
}

/// Tells the sessions here what a presence of another node hosts, and hosts no more, where
/// the frames that said so were lost: all but what the frame tells that this is known from.
/// What another took over is told as that one's.
pub(crate) fn tell_missed(room: &Room, host: &Change, told: Option<&Announcement>) {
    let Change { was, is } = host;
    let is_told = |name: &str| told.and_then(server_of) == Some(name);
    let known = was.as_ref().map_or(&[][..], |was| &was.mcp_servers);
    for server in &is.mcp_servers {
        let is_known = known.iter().any(|known| is_same(known, server));
        let host_now = room.host_of(&server.name);
        let counts = host_now.is_some_and(|host| host.record.id == is.id);
        if is_known || is_told(&server.name) || !counts {
            continue;
        }
        // What its presence came with, an earlier one had registered.
        let missed = if server.persistent && server.registered_at < is.connected_at {
            about_server(room, is, "mcp_restored", &server.name)
        } else {
            registered(room, is, server)
        };
        events::announce(room, &missed);
    }
    for known in known {
        let name = &known.name;
        if is.mcp_server(name).is_none() && !is_told(name) && room.host_of(name).is_none() {
            events::announce(room, &about_server(room, is, "mcp_unregistered", name));
        }
    }
}

/// Whether the sessions here know already what a frame tells of a server: the directory
/// was read after it was sent.
pub(crate) fn was_told(host: &Change, told: &Announcement) -> bool {
    let (Some(was), Some(name)) = (&host.was, server_of(told)) else { return false };
    match (was.mcp_server(name), host.is.mcp_server(name)) {
        (Some(was), Some(is)) => is_same(was, is),
        (was, is) => was.is_none() && is.is_none(),
    }
}

fn is_same(one: &McpServer, other: &McpServer) -> bool {
    one.name == other.name && one.registered_at == other.registered_at
}

/// The server that an event is about.
fn server_of(told: &Announcement) -> Option<&str> {
    let is_about_one = told.event.event.starts_with("mcp_");
    is_about_one.then(|| told.event.data["serverName"].as_str()).flatten()
}

/// What a session that comes back still hosts: others may have taken over some of it.
pub(crate) fn give_up_displaced(room: &Room, record: &mut PresenceRecord) {
    if record.mcp_servers.is_empty() {
        return;
    }
    let presence = record.id.clone();
    record.mcp_servers.retain(|own| {
        let host = room.host_of(&own.name).filter(|host| host.record.id != presence);
        let other = host.as_ref().and_then(|host| host.record.mcp_server(&own.name));
        other.is_none_or(|other| other.registered_at <= own.registered_at)
    });
}

/// With an instant later than of any other of its name, also where another node's clock
/// is ahead.
fn dated(room: &Room, server: McpServer) -> McpServer {
    let known = room.host_of(&server.name);
    let known = known.as_ref().and_then(|host| host.record.mcp_server(&server.name));
    let after = known.map_or(Timestamp::default(), |known| known.registered_at.plus_ms(1));
    McpServer { registered_at: Timestamp::now().max(after), ..server }
}

fn with_server(record: &PresenceRecord, server: McpServer) -> Result<Vec<McpServer>, Crowded> {
    let mut servers = record.mcp_servers.clone();
    servers.retain(|own| own.name != server.name);
    // No two of a presence have one instant, so that lists have one order.
    let last = servers.iter().map(|own| own.registered_at).max();
    let after = last.map_or(Timestamp::default(), |last| last.plus_ms(1));
    servers.push(McpServer { registered_at: server.registered_at.max(after), ..server });
    if servers.len() > limits::MCP_SERVERS_PER_PRESENCE_MAX {
        return Err(Crowded::Servers);
    }
    let bytes = value_bytes(&servers);
    if bytes > limits::MCP_BYTES_PER_PRESENCE_MAX {
        return Err(Crowded::Bytes(bytes));
    }
    Ok(servers)
}

fn registered(room: &Room, host: &PresenceRecord, server: &McpServer) -> Announcement {
    let mut told = about_server(room, host, "mcp_registered", &server.name);
    let mut bytes = 0;
    let named = server.tools.iter().map(|tool| tool.name.as_str()).take_while(|name| {
        bytes += text_bytes(name) + 3;
        bytes <= limits::EVENT_TOOLS_BYTES_MAX
    });
    let named: Vec<&str> = named.collect();
    let left_out = server.tools.len() - named.len();
    let data = &mut told.event.data;
    data["description"] = json!(cut(&server.description, limits::EVENT_DESCRIPTION_BYTES_MAX));
    data["tools"] = json!(named);
    if left_out > 0 {
        data["toolsLeftOut"] = json!(left_out);
    }
    told
}

fn about_server(
    room: &Room,
    host: &PresenceRecord,
    event: &'static str,
    name: &str,
) -> Announcement {
    let (hosted_by, hosted_by_session) = names_of(room, host);
    let mut data = json!({ "serverName": name, "hostedBy": hosted_by });
    if let Some(session) = hosted_by_session {
        data["hostedBySession"] = json!(session);
    }
    events::announcement(event, host, data, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::McpTool;
    use crate::store::testing::{member, record};

    fn server(name: &str, description_bytes: usize) -> McpServer {
        McpServer {
            name: name.to_owned(),
            description: "d".repeat(description_bytes),
            tools: vec![McpTool { name: "t".to_owned(), description: String::new() }],
            persistent: false,
            registered_at: Timestamp::from_ms(1),
        }
    }

    #[test]
    fn a_presence_hosts_so_many_servers_of_so_many_bytes() {
        let mut host = record(&member("ada"));
        for number in 0..limits::MCP_SERVERS_PER_PRESENCE_MAX {
            host.mcp_servers = with_server(&host, server(&number.to_string(), 1)).expect("room");
        }
        assert_eq!(with_server(&host, server("one more", 1)), Err(Crowded::Servers));
        let again = with_server(&host, server("0", 9)).expect("in place of itself");
        assert_eq!(again.len(), host.mcp_servers.len());
        let large = with_server(&host, server("0", limits::MCP_BYTES_PER_PRESENCE_MAX));
        assert!(
            matches!(large, Err(Crowded::Bytes(bytes)) if bytes > limits::MCP_BYTES_PER_PRESENCE_MAX)
        );
    }
}
