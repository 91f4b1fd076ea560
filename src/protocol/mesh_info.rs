//! A mesh as a whole: `mesh_info`.

use serde::{Deserialize, Serialize};

use super::Group;
use super::ask::{Answer, Ask};
use super::tasks::TaskStatus;

/// `mesh_info`: who is in the mesh, and what it keeps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MeshInfo {}

impl Ask for MeshInfo {
    const TYPE: &'static str = "mesh_info";
    type Answer = MeshInfoResult;
}

/// Answers `mesh_info`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshInfoResult {
    /// The mesh's id.
    pub mesh: String,
    /// How many presences there are that the asker may see, on all nodes, in grace too.
    pub peers: usize,
    /// The groups that these are in, each as `@name`.
    pub groups: Vec<String>,
    /// The keys of shared values.
    pub state_keys: Vec<String>,
    /// How many memories there are.
    pub memory_count: i64,
    /// How many files there are: none.
    pub file_count: i64,
    /// How many tasks there are.
    pub tasks: TaskCounts,
    /// The names of the streams that were made, the oldest first.
    pub streams: Vec<String>,
    /// Tables of a database for peers, which there is not.
    pub tables: Vec<String>,
    /// Collections of vectors, of which there are none.
    pub collections: Vec<String>,
    /// What the asking session is called.
    pub your_name: String,
    /// The groups that the asking session is in.
    pub your_groups: Vec<Group>,
    /// How many values are shared; brokers of others do not say.
    #[serde(default)]
    pub state_count: i64,
    /// How many streams were made; as above.
    #[serde(default)]
    pub stream_count: i64,
    /// How many members have said what they work on; as above.
    #[serde(default)]
    pub context_count: i64,
    /// How many skills are shared; as above.
    #[serde(default)]
    pub skill_count: i64,
    /// Whether some names did not fit: their lists have them all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

impl Answer for MeshInfoResult {
    const TYPE: &'static str = "mesh_info_result";
}

/// How many tasks are of each status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCounts {
    /// Nobody does them.
    pub open: i64,
    /// Somebody does them.
    pub claimed: i64,
    /// They are done.
    pub done: i64,
}

impl TaskCounts {
    /// The number of those of that status.
    pub(crate) fn of(&mut self, status: TaskStatus) -> &mut i64 {
        match status {
            TaskStatus::Open => &mut self.open,
            TaskStatus::Claimed => &mut self.claimed,
            TaskStatus::Done => &mut self.done,
        }
    }
}
