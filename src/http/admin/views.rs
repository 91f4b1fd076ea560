//! The shapes of the answers, and what is left out of them.

use serde::Serialize;
use serde_json::Value;

use super::KEY_CHARS;
use crate::clock::Timestamp;
use crate::cluster::{LeaseState, LeaseView, NodeRecord, NodeState};
use crate::id::{MemberId, MeshId, NodeId, PresenceId};
use crate::protocol::{PeerRole, Status};
use crate::store::AuditRecord;

/// A node, as it last said.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeView {
    pub(super) id: NodeId,
    pub(super) region: Option<String>,
    pub(super) version: String,
    pub(super) state: NodeState,
    pub(super) seen_at: Timestamp,
    pub(super) uptime_seconds: u64,
    pub(super) sockets: u64,
    pub(super) meshes: u64,
    pub(super) bus_lag_ms: Option<f64>,
    pub(super) accepted_per_second: f64,
    pub(super) delivered_per_second: f64,
}

impl From<&NodeRecord> for NodeView {
    fn from(record: &NodeRecord) -> Self {
        Self {
            id: record.id.clone(),
            region: record.region.clone(),
            version: record.version.clone(),
            state: record.state,
            seen_at: record.seen_at,
            uptime_seconds: record.uptime_seconds,
            sockets: record.sockets,
            meshes: record.meshes,
            bus_lag_ms: record.bus_lag_ms,
            accepted_per_second: record.accepted_per_second,
            delivered_per_second: record.delivered_per_second,
        }
    }
}

/// A mesh in a listing.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MeshView {
    pub(super) id: MeshId,
    pub(super) slug: String,
    pub(super) name: String,
    pub(super) archived_at: Option<Timestamp>,
    pub(super) members: i64,
    /// Sockets open, on all nodes that say so.
    pub(super) sockets: u64,
    /// Presences that are open or in grace: what counts against the cap.
    pub(super) places: i64,
    pub(super) cap: u32,
    pub(super) queued: i64,
    pub(super) accepted_per_second: f64,
    pub(super) delivered_per_second: f64,
    /// The nodes with sockets of it.
    pub(super) nodes: Vec<NodeId>,
}

/// A presence.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PeerView {
    pub(super) presence: PresenceId,
    pub(super) member: MemberId,
    pub(super) name: String,
    /// The key that others address, its first characters.
    pub(super) key: String,
    pub(super) role: PeerRole,
    pub(super) status: Status,
    pub(super) status_since: Timestamp,
    pub(super) groups: Vec<String>,
    pub(super) node: String,
    pub(super) visible: bool,
    /// Whether its socket is open; if not it is in grace.
    pub(super) online: bool,
    pub(super) since: Timestamp,
}

impl From<&LeaseView> for PeerView {
    fn from(lease: &LeaseView) -> Self {
        let record = &lease.record;
        Self {
            presence: record.id.clone(),
            member: record.member.clone(),
            name: record.display_name.clone(),
            key: short_key(record.routing_key().as_str()),
            role: record.role,
            status: record.status,
            status_since: record.status_updated_at,
            groups: record.groups.iter().map(|group| group.name.clone()).collect(),
            node: record.node.clone(),
            visible: record.visible,
            online: record.online,
            since: record.connected_at,
        }
    }
}

/// A lease.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LeaseRow {
    pub(super) presence: PresenceId,
    pub(super) name: String,
    pub(super) node: String,
    pub(super) state: LeaseState,
    pub(super) epoch: u64,
    /// When its presence began.
    pub(super) since: Timestamp,
    /// When it ends unless it is renewed or its session comes back.
    pub(super) expires_at: Timestamp,
}

impl From<&LeaseView> for LeaseRow {
    fn from(lease: &LeaseView) -> Self {
        Self {
            presence: lease.record.id.clone(),
            name: lease.record.display_name.clone(),
            node: lease.record.node.clone(),
            state: lease.state,
            epoch: lease.record.epoch,
            since: lease.record.connected_at,
            expires_at: lease.expires_at,
        }
    }
}

/// What waits for one recipient.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HeldView {
    /// The target, a key by its first characters.
    pub(super) target: String,
    /// Whose key that is, if it is known.
    pub(super) name: Option<String>,
    pub(super) messages: u64,
    pub(super) ciphertext_bytes: i64,
    /// Those of each priority.
    pub(super) now: u64,
    pub(super) next: u64,
    pub(super) low: u64,
    /// Those that some presence is about to get.
    pub(super) claimed: u64,
    pub(super) oldest_at: Timestamp,
}

/// One mesh, in full.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MeshDetail {
    pub(super) id: MeshId,
    pub(super) slug: String,
    pub(super) name: String,
    pub(super) archived_at: Option<Timestamp>,
    pub(super) cap: u32,
    pub(super) peers: Vec<PeerView>,
    pub(super) leases: Vec<LeaseRow>,
    pub(super) held: Vec<HeldView>,
    /// Whether more is held than was looked at.
    pub(super) held_truncated: bool,
}

/// A row of the audit chain.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuditView {
    pub(super) id: i64,
    pub(super) event: String,
    /// The member's id.
    pub(super) actor: Option<String>,
    /// The name that the member is enrolled under; what an operator is called.
    pub(super) actor_name: Option<String>,
    /// The member's key, its first characters.
    pub(super) actor_key: Option<String>,
    /// What the member's session called itself.
    pub(super) session_name: Option<String>,
    pub(super) payload: Value,
    pub(super) hash: String,
    pub(super) at: Timestamp,
}

impl From<AuditRecord> for AuditView {
    fn from(record: AuditRecord) -> Self {
        let session_name = record.session_name().map(str::to_owned);
        let is_named = record.member_name.is_some() || record.actor.is_none();
        let actor_name =
            (is_named && record.actor_label() != "system").then(|| record.actor_label().to_owned());
        let mut payload = record.payload;
        shorten_keys(&mut payload);
        Self {
            id: record.id,
            event: record.event_type,
            actor: record.actor,
            actor_name,
            actor_key: record.member_key.as_deref().map(short_key),
            session_name,
            payload,
            hash: record.hash,
            at: record.created_at,
        }
    }
}

/// A text that is a key, by its first characters; any other as it is.
pub(super) fn short_key(text: &str) -> String {
    if is_key(text) { text[..KEY_CHARS].to_owned() } else { text.to_owned() }
}

/// Longer than any id, and nothing but hex digits.
fn is_key(text: &str) -> bool {
    text.len() > 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn shorten_keys(value: &mut Value) {
    match value {
        Value::String(text) if is_key(text) => text.truncate(KEY_CHARS),
        Value::Array(items) => items.iter_mut().for_each(shorten_keys),
        Value::Object(fields) => fields.values_mut().for_each(shorten_keys),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_cut_wherever_they_stand_and_ids_are_not() {
        let (key, id) = ("ab".repeat(32), "0190".repeat(8));
        let mut payload = json!({ "pubkey": key, "groups": [{ "name": key }], "messageId": id });
        shorten_keys(&mut payload);
        let cut = "abababababab";
        assert_eq!(payload, json!({ "pubkey": cut, "groups": [{ "name": cut }], "messageId": id }));
        assert_eq!(
            short_key("@everyone-in-this-very-long-group-name-of-ours"),
            "@everyone-in-this-very-long-group-name-of-ours"
        );
    }
}
