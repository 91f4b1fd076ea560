//! What an active session may ask: the list of requests, each with its handler.
//!
//! A handler returns its answer or a refusal and never writes to a socket; the
//! dispatcher answers, once. A request with a `_reqId` gets exactly one frame that
//! carries it, success or error. One without gets what older brokers sent, which is a
//! property of the request ([`Unasked`]). A feature imports no other: what two of them
//! share stands beside them ([`listing`], [`moderators`], [`shapes`],
//! [`relaying`]). Called by
//! [`socket`](crate::socket).

mod apikeys;
mod audit;
mod common_keys;
mod context;
mod contexts;
mod dispatch;
mod empty;
#[cfg(test)]
mod example;
mod listing;
mod mcp;
mod members;
mod memory;
mod mesh_info;
mod message_status;
mod messages;
mod moderation;
mod moderators;
mod on_behalf;
mod peer_files;
mod presence;
mod rates;
mod receipts;
mod relaying;
mod schedules;
mod shapes;
mod sim_clock;
mod skills;
mod state;
mod streams;
mod tasks;
#[cfg(test)]
mod tests;
mod topics;
mod vault;
mod webhooks;

use std::time::Instant;

pub(crate) use self::context::{Context, Parts, Refusal, Work};
use self::dispatch::{Entry, noise, pays, requests};
use crate::codec::{Asked, ClientMessage, DecodeError};
use crate::delivery;
use crate::limits;
use crate::protocol::{
    ApikeyCreate, ApikeyList, ApikeyRevoke, AuditQuery, AuditRowQuery, AuditVerify, Ban, Budget,
    CancelScheduled, ClaimTask, CompleteTask, CreateStream, CreateTask, CreateWebhook, DeleteState,
    DeleteStream, DeleteWebhook, Disconnect, Forget, GetClock, GetCommonKey, GetContext, GetSkill,
    GetState, JoinGroup, Kick, LeaveGroup, ListBans, ListContexts, ListMembers, ListPeers,
    ListScheduled, ListSkills, ListState, ListStreams, ListTasks, ListWebhooks, MakeCommonKey,
    McpCall, McpList, McpRegister, McpUnregister, MeshInfo, MessageStatus, PauseClock,
    PeerDirRequest, PeerFileRequest, Publish, Recall, ReleaseTask, Remember, RemoveSkill,
    RenewTask, ResumeClock, Schedule, SetClock, SetProfile, SetState, SetStats, SetStatus,
    SetSummary, SetVisible, ShareCommonKey, ShareContext, ShareSkill, Subscribe, TopicCreate,
    TopicHistory, TopicInvite, TopicJoin, TopicLeave, TopicList, TopicMarkRead, TopicMembers,
    Unasked, Unban, Unsubscribe, UnwatchTasks, UpdateTask, VaultDelete, VaultGet, VaultList,
    VaultSet, WatchTasks, Withdraw,
};
use crate::rates::cost;

/// Every request, with its handler and its cost.
const REQUESTS: &[Entry] = requests! {
    ApikeyCreate => apikeys::create, |_, _| 20;
    ApikeyList => apikeys::list, |_, _| 20;
    ApikeyRevoke => apikeys::revoke, |_, _| 4;
    AuditQuery => audit::query, |_, _| 20;
    AuditRowQuery => audit::row_of, |_, _| 4;
    // The whole chain is read.
    AuditVerify => audit::verify, |_, _| 200, beside;
    Ban => moderation::ban, |_, all| cost::told_to(all, 20);
    // What waits is counted.
    Budget => rates::budget, |_, _| 20;
    CancelScheduled => schedules::cancel, |_, _| 4;
    // The list is answered.
    ClaimTask => tasks::claim, |_, _| 20;
    CompleteTask => tasks::complete, |_, _| 20;
    CreateStream => streams::create, |_, _| 10;
    CreateTask => tasks::create, |_, all| cost::told_to(all, 4);
    CreateWebhook => webhooks::create, |_, _| 20;
    DeleteState => state::delete, |_, all| cost::told_to(all, 4),
        pipelined |ask: &DeleteState| ask.if_version.is_none();
    DeleteStream => streams::delete, |_, _| 4;
    DeleteWebhook => webhooks::delete, |_, _| 10;
    Disconnect => moderation::disconnect, |_, all| cost::told_to(all, 20);
    Forget => memory::forget, |_, _| 4;
    GetClock => sim_clock::get, |_, _| 4;
    GetCommonKey => common_keys::get, |_, _| 10;
    GetContext => contexts::find, |_, _| 20;
    GetSkill => skills::get, |_, _| 1;
    GetState => state::get, |_, _| 1, daemon state::value;
    JoinGroup => presence::say, |_, _| 4;
    Kick => moderation::kick, |_, all| cost::told_to(all, 20);
    LeaveGroup => presence::say, |_, _| 4;
    ListBans => moderation::list_bans, |_, _| 10;
    ListContexts => contexts::list, |_, _| 20;
    ListMembers => members::list, |_, all| cost::page_of(all);
    ListPeers => presence::list_peers, |_, all| cost::page_of(all);
    ListScheduled => schedules::list, |_, _| 20;
    ListSkills => skills::list, |_, _| 20;
    ListState => state::list, |_, _| 20;
    ListStreams => streams::list, |_, _| 20;
    ListTasks => tasks::list, |_, _| 20;
    ListWebhooks => webhooks::list, |_, _| 20;
    MakeCommonKey => common_keys::make, |_, all| cost::told_to(all, 20);
    // Another peer answers it, in up to half a minute.
    McpCall => mcp::call, |_, _| 10, beside;
    McpList => mcp::list, |_, all| cost::page_of(all);
    McpRegister => mcp::register, |_, all| cost::told_to(all, 20);
    McpUnregister => mcp::unregister, |_, all| cost::told_to(all, 20);
    MeshInfo => mesh_info::tell, |_, _| 20;
    MessageStatus => message_status::tell, |ask, all| cost::look_up(&ask.message_id, all);
    PauseClock => sim_clock::pause, |_, _| 10;
    PeerDirRequest => peer_files::dir, |_, _| 10, beside;
    PeerFileRequest => peer_files::file, |_, _| 10, beside;
    Publish => streams::publish, |_, all| cost::told_to(all, 2);
    Recall => memory::recall, |_, _| 20, daemon memory::matches;
    ReleaseTask => tasks::release, |_, all| cost::told_to(all, 4);
    Remember => memory::remember, |_, _| 4;
    RemoveSkill => skills::remove, |_, _| 4;
    RenewTask => tasks::renew, |_, _| 4;
    ResumeClock => sim_clock::resume, |_, _| 10;
    Schedule => schedules::schedule, |_, _| 10;
    SetClock => sim_clock::set, |_, _| 10;
    SetProfile => presence::say, |_, _| 4;
    SetState => state::set, |_, all| cost::told_to(all, 4),
        pipelined |ask: &SetState| ask.if_version.is_none();
    SetStats => presence::set_stats, |_, _| 4;
    SetStatus => presence::say, |_, _| 4;
    SetSummary => presence::say, |_, _| 4;
    SetVisible => presence::say, |_, all| cost::told_to(all, 10);
    ShareCommonKey => common_keys::share, |_, _| 20;
    ShareContext => contexts::share, |_, all| cost::told_to(all, 4);
    ShareSkill => skills::share, |_, _| 4;
    Subscribe => streams::subscribe, |_, _| 4;
    TopicCreate => topics::create, |_, _| 50;
    TopicHistory => topics::history, |_, _| 20;
    TopicInvite => topics::invite, |_, _| 10;
    TopicJoin => topics::join, |_, _| 10;
    TopicLeave => topics::leave, |_, _| 10;
    TopicList => topics::list, |_, _| 20;
    TopicMarkRead => topics::mark_read, |_, _| 4;
    TopicMembers => topics::members, |_, _| 20;
    Unban => moderation::unban, |_, all| cost::told_to(all, 20);
    Unsubscribe => streams::unsubscribe, |_, _| 4;
    UnwatchTasks => tasks::unwatch, |_, _| 4;
    UpdateTask => tasks::update, |_, all| cost::told_to(all, 4);
    VaultDelete => vault::delete, |_, _| 4;
    VaultGet => vault::get, |ask, _| cost::of_names(ask.keys.len());
    VaultList => vault::list, |_, _| 20;
    VaultSet => vault::set, |_, _| 4;
    WatchTasks => tasks::watch, |_, _| 4;
    Withdraw => messages::withdraw, |_, _| 4;
};

/// Handles one frame. What is returned is to be awaited before the next, and runs to
/// its end, in a task that nobody cancels.
pub(crate) fn handle<'a>(
    context: Context<'a>,
    message: Result<ClientMessage<'a>, DecodeError>,
    received: Instant,
) -> Option<Work<'a>> {
    match message {
        Ok(ClientMessage::ClientAck(ack)) => messages::client_ack(context, ack),
        Ok(ClientMessage::Send(send)) => {
            let Context { parts, room, session, req_id, .. } = context;
            let delivery = &parts.presence.delivery;
            let sent = delivery::send::send(delivery, room, session, send, req_id, received);
            if !session.has_pipelined() {
                return Some(Box::pin(sent));
            }
            Some(Box::pin(async move {
                session.pipelined_is_done().await;
                sent.await;
            }))
        }
        Ok(ClientMessage::Asked(asked)) => asked_for(context, &asked, REQUESTS),
        Ok(ClientMessage::Hello(_)) => Some(Box::pin(async move {
            if pays(&context, cost::OF_NOISE).await {
                let text = "this connection has said hello already";
                context.refuse(Unasked::Silent, Refusal::new("already_active", text));
            }
        })),
        Err(error) => undecoded(&context, error),
    }
}

fn asked_for<'a>(context: Context<'a>, asked: &Asked<'_>, known: &[Entry]) -> Option<Work<'a>> {
    if let Some(taken) = relaying::take(&context, asked) {
        return taken;
    }
    if let Some(entry) = known.iter().find(|entry| entry.kind == asked.kind()) {
        return (entry.begin)(context, asked);
    }
    if let Some(question) = empty::find(asked.kind(), context.req_id.is_some()) {
        return empty::begin(context, question);
    }
    let kind: String = asked.kind().chars().take(limits::LOGGED_TYPE_CHARS).collect();
    tracing::debug!(kind, "unknown type");
    let text = "this broker does not know that type";
    noise(&context, Unasked::Silent, Refusal::new("unknown_type", text))
}

/// Answers a frame that is not what its type says.
fn undecoded<'a>(context: &Context<'a>, error: DecodeError) -> Option<Work<'a>> {
    match error {
        DecodeError::Malformed => {
            let text = "a frame is one JSON object (or one MessagePack map)";
            noise(context, Unasked::Refused, Refusal::new("malformed", text))
        }
        DecodeError::Invalid { kind: "send", id, reason, .. } => {
            let Context { parts, session, req_id, .. } = context;
            let delivery = &parts.presence.delivery;
            delivery::send::refuse_invalid(delivery, session, id, req_id.as_ref(), &reason);
            dispatch::charge(session, cost::OF_NOISE)
        }
        DecodeError::Invalid { kind, reason, .. } => {
            let refusal = Refusal::invalid(format!("{kind}: {reason}"));
            noise(context, Unasked::Silent, refusal)
        }
    }
}
