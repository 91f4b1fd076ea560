//! Who is in the mesh's topics, as the store said last: posts that arrive are handed to
//! them without asking it.
//!
//! Each post says which version of the roster held when it was committed. What is older
//! here is of no use to it, and whoever delivers reads the store instead. Delivery calls
//! this, and whoever follows a topic by HTTP waits here for its posts.

use std::sync::Arc;

use tokio::sync::watch;

use super::Room;
use crate::id::TopicId;
use crate::limits;
use crate::store::Roster;

impl Room {
    /// A post came, or may have been missed: whoever follows a topic looks.
    pub(crate) fn note_posts(&self) {
        self.posts.send_replace(());
    }

    /// Changes when that is noted.
    #[must_use]
    pub(crate) fn posts(&self) -> watch::Receiver<()> {
        self.posts.subscribe()
    }

    /// The topic's roster, if it is known here in that version or a later one.
    #[must_use]
    pub(crate) fn roster(&self, topic: &TopicId, version: i64) -> Option<Arc<Roster>> {
        let rosters = self.rosters.lock();
        rosters.get(topic).filter(|roster| roster.version >= version).cloned()
    }

    /// The store said who is in the topic. An earlier answer does not replace a later one.
    pub(crate) fn set_roster(&self, topic: &TopicId, roster: Roster) {
        let mut rosters = self.rosters.lock();
        if rosters.get(topic).is_some_and(|known| known.version >= roster.version) {
            return;
        }
        if rosters.len() >= limits::ROSTERS_MAX && !rosters.contains_key(topic) {
            rosters.clear();
        }
        rosters.insert(topic.clone(), Arc::new(roster));
    }
}
