//! Which name stands behind a key: the one under which a member is enrolled, which no
//! session can choose.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::client::Client;
use crate::id::Key;
use crate::keyring::contacts;
use crate::protocol::PeerInfo;

use super::Party;

/// Names that are remembered. More: all are asked for again.
const NAMES_MAX: usize = 4_096;

/// Enrolled names by member key.
#[derive(Default)]
pub(super) struct Names(Mutex<HashMap<String, String>>);

impl Names {
    /// The enrolled name of a member. Of one whom no list shows, as who only passes by, it
    /// is the name that it was met under, which is kept for its key from then on.
    pub(super) async fn of(
        &self,
        key: &Key,
        claimed: Option<&str>,
        party: &Party,
        client: &Client,
    ) -> String {
        if let Some(name) = self.known(key.as_str()) {
            return name;
        }
        if let Ok(peers) = client.list_peers().await {
            self.learn(&peers);
            remember(party, peers).await;
        }
        if let Some(name) = self.known(key.as_str()) {
            return name;
        }
        let met = met(party, key, claimed).await;
        met.unwrap_or_else(|| key.short().to_owned())
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

/// The name of a key that was met, or is met now under a name that nobody has yet.
async fn met(party: &Party, key: &Key, claimed: Option<&str>) -> Option<String> {
    let (data_dir, kept, key) = (party.data_dir.clone(), party.kept.clone(), key.to_string());
    let claimed = claimed.map(str::to_owned);
    let look = move || {
        let name_of = || contacts::Contacts::of(&data_dir, &kept).name_of_key(&key);
        name_of().or_else(|| {
            contacts::met(&data_dir, &kept, &claimed?, &key);
            name_of()
        })
    };
    tokio::task::spawn_blocking(look).await.ok().flatten()
}
