//! Everything that a peer can ask its broker, beside sending.

use serde::Serialize;
use serde_json::Value;
use tokio::sync::oneshot;

use super::answer::Answer;
use super::task::Command;
use super::{Client, ClientError, socket};
use crate::protocol::{
    AUDIT_ROWS_DEFAULT, AuditQuery, AuditResult, AuditVerifyResult, BanAck, BanEntry,
    DisconnectAck, Group, KickAck, KickRequest, MessageStatus, MessageStatusResult, PageRequest,
    PeerInfo, SetProfile, SetVisible, Stats, Status, TargetRequest, UnbanAck,
};

/// The body of a request that has none.
#[derive(Serialize)]
struct Nothing {}

/// Where a list goes on, if it does. A cursor that comes again leads nowhere.
fn next_page(more: bool, cursor: Option<String>, before: Option<&String>) -> Option<String> {
    cursor.filter(|cursor| more && before != Some(cursor))
}

/// Takes the answer of the expected kind.
macro_rules! expect {
    ($answer:expr, $kind:ident) => {
        match $answer {
            Answer::$kind(answer) => Ok(answer),
            other => Err(ClientError::Unexpected(other.kind().to_owned())),
        }
    };
}

impl Client {
    /// Asks anything: `body` is the request's fields without `type` and
    /// `_reqId`. The answer is whatever comes back under that id.
    ///
    /// # Errors
    /// [`ClientError::Refused`] for an `error` frame, or why there is no
    /// answer.
    pub async fn request<T: Serialize + Sync + ?Sized>(
        &self,
        kind: &str,
        body: &T,
    ) -> Result<Answer, ClientError> {
        #[derive(Serialize)]
        struct Frame<'a, T: ?Sized> {
            r#type: &'a str,
            #[serde(rename = "_reqId")]
            req_id: &'a str,
            #[serde(flatten)]
            body: &'a T,
        }
        let timeout = self.shared.options.limits.answer_timeout;
        let number = self.number();
        let req_id = format!("r{number}");
        let frame = Frame { r#type: kind, req_id: &req_id, body };
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
    /// As [`Self::request`]; so do all that follow.
    pub async fn list_peers(&self) -> Result<Vec<PeerInfo>, ClientError> {
        let (mut peers, mut ask) = (Vec::new(), PageRequest::default());
        loop {
            let page = expect!(self.request("list_peers", &ask).await?, PeersList)?;
            peers.extend(page.peers);
            ask.cursor = next_page(page.more, page.cursor, ask.cursor.as_ref());
            if ask.cursor.is_none() {
                return Ok(peers);
            }
        }
    }

    /// Says what this session is doing. Turning idle releases what was held.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn set_status(&self, status: Status) -> Result<(), ClientError> {
        #[derive(Serialize)]
        struct SetStatus {
            status: Status,
        }
        self.set("set_status", &SetStatus { status }).await
    }

    /// Says in words what this session is doing.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn set_summary(&self, summary: &str) -> Result<(), ClientError> {
        #[derive(Serialize)]
        struct SetSummary<'a> {
            summary: &'a str,
        }
        self.set("set_summary", &SetSummary { summary }).await
    }

    /// Shows or hides this session.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn set_visible(&self, visible: bool) -> Result<(), ClientError> {
        self.set("set_visible", &SetVisible { visible }).await
    }

    /// Changes what this session says of itself; fields not given stay.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn set_profile(&self, profile: &SetProfile) -> Result<(), ClientError> {
        self.set("set_profile", profile).await
    }

    /// Reports counters.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn set_stats(&self, stats: Stats) -> Result<(), ClientError> {
        #[derive(Serialize)]
        struct SetStats {
            stats: Stats,
        }
        self.set("set_stats", &SetStats { stats }).await
    }

    /// Enters a group, or changes the role in it.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn join_group(&self, name: &str, role: Option<&str>) -> Result<(), ClientError> {
        let group = Group { name: name.to_owned(), role: role.map(str::to_owned) };
        self.set("join_group", &group).await
    }

    /// Leaves a group.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn leave_group(&self, name: &str) -> Result<(), ClientError> {
        self.set("leave_group", &Group { name: name.to_owned(), role: None }).await
    }

    /// How far a message got; by its id or its first 8 or more characters.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn message_status(&self, id: &str) -> Result<MessageStatusResult, ClientError> {
        let mut ask = MessageStatus { message_id: id.to_owned(), cursor: None };
        let mut recipients = Vec::new();
        loop {
            let answer = self.request("message_status", &ask).await?;
            let mut page = expect!(answer, MessageStatusResult)?;
            recipients.append(&mut page.recipients);
            ask.cursor = next_page(page.more, page.cursor.take(), ask.cursor.as_ref());
            if ask.cursor.is_none() {
                return Ok(MessageStatusResult { recipients, more: false, ..page });
            }
        }
    }

    /// Removes sessions for good. Admins only.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn kick(&self, whom: &KickRequest) -> Result<KickAck, ClientError> {
        expect!(self.request("kick", whom).await?, KickAck)
    }

    /// Cuts connections, which may come back. Admins only.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn disconnect(&self, whom: &KickRequest) -> Result<DisconnectAck, ClientError> {
        expect!(self.request("disconnect", whom).await?, DisconnectAck)
    }

    /// Shuts a member out. Admins only.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn ban(&self, whom: &TargetRequest) -> Result<BanAck, ClientError> {
        expect!(self.request("ban", whom).await?, BanAck)
    }

    /// Lets a member in again. Admins only.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn unban(&self, whom: &TargetRequest) -> Result<UnbanAck, ClientError> {
        expect!(self.request("unban", whom).await?, UnbanAck)
    }

    /// Who is shut out.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn list_bans(&self) -> Result<Vec<BanEntry>, ClientError> {
        let (mut bans, mut ask) = (Vec::new(), PageRequest::default());
        loop {
            let page = expect!(self.request("list_bans", &ask).await?, ListBansResult)?;
            bans.extend(page.bans);
            ask.cursor = next_page(page.more, page.cursor, ask.cursor.as_ref());
            if ask.cursor.is_none() {
                return Ok(bans);
            }
        }
    }

    /// The audit trail, newest first. Admins only.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn audit_query(&self, ask: &AuditQuery) -> Result<AuditResult, ClientError> {
        let mut ask = ask.clone();
        let mut entries = Vec::new();
        loop {
            let mut page = expect!(self.request("audit_query", &ask).await?, AuditResult)?;
            let rows = i64::try_from(page.entries.len()).unwrap_or(i64::MAX);
            entries.append(&mut page.entries);
            ask.cursor = next_page(page.more, page.cursor.take(), ask.cursor.as_ref());
            ask.limit = Some(ask.limit.unwrap_or(AUDIT_ROWS_DEFAULT).saturating_sub(rows));
            if ask.cursor.is_none() || ask.limit <= Some(0) {
                return Ok(AuditResult { entries, more: false, ..page });
            }
        }
    }

    /// Whether the audit chain holds. Admins only.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn audit_verify(&self) -> Result<AuditVerifyResult, ClientError> {
        expect!(self.request("audit_verify", &Nothing {}).await?, AuditVerifyResult)
    }

    /// A request whose answer says no more than that it is done.
    async fn set<T: Serialize + Sync>(&self, kind: &str, body: &T) -> Result<(), ClientError> {
        match self.request(kind, body).await? {
            Answer::Ack(crate::protocol::Ack { error: Some(error), .. }) => {
                Err(ClientError::Rejected(error))
            }
            _ => Ok(()),
        }
    }
}
