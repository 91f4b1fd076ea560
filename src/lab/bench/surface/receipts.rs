//! What the broker tells the sender of its messages: that they were surfaced, and when the
//! sender heard of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::client::{Inbound, Inbox};

/// The receipts of one run, by the messages' ids: no more than it has messages.
#[derive(Default)]
pub(super) struct Receipts {
    came: Mutex<HashMap<String, Instant>>,
    more: Notify,
}

impl Receipts {
    /// Reads the sender's inbox to its end.
    pub(super) async fn read(self: Arc<Self>, mut inbox: Inbox) {
        while let Some(inbound) = inbox.recv().await {
            let Inbound::Event { event, data } = inbound else { continue };
            if event != "message_receipt" {
                continue;
            }
            let now = Instant::now();
            for receipt in data["receipts"].as_array().into_iter().flatten() {
                if let (Some(id), Some("surfaced")) =
                    (receipt["messageId"].as_str(), receipt["stage"].as_str())
                {
                    self.came.lock().entry(id.to_owned()).or_insert(now);
                }
            }
            self.more.notify_waiters();
        }
    }

    /// Waits for the receipt of a message, and says when it came.
    pub(super) async fn of(&self, id: &str) -> Instant {
        loop {
            let more = self.more.notified();
            if let Some(came) = self.came.lock().remove(id) {
                return came;
            }
            more.await;
        }
    }
}
