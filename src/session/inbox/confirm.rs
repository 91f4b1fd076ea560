//! What a session is done with.

use super::{Done, Inbox, Phase};
use crate::id::MessageId;

impl Inbox {
    /// A direct message's frame was written. For peers that never confirm,
    /// that is the end of it; for others their time to confirm begins.
    pub fn wrote_direct(&mut self, id: &MessageId, now_ms: i64) -> bool {
        if !self.confirms {
            return self.directs.finish(id.as_str());
        }
        self.directs.wrote(id, now_ms);
        false
    }

    /// A multicast's frame was written, with the same meaning.
    pub fn wrote_multicast(&mut self, seq: i64, now_ms: i64) -> bool {
        if !self.confirms {
            return self.multicasts.finish(seq);
        }
        self.multicasts.wrote(seq, now_ms);
        false
    }

    /// The peer confirms, by either id; whether something was on its way
    /// under it. From now on this peer confirms.
    pub fn confirm(&mut self, broker_id: Option<&str>, client_id: Option<&str>) -> bool {
        self.confirms = true;
        let mut ids = [broker_id, client_id].into_iter().flatten();
        if ids.any(|id| self.directs.finish(id) || self.multicasts.finish_by_id(id)) {
            return true;
        }
        if let (Some(broker_id), Phase::Draining(drain)) = (broker_id, &mut self.phase) {
            drain.confirmed(broker_id);
        }
        client_id.is_some_and(|client_id| self.directs.finish_by_client_id(client_id))
    }

    /// What is done and not yet in the store.
    #[must_use]
    pub fn done(&self) -> Done {
        Done {
            directs: self.directs.done(),
            position: self.multicasts.unsaved(),
            posts: self.multicasts.unsaved_posts(),
        }
    }

    /// The store knows.
    pub fn saved(&mut self, done: &Done) {
        self.directs.saved(&done.directs);
        if let Some(position) = done.position {
            self.multicasts.saved(position);
        }
        if let Some(posts) = done.posts {
            self.multicasts.saved_posts(posts);
        }
    }

    /// Forgets what was written before `before_ms` and never confirmed, so that
    /// a drain offers it again; whether there was any. What still waits for its
    /// slow reader is not late.
    pub fn expire(&mut self, before_ms: i64) -> bool {
        // Both, in any case.
        self.confirms && self.directs.expire(before_ms) | self.multicasts.expire(before_ms)
    }
}
