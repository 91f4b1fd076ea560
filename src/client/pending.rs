//! What a client has asked and not been told yet.

use std::collections::{BTreeMap, HashMap};

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio_tungstenite::tungstenite::Message;

use super::error::ClientError;
use super::heard::Heard;
use crate::protocol::{Ack, ErrorFrame, RequestId};

/// Told what became of a send.
pub(super) type AckSlot = oneshot::Sender<Result<Ack, ClientError>>;
/// Told what became of a request.
pub(super) type AnswerSlot = oneshot::Sender<Result<Heard, ClientError>>;

/// A send on its way.
#[derive(Debug)]
pub(super) struct PendingSend {
    pub(super) frame: Message,
    /// Whether it has an idempotence key, and so may be sent again.
    pub(super) repeatable: bool,
    pub(super) done: AckSlot,
    /// The permit that bounds sends in flight.
    pub(super) _place: OwnedSemaphorePermit,
}

/// All that is on its way, by number. Sends are kept in order: that is the
/// order in which they are repeated.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) sends: BTreeMap<u64, PendingSend>,
    pub(super) requests: HashMap<u64, AnswerSlot>,
}

impl Pending {
    /// An ack by its `id`. Whether anybody waited for it.
    pub(super) fn acked(&mut self, ack: Ack) -> bool {
        let number = ack.id.parse().ok();
        match number.and_then(|number: u64| self.sends.remove(&number)) {
            // Nobody listens any more if the wait was given up.
            Some(send) => send.done.send(Ok(ack)).is_ok(),
            None => false,
        }
    }

    /// A frame by its `_reqId`; given back if nobody waits for it.
    pub(super) fn answered(&mut self, heard: Heard) -> Option<Heard> {
        let number = match &heard.req_id {
            Some(RequestId::Text(text)) => {
                text.strip_prefix('r').and_then(|digits| digits.parse().ok())
            }
            Some(RequestId::Number(_)) | None => None,
        };
        let Some(slot) = number.and_then(|number: u64| self.requests.remove(&number)) else {
            return Some(heard);
        };
        let refusal = (heard.kind == "error").then(|| heard.read::<ErrorFrame>());
        let _ = slot.send(match refusal {
            None => Ok(heard),
            Some(Ok(error)) => Err(ClientError::Refused(Box::new(error))),
            Some(Err(reason)) => Err(ClientError::Unexpected(reason)),
        });
        None
    }

    /// An error by the `id` of the send that it refuses. Whether there is one.
    pub(super) fn refused(&mut self, error: &ErrorFrame) -> bool {
        let number = error.id.as_deref().and_then(|id| id.parse::<u64>().ok());
        let Some(send) = number.and_then(|number| self.sends.remove(&number)) else {
            return false;
        };
        send.done.send(Err(ClientError::Refused(Box::new(error.clone())))).is_ok()
    }

    /// Forgets what nobody waits for any more.
    pub(super) fn prune(&mut self) {
        self.sends.retain(|_, send| !send.done.is_closed());
        self.requests.retain(|_, slot| !slot.is_closed());
    }

    /// The connection is lost: requests fail, and so do sends that cannot be
    /// repeated (with `keep` false: all).
    pub(super) fn lost(&mut self, keep: bool, error: &ClientError) {
        self.prune();
        for (_, slot) in self.requests.drain() {
            let _ = slot.send(Err(error.clone()));
        }
        let (kept, failed) = std::mem::take(&mut self.sends)
            .into_iter()
            .partition(|(_, send)| keep && send.repeatable);
        self.sends = kept;
        let failed: BTreeMap<u64, PendingSend> = failed;
        for send in failed.into_values() {
            let _ = send.done.send(Err(error.clone()));
        }
    }
}
