//! Which name stands behind a key: the one under which a member is enrolled, which no
//! session can choose.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::client::Client;
use crate::keyring::contacts;
use crate::protocol::PeerInfo;

use super::Party;

/// Names that are remembered. More: all are asked for again.
const NAMES_MAX: usize = 4_096;

/// Enrolled names by member key.
#[derive(Default)]
pub(super) struct Names(Mutex<HashMap<String, String>>);

impl Names {
    /// The enrolled name of a member; of one that nobody knows, its key's first digits.
    pub(super) async fn of(&self, key: &str, party: &Party, client: &Client) -> String {
        if let Some(name) = self.known(key) {
            return name;
        }
        // Who writes is usually here; who is not was perhaps met.
        if let Ok(peers) = client.list_peers().await {
            self.learn(&peers);
            remember(party, peers).await;
        }
        if let Some(name) = self.known(key) {
            return name;
        }
        contacts_name(party, key).await.unwrap_or_else(|| key.get(..12).unwrap_or(key).to_owned())
    }

    fn known(&self, key: &str) -> Option<String> {
        self.0.lock().get(key).cloned()
    }

    fn learn(&self, peers: &[PeerInfo]) {
        let mut names = self.0.lock();
        if names.len() >= NAMES_MAX {
            names.clear();
        }
        for peer in peers {
            if let Some(name) = &peer.member_name {
                names.insert(peer.member_pubkey.clone(), name.clone());
            }
        }
    }
}

/// Notes who is here, off the task that reads the socket's queue.
pub(crate) async fn remember(party: &Party, peers: Vec<PeerInfo>) {
    let (data_dir, kept) = (party.data_dir.clone(), party.kept.clone());
    let noting = move || contacts::remember(&data_dir, &kept, &peers);
    let _ = tokio::task::spawn_blocking(noting).await;
}

async fn contacts_name(party: &Party, key: &str) -> Option<String> {
    let (data_dir, kept, key) = (party.data_dir.clone(), party.kept.clone(), key.to_owned());
    let look = move || contacts::Contacts::of(&data_dir, &kept).name_of_key(&key);
    tokio::task::spawn_blocking(look).await.ok().flatten()
}
