//! Presences: rows that begin, change and end.

pub(super) mod postgres;
pub(super) mod sqlite;

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId, PresenceId};
use crate::protocol::{Group, Profile, Stats, Status, StatusSource};
use crate::record::PresenceRecord;
use crate::store::columns::Columns;
use crate::store::{AuditEntry, PeerState, Result};

/// Presences: rows that begin, change and end.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Presences: Send + Sync + 'static {
    /// Writes presences that begin, each with its `peer_joined` audit row,
    /// and returns for each the mesh's multicast position: later multicasts
    /// are for it, earlier ones are not.
    async fn open(&self, now: Timestamp, opened: &[OpenPresence]) -> Result<Vec<i64>>;

    /// Brings a presence back that a new socket reattached to. Returns the
    /// multicast position to go on from; `None` if the row is gone or ended.
    async fn reattach(
        &self,
        now: Timestamp,
        presence: &PresenceId,
        about: &ReattachPresence,
    ) -> Result<Option<i64>>;

    /// Writes what changed about open presences.
    async fn update(&self, changes: &[PresenceChange]) -> Result<()>;

    /// Notes that these presences were heard of; ended ones stay ended.
    async fn touch(&self, now: Timestamp, presences: &[PresenceId]) -> Result<()>;

    /// A presence's socket closed and its grace began: saves the member's
    /// last state, keeps the multicast position, and lets go of deliveries
    /// addressed to the member (those to the session's own key stay its own).
    async fn suspend(&self, now: Timestamp, closed: &SuspendPresence) -> Result<()>;

    /// Ends presences, each at most once however many nodes try: sets
    /// `disconnected_at`, lets go of what they had claimed, and writes the
    /// audit rows given. Returns those that this call ended.
    async fn end(&self, now: Timestamp, ended: &[EndPresence]) -> Result<Vec<PresenceId>>;

    /// Which of these presences have no open row, each with the instant of its
    /// end; `None` where there is no row at all.
    async fn ended(&self, presences: &[PresenceId])
    -> Result<Vec<(PresenceId, Option<Timestamp>)>>;
}

/// A row of `ended`.
fn end_of(row: &impl Columns) -> Result<(PresenceId, Option<Timestamp>)> {
    Ok((row.id("id")?, row.optional_time("disconnected_at")?))
}

/// A presence that begins.
#[derive(Clone, Debug)]
pub struct OpenPresence {
    /// The presence, which has no row yet.
    pub record: PresenceRecord,
    /// What the audit chain says of its beginning.
    pub audit: AuditEvent,
}

/// What a reattach refreshes.
#[derive(Clone, Debug)]
pub struct ReattachPresence {
    /// The client's own name for the session, if it is to change.
    pub session_id: Option<String>,
    /// The session's working directory.
    pub cwd: String,
    /// The session's process.
    pub pid: i32,
    /// The session's name, if it gave one.
    pub display_name: Option<String>,
    /// The node that holds it now.
    pub node: String,
    /// Only if it is this member's; `None`: whosever it is.
    pub member: Option<MemberId>,
}

/// Something changed about an open presence; `None` leaves a field.
#[derive(Clone, Debug)]
pub struct PresenceChange {
    /// The presence's id.
    pub id: PresenceId,
    /// The status, with where it came from and since when.
    pub status: Option<(Status, StatusSource, Timestamp)>,
    /// Since when the status has been that one.
    pub status_since: Option<Timestamp>,
    /// What it says it is doing.
    pub summary: Option<String>,
    /// The groups it is in.
    pub groups: Option<Vec<Group>>,
    /// Whether others see it.
    pub visible: Option<bool>,
    /// What it says of itself.
    pub profile: Option<Profile>,
    /// The session's counters.
    pub stats: Option<Stats>,
}

impl PresenceChange {
    /// A change of nothing yet.
    #[must_use]
    pub fn of(id: PresenceId) -> Self {
        Self {
            id,
            status: None,
            status_since: None,
            summary: None,
            groups: None,
            visible: None,
            profile: None,
            stats: None,
        }
    }

    /// Takes over what a later change says.
    pub fn merge(&mut self, later: Self) {
        let Self { id: _, status, status_since, summary, groups, visible, profile, stats } = later;
        self.status = status.or(self.status.take());
        self.status_since = status_since.or(self.status_since.take());
        self.summary = summary.or(self.summary.take());
        self.groups = groups.or(self.groups.take());
        self.visible = visible.or(self.visible.take());
        self.profile = profile.or(self.profile.take());
        self.stats = stats.or(self.stats.take());
    }
}

/// A presence whose socket closed.
#[derive(Clone, Debug)]
pub struct SuspendPresence {
    /// The presence's id.
    pub id: PresenceId,
    /// The presence's mesh.
    pub mesh: MeshId,
    /// The presence's member.
    pub member: MemberId,
    /// The member's key: claims on it are let go.
    pub member_key: Key,
    /// Every multicast up to here is done with.
    pub multicast_position: i64,
    /// What to restore for the member's next session.
    pub state: PeerState,
}

/// A presence that ends.
#[derive(Clone, Debug)]
pub struct EndPresence {
    /// The presence's id.
    pub id: PresenceId,
    /// The presence's mesh; a row of another mesh is not touched.
    pub mesh: MeshId,
    /// Only if it is this member's; `None`: whosever it is.
    pub member: Option<MemberId>,
    /// Only if this node was the last to hold it; `None`: whoever holds it.
    pub node: Option<String>,
    /// The audit rows to write if this call is the one that ends it.
    pub audit: Vec<AuditEntry>,
}

/// The column `attributes`; what is not there is not known, or does not change.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::store) struct Attributes {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::store) hostname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::store) peer_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::store) channel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::store) model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::store) visible: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::store) profile: Option<Profile>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::store) stats: Option<Stats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::store) status_since: Option<Timestamp>,
}

/// A presence to open, as an element of the statements' JSON.
#[derive(Serialize)]
struct NewRow<'a> {
    id: &'a str,
    mesh: &'a str,
    member: &'a str,
    session_id: &'a str,
    session_key: Option<&'a str>,
    display_name: &'a str,
    pid: i32,
    cwd: &'a str,
    status: &'static str,
    status_source: &'static str,
    groups: &'a [Group],
    role: &'static str,
    node: &'a str,
    attributes: Attributes,
}

impl<'a> From<&'a OpenPresence> for NewRow<'a> {
    fn from(OpenPresence { record, .. }: &'a OpenPresence) -> Self {
        Self {
            id: record.id.as_str(),
            mesh: record.mesh.as_str(),
            member: record.member.as_str(),
            session_id: &record.session_id,
            session_key: record.session_key.as_ref().map(Key::as_str),
            display_name: &record.display_name,
            pid: record.pid,
            cwd: &record.cwd,
            status: record.status.as_str(),
            status_source: record.status_source.as_str(),
            groups: &record.groups,
            role: record.role.as_str(),
            node: &record.node,
            attributes: Attributes {
                hostname: record.hostname.clone(),
                peer_type: record.peer_type.clone(),
                channel: record.channel.clone(),
                model: record.model.clone(),
                visible: Some(record.visible),
                profile: Some(record.profile.clone()),
                stats: record.stats,
                status_since: record.status_since,
            },
        }
    }
}

/// What changes about one presence, as an element of the statements' JSON.
#[derive(Serialize)]
struct ChangedRow {
    id: PresenceId,
    status: Option<&'static str>,
    status_source: Option<&'static str>,
    status_updated_ms: Option<i64>,
    summary: Option<String>,
    groups: Option<Vec<Group>>,
    /// What takes the place of its like in the column.
    attributes: Attributes,
}

impl From<PresenceChange> for ChangedRow {
    fn from(change: PresenceChange) -> Self {
        let PresenceChange { id, status, status_since, summary, groups, visible, profile, stats } =
            change;
        Self {
            id,
            status: status.map(|(status, ..)| status.as_str()),
            status_source: status.map(|(_, source, _)| source.as_str()),
            status_updated_ms: status.map(|(.., since)| since.as_ms()),
            summary,
            groups,
            attributes: Attributes {
                visible,
                profile,
                stats,
                status_since,
                ..Attributes::default()
            },
        }
    }
}

/// One row for each presence, as the statements must find it, and everybody's in one
/// order, so that no two statements wait for each other.
fn merged(changes: &[PresenceChange]) -> Vec<ChangedRow> {
    let mut merged: BTreeMap<&PresenceId, PresenceChange> = BTreeMap::new();
    for change in changes {
        let known =
            merged.entry(&change.id).or_insert_with(|| PresenceChange::of(change.id.clone()));
        known.merge(change.clone());
    }
    merged.into_values().map(ChangedRow::from).collect()
}
