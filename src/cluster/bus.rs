//! What nodes tell each other about a mesh.
//!
//! Frames are MessagePack maps with named fields and a version; unknown
//! fields are ignored, and a kind that a node does not know is skipped, so
//! that two releases can share a cluster.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::sim_clock::SimClock;
use crate::clock::Timestamp;
use crate::id::{CallId, Key, MemberId, PresenceId, TopicId};
use crate::protocol::{Forward, Push, Reply, Said, Status, StreamData, SystemEvent};
use crate::record::{PresenceRecord, SharedChange};

/// One thing that the nodes of a mesh should know or do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum BusMessage {
    /// A presence began, came back, changed or lost its socket: this is how
    /// it is now.
    Presence {
        /// The record. A node that holds an older epoch of it has been
        /// replaced and closes its socket.
        record: Box<PresenceRecord>,
        /// What the mesh's peers are told of it, if anything.
        #[serde(default)]
        event: Option<Announcement>,
    },
    /// A presence ended.
    Ended {
        /// The presence that ended.
        presence: PresenceId,
        /// What to close its socket with, by reason, if one is open.
        #[serde(default)]
        close: Option<String>,
        /// What the mesh's peers are told of it, if anything.
        #[serde(default)]
        event: Option<Announcement>,
    },
    /// Close the socket and keep the lease in grace.
    Close {
        /// The presence whose socket closes.
        presence: PresenceId,
        /// The reason that the peer reads.
        close: String,
    },
    /// A direct message for a session.
    Direct {
        /// The presence that gets the message.
        presence: PresenceId,
        /// The message.
        delivery: BusDelivery,
    },
    /// A message for everyone that its target names.
    Multicast(Box<Multicast>),
    /// Mail lies in the store.
    MailFor {
        /// The member or session keys that have mail.
        keys: Vec<Key>,
        /// Whether the mail is for many, of whom it may have reached none.
        #[serde(default)]
        many: bool,
    },
    /// A hook speaks about a presence: its holder applies it.
    HookStatus {
        /// The presence that the hook speaks about.
        presence: PresenceId,
        /// The status that the hook gives.
        status: Status,
        /// The instant of the hook's call.
        at: Timestamp,
    },
    /// As above, by a caller that has only shown that it knows the session's id:
    /// its holder applies it if its socket comes from the same client address. A
    /// kind of its own, so that no older release takes it without looking.
    HookFrom {
        /// The presence that the hook speaks about.
        presence: PresenceId,
        /// The status that the hook gives.
        status: Status,
        /// The instant of the hook's call.
        at: Timestamp,
        /// The caller's address as text, kept nowhere.
        client: String,
    },
    /// A visitor speaks for a session of its member: its holder applies it.
    Said {
        /// The presence that the visitor speaks for.
        presence: PresenceId,
        /// The visitor's words.
        said: Box<Said>,
    },
    /// A peer asks something of another: the holder of that one hands it on, if its
    /// socket is the one that is meant.
    Asked {
        /// By what the answer is known.
        call: CallId,
        /// The presence that is asked.
        host: PresenceId,
        /// The epoch of the holding whose socket is meant.
        epoch: u64,
        /// What is asked.
        forward: Box<Forward>,
        /// For how many milliseconds somebody waits.
        deadline_ms: u64,
    },
    /// The presence that was asked has answered, or cannot any more.
    Answered {
        /// What it was asked.
        call: CallId,
        /// What it said.
        reply: Box<Reply>,
    },
    /// Members, roles or grants changed in the store: read them again.
    MembersChanged,
    /// Who is in a topic has changed: what is known of it is read again.
    RosterChanged {
        /// The topic.
        topic: TopicId,
    },
    /// Another program posted something to a webhook of the mesh.
    Posted(Box<Push>),
    /// What all sessions of one member are told.
    ToMember {
        /// The member.
        member: MemberId,
        /// What it is told.
        event: SystemEvent,
    },
    /// The mesh's simulation clock is so now.
    SimClock {
        /// The clock.
        clock: SimClock,
        /// Whether it has just ticked: peers are told.
        #[serde(default)]
        has_ticked: bool,
    },
    /// Something that the mesh shares is otherwise now.
    Shared(Box<SharedChange>),
    /// Somebody published to a stream: its subscribers are told.
    Published(Published),
}

/// What somebody published to a stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Published {
    /// The publisher, which is not told.
    pub by: PresenceId,
    /// What subscribers are told.
    pub data: Box<StreamData>,
}

/// A message for everyone that its target names.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Multicast {
    /// A group without its `@`; `None`: everyone. Of a post, the topic's id after a `#`,
    /// which a release without topics takes for a group that nobody is in.
    #[serde(default)]
    pub group: Option<String>,
    /// The topic that the message is posted to, if it is a post.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<TopicNote>,
    /// Of a sealed message: the key of its ciphertext, sealed for each member that can open
    /// it, by the member's key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sealed_keys: BTreeMap<Key, String>,
    /// Who sent it.
    pub sender: MulticastSender,
    /// The seq of the multicast before this one in the mesh.
    pub previous: i64,
    /// The message, with its own seq.
    pub delivery: BusDelivery,
}

/// What tells a node for whom a post is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicNote {
    /// The topic.
    pub id: TopicId,
    /// The version of its roster when the post was committed.
    pub roster: i64,
}

/// Who sent a multicast: decides who is passed over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MulticastSender {
    /// The member, whose own sessions do not get the message.
    pub member: MemberId,
    /// The member's key, by which grants name a sender.
    pub member_key: Key,
    /// The session's key, by which grants may name it too.
    #[serde(default)]
    pub session_key: Option<Key>,
}

/// A message with its seq in the mesh's order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BusDelivery {
    /// The message's seq.
    pub seq: i64,
    /// The push, whole.
    pub push: Box<Push>,
    /// Whether its sender came back a moment ago: recipients read the store
    /// first, since earlier messages of it may have gone missing with the node
    /// that it came from.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resumed: bool,
}

/// A system event for a mesh's peers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Announcement {
    /// What they are told.
    pub event: SystemEvent,
    /// The presence it is about: never told itself.
    pub about: PresenceId,
    /// A member whose own sessions are not told.
    #[serde(default)]
    pub except_member: Option<MemberId>,
}
