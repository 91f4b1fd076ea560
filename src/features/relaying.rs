//! What a peer asks of another, and what hosts answer: the part that the features share
//! that hand requests on.
//!
//! A request waits in a task of its own; its answer waits for room in the asker's outbox.
//! What a host says is no request: nothing here answers it, whatever it holds.

use std::time::Duration;

use super::dispatch::charge;
use super::{Context, Refusal, Work};
use crate::codec::Asked;
use crate::id::CallId;
use crate::limits;
use crate::protocol::budget::value_bytes;
use crate::protocol::{
    Expects, Forward, McpCallResponse, McpCallResult, PeerDirResponse, PeerDirResponseForward,
    PeerFileResponse, PeerFileResponseForward, Reply, Ticket,
};
use crate::rates::cost;
use crate::registry::Candidate;
use crate::relay::{Full, Said, Unanswered};

/// Why a host did not answer, where the request's own answer says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// Its socket has ended.
    Gone,
    /// Nothing came in time.
    TimedOut,
}

/// Hands a request on and waits for its answer.
pub(super) async fn relayed(
    context: &Context<'_>,
    host: &Candidate,
    (call, forward): (CallId, Forward),
    deadline_ms: u64,
) -> Result<Result<Reply, Silence>, Refusal> {
    let bytes = value_bytes(&forward);
    if bytes > limits::RELAYED_BYTES_MAX {
        let max = limits::RELAYED_BYTES_MAX;
        let text = format!("what is handed on has {bytes} bytes; it may have {max}");
        return Err(Refusal::new("quota", text));
    }
    let relay = &context.parts.presence.relay;
    let deadline = Duration::from_millis(deadline_ms);
    let asked = relay.ask(context.room, context.session, host, (call, forward), deadline).await;
    let reply = match asked {
        Ok(reply) => reply,
        Err(Unanswered::Gone) => return Ok(Err(Silence::Gone)),
        // Whoever has left hears nothing, whatever it is.
        Err(Unanswered::TimedOut | Unanswered::Left) => return Ok(Err(Silence::TimedOut)),
        Err(Unanswered::Full(full)) => return Err(too_many(full)),
        Err(Unanswered::Busy) => {
            let text = "that peer has more to answer than it does; try again in a few seconds";
            return Err(Refusal::new("quota", text).after_ms(2_000));
        }
        Err(Unanswered::Unreachable) => {
            let text = "the node that holds that peer cannot be reached right now; try again";
            return Err(Refusal::new("unavailable", text).after_ms(2_000));
        }
    };
    let room = context.session.outbox.room_for(value_bytes(&reply)).await;
    // The answer follows at once, and takes the room.
    context.afterwards(async move { drop(room) });
    Ok(Ok(reply))
}

fn too_many(full: Full) -> Refusal {
    let text = match full {
        Full::Caller(max) => format!("{max} requests of this session wait for peers already"),
        Full::Host(max) => format!("{max} requests wait for that peer already"),
        Full::Node(max) => format!("{max} requests wait for peers on this node already"),
    };
    Refusal::new("quota", text).after_ms(2_000)
}

/// The names that a request or a host gives: not empty, and not longer than so.
pub(super) fn check_text(what: &str, text: &str, bytes_max: usize) -> Result<(), Refusal> {
    if text.is_empty() || text.len() > bytes_max || text.contains('\0') {
        return Err(Refusal::invalid(format!("{what} has 1 to {bytes_max} bytes, and no NUL")));
    }
    Ok(())
}

/// Takes what a host says; `None` if the frame is something else. What is returned is to
/// be awaited before the host's next frame.
pub(super) fn take<'a>(context: &Context<'a>, asked: &Asked<'_>) -> Option<Option<Work<'a>>> {
    let said = match asked.kind() {
        McpCallResponse::TYPE => asked.read().map(of_call),
        PeerFileResponse::TYPE => asked.read().map(|said| of_file(context, said)),
        PeerDirResponse::TYPE => asked.read().map(|said| of_dir(context, said)),
        _ => return None,
    };
    let was_asked = said.is_ok_and(|said| context.parts.presence.relay.said(context.session, said));
    if was_asked {
        return Some(None);
    }
    context.parts.metrics.rejected("not_asked");
    Some(charge(context.session, cost::OF_NOISE))
}

fn of_call(said: McpCallResponse) -> Said {
    let McpCallResponse { call_id, result, error } = said;
    Said::Call(CallId::from(call_id), McpCallResult { result, error })
}

fn of_file(context: &Context<'_>, said: PeerFileResponse) -> Said {
    let PeerFileResponse { requester_pubkey, file_path, content, error, offset, total_bytes } =
        said;
    let about = Expects::File(ticket(context, requester_pubkey, &file_path));
    let reply = PeerFileResponseForward { file_path, content, error, offset, total_bytes };
    Said::About(about, Reply::File(reply))
}

fn of_dir(context: &Context<'_>, said: PeerDirResponse) -> Said {
    let PeerDirResponse { requester_pubkey, dir_path, entries, error } = said;
    let about = Expects::Dir(ticket(context, requester_pubkey, &dir_path));
    Said::About(about, Reply::Dir(PeerDirResponseForward { dir_path, entries, error }))
}

fn ticket(context: &Context<'_>, requester: String, path: &str) -> Ticket {
    Ticket { requester, path: path.to_owned(), req_id: context.req_id.clone() }
}
