//! What the nodes say of themselves, for operators.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use redis::RedisResult;

use super::leases::Leases;
use super::members;
use crate::cluster::NodeRecord;
use crate::id::NodeId;

/// What kind of thing a node's word is to a signature.
const KIND: &str = "node";

/// This node's word, and those of the others.
pub(super) struct Nodes {
    leases: Arc<Leases>,
    /// This node's text in the set of nodes.
    origin: String,
    /// What this node said last: all there is while Redis is away.
    own: Mutex<Option<NodeRecord>>,
}

impl Nodes {
    pub(super) fn new(leases: Arc<Leases>, origin: String) -> Self {
        Self { leases, origin, own: Mutex::new(None) }
    }

    pub(super) async fn announce(&self, record: &NodeRecord, ttl_ms: u64) {
        *self.own.lock() = Some(record.clone());
        // It cannot fail: no field is of a kind that MessagePack lacks.
        let packed = rmp_serde::to_vec_named(record).unwrap_or_default();
        let key = self.leases.keys.node(&self.origin);
        let sealed = self.leases.seals.seal(KIND, &[&key], &packed);
        let mut set = redis::cmd("SET");
        set.arg(key).arg(sealed).arg("PX").arg(ttl_ms.max(1));
        if let Err(error) = self.leases.link.query::<()>(&set).await {
            tracing::debug!(%error, "the other nodes hear of this one later");
        }
    }

    /// A node that stops is not to be shown until it is forgotten.
    pub(super) async fn withdraw(&self) {
        let mut delete = redis::cmd("DEL");
        delete.arg(self.leases.keys.node(&self.origin));
        if let Err(error) = self.leases.link.query::<u32>(&delete).await {
            tracing::debug!(%error, "this node is shown until it is forgotten");
        }
    }

    pub(super) async fn all(&self) -> Vec<NodeRecord> {
        match self.read().await {
            Ok(nodes) => nodes,
            Err(error) => {
                tracing::debug!(%error, "only this node is known");
                self.own.lock().iter().cloned().collect()
            }
        }
    }

    /// Those whose last word still holds, if that can be known.
    pub(super) async fn heard(&self) -> RedisResult<BTreeSet<NodeId>> {
        Ok(self.read().await?.into_iter().map(|record| record.id).collect())
    }

    async fn read(&self) -> RedisResult<Vec<NodeRecord>> {
        let mut range = redis::cmd("ZRANGE");
        range.arg(self.leases.keys.nodes()).arg(0).arg(-1);
        let members: Vec<String> = self.leases.link.query(&range).await?;
        let (origins, _) = members::read(&self.leases.seals, &self.leases.keys.nodes(), &members);
        let keys: Vec<_> =
            origins.iter().map(|origin| self.leases.keys.node(&origin.to_text())).collect();
        let gets = keys.iter().map(|key| {
            let mut get = redis::cmd("GET");
            get.arg(key);
            get
        });
        let sealed: Vec<Option<Vec<u8>>> = self.leases.link.query_all(gets.collect()).await?;
        let mut nodes: BTreeMap<NodeId, NodeRecord> = BTreeMap::new();
        for (key, sealed) in keys.iter().zip(sealed) {
            let sealed = sealed.unwrap_or_default();
            if sealed.is_empty() {
                continue;
            }
            let Some(packed) = self.leases.seals.open(KIND, &[key], &sealed) else { continue };
            match rmp_serde::from_slice::<NodeRecord>(packed) {
                // A node that began again a moment ago has two.
                Ok(record) => {
                    let known = nodes.get(&record.id);
                    if known.is_none_or(|known| known.seen_at < record.seen_at) {
                        nodes.insert(record.id.clone(), record);
                    }
                }
                Err(error) => tracing::debug!(%error, "a node's record cannot be read"),
            }
        }
        Ok(nodes.into_values().collect())
    }
}
