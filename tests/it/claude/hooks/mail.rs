//! The mail of a session as it lies on disk, written here as a session's process writes
//! it, where a test needs no broker.

use std::path::Path;

use claudemesh_broker::clock::Timestamp;
use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, SqliteConnection};

/// The spool of one session.
pub struct Mail {
    file: SqliteConnection,
}

impl Mail {
    pub async fn open(session_folder: &Path) -> Self {
        let options = SqliteConnectOptions::new().filename(session_folder.join("spool.db"));
        Self { file: SqliteConnection::connect_with(&options).await.expect("the spool") }
    }

    /// A message came a moment ago.
    pub async fn comes(&mut self, id: &str, priority: &str, body: &str) {
        let now = Timestamp::now();
        let content = json!({
            "messageId": id, "clientMessageId": null, "senderKey": "ab".repeat(32),
            "senderSessionKey": null, "senderName": "bob", "senderSessionName": null,
            "mesh": "team", "target": null, "forSession": false, "priority": priority,
            "subtype": null, "sentAt": now, "expiresAt": null, "threadId": null,
            "replyToId": null, "expectsReply": true, "hop": 0, "newerFromSender": null,
            "redelivered": false, "seq": null, "body": body,
        });
        let rank = ["now", "next", "low"].iter().position(|known| *known == priority);
        let insert = "insert into message (identity, message_id, priority, content, bytes, \
            expects_reply, received_at) values (?1, ?1, ?2, ?3, ?4, 1, ?5)";
        sqlx::query(insert)
            .bind(id)
            .bind(i64::try_from(rank.expect("a priority")).expect("fits"))
            .bind(content.to_string())
            .bind(i64::try_from(body.len()).expect("fits"))
            .bind(now.as_ms())
            .execute(&mut self.file)
            .await
            .expect("written");
    }

    /// So many messages came, in this order. Returns their ids.
    pub async fn come(&mut self, count: usize, priority: &str) -> Vec<String> {
        let ids: Vec<String> = (1..=count).map(|i| format!("{priority}-{i}")).collect();
        for id in &ids {
            self.comes(id, priority, &format!("what {id} says")).await;
        }
        ids
    }

    /// Whatever has happened was so much earlier.
    pub async fn passes(&mut self, ms: i64) {
        let messages = "update message set received_at = received_at - ?1, \
            offered_until = max(0, offered_until - ?1)";
        sqlx::query(messages).bind(ms).execute(&mut self.file).await.expect("written");
        let turn = "update turn set status_at = status_at - ?1, rung_at = rung_at - ?1, \
            progress_at = progress_at - ?1";
        sqlx::query(turn).bind(ms).execute(&mut self.file).await.expect("written");
    }

    /// The messages in that state, in the order in which they came.
    pub async fn with_state(&mut self, state: &str) -> Vec<String> {
        let select = "select message_id from message where state = ?1 order by id";
        sqlx::query_scalar(select).bind(state).fetch_all(&mut self.file).await.expect("read")
    }

    /// The process that waits to wake the session.
    pub async fn waiter(&mut self) -> Option<String> {
        let select = "select waiter from turn";
        sqlx::query_scalar(select).fetch_one(&mut self.file).await.expect("read")
    }

    /// Any statement.
    pub async fn run(&mut self, statement: &'static str) {
        sqlx::query(statement).execute(&mut self.file).await.expect("done");
    }

    /// `working` or `idle`, as the hooks say.
    pub async fn status(&mut self) -> String {
        let select = "select status from turn";
        sqlx::query_scalar(select).fetch_one(&mut self.file).await.expect("read")
    }
}
