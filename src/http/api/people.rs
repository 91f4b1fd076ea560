//! Who belongs to the key's mesh, and who is there.
//!
//! Names are those that members are enrolled under. Who hides is shown to keys of the
//! same member only.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use super::caller::Caller;
use super::fields::Fields;
use super::{Refused, answer, presences};
use crate::clock::Timestamp;
use crate::http::HttpState;
use crate::id::{Key, MemberId, MeshId};
use crate::limits;
use crate::paging::fitting;
use crate::protocol::{ApiCapability, Group};
use crate::record::PresenceRecord;
use crate::store::{Role, RosterLine};

#[derive(Serialize)]
pub(super) struct Members {
    members: Vec<MemberView>,
    /// Whether there are more than fit.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    more: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MemberView {
    member_id: MemberId,
    pubkey: Key,
    display_name: String,
    role: Role,
    is_human: bool,
    joined_at: Timestamp,
    online: bool,
    status: &'static str,
    summary: Option<String>,
}

#[derive(Serialize)]
struct Peers {
    peers: Vec<PeerView>,
    /// Whether there are more than fit.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    more: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PeerView {
    pubkey: Key,
    display_name: String,
    status: &'static str,
    summary: Option<String>,
    groups: Vec<Group>,
    via: &'static str,
}

/// `GET /members`: in the order in which they joined.
pub(super) async fn members(
    State(state): State<Arc<HttpState>>,
    Extension(caller): Extension<Caller>,
) -> Response {
    answer(&state, |state| async move {
        caller.may(ApiCapability::Read)?;
        let here = here(&state, caller.mesh(), caller.issuer()).await?;
        let roster = state.stores.workspaces.roster(caller.mesh()).await?;
        let (members, more) = fitting(roster.into_iter().map(|line| shown(line, &here)));
        Ok(Members { members, more })
    })
    .await
}

fn shown(line: RosterLine, here: &HashMap<MemberId, Arc<PresenceRecord>>) -> MemberView {
    let record = here.get(&line.member);
    MemberView {
        pubkey: line.key,
        display_name: line.display_name,
        role: line.role,
        is_human: line.is_human,
        joined_at: line.joined_at,
        online: record.is_some(),
        status: record.map_or("offline", |record| record.status.as_str()),
        summary: record.and_then(|record| record.summary.clone()),
        member_id: line.member,
    }
}

/// `GET /peers`: those with an open socket, the newest first, then those whose keys
/// called a moment ago.
pub(super) async fn peers(
    State(state): State<Arc<HttpState>>,
    Extension(caller): Extension<Caller>,
) -> Response {
    answer(&state, |state| async move {
        caller.may(ApiCapability::Read)?;
        let here = here(&state, caller.mesh(), caller.issuer()).await?;
        let roster = state.stores.workspaces.roster(caller.mesh()).await?;
        let since = Timestamp::now().plus_ms(-limits::API_CALLER_MS);
        let callers = state.stores.workspaces.callers(caller.mesh(), since).await?;
        let (peers, more) = fitting(listed(&roster, &here, &callers));
        Ok(Peers { peers, more })
    })
    .await
}

/// `POST /me/peer-pubkey`: for members whose keys the server made and keeps. Here there are
/// none: whoever has a key said so by it, and nobody takes its place.
pub(super) async fn replace_key(
    Extension(caller): Extension<Caller>,
    fields: Fields,
) -> Result<Response, Refused> {
    fields.key("pubkey")?;
    caller.may(ApiCapability::Send)?;
    caller.needs_issuer()?;
    let detail = "this member made its key itself: it leaves the mesh, and joins with another key";
    Err(Refused::word(StatusCode::CONFLICT, "not_web_member").with("detail", detail))
}

fn listed(
    roster: &[RosterLine],
    here: &HashMap<MemberId, Arc<PresenceRecord>>,
    callers: &[MemberId],
) -> Vec<PeerView> {
    let mut sockets: Vec<_> =
        roster.iter().filter_map(|line| Some((line, here.get(&line.member)?))).collect();
    sockets.sort_by_key(|(_, record)| std::cmp::Reverse((record.connected_at, record.id.clone())));
    let by_socket = sockets.into_iter().map(|(line, record)| PeerView {
        pubkey: line.key.clone(),
        display_name: line.display_name.clone(),
        status: record.status.as_str(),
        summary: record.summary.clone(),
        groups: record.groups.clone(),
        via: "ws",
    });
    let calls =
        |line: &&RosterLine| callers.contains(&line.member) && !here.contains_key(&line.member);
    let by_key = roster.iter().filter(calls).map(|line| PeerView {
        pubkey: line.key.clone(),
        display_name: line.display_name.clone(),
        status: "idle",
        summary: None,
        groups: Vec::new(),
        via: "rest",
    });
    by_socket.chain(by_key).collect()
}

/// The newest presence of each member that has a socket open and shows itself.
pub(super) async fn here(
    state: &HttpState,
    mesh: &MeshId,
    asks: Option<&MemberId>,
) -> Result<HashMap<MemberId, Arc<PresenceRecord>>, Refused> {
    Ok(newest(presences(state, mesh).await?, asks))
}

fn newest(
    records: Vec<Arc<PresenceRecord>>,
    asks: Option<&MemberId>,
) -> HashMap<MemberId, Arc<PresenceRecord>> {
    let mut here: HashMap<MemberId, Arc<PresenceRecord>> = HashMap::new();
    for record in records {
        let is_shown = record.visible || asks == Some(&record.member);
        if !record.online || record.visitor || !is_shown {
            continue;
        }
        let known = here.get(&record.member);
        if known
            .is_none_or(|known| (known.connected_at, &known.id) < (record.connected_at, &record.id))
        {
            here.insert(record.member.clone(), record);
        }
    }
    here
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Status;
    use crate::store::testing;

    fn line(id: &str) -> RosterLine {
        let member = testing::member(id);
        RosterLine {
            member: member.id,
            key: member.key,
            display_name: member.display_name,
            role: member.role,
            is_human: false,
            joined_at: member.joined_at,
        }
    }

    fn record(id: &str, at: i64, change: impl FnOnce(&mut PresenceRecord)) -> Arc<PresenceRecord> {
        let mut record = testing::record(&testing::member(id));
        record.connected_at = Timestamp::from_ms(at);
        change(&mut record);
        Arc::new(record)
    }

    #[test]
    fn of_a_member_the_newest_socket_counts_and_none_that_hides() {
        let records = vec![
            record("ada", 2, |record| record.status = Status::Working),
            record("ada", 1, |_| {}),
            record("ada", 3, |record| record.visitor = true),
            record("bob", 1, |record| record.visible = false),
            record("eve", 1, |record| record.online = false),
        ];
        let seen = newest(records.clone(), None);
        assert_eq!(seen.len(), 1);
        assert_eq!(shown(line("ada"), &seen).status, "working");
        assert!(!shown(line("eve"), &seen).online);
        assert_eq!(shown(line("bob"), &seen).status, "offline");
        let own = MemberId::from("bob");
        assert!(shown(line("bob"), &newest(records, Some(&own))).online);
    }

    #[test]
    fn peers_are_those_with_sockets_then_those_whose_keys_call() {
        let here = newest(vec![record("ada", 1, |_| {}), record("bob", 2, |_| {})], None);
        let roster = [line("ada"), line("bob"), line("eve"), line("olga")];
        let callers = [MemberId::from("eve"), MemberId::from("ada"), MemberId::from("gone")];
        let listed = listed(&roster, &here, &callers);
        let told: Vec<_> =
            listed.iter().map(|peer| (peer.display_name.as_str(), peer.via)).collect();
        assert_eq!(told, [("bob", "ws"), ("ada", "ws"), ("eve", "rest")]);
    }
}
