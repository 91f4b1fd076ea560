//! Every key and channel, built in one place. Those of one mesh share a hash
//! tag, so that a script on them runs in a Redis Cluster too.
//!
//! All begin with the prefix, the cluster's id and the number of the database:
//! channels know no databases, and two clusters may share one.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::settings::RedisSettings;
use crate::id::MeshId;

/// Makes key and channel names of one cluster.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: String,
    cluster_mode: bool,
}

impl Keys {
    pub(super) fn of(settings: &RedisSettings, database: i64) -> Self {
        let RedisSettings { key_prefix, cluster_key, cluster_mode, .. } = settings;
        Self::new(key_prefix, &cluster_key.id, database, *cluster_mode)
    }

    fn new(prefix: &str, cluster: &str, database: i64, cluster_mode: bool) -> Self {
        Self { prefix: format!("{prefix}:{cluster}:{database}:"), cluster_mode }
    }

    /// Whether they lie in a Redis Cluster.
    pub(super) fn is_cluster(&self) -> bool {
        self.cluster_mode
    }

    /// The keys of a mesh's books, in the order of `books.lua`. In a Redis
    /// Cluster without the index of all meshes, which lies in another slot.
    pub(super) fn books(&self, mesh: &MeshId) -> Vec<String> {
        let mut keys: Vec<String> =
            ["online", "grace", "sessions", "leases", "records", "ended", "clock"]
                .iter()
                .map(|part| self.of_mesh(mesh, part))
                .collect();
        if !self.cluster_mode {
            keys.push(self.due());
        }
        keys
    }

    /// Which presence each session of a mesh has: one of its books.
    pub(super) fn sessions(&self, mesh: &MeshId) -> String {
        self.of_mesh(mesh, "sessions")
    }

    /// Which meshes have something that expires, and when.
    pub(super) fn due(&self) -> String {
        format!("{}due", self.prefix)
    }

    /// The nodes that joined a mesh.
    pub(super) fn mesh_nodes(&self, mesh: &MeshId) -> String {
        self.of_mesh(mesh, "nodes")
    }

    pub(super) fn nodes(&self) -> String {
        format!("{}nodes", self.prefix)
    }

    /// What a node says of itself.
    pub(super) fn node(&self, origin: &str) -> String {
        format!("{}node:{origin}", self.prefix)
    }

    pub(super) fn once(&self, digest: &[u8; 32]) -> String {
        format!("{}once:{}", self.prefix, hex::encode(digest))
    }

    /// The owner is the hash tag: one call takes from several of its buckets.
    pub(super) fn tokens(&self, owner: &str, bucket: &str) -> String {
        format!("{}tokens:{{{owner}}}:{bucket}", self.prefix)
    }

    /// Where one who looks tries what nodes do.
    pub(super) fn trial(&self, number: u64) -> String {
        format!("{}trial:{number:016x}", self.prefix)
    }

    /// The folder is hashed: it may be long, and is nobody's business.
    pub(super) fn pending(&self, pid: i32, cwd: &str) -> String {
        let mut key = format!("{}pending:{pid}:", self.prefix);
        for byte in &Sha256::digest(cwd.as_bytes())[..16] {
            let _ = write!(key, "{byte:02x}");
        }
        key
    }

    /// Where a mesh's frames go.
    pub(super) fn channel(&self, mesh: &MeshId) -> String {
        self.of_mesh(mesh, "bus")
    }

    pub(super) fn mesh_of_channel(&self, channel: &str) -> Option<MeshId> {
        let tagged = channel.strip_prefix(&self.prefix)?.strip_suffix(":bus")?;
        Some(MeshId::from(tagged.strip_prefix('{')?.strip_suffix('}')?))
    }

    /// Where every node hears of every other.
    pub(super) fn beats_channel(&self) -> String {
        format!("{}beats", self.prefix)
    }

    /// Where a node hears itself.
    pub(super) fn probe_channel(&self, origin: &str) -> String {
        format!("{}probe:{origin}", self.prefix)
    }

    fn of_mesh(&self, mesh: &MeshId, part: &str) -> String {
        format!("{}{{{mesh}}}:{part}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_names_its_mesh() {
        let keys = Keys::new("cm", "id", 0, false);
        let mesh = MeshId::from("a{b}:bus");
        assert_eq!(keys.mesh_of_channel(&keys.channel(&mesh)), Some(mesh));
        assert_eq!(keys.mesh_of_channel(&keys.beats_channel()), None);
        assert_eq!(keys.mesh_of_channel("other:{m}:bus"), None);
        // Of another cluster, or of the same one on another database.
        assert_eq!(keys.mesh_of_channel("cm:other:0:{m}:bus"), None);
        assert_eq!(keys.mesh_of_channel("cm:id:1:{m}:bus"), None);
    }

    #[test]
    fn the_index_of_meshes_is_no_script_key_in_a_cluster() {
        let mesh = MeshId::from("m");
        assert_eq!(Keys::new("cm", "id", 0, false).books(&mesh).len(), 8);
        let keys = Keys::new("cm", "id", 0, true).books(&mesh);
        assert!(keys.iter().all(|key| key.starts_with("cm:id:0:{m}:")), "{keys:?}");
    }
}
