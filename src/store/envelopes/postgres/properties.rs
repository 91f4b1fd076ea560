//! What the envelopes of a batch say of themselves, and what they take the place of.

use std::borrow::Cow;

use sqlx::types::chrono::NaiveDateTime;

use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId, MessageId};
use crate::protocol::Reached;
use crate::store::columns::Columns as _;
use crate::store::envelopes::{said, superseding};
use crate::store::postgres::chain::{Entries, Query};
use crate::store::postgres::pool::Call;
use crate::store::postgres::row::{clean, clean_optional, to_json};
use crate::store::{Accepted, NewEnvelope, Result};

/// What envelopes say, an array per column.
#[derive(Default)]
pub(super) struct Properties<'a> {
    id: Vec<&'a str>,
    thread: Vec<Option<Cow<'a, str>>>,
    expects_reply: Vec<bool>,
    supersedes: Vec<Option<Cow<'a, str>>>,
    receipt: Vec<Option<&'static str>>,
    hop: Vec<i32>,
    expires_at: Vec<Option<NaiveDateTime>>,
    signature: Vec<Option<Cow<'a, str>>>,
    sealed_keys: Vec<Option<String>>,
}

impl<'a> Properties<'a> {
    pub(super) fn of(batch: &'a [NewEnvelope]) -> Self {
        let mut columns = Self::default();
        for (envelope, properties) in said(batch) {
            columns.id.push(envelope.id.as_str());
            columns.thread.push(clean_optional(properties.thread_id.as_deref()));
            columns.expects_reply.push(properties.expects_reply);
            columns.supersedes.push(clean_optional(properties.supersedes.as_deref()));
            columns.receipt.push(properties.receipt.map(Reached::as_str));
            columns.hop.push(i32::try_from(properties.hop).unwrap_or(i32::MAX));
            columns.expires_at.push(properties.expires_at.map(Timestamp::to_naive));
            let seal = properties.seal.as_ref();
            columns.signature.push(clean_optional(seal.map(|seal| &*seal.signature)));
            columns.sealed_keys.push(seal.map(|seal| to_json(&seal.keys)));
        }
        columns
    }

    pub(super) fn is_empty(&self) -> bool {
        self.id.is_empty()
    }

    /// Binds the last nine parameters of the statement that takes envelopes.
    pub(super) fn bind(self, query: Query<'a>) -> Query<'a> {
        query
            .bind(self.id)
            .bind(self.thread)
            .bind(self.expects_reply)
            .bind(self.supersedes)
            .bind(self.receipt)
            .bind(self.hop)
            .bind(self.expires_at)
            .bind(self.signature)
            .bind(self.sealed_keys)
    }
}

/// Withdraws what the new envelopes of the batch take the place of.
pub(super) async fn supersede(
    call: &mut Call,
    now: Timestamp,
    batch: &[NewEnvelope],
    answers: &[Accepted],
) -> Result<()> {
    let superseding = superseding(batch, answers);
    if superseding.is_empty() {
        return Ok(());
    }
    let column = |of: fn(&NewEnvelope) -> &str| -> Vec<&str> {
        superseding.iter().map(|(envelope, _)| of(envelope)).collect()
    };
    let older: Vec<Cow<'_, str>> = superseding.iter().map(|(_, id)| clean(id)).collect();
    let query = sqlx::query(
        "select distinct on (q.id) q.id, q.mesh_id, q.sender_member_id, q.sender_name
         from unnest($1::text[], $2::text[], $3::text[], $4::text[])
            as newer (mesh, sender, older, id)
         join mesh.message_queue q
            on hashtextextended(q.client_message_id, 0) = hashtextextended(newer.older, 0)
            and q.client_message_id = newer.older and q.mesh_id = newer.mesh
            and q.sender_member_id = newer.sender
         where q.id <> newer.id and q.ended is null and q.seq is not null
            and (q.delivered_at is null or q.multicast and left(q.target_spec, 1) <> '#')
         order by q.id",
    )
    .bind(column(|envelope| envelope.mesh.as_str()))
    .bind(column(|envelope| envelope.sender_member.as_str()))
    .bind(older)
    .bind(column(|envelope| envelope.id.as_str()));
    let mut withdrawn = Vec::new();
    for row in &call.fetch_all(query).await? {
        withdrawn.push((
            row.id("id")?,
            row.id("mesh_id")?,
            row.id("sender_member_id")?,
            row.optional_text("sender_name")?,
        ));
    }
    withdraw(call, now, &withdrawn).await
}

/// Ends messages that their senders take back, each with its audit row.
pub(in crate::store) async fn withdraw(
    call: &mut Call,
    now: Timestamp,
    messages: &[(MessageId, MeshId, MemberId, Option<String>)],
) -> Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    let mut messages: Vec<_> = messages.iter().collect();
    // Rows of one chain stand together.
    messages.sort_by_key(|(_, mesh, ..)| mesh);
    let mut entries = Entries::default();
    for (id, mesh, sender, name) in &messages {
        let event = AuditEvent::Withdrawn { message_id: id.clone() };
        entries.push(mesh, Some(sender), name.as_deref(), &event);
    }
    let ids: Vec<&str> = messages.iter().map(|(id, ..)| id.as_str()).collect();
    let append = sqlx::query("select mesh.broker_append_v2($1, $2, $3, $4, $5, $6, $7, $8, null)");
    call.execute(entries.bind(append, now)).await?;
    let query = sqlx::query(
        "update mesh.message_queue
         set ended = 'withdrawn', delivered_at = coalesce(delivered_at, $2) where id = any ($1)",
    )
    .bind(ids)
    .bind(now.to_naive());
    call.execute(query).await?;
    Ok(())
}
