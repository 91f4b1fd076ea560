//! A mesh as a whole: who is there, and what the mesh keeps, as the database counts it.

use std::collections::BTreeSet;

use super::listing::listed;
use super::{Context, Refusal};
use crate::clock::Timestamp;
use crate::limits;
use crate::paging::Budget;
use crate::protocol::budget::{cut, groups_within};
use crate::protocol::{MeshInfo, MeshInfoResult};
use crate::record::PresenceRecord;
use crate::store::Kind;

/// What is counted by its rows.
const COUNTED: [Kind; 5] = [Kind::Memory, Kind::State, Kind::Stream, Kind::Context, Kind::Skill];

/// Who is there and what is kept.
pub(super) async fn tell(context: &Context<'_>, _: MeshInfo) -> Result<MeshInfoResult, Refusal> {
    let (stores, mesh) = (&context.parts.stores, context.room.mesh());
    let usage = stores.inventory.usage(mesh, &COUNTED).await?;
    let rows = |kind: Kind| usage.get(&kind).map_or(0, |usage| usage.rows);
    let tasks = stores.inventory.task_counts(Timestamp::now(), mesh).await?;
    let state_keys = stores.inventory.state_keys(mesh, limits::SHARED_ROWS_MAX).await?;
    let streams = stores.streams.list(mesh, None, limits::SHARED_ROWS_MAX).await?;
    let streams: Vec<String> = streams.into_iter().map(|stream| stream.name).collect();

    let mut records = listed(context, None);
    records.retain(|record| !record.visitor);
    let groups = groups_of(records.iter().map(|record| &**record));
    let own = context.room.record(&context.session.presence);
    let (your_name, your_groups) = match own.as_deref() {
        Some(own) => {
            (own.display_name.as_str(), groups_within(&own.groups, limits::GROUPS_BYTES_MAX).0)
        }
        None => ("unknown", &[][..]),
    };
    let mut is_cut = false;
    let mut fit = |names: Vec<String>| {
        let fits = Budget::of_three().texts(&names, 1);
        is_cut |= fits.len() < names.len();
        fits
    };
    Ok(MeshInfoResult {
        mesh: mesh.to_string(),
        peers: records.len(),
        groups: fit(groups),
        state_keys: fit(state_keys),
        memory_count: rows(Kind::Memory),
        file_count: 0,
        tasks,
        streams: fit(streams),
        tables: Vec::new(),
        collections: Vec::new(),
        your_name: cut(your_name, limits::DISPLAY_NAME_BYTES_MAX).to_owned(),
        your_groups: your_groups.to_vec(),
        state_count: rows(Kind::State),
        stream_count: rows(Kind::Stream),
        context_count: rows(Kind::Context),
        skill_count: rows(Kind::Skill),
        more: is_cut,
    })
}

/// Each group once, in the order in which it is first seen.
fn groups_of<'a>(records: impl Iterator<Item = &'a PresenceRecord>) -> Vec<String> {
    let (mut seen, mut groups) = (BTreeSet::new(), Vec::new());
    for group in records.flat_map(|record| &record.groups) {
        if seen.insert(&group.name) {
            groups.push(format!("@{}", group.name));
        }
    }
    groups
}
