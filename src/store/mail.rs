//! The way out: who has what to read, and what is done.

pub(super) mod postgres;
pub(super) mod sqlite;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Deref;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId, MessageId, PresenceId};
use crate::protocol::{Priority, Reached};
use crate::store::columns::{Columns, unreadable};
use crate::store::{Envelope, Marks, Properties, Result, Seal};

/// The way out: who has what to read, and what is done.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Mail: Send + Sync + 'static {
    /// Marks deliveries done and moves multicast positions forward. Alone among
    /// these methods it may return before the disk has it: a crash of the
    /// machine brings such a delivery again, as one on its way.
    async fn confirm(&self, now: Timestamp, batch: &[Confirm]) -> Result<()>;

    /// Claims direct envelopes for a presence until `ask.until`, oldest
    /// first. Those that it has claimed before are given again unless named
    /// in `ask.in_flight`.
    async fn claim(&self, now: Timestamp, ask: &ClaimRequest) -> Result<Vec<StoredEnvelope>>;

    /// Takes back the claims of `presence` on these envelopes.
    async fn unclaim(&self, presence: &PresenceId, messages: &[MessageId]) -> Result<()>;

    /// Multicasts of the mesh after that position, oldest first.
    async fn multicasts_after(
        &self,
        mesh: &MeshId,
        after: i64,
        limit: u32,
    ) -> Result<Vec<StoredEnvelope>>;

    /// The keys of these sealed multicasts that are sealed for that member; nothing of those
    /// that it cannot open.
    async fn sealed_keys(
        &self,
        member_key: &Key,
        messages: &[MessageId],
    ) -> Result<HashMap<MessageId, String>>;

    /// The members, by their keys, that a message to many is sealed for; `None` of one in
    /// clear.
    async fn sealed_for(&self, message: &MessageId) -> Result<Option<HashSet<Key>>>;

    /// The newest sequence number that the mesh has given away: every envelope up to it
    /// can be read from now on. 0 in a mesh without a past.
    async fn newest_seq(&self, mesh: &MeshId) -> Result<i64>;

    /// The newest sequence number that the mesh had given away before that instant, by the
    /// clocks of those who asked for numbers. 0 if none.
    async fn seq_before(&self, mesh: &MeshId, before: Timestamp) -> Result<i64>;

    /// Which of these (mesh, key) mailboxes hold an undelivered envelope that
    /// nobody has a live claim on.
    async fn waiting(
        &self,
        now: Timestamp,
        mailboxes: &[(MeshId, Key)],
    ) -> Result<Vec<(MeshId, Key)>>;

    /// Which of these presences have a claim on an undelivered envelope in the
    /// mailbox named with them.
    async fn claimed(&self, mailboxes: &[(MeshId, Key, PresenceId)])
    -> Result<HashSet<PresenceId>>;

    /// Open presences of the mesh whose multicast position is beyond `newest`, which
    /// no envelope has, go on from `seq`.
    async fn rewind(&self, mesh: &MeshId, newest: i64, seq: i64) -> Result<()>;
}

/// An envelope as the queue keeps it. Reads as the envelope that it is.
#[derive(Clone, Debug)]
pub struct StoredEnvelope {
    /// The envelope.
    pub envelope: Envelope,
    /// Its seq: where it stands in its mesh's order; 0 for rows that another program wrote.
    pub seq: i64,
    /// The sender's key.
    pub sender_key: Key,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// Whether it was on its way to somebody before.
    pub was_claimed: bool,
}

impl Deref for StoredEnvelope {
    type Target = Envelope;

    fn deref(&self) -> &Envelope {
        &self.envelope
    }
}

/// A presence asks for its mail.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// Who asks.
    pub presence: PresenceId,
    /// In which mesh.
    pub mesh: MeshId,
    /// The member's key; `None`: only what is addressed to the session's own.
    pub member_key: Option<Key>,
    /// The session's own key.
    pub session_key: Option<Key>,
    /// Whether only [`Priority::Now`] may be given.
    pub urgent_only: bool,
    /// What is on its way to it already.
    pub in_flight: Vec<MessageId>,
    /// Until when nobody else may have them.
    pub until: Timestamp,
    /// At most this many.
    pub limit: u32,
}

/// A delivery that is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confirm {
    /// A direct envelope, by its id. Only if it was addressed to one of the
    /// keys.
    Message {
        /// Its mesh.
        mesh: MeshId,
        /// Its id.
        id: MessageId,
        /// The recipient's member key.
        member_key: Key,
        /// The recipient's session key.
        session_key: Option<Key>,
        /// Whether all that is known is that it was written: its client never confirms.
        is_written_only: bool,
    },
    /// A direct envelope, by the sender's own id for it.
    ClientMessage {
        /// Its mesh.
        mesh: MeshId,
        /// The sender's id for it.
        client_message_id: String,
        /// The recipient's member key.
        member_key: Key,
        /// The recipient's session key.
        session_key: Option<Key>,
    },
    /// Every multicast of the mesh up to here, for one presence.
    MulticastsUpTo {
        /// The presence.
        presence: PresenceId,
        /// The position.
        position: i64,
    },
    /// Every post of the member's topics up to here, for the member: it has had them on
    /// one of its connections.
    PostsUpTo {
        /// The member.
        member: MemberId,
        /// The position.
        position: i64,
    },
}

/// A direct envelope to confirm: mesh, id, the recipient's keys.
type Done<'a> = (&'a MeshId, &'a str, &'a Key, Option<&'a Key>);

/// Confirmations by what they name.
#[derive(Default)]
struct Confirmed<'a> {
    by_id: Vec<Done<'a>>,
    by_client_id: Vec<Done<'a>>,
    /// Those of `by_id` whose client never confirms.
    written_only: Vec<&'a str>,
    /// For each presence, the furthest of its positions.
    positions: BTreeMap<&'a PresenceId, i64>,
    /// For each member, the furthest of its positions in topics.
    posts: BTreeMap<&'a MemberId, i64>,
}

impl<'a> FromIterator<&'a Confirm> for Confirmed<'a> {
    fn from_iter<I: IntoIterator<Item = &'a Confirm>>(batch: I) -> Self {
        let mut all = Self::default();
        for done in batch {
            match done {
                Confirm::Message { mesh, id, member_key, session_key, is_written_only } => {
                    if *is_written_only {
                        all.written_only.push(id.as_str());
                    }
                    all.by_id.push((mesh, id.as_str(), member_key, session_key.as_ref()));
                }
                Confirm::ClientMessage { mesh, client_message_id, member_key, session_key } => {
                    let session_key = session_key.as_ref();
                    all.by_client_id.push((mesh, client_message_id, member_key, session_key));
                }
                Confirm::PostsUpTo { member, position } => {
                    let furthest = all.posts.entry(member).or_insert(*position);
                    *furthest = (*furthest).max(*position);
                }
                Confirm::MulticastsUpTo { presence, position } => {
                    let furthest = all.positions.entry(presence).or_insert(*position);
                    *furthest = (*furthest).max(*position);
                }
            }
        }
        all
    }
}

fn read_marks(row: &impl Columns) -> Result<Option<Marks>> {
    let subtype = row.optional_text("subtype")?;
    let late = row.optional_flag("late")?;
    let is_marked = subtype.is_some() || late.is_some();
    Ok(is_marked.then(|| Marks { subtype, late: late.unwrap_or_default() }))
}

/// The members in the column `sealed_keys`.
fn sealed_for(column: Option<String>) -> Result<Option<HashSet<Key>>> {
    let Some(column) = column else { return Ok(None) };
    let keys: BTreeMap<Key, String> =
        serde_json::from_str(&column).map_err(|_| unreadable("sealed_keys"))?;
    Ok(Some(keys.into_keys().collect()))
}

fn read_properties(row: &impl Columns) -> Result<Option<Box<Properties>>> {
    let properties = Properties {
        thread_id: row.optional_text("thread_id")?,
        expects_reply: row.optional_flag("expects_reply")?.unwrap_or_default(),
        supersedes: row.optional_text("supersedes")?,
        receipt: row.optional_text("receipt")?.as_deref().and_then(Reached::parse),
        hop: row.optional_int("hop")?.and_then(|hop| u32::try_from(hop).ok()).unwrap_or_default(),
        expires_at: row.optional_time("expires_at")?,
        seal: None,
    };
    Ok(properties.said())
}

impl StoredEnvelope {
    /// An envelope that was accepted just now.
    #[must_use]
    pub fn fresh(envelope: Envelope, seq: i64, sender_key: Key, created_at: Timestamp) -> Self {
        Self { envelope, seq, sender_key, created_at, was_claimed: false }
    }

    /// A row of the mesh's queue with its sender's key.
    pub(in crate::store) fn read(row: &impl Columns, mesh: &MeshId) -> Result<Self> {
        Ok(Self {
            envelope: Envelope {
                id: row.id("id")?,
                mesh: mesh.clone(),
                sender_member: row.id("sender_member_id")?,
                sender_name: row.text("sender_name")?,
                sender_session_key: row.optional_id("sender_session_pubkey")?,
                target_spec: row.text("target_spec")?,
                priority: row.word("priority", Priority::parse)?,
                nonce: row.text("nonce")?,
                ciphertext: row.text("ciphertext")?,
                client_message_id: row.optional_text("client_message_id")?,
                request_fingerprint: row.optional_text("request_fingerprint")?,
                reply_to_id: row.optional_text("reply_to_id")?,
                scheduled: read_marks(row)?,
                properties: read_properties(row)?,
            },
            seq: row.optional_int("seq")?.unwrap_or_default(),
            sender_key: row.id("sender_key")?,
            created_at: row.time("created_at")?,
            was_claimed: row.optional_time("claimed_at")?.is_some(),
        })
    }

    /// As [`Self::read`], of a row that may be sealed for many.
    pub(in crate::store) fn read_multicast(row: &impl Columns, mesh: &MeshId) -> Result<Self> {
        let mut stored = Self::read(row, mesh)?;
        if let Some(signature) = row.optional_text("signature")? {
            let said = stored.envelope.properties.get_or_insert_default();
            said.seal = Some(Seal { signature, ..Seal::default() });
        }
        Ok(stored)
    }
}
