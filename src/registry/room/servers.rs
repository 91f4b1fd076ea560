//! The servers that presences of the mesh host, by what the directory says.
//!
//! Of several hosts of one name the latest registration counts, on every node alike.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;

use super::{Candidate, Room};
use crate::clock::Timestamp;
use crate::id::PresenceId;
use crate::record::{McpServer, PresenceRecord};

/// A server and the presence that hosts it.
#[derive(Clone)]
pub struct Hosted {
    /// What is hosted.
    pub server: McpServer,
    /// Who hosts it.
    pub host: Arc<PresenceRecord>,
}

impl Hosted {
    /// What decides between two of one name: the later counts.
    #[must_use]
    pub fn since(&self) -> (Timestamp, &PresenceId) {
        (self.server.registered_at, &self.host.id)
    }
}

impl Room {
    /// Whoever hosts the server of that name.
    #[must_use]
    pub fn host_of(&self, name: &str) -> Option<Candidate> {
        let state = self.state.read();
        let hosting = state.directory.entries().filter_map(|entry| {
            let server = entry.record.mcp_server(name)?;
            Some(((server.registered_at, &entry.record.id), entry))
        });
        hosting.max_by_key(|(since, _)| *since).map(|(_, entry)| Candidate::from(entry))
    }

    /// Every server, each name once, the latest registration first.
    #[must_use]
    pub fn hosted(&self) -> Vec<Hosted> {
        let mut hosts: Vec<Arc<PresenceRecord>> = Vec::new();
        for entry in self.state.read().directory.entries() {
            if !entry.record.mcp_servers.is_empty() {
                hosts.push(Arc::clone(&entry.record));
            }
        }
        let mut by_name: HashMap<&str, Hosted> = HashMap::new();
        for host in &hosts {
            for server in &host.mcp_servers {
                let hosted = Hosted { server: server.clone(), host: Arc::clone(host) };
                match by_name.entry(&server.name) {
                    Slot::Vacant(slot) => {
                        slot.insert(hosted);
                    }
                    Slot::Occupied(mut slot) if slot.get().since() < hosted.since() => {
                        slot.insert(hosted);
                    }
                    Slot::Occupied(_) => {}
                }
            }
        }
        let mut hosted: Vec<Hosted> = by_name.into_values().collect();
        hosted.sort_by(|a, b| b.since().cmp(&a.since()));
        hosted
    }
}
