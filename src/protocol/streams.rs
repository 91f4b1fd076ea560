//! Streams: `create_stream`, `delete_stream`, `list_streams`, `subscribe`, `unsubscribe`,
//! `publish`, `stream_data`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Ack;
use super::ask::{Answer, Ask, Unasked};
use crate::clock::Timestamp;

/// `create_stream`: makes a stream, unless there is one of that name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreateStream {
    /// The stream's name.
    pub name: String,
}

impl Ask for CreateStream {
    const TYPE: &'static str = "create_stream";
    type Answer = StreamCreated;
}

/// Answers `create_stream`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamCreated {
    /// The stream's id.
    pub id: String,
    /// The stream's name.
    pub name: String,
}

impl Answer for StreamCreated {
    const TYPE: &'static str = "stream_created";
}

/// `delete_stream`: the stream's name is not listed any more, and counts no more for what
/// the mesh may keep. Who subscribes to the name goes on to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeleteStream {
    /// The stream's name.
    pub name: String,
}

impl Ask for DeleteStream {
    const TYPE: &'static str = "delete_stream";
    const UNASKED: Unasked = Unasked::Silent;
    type Answer = Ack;
}

/// `list_streams`: the streams that were made, the oldest first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ListStreams {
    /// From an answer that was cut: the list goes on there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Ask for ListStreams {
    const TYPE: &'static str = "list_streams";
    type Answer = StreamList;
}

/// A stream in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamInfo {
    /// The stream's id.
    pub id: String,
    /// The stream's name.
    pub name: String,
    /// The name of the member that made it; empty if that is not known.
    pub created_by: String,
    /// What the member's session called itself, where that is another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by_session: Option<String>,
    /// When.
    pub created_at: Timestamp,
    /// How many presences subscribe to it, on all nodes, in grace too.
    pub subscriber_count: usize,
}

/// Answers `list_streams`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamList {
    /// The streams.
    pub streams: Vec<StreamInfo>,
    /// Whether there are more than fit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// With which the next ones are asked for; only with `more`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Answer for StreamList {
    const TYPE: &'static str = "stream_list";
}

/// `subscribe`: the session is told what others publish under that name from now on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Subscribe {
    /// The stream's name, whether it was made or not.
    pub stream: String,
}

impl Ask for Subscribe {
    const TYPE: &'static str = "subscribe";
    type Answer = Subscribed;
}

/// Answers `subscribe`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subscribed {
    /// The stream's name.
    pub stream: String,
}

impl Answer for Subscribed {
    const TYPE: &'static str = "subscribed";
}

/// `unsubscribe`: and from now on it is not.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Unsubscribe {
    /// The stream's name.
    pub stream: String,
}

impl Ask for Unsubscribe {
    const TYPE: &'static str = "unsubscribe";
    const UNASKED: Unasked = Unasked::Silent;
    type Answer = Ack;
}

/// `publish`: tells whoever subscribes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Publish {
    /// The stream's name, whether it was made or not.
    pub stream: String,
    /// Any JSON; what is left out is null.
    #[serde(default)]
    pub data: Value,
}

impl Ask for Publish {
    const TYPE: &'static str = "publish";
    const UNASKED: Unasked = Unasked::Silent;
    type Answer = Ack;
}

/// `stream_data`: somebody published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamData {
    /// The stream's name.
    pub stream: String,
    /// The data, as they were published.
    pub data: Value,
    /// The name of the member that published them.
    pub published_by: String,
    /// What the member's session called itself, where that is another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_by_session: Option<String>,
}
