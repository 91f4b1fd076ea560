//! Records and batches as the scripts take and return them.

use redis::{FromRedisValue, ParsingError, Value};

use super::seals::Seals;
use crate::cluster::LeaseState;
use crate::id::{MeshId, PresenceId};
use crate::record::PresenceRecord;

/// Groups positions by mesh, at most `per_group` in one.
pub(super) fn by_mesh<'a>(
    which: &[usize],
    per_group: usize,
    mesh_of: impl Fn(usize) -> &'a MeshId,
) -> Vec<(MeshId, Vec<usize>)> {
    let mut sorted = which.to_vec();
    sorted.sort_by(|a, b| mesh_of(*a).cmp(mesh_of(*b)));
    let same_mesh = sorted.chunk_by(|a, b| mesh_of(*a) == mesh_of(*b));
    same_mesh
        .flat_map(|group| group.chunks(per_group))
        .map(|group| (mesh_of(group[0]).clone(), group.to_vec()))
        .collect()
}

/// What kind of thing a record is to a signature.
const KIND: &str = "record";

/// A MessagePack map with named fields, signed for its place. It cannot fail: no
/// field is of a kind that MessagePack lacks.
pub(super) fn encode(seals: &Seals, presence: &PresenceId, record: &PresenceRecord) -> Vec<u8> {
    let bytes = rmp_serde::to_vec_named(record).unwrap_or_default();
    seals.seal(KIND, &[record.mesh.as_str(), presence.as_str()], &bytes)
}

pub(super) fn ended(mut record: PresenceRecord) -> PresenceRecord {
    record.online = false;
    record
}

/// A record with the fields that are kept beside it.
pub(super) struct Row {
    presence: PresenceId,
    record: Vec<u8>,
    epoch: u64,
    state: String,
    node: String,
}

/// What was found of a record.
pub(super) enum Found {
    Record(Box<PresenceRecord>),
    /// A node of this cluster wrote it, in a form that is not known here.
    OfALaterRelease,
    /// No node of this cluster wrote it, or it is not there.
    Unsigned,
}

impl FromRedisValue for Row {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        type Fields = (String, Vec<u8>, u64, String, String);
        let (presence, record, epoch, state, node): Fields = redis::from_redis_value(value)?;
        Ok(Self { presence: presence.into(), record, epoch, state, node })
    }
}

impl Row {
    pub(super) fn state(&self) -> LeaseState {
        match self.state.as_str() {
            "o" => LeaseState::Online,
            "r" => LeaseState::Released,
            _ => LeaseState::Lost,
        }
    }

    /// Reads what stands in the books of `mesh`.
    pub(super) fn read(self, seals: &Seals, mesh: &MeshId) -> Found {
        let place = [mesh.as_str(), self.presence.as_str()];
        let Some(bytes) = seals.open(KIND, &place, &self.record) else { return Found::Unsigned };
        match rmp_serde::from_slice::<PresenceRecord>(bytes) {
            Ok(mut record) => {
                record.epoch = self.epoch;
                record.online = self.state == "o";
                record.node = self.node;
                Found::Record(Box::new(record))
            }
            Err(error) => {
                tracing::warn!(%error, "a presence record in Redis cannot be read");
                Found::OfALaterRelease
            }
        }
    }

    pub(super) fn into_record(self, seals: &Seals, mesh: &MeshId) -> Option<PresenceRecord> {
        match self.read(seals, mesh) {
            Found::Record(record) => Some(*record),
            Found::OfALaterRelease | Found::Unsigned => None,
        }
    }
}
