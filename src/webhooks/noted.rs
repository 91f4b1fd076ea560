//! Events that have no row of their own: which are asked for, and what happened of those
//! that nothing else is kept of.
//!
//! That a message waits is written with the message, by whoever accepts it. That a mesh is
//! full is noted here: nothing where nobody asked, and of one thing only once until it is
//! written. What is noted and not written is lost with the node.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use serde_json::Value;

use super::Parts;
use crate::clock::Timestamp;
use crate::id::MeshId;
use crate::limits;
use crate::protocol::WebhookEvent;
use crate::store::Note;

/// What was noted, and what is to be.
#[derive(Default)]
pub(crate) struct Noted {
    /// Looked at before anything is locked.
    is_any_asked: AtomicBool,
    asked: RwLock<HashSet<(MeshId, WebhookEvent)>>,
    notes: Mutex<HashMap<(MeshId, WebhookEvent, String), Value>>,
}

impl Noted {
    /// Notes an event about that subject, if somebody asked for such.
    pub(crate) fn note(
        &self,
        mesh: &MeshId,
        event: WebhookEvent,
        subject: &str,
        data: impl FnOnce() -> Value,
    ) {
        if !self.is_asked(mesh, event) {
            return;
        }
        let mut notes = self.notes.lock();
        if notes.len() < limits::WEBHOOK_NOTES_MAX {
            notes.entry((mesh.clone(), event, subject.to_owned())).or_insert_with(data);
        }
    }

    /// Whether somebody asked for such events.
    pub(crate) fn is_asked(&self, mesh: &MeshId, event: WebhookEvent) -> bool {
        self.is_any_asked.load(Ordering::Relaxed)
            && self.asked.read().contains(&(mesh.clone(), event))
    }

    fn set_asked(&self, asked: Vec<(MeshId, WebhookEvent)>) {
        self.is_any_asked.store(!asked.is_empty(), Ordering::Relaxed);
        *self.asked.write() = asked.into_iter().collect();
    }

    /// As if that were asked for.
    #[cfg(test)]
    pub(crate) fn of(asked: Vec<(MeshId, WebhookEvent)>) -> Self {
        let noted = Self::default();
        noted.set_asked(asked);
        noted
    }

    fn take(&self) -> Vec<Note> {
        let notes = std::mem::take(&mut *self.notes.lock());
        let note = |((mesh, event, subject), data)| Note { mesh, event, subject, data };
        notes.into_iter().map(note).collect()
    }

    fn give_back(&self, taken: Vec<Note>) {
        let mut notes = self.notes.lock();
        for Note { mesh, event, subject, data } in taken {
            notes.entry((mesh, event, subject)).or_insert(data);
        }
    }
}

/// Writes what was noted, and reads again what is to be.
pub(crate) async fn tick(parts: &Parts) {
    let notes = parts.noted.take();
    if !notes.is_empty()
        && let Err(error) = parts.store.note(Timestamp::now(), &notes).await
    {
        tracing::debug!(%error, "events of webhooks wait for the database");
        parts.noted.give_back(notes);
    }
    refresh(parts).await;
}

/// Reads again what is to be noted.
pub(crate) async fn refresh(parts: &Parts) {
    match parts.store.asked().await {
        Ok(asked) => parts.noted.set_asked(asked),
        Err(error) => tracing::debug!(%error, "what webhooks ask for is as before"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::config::Config;
    use crate::life::Life;
    use crate::store::MockWebhooks;
    use crate::store::testing::{mesh, unavailable};

    fn parts(store: MockWebhooks) -> Parts {
        let config = Config::for_tests(std::path::Path::new("unused")).webhooks;
        let life = Arc::new(Life::default());
        Parts::new(&config, "http://localhost".to_owned(), Arc::new(store), Arc::default(), life)
    }

    #[tokio::test]
    async fn what_nobody_asked_for_costs_nothing() {
        let parts = parts(MockWebhooks::new());
        parts.noted.note(&mesh(), WebhookEvent::Capacity, "", || panic!("nobody asked"));
        assert!(parts.noted.take().is_empty());
    }

    #[tokio::test]
    async fn of_one_thing_one_event_is_written_and_kept_until_it_is() {
        let mut store = MockWebhooks::new();
        store.expect_asked().returning(|| Ok(vec![(mesh(), WebhookEvent::MailWaiting)]));
        store.expect_note().once().returning(|_, _| Err(unavailable()));
        store.expect_note().once().returning(|_, notes| {
            let mut subjects: Vec<_> = notes.iter().map(|note| &*note.subject).collect();
            subjects.sort_unstable();
            assert_eq!(subjects, ["ada", "bob"]);
            Ok(())
        });
        let parts = parts(store);
        refresh(&parts).await;
        for subject in ["ada", "bob", "ada"] {
            parts.noted.note(&mesh(), WebhookEvent::MailWaiting, subject, || json!({}));
        }
        parts.noted.note(&mesh(), WebhookEvent::Capacity, "", || panic!("nobody asked"));
        for _ in 0..3 {
            tick(&parts).await;
        }
    }
}
