//! Everything that a peer can ask its broker, beside sending.

use serde::Serialize;
use serde_json::Value;
use tokio::sync::oneshot;

use super::heard::Heard;
use super::task::Command;
use super::{Client, ClientError, socket};
use crate::codec::Frame;
use crate::protocol::{
    AUDIT_ROWS_DEFAULT, Ask, AuditQuery, AuditResult, ListPeers, MessageStatus,
    MessageStatusResult, PeerInfo,
};

/// Where a list goes on, if it does. A cursor that comes again leads nowhere.
pub(super) fn next_page(
    more: bool,
    cursor: Option<String>,
    before: Option<&String>,
) -> Option<String> {
    cursor.filter(|cursor| more && before != Some(cursor))
}

impl Client {
    /// Asks. A list that was cut is asked for again with its cursor.
    ///
    /// # Errors
    /// [`ClientError::Refused`] for an `error` frame, or why there is no
    /// answer.
    pub async fn ask<R: Ask>(&self, ask: &R) -> Result<R::Answer, ClientError> {
        self.heard(R::TYPE, ask).await?.answer()
    }

    /// Asks anything: `body` is the request's fields without `type` and
    /// `_reqId`. The answer is whatever comes back under that id.
    ///
    /// # Errors
    /// As [`Self::ask`]; so do all that follow.
    pub async fn request<T: Serialize + Sync + ?Sized>(
        &self,
        kind: &str,
        body: &T,
    ) -> Result<Value, ClientError> {
        self.heard(kind, body).await?.read().map_err(ClientError::Unexpected)
    }

    async fn heard<T: Serialize + Sync + ?Sized>(
        &self,
        kind: &str,
        fields: &T,
    ) -> Result<Heard, ClientError> {
        let timeout = self.shared.options.limits.answer_timeout;
        let number = self.number();
        let frame = Frame { kind, fields, req_id: Some(format!("r{number}")) };
        let frame = socket::encode(self.shared.options.codec, &frame)?;
        let (done, answer) = oneshot::channel();
        let asking = async {
            let command = Command::Request { number, frame, done };
            self.commands.send(command).await.map_err(|_| ClientError::Gone)?;
            answer.await.map_err(|_| ClientError::Gone)?
        };
        tokio::time::timeout(timeout, asking).await.map_err(|_| ClientError::Timeout(timeout))?
    }

    /// Sends a frame as it is and waits for nothing.
    ///
    /// # Errors
    /// [`ClientError::Gone`], or if the value has no form in this coding.
    pub async fn send_raw(&self, frame: &Value) -> Result<(), ClientError> {
        let frame = socket::encode(self.shared.options.codec, frame)?;
        self.commands.send(Command::Frame(frame)).await.map_err(|_| ClientError::Gone)
    }

    /// Everyone who is here, this client included.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn list_peers(&self) -> Result<Vec<PeerInfo>, ClientError> {
        let (mut peers, mut ask) = (Vec::new(), ListPeers::default());
        loop {
            let page = self.ask(&ask).await?;
            peers.extend(page.peers);
            ask.cursor = next_page(page.more, page.cursor, ask.cursor.as_ref());
            if ask.cursor.is_none() {
                return Ok(peers);
            }
        }
    }

    /// How far a message got with each of its recipients; by its id or its first 8 or
    /// more characters.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn message_status(&self, id: &str) -> Result<MessageStatusResult, ClientError> {
        let mut ask = MessageStatus { message_id: id.to_owned(), cursor: None };
        let mut recipients = Vec::new();
        loop {
            let mut page = self.ask(&ask).await?;
            recipients.append(&mut page.recipients);
            ask.cursor = next_page(page.more, page.cursor.take(), ask.cursor.as_ref());
            if ask.cursor.is_none() {
                return Ok(MessageStatusResult { recipients, more: false, ..page });
            }
        }
    }

    /// The audit trail, newest first, as many rows as asked for. Admins only.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn audit_query(&self, ask: &AuditQuery) -> Result<AuditResult, ClientError> {
        let mut ask = ask.clone();
        let mut entries = Vec::new();
        loop {
            let mut page = self.ask(&ask).await?;
            let rows = i64::try_from(page.entries.len()).unwrap_or(i64::MAX);
            entries.append(&mut page.entries);
            ask.cursor = next_page(page.more, page.cursor.take(), ask.cursor.as_ref());
            ask.limit = Some(ask.limit.unwrap_or(AUDIT_ROWS_DEFAULT).saturating_sub(rows));
            if ask.cursor.is_none() || ask.limit <= Some(0) {
                return Ok(AuditResult { entries, more: false, ..page });
            }
        }
    }
}
