//! The shapes of the API's answers, and what is left out of them.
//!
//! Handlers write them and `claudemesh-broker top` reads them. What is a word of a
//! closed list here is a text there: an earlier release shows the words of a later one.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::KEY_CHARS;
use crate::clock::Timestamp;
use crate::cluster::{LeaseView, NodeRecord};
use crate::id::{MemberId, MeshId, NodeId, PresenceId};
use crate::protocol::SealingPolicy;
use crate::store::AuditRecord;
use crate::vitals::series::Point;

/// The answer of `GET /nodes`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Nodes {
    pub(crate) at: Timestamp,
    pub(crate) node: NodeId,
    pub(crate) nodes: Vec<NodeView>,
}

/// The answer of `GET /meshes`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Meshes {
    pub(crate) at: Timestamp,
    pub(crate) meshes: Vec<MeshView>,
    /// How many meshes there are, beyond those listed too.
    pub(crate) total: usize,
}

/// The answer of `GET /series`: the last hour of the node that answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Series {
    pub(crate) node: NodeId,
    pub(crate) interval_ms: u64,
    pub(crate) points: Vec<Point>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeView {
    pub(crate) id: NodeId,
    pub(crate) region: Option<String>,
    pub(crate) version: String,
    pub(crate) state: String,
    pub(crate) seen_at: Timestamp,
    pub(crate) uptime_seconds: u64,
    pub(crate) sockets: u64,
    pub(crate) meshes: u64,
    pub(crate) bus_lag_ms: Option<f64>,
    pub(crate) accepted_per_second: f64,
    pub(crate) delivered_per_second: f64,
}

impl From<&NodeRecord> for NodeView {
    fn from(record: &NodeRecord) -> Self {
        Self {
            id: record.id.clone(),
            region: record.region.clone(),
            version: record.version.clone(),
            state: record.state.as_str().to_owned(),
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

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MeshView {
    pub(crate) id: MeshId,
    pub(crate) slug: String,
    pub(crate) name: String,
    pub(crate) archived_at: Option<Timestamp>,
    pub(crate) members: i64,
    /// Sockets open, on all nodes that say so.
    pub(crate) sockets: u64,
    /// Presences that are open or in grace: what counts against the cap.
    pub(crate) places: i64,
    pub(crate) cap: u32,
    pub(crate) queued: i64,
    pub(crate) accepted_per_second: f64,
    pub(crate) delivered_per_second: f64,
    /// The nodes with sockets of it.
    pub(crate) nodes: Vec<NodeId>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PeerView {
    pub(crate) presence: PresenceId,
    pub(crate) member: MemberId,
    pub(crate) name: String,
    /// The key that others address, its first characters.
    pub(crate) key: String,
    pub(crate) role: String,
    pub(crate) status: String,
    pub(crate) status_since: Timestamp,
    pub(crate) groups: Vec<String>,
    pub(crate) node: String,
    pub(crate) visible: bool,
    /// Whether its socket is open; if not it is in grace.
    pub(crate) online: bool,
    pub(crate) since: Timestamp,
}

impl From<&LeaseView> for PeerView {
    fn from(lease: &LeaseView) -> Self {
        let record = &lease.record;
        Self {
            presence: record.id.clone(),
            member: record.member.clone(),
            name: record.display_name.clone(),
            key: short_key(record.routing_key().as_str()),
            role: record.role.as_str().to_owned(),
            status: record.status.as_str().to_owned(),
            status_since: record.status_since.unwrap_or(record.status_updated_at),
            groups: record.groups.iter().map(|group| group.name.clone()).collect(),
            node: record.node.clone(),
            visible: record.visible,
            online: record.online,
            since: record.connected_at,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LeaseRow {
    pub(crate) presence: PresenceId,
    pub(crate) name: String,
    pub(crate) node: String,
    pub(crate) state: String,
    pub(crate) epoch: u64,
    /// When its presence began.
    pub(crate) since: Timestamp,
    /// When it ends unless it is renewed or its session comes back.
    pub(crate) expires_at: Timestamp,
}

impl From<&LeaseView> for LeaseRow {
    fn from(lease: &LeaseView) -> Self {
        Self {
            presence: lease.record.id.clone(),
            name: lease.record.display_name.clone(),
            node: lease.record.node.clone(),
            state: lease.state.as_str().to_owned(),
            epoch: lease.record.epoch,
            since: lease.record.connected_at,
            expires_at: lease.expires_at,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HeldView {
    /// The target, a key by its first characters.
    pub(crate) target: String,
    /// Whose key that is, if it is known.
    pub(crate) name: Option<String>,
    pub(crate) messages: u64,
    pub(crate) ciphertext_bytes: i64,
    /// Envelopes of each priority.
    pub(crate) now: u64,
    pub(crate) next: u64,
    pub(crate) low: u64,
    /// Envelopes that some presence is about to get.
    pub(crate) claimed: u64,
    pub(crate) oldest_at: Timestamp,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MeshDetail {
    pub(crate) id: MeshId,
    pub(crate) slug: String,
    pub(crate) name: String,
    pub(crate) archived_at: Option<Timestamp>,
    /// What it asks of messages to many.
    pub(crate) sealing: SealingPolicy,
    pub(crate) cap: u32,
    pub(crate) peers: Vec<PeerView>,
    pub(crate) leases: Vec<LeaseRow>,
    pub(crate) held: Vec<HeldView>,
    /// Whether more is held than was looked at.
    pub(crate) held_truncated: bool,
}

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
