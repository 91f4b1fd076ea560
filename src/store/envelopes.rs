//! The way in: envelopes that a batch of sends brings, and how much waits already.

pub(super) mod postgres;
pub(super) mod sqlite;

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId, MessageId, PresenceId, TopicId};
use crate::protocol::{Priority, Reached};
use crate::store::{Note, Result};

/// The way in: envelopes that a batch of sends brings.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Envelopes: Send + Sync + 'static {
    /// Takes envelopes: queue row and audit row each, all in one transaction.
    /// The answers are in the order of the batch.
    async fn accept(&self, now: Timestamp, batch: &[NewEnvelope]) -> Result<Vec<Accepted>>;

    /// How much undelivered direct mail each holder has; looks at no more than so
    /// many rows of each. What other programs post to topics is no mail.
    async fn waiting_load(&self, asked: &[(Holder, u64)]) -> Result<Vec<WaitingLoad>>;

    /// For each envelope, the message that its sender's own id for it names
    /// already. Takes nothing.
    async fn repeats(&self, batch: &[NewEnvelope]) -> Result<Vec<Option<MessageId>>>;
}

/// How far an envelope reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// One recipient. The claim says which presence is about to get it and
    /// until when no other may.
    Direct {
        /// The presence and the end of its claim, if one is open and takes it.
        claim: Option<(PresenceId, Timestamp)>,
        /// What webhooks are told, where nobody takes it now and some asked for that. It is
        /// written with the envelope.
        note: Option<Box<Note>>,
    },
    /// Everyone connected or in grace that the target names.
    Multicast,
    /// The members of a topic, also those that are away.
    Topic(Box<Post>),
}

impl Reach {
    /// Whether the message has a place among the mesh's multicasts.
    #[must_use]
    pub fn is_many(&self) -> bool {
        matches!(self, Self::Multicast | Self::Topic(_))
    }
}

/// What a message to a topic is beside its envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// The topic, one of the sender's mesh.
    pub topic: TopicId,
    /// The topic's name.
    pub name: String,
    /// 1: base64 of the text; 2: sealed with the topic's key.
    pub body_version: i32,
    /// Whom the post mentions. Who may not read the topic is left out.
    pub mentions: Vec<MemberId>,
}

/// A message as its sender gave it to the broker. Made once, of a `send`, and moved
/// from there to the store and into the push.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// The envelope's id, made here.
    pub id: MessageId,
    /// The sender's mesh.
    pub mesh: MeshId,
    /// The sender.
    pub sender_member: MemberId,
    /// The sender's name, for the audit row and for pushes from the store.
    pub sender_name: String,
    /// The sender's session key, if it has one.
    pub sender_session_key: Option<Key>,
    /// The target, as sent.
    pub target_spec: String,
    /// The priority, as sent.
    pub priority: Priority,
    /// The nonce, base64 as sent.
    pub nonce: String,
    /// The ciphertext, base64 as sent.
    pub ciphertext: String,
    /// The sender's own id of the message.
    pub client_message_id: Option<String>,
    /// The sender's fingerprint of the request.
    pub request_fingerprint: Option<String>,
    /// The message that this one answers.
    pub reply_to_id: Option<String>,
    /// What it says of itself, if it was scheduled.
    pub scheduled: Option<Marks>,
    /// What else its sender says of it; most say nothing.
    pub properties: Option<Box<Properties>>,
}

/// What a sender says of a message beside what is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// The conversation it belongs to.
    pub thread_id: Option<String>,
    /// Whether the sender waits for an answer.
    pub expects_reply: bool,
    /// The sender's own id of the message whose place this one takes.
    pub supersedes: Option<String>,
    /// At which stage the sender wants to be told.
    pub receipt: Option<Reached>,
    /// How many answers led to it, one to the other.
    pub hop: u32,
    /// When it is too old to be delivered.
    pub expires_at: Option<Timestamp>,
    /// What opens it, of a message to many that is sealed.
    pub seal: Option<Seal>,
}

/// What opens a message to many that is sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seal {
    /// By the key that sealed it.
    pub signature: String,
    /// The key of the ciphertext, sealed for each member that can open it, by the member's
    /// key. Of one that was read from the queue, none:
    /// [`Mail::sealed_keys`](crate::store::Mail::sealed_keys).
    pub keys: BTreeMap<Key, String>,
}

impl Properties {
    /// Boxed, if there is anything to say.
    #[must_use]
    pub fn said(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }
}

impl Envelope {
    /// Whether it must not be delivered any more.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        let expires_at = self.properties.as_ref().and_then(|said| said.expires_at);
        expires_at.is_some_and(|at| at <= now)
    }

    /// What opens it, if it is a message to many that is sealed.
    #[must_use]
    pub fn seal(&self) -> Option<&Seal> {
        self.properties.as_ref()?.seal.as_ref()
    }

    /// Takes the sealed keys out of it.
    #[must_use]
    pub fn take_sealed_keys(&mut self) -> BTreeMap<Key, String> {
        let seal = self.properties.as_mut().and_then(|said| said.seal.as_mut());
        seal.map(|seal| std::mem::take(&mut seal.keys)).unwrap_or_default()
    }
}

/// What a message that was scheduled says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// What it calls itself.
    pub subtype: Option<String>,
    /// Whether it was to be sent earlier.
    pub late: bool,
}

/// An envelope to accept. Reads as the envelope that it is.
#[derive(Clone, Debug)]
pub struct NewEnvelope {
    /// The envelope.
    pub envelope: Envelope,
    /// How far it reaches.
    pub reach: Reach,
}

impl Deref for NewEnvelope {
    type Target = Envelope;

    fn deref(&self) -> &Envelope {
        &self.envelope
    }
}

impl DerefMut for NewEnvelope {
    fn deref_mut(&mut self) -> &mut Envelope {
        &mut self.envelope
    }
}

/// Those of a batch that say something of themselves.
pub(in crate::store) fn said(
    batch: &[NewEnvelope],
) -> impl Iterator<Item = (&NewEnvelope, &Properties)> {
    batch.iter().filter_map(|envelope| Some((envelope, envelope.properties.as_deref()?)))
}

/// Those that were taken and take the place of another, with the sender's own id of that.
pub(in crate::store) fn superseding<'a>(
    batch: &'a [NewEnvelope],
    answers: &[Accepted],
) -> Vec<(&'a NewEnvelope, &'a str)> {
    let taken =
        batch.iter().zip(answers).filter(|(_, answer)| matches!(answer, Accepted::New { .. }));
    let older = |envelope: &'a NewEnvelope| envelope.properties.as_deref()?.supersedes.as_deref();
    taken.filter_map(|(envelope, _)| Some((envelope, older(envelope)?))).collect()
}

/// What webhooks are to be told of those of a batch that were taken.
pub(in crate::store) fn notes<'a>(batch: &'a [NewEnvelope], answers: &[Accepted]) -> Vec<&'a Note> {
    let taken = batch.iter().zip(answers).filter_map(|(envelope, answer)| {
        matches!(answer, Accepted::New { .. }).then_some(&envelope.reach)
    });
    let noted = |reach: &'a Reach| match reach {
        Reach::Direct { note, .. } => note.as_deref(),
        Reach::Multicast | Reach::Topic(_) => None,
    };
    taken.filter_map(noted).collect()
}

/// What became of an envelope of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// The envelope is on disk under its own id.
    New {
        /// The seq in the mesh's order of commits.
        seq: i64,
        /// For a multicast or a post: the place of the multicast before it, 0 if none
        /// is kept.
        previous_multicast: i64,
        /// For a post: the version of its topic's roster at the commit; else 0.
        roster: i64,
        /// When it was accepted.
        created_at: Timestamp,
    },
    /// The same member has sent it before.
    Duplicate {
        /// The id it has.
        id: MessageId,
    },
}

/// Whose waiting mail is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// What waits for one key.
    Mailbox {
        /// The sender's mesh.
        mesh: MeshId,
        /// The key, as in the rows.
        target: String,
    },
    /// What waits of one member's direct sends.
    Sender {
        /// The sender's mesh.
        mesh: MeshId,
        /// The sender.
        member: MemberId,
    },
    /// What waits in one mesh.
    Mesh {
        /// The mesh.
        mesh: MeshId,
    },
}

/// How much waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaitingLoad {
    /// Envelopes.
    pub messages: u64,
    /// Bytes of nonce and ciphertext, each envelope counting for at least
    /// [`WAITING_BYTES_MIN`](crate::limits::WAITING_BYTES_MIN).
    pub bytes: u64,
}
