//! `peer_file_request` and `peer_dir_request`: a peer is asked for what it shows of its
//! disk, if its member lets the asker.

use super::relaying::{Silence, check_text, relayed};
use super::{Context, Refusal};
use crate::delivery::policy::{self, Capability};
use crate::id::{CallId, Key};
use crate::limits;
use crate::protocol::{
    Forward, PeerDirRequest, PeerDirRequestForward, PeerDirResponseForward, PeerFileRequest,
    PeerFileRequestForward, PeerFileResponseForward, Reply,
};
use crate::registry::Candidate;

const GONE: &str = "the peer has disconnected";
const TIMED_OUT: &str = "the peer did not answer in time";

/// A file, or a part of one.
pub(super) async fn file(
    context: &Context<'_>,
    ask: PeerFileRequest,
) -> Result<PeerFileResponseForward, Refusal> {
    let PeerFileRequest { target_pubkey, file_path, offset, length } = ask;
    check_text("a path", &file_path, limits::PEER_PATH_BYTES_MAX)?;
    let host = host(context, &target_pubkey)?;
    let forward = Forward::PeerFileRequestForward(PeerFileRequestForward {
        requester_pubkey: context.session.sender_key().to_string(),
        file_path: file_path.clone(),
        offset,
        length,
        req_id: context.req_id.clone(),
    });
    Ok(match handed_on(context, &host, forward).await? {
        Ok(Reply::File(answer)) => answer,
        other => PeerFileResponseForward {
            file_path,
            error: Some(why(other).to_owned()),
            ..PeerFileResponseForward::default()
        },
    })
}

/// The names in a folder.
pub(super) async fn dir(
    context: &Context<'_>,
    ask: PeerDirRequest,
) -> Result<PeerDirResponseForward, Refusal> {
    let PeerDirRequest { target_pubkey, dir_path, pattern } = ask;
    check_text("a path", &dir_path, limits::PEER_PATH_BYTES_MAX)?;
    if let Some(pattern) = &pattern {
        check_text("a pattern", pattern, limits::PEER_PATH_BYTES_MAX)?;
    }
    let host = host(context, &target_pubkey)?;
    let forward = Forward::PeerDirRequestForward(PeerDirRequestForward {
        requester_pubkey: context.session.sender_key().to_string(),
        dir_path: dir_path.clone(),
        pattern,
        req_id: context.req_id.clone(),
    });
    Ok(match handed_on(context, &host, forward).await? {
        Ok(Reply::Dir(answer)) => answer,
        other => {
            let error = Some(why(other).to_owned());
            PeerDirResponseForward { dir_path, entries: None, error }
        }
    })
}

async fn handed_on(
    context: &Context<'_>,
    host: &Candidate,
    forward: Forward,
) -> Result<Result<Reply, Silence>, Refusal> {
    relayed(context, host, (CallId::random(), forward), limits::PEER_FILE_MS).await
}

fn why(other: Result<Reply, Silence>) -> &'static str {
    match other {
        Err(Silence::Gone) => GONE,
        _ => TIMED_OUT,
    }
}

/// The presence to ask, which lets the asker read.
fn host(context: &Context<'_>, target: &str) -> Result<Candidate, Refusal> {
    let candidates = context.room.addressed_by(target);
    let not_found = || Refusal::new("peer_not_found", "target peer not connected");
    let host = choose(context, candidates).ok_or_else(not_found)?;
    if may_read(context, &host) {
        return Ok(host);
    }
    let text = "blocked by recipient grants (requester lacks file-read capability)";
    Err(Refusal::new("forbidden", text))
}

/// Of the presences that a key addresses: one that is there, another than the asker, and
/// one that answers such requests, as daemons and passing commands do not.
fn choose(context: &Context<'_>, mut candidates: Vec<Candidate>) -> Option<Candidate> {
    candidates.retain(|Candidate { record, session }| {
        record.online && session.as_ref().is_none_or(|session| session.outbox.is_open())
    });
    candidates.into_iter().max_by_key(|Candidate { record, .. }| {
        let is_other = record.id != context.session.presence;
        let answers = !record.is_daemon() && !record.visitor;
        let newest = (record.last_seen_at, record.id.clone());
        (is_other, answers, record.confirms(), record.session_key.is_some(), newest)
    })
}

/// Its own member's sessions may read, others by an entry alone.
fn may_read(context: &Context<'_>, host: &Candidate) -> bool {
    let session = context.session;
    if host.record.member == session.member {
        return true;
    }
    let session_key: Option<&Key> = session.session_key.as_ref();
    let member = context.room.member(&host.record.member);
    member.is_some_and(|member| {
        policy::grants(&member, &session.member_key, session_key, Capability::FileRead)
    })
}
