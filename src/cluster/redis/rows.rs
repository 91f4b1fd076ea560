//! Records and batches as the scripts take and return them.

use redis::{FromRedisValue, ParsingError, Value};

use crate::cluster::{LeaseState, PresenceRecord};
use crate::id::MeshId;

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

/// A MessagePack map with named fields. It cannot fail: no field is of a kind
/// that MessagePack lacks.
pub(super) fn encode(record: &PresenceRecord) -> Vec<u8> {
    rmp_serde::to_vec_named(record).unwrap_or_default()
}

pub(super) fn ended(mut record: PresenceRecord) -> PresenceRecord {
    record.online = false;
    record
}

/// A record with the fields that are kept beside it.
pub(super) struct Row {
    record: Vec<u8>,
    epoch: u64,
    state: String,
    node: String,
}

impl FromRedisValue for Row {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let (record, epoch, state, node) = redis::from_redis_value(value)?;
        Ok(Self { record, epoch, state, node })
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

    pub(super) fn into_record(self) -> Option<PresenceRecord> {
        match rmp_serde::from_slice::<PresenceRecord>(&self.record) {
            Ok(mut record) => {
                record.epoch = self.epoch;
                record.online = self.state == "o";
                record.node = self.node;
                Some(record)
            }
            Err(error) => {
                tracing::warn!(%error, "a presence record in Redis cannot be read");
                None
            }
        }
    }
}
