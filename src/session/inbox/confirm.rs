//! What a session is done with.

use super::{Done, Inbox, Landed, Phase};
use crate::id::MessageId;

impl Inbox {
    /// A direct message's frame was written. For peers that never confirm,
    /// that is the end of it; for others their time to confirm begins.
    pub fn wrote_direct(&mut self, id: &MessageId, now_ms: i64) -> bool {
        if !self.confirms {
            return self.directs.finish(id.as_str()).is_some();
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

    /// The peer confirms, by either id; what was on its way under it. From now on this
    /// peer confirms.
    pub fn confirm(&mut self, broker_id: Option<&str>, client_id: Option<&str>) -> Option<Landed> {
        self.confirms = true;
        let mut ids = [broker_id, client_id].into_iter().flatten();
        let finish = |id| self.directs.finish(id).or_else(|| self.multicasts.finish_by_id(id));
        if let Some(landed) = ids.find_map(finish) {
            return Some(landed);
        }
        if let (Some(broker_id), Phase::Draining(drain)) = (broker_id, &mut self.phase) {
            drain.confirmed(broker_id);
        }
        client_id.and_then(|client_id| self.directs.finish_by_client_id(client_id))
    }

    /// Direct messages that were written before `before_ms`, and are not confirmed: the
    /// store should know that they are on a socket. Each is told once.
    pub fn pushed(&mut self, before_ms: i64) -> Vec<MessageId> {
        if self.confirms { self.directs.pushed(before_ms) } else { Vec::new() }
    }

    /// What is done and not yet in the store.
    #[must_use]
    pub fn done(&self) -> Done {
        Done {
            directs: self.directs.done(),
            position: self.multicasts.unsaved(),
            posts: self.multicasts.unsaved_posts(),
            is_confirmed: self.confirms,
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
