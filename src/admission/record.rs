//! What is written and told of a session that enters.

use std::borrow::Cow;

use serde_json::json;

use super::Proven;
use crate::admission::Parts;
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::cluster::bus::Announcement;
use crate::events;
use crate::limits;
use crate::protocol::budget::{cut, group_bytes, groups_within, value_bytes};
use crate::protocol::{
    Group, HelloAck, MemberProfile, MeshPolicy, PROTOCOL_VERSION, PeerRole, Profile, capability,
};
use crate::record::PresenceRecord;
use crate::store::{AdmittedMember, OpenPresence, PeerState};

pub(super) fn new_record(parts: &Parts, proven: &Proven) -> PresenceRecord {
    let Proven { mesh, role, session_key, visitor, about, client_mark, .. } = proven;
    let (admitted, saved) = (&proven.admitted, proven.saved());
    let (member, key) = (admitted.member.id.clone(), admitted.member.key.clone());
    PresenceRecord {
        session_key: session_key.clone(),
        role: *role,
        session_id: cut(&about.session_id, limits::HELLO_TEXT_BYTES_MAX).to_owned(),
        display_name: display_name(proven),
        groups: initial_groups(proven),
        cwd: cut(&about.cwd, limits::HELLO_CWD_BYTES_MAX).to_owned(),
        pid: about.pid,
        hostname: cut_option(about.hostname.as_deref()),
        peer_type: cut_option(about.peer_type.as_deref()),
        channel: cut_option(about.channel.as_deref()),
        model: cut_option(about.model.as_deref()),
        visible: saved.is_none_or(|saved| saved.visible),
        profile: saved.map_or_else(Profile::default, saved_profile),
        node: parts.node.id.to_string(),
        visitor: *visitor,
        stages: about.asks_for(capability::STAGES),
        opens_sealed: about.asks_for(capability::SEALED_MULTICAST),
        holds: about.asks_for(capability::HOLDS),
        client_mark: client_mark.clone(),
        ..PresenceRecord::new(mesh.clone(), member, key, Timestamp::now())
    }
}

impl Proven {
    /// What a `hello` restores of the member's last one. Visits leave nothing, and
    /// are given nothing.
    fn saved(&self) -> Option<&PeerState> {
        let restores = self.role == PeerRole::ControlPlane && !self.visitor;
        self.admitted.saved.as_ref().filter(|_| restores)
    }
}

fn display_name(proven: &Proven) -> String {
    let given = proven.about.display_name.as_deref().filter(|name| !name.is_empty());
    let name = given.unwrap_or(&proven.admitted.member.display_name);
    cut(name, limits::DISPLAY_NAME_BYTES_MAX).to_owned()
}

/// What another program saved may be larger than what peers may set.
fn saved_profile(saved: &PeerState) -> Profile {
    if value_bytes(&saved.profile) > limits::PROFILE_BYTES_MAX {
        return Profile::default();
    }
    saved.profile.clone()
}

/// `hello`: its groups, else the saved ones, else the member's defaults; an
/// empty list counts as none. `session_hello`: an empty list counts.
fn initial_groups(proven: &Proven) -> Vec<Group> {
    let Proven { role, about, admitted, .. } = proven;
    let defaults = &admitted.member.default_groups;
    let groups = match (role, &about.groups) {
        (PeerRole::Session, Some(given)) => given,
        (PeerRole::Session, None) => defaults,
        (_, Some(given)) if !given.is_empty() => given,
        _ => proven
            .saved()
            .map(|saved| &saved.groups)
            .filter(|groups| !groups.is_empty())
            .unwrap_or(defaults),
    };
    allowed_groups(groups)
}

/// Those that a presence may be in; what is over the bounds is dropped.
fn allowed_groups(groups: &[Group]) -> Vec<Group> {
    let mut bytes = 0;
    groups
        .iter()
        .filter(|group| {
            let role_bytes = group.role.as_ref().map_or(0, String::len);
            (1..=limits::GROUP_NAME_BYTES_MAX).contains(&group.name.len())
                && role_bytes <= limits::GROUP_NAME_BYTES_MAX
        })
        .take(limits::GROUPS_PER_PRESENCE_MAX)
        .take_while(|group| {
            bytes += group_bytes(group);
            bytes <= limits::GROUPS_BYTES_MAX
        })
        .cloned()
        .collect()
}

fn cut_option(text: Option<&str>) -> Option<String> {
    text.map(|text| cut(text, limits::HELLO_TEXT_BYTES_MAX).to_owned())
}

pub(super) fn opening(proven: &Proven, record: &PresenceRecord) -> OpenPresence {
    let groups = record.groups.clone();
    let audit = match (&record.session_key, record.role) {
        (Some(session_key), PeerRole::Session) => AuditEvent::SessionJoined {
            pubkey: record.member_key.clone(),
            session_pubkey: session_key.clone(),
            groups,
        },
        _ => AuditEvent::PeerJoined {
            pubkey: record.member_key.clone(),
            groups,
            restored: proven.admitted.saved.is_some(),
        },
    };
    OpenPresence { record: record.clone(), audit }
}

pub(super) fn joined(proven: &Proven, record: &PresenceRecord) -> Announcement {
    let (groups, left_out) = groups_within(&record.groups, limits::EVENT_GROUPS_BYTES_MAX);
    let mut data = json!({
        "name": record.display_name,
        "pubkey": record.routing_key(),
        "groups": groups,
    });
    if left_out > 0 {
        data["groupsLeftOut"] = json!(left_out);
    }
    let is_session = record.role == PeerRole::Session;
    let Some(saved) = proven.saved() else {
        return events::announcement("peer_joined", record, data, is_session);
    };
    if let Some(last_seen_at) = saved.last_seen_at {
        data["lastSeenAt"] = json!(last_seen_at);
    }
    if let Some(summary) = &saved.last_summary {
        data["summary"] = json!(cut(summary, limits::SUMMARY_BYTES_MAX));
    }
    events::announcement("peer_returned", record, data, false)
}

pub(super) fn hello_ack(
    parts: &Parts,
    proven: &Proven,
    record: &PresenceRecord,
    reattached: bool,
) -> HelloAck {
    let AdmittedMember { member, self_editable, .. } = &*proven.admitted;
    let is_session = record.role == PeerRole::Session;
    let restored = proven.saved().filter(|_| !reattached);
    let grace_ms = u64::try_from(parts.presence.config.lease_grace_ms).unwrap_or(0);
    let named_groups = proven.about.groups.as_ref().is_some_and(|groups| !groups.is_empty());
    HelloAck {
        presence_id: record.id.to_string(),
        member_display_name: member.display_name.clone(),
        member_profile: (!(is_session && reattached)).then(|| MemberProfile {
            role_tag: member.role_tag.clone(),
            groups: member.default_groups.clone(),
            message_mode: member.message_mode.clone(),
        }),
        mesh_policy: Some(MeshPolicy { self_editable: self_editable.clone() }),
        restored: restored.map(|_| true),
        last_summary: restored
            .and_then(|saved| saved.last_summary.as_deref())
            .map(|summary| cut(summary, limits::SUMMARY_BYTES_MAX).to_owned()),
        last_seen_at: restored.and_then(|saved| saved.last_seen_at),
        restored_groups: restored
            .filter(|saved| !named_groups && !saved.groups.is_empty())
            .map(|saved| allowed_groups(&saved.groups)),
        restored_stats: restored.map(|saved| saved.stats),
        services: (!is_session).then(Vec::new),
        node: parts.node.id.to_string(),
        region: parts.node.region.clone(),
        lease_ttl_ms: if record.visitor { 0 } else { grace_ms },
        protocol_version: PROTOCOL_VERSION,
        features: capability::ALL.map(Cow::Borrowed).to_vec(),
        audit_head: parts.presence.registry.heads.newest(&record.mesh),
    }
}
