//! Taking envelopes: the hot path. One round trip per batch, `accept_v2` of
//! `migrations/postgres/0004_audit_names/2_chain.sql`, holds the locks; for a batch with
//! posts to topics `accept_topics_v1` of `0017_topics/2_accept.sql`, which calls it.

mod posts;
mod properties;

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use sqlx::types::chrono::NaiveDateTime;

use self::posts::Posts;
use self::properties::Properties;
pub(in crate::store) use self::properties::withdraw;
use crate::audit::message_sent_payload;
use crate::clock::Timestamp;
use crate::id::MessageId;
use crate::limits::WAITING_BYTES_MIN;
use crate::store::columns::Columns as _;
use crate::store::columns::unreadable;
use crate::store::envelopes::{notes, said};
use crate::store::postgres::PostgresStore;
use crate::store::postgres::chain::{Query, locks};
use crate::store::postgres::error::refused;
use crate::store::postgres::pool::{Call, Pool};
use crate::store::postgres::row::{clean, clean_json, clean_optional};
use crate::store::webhooks;
use crate::store::{Accepted, Envelopes, Holder, NewEnvelope, Reach, Result, WaitingLoad};

/// `select` of how much waits for each holder, of the rows that the condition picks.
macro_rules! waiting_load {
    ($condition:literal) => {
        concat!(
            "select load.messages, load.bytes
             from unnest($1::text[], $2::text[], $3::bigint[])
                with ordinality as box (mesh, name, most, at)
             cross join lateral (
                select count(*) as messages, coalesce(sum(counted.bytes), 0)::bigint as bytes from (
                    select greatest(octet_length(q.nonce) + octet_length(q.ciphertext), $4)
                        as bytes
                    from mesh.message_queue q
                    where ",
            $condition,
            " limit box.most
                ) counted
             ) load order by box.at"
        )
    };
}

/// Envelopes as an array per column.
#[derive(Default)]
struct Arrays<'a> {
    id: Vec<&'a str>,
    mesh: Vec<&'a str>,
    member: Vec<&'a str>,
    name: Vec<Cow<'a, str>>,
    session_key: Vec<Option<Cow<'a, str>>>,
    target: Vec<Cow<'a, str>>,
    multicast: Vec<bool>,
    priority: Vec<&'static str>,
    nonce: Vec<Cow<'a, str>>,
    ciphertext: Vec<Cow<'a, str>>,
    client_id: Vec<Option<Cow<'a, str>>>,
    fingerprint: Vec<Option<Cow<'a, str>>>,
    reply_to: Vec<Option<Cow<'a, str>>>,
    claim_id: Vec<Option<&'a str>>,
    claim_until: Vec<Option<NaiveDateTime>>,
    payload: Vec<String>,
}

impl<'a> Arrays<'a> {
    fn push(&mut self, envelope: &'a NewEnvelope) {
        let claim = match &envelope.reach {
            Reach::Direct { claim: Some((presence, until)), .. } => {
                Some((presence.as_str(), *until))
            }
            Reach::Direct { claim: None, .. } | Reach::Multicast | Reach::Topic(_) => None,
        };
        let priority = envelope.priority.as_str();
        let payload = message_sent_payload(&envelope.target_spec, priority);
        self.id.push(envelope.id.as_str());
        self.mesh.push(envelope.mesh.as_str());
        self.member.push(envelope.sender_member.as_str());
        self.name.push(clean(&envelope.sender_name));
        let session_key = envelope.sender_session_key.as_ref();
        self.session_key.push(clean_optional(session_key.map(|key| key.as_str())));
        self.target.push(clean(&envelope.target_spec));
        self.multicast.push(envelope.reach.is_many());
        self.priority.push(priority);
        // What a post says stands in the topic's history alone.
        let is_post = matches!(envelope.reach, Reach::Topic(_));
        self.nonce.push(if is_post { "".into() } else { clean(&envelope.nonce) });
        self.ciphertext.push(if is_post { "".into() } else { clean(&envelope.ciphertext) });
        self.client_id.push(clean_optional(envelope.client_message_id.as_deref()));
        self.fingerprint.push(clean_optional(envelope.request_fingerprint.as_deref()));
        self.reply_to.push(clean_optional(envelope.reply_to_id.as_deref()));
        self.claim_id.push(claim.map(|(presence, _)| presence));
        self.claim_until.push(claim.map(|(_, until)| until.to_naive()));
        self.payload.push(match clean_json(&payload) {
            Cow::Borrowed(_) => payload,
            Cow::Owned(cleaned) => cleaned,
        });
    }
}

impl<'a> Arrays<'a> {
    /// Binds the first twenty parameters of the functions that take envelopes.
    fn bind(self, query: Query<'a>, now: Timestamp) -> Query<'a> {
        let mut senders = self.member.clone();
        senders.sort_unstable();
        senders.dedup();
        query
            .bind(now.to_naive())
            .bind(now.to_string())
            .bind(locks(self.mesh.iter().copied()))
            .bind(self.id)
            .bind(self.mesh)
            .bind(self.member)
            .bind(self.name)
            .bind(self.session_key)
            .bind(self.target)
            .bind(self.multicast)
            .bind(self.priority)
            .bind(self.nonce)
            .bind(self.ciphertext)
            .bind(self.client_id)
            .bind(self.fingerprint)
            .bind(self.reply_to)
            .bind(self.claim_id)
            .bind(self.claim_until)
            .bind(self.payload)
            .bind(senders)
    }
}

/// What the statement answered, an element of each list per row.
struct Answers {
    seq: Vec<Option<i64>>,
    previous: Vec<i64>,
    duplicate: Vec<Option<String>>,
    /// Of a batch without posts: nothing.
    roster: Vec<i64>,
}

impl Answers {
    fn read(row: &PgRow, has_posts: bool) -> Result<Self> {
        let roster = if has_posts { row.try_get("o_roster").map_err(refused)? } else { Vec::new() };
        Ok(Self {
            seq: row.try_get("o_seq").map_err(refused)?,
            previous: row.try_get("o_previous").map_err(refused)?,
            duplicate: row.try_get("o_duplicate").map_err(refused)?,
            roster,
        })
    }

    fn of(&self, row: usize, created_at: Timestamp) -> Result<Accepted> {
        match (self.seq.get(row), self.previous.get(row), self.duplicate.get(row)) {
            (Some(Some(seq)), Some(previous), _) => {
                let roster = self.roster.get(row).copied().unwrap_or_default();
                let previous_multicast = *previous;
                Ok(Accepted::New { seq: *seq, previous_multicast, roster, created_at })
            }
            (_, _, Some(Some(id))) => Ok(Accepted::Duplicate { id: MessageId::from(id.as_str()) }),
            _ => Err(unreadable("o_seq")),
        }
    }
}

/// Holders of one kind, an array per column.
#[derive(Default)]
struct Asked {
    at: Vec<usize>,
    mesh: Vec<String>,
    name: Vec<String>,
    rows_max: Vec<i64>,
}

impl Asked {
    fn push(&mut self, at: usize, mesh: &str, name: &str, rows_max: u64) {
        self.at.push(at);
        self.mesh.push(mesh.to_owned());
        self.name.push(name.to_owned());
        self.rows_max.push(i64::try_from(rows_max).unwrap_or(i64::MAX));
    }

    async fn read(
        self,
        pool: &Pool,
        statement: &'static str,
        loads: &mut [WaitingLoad],
    ) -> Result<()> {
        if self.at.is_empty() {
            return Ok(());
        }
        let bytes_min = i32::try_from(WAITING_BYTES_MIN).unwrap_or(i32::MAX);
        let query = sqlx::query(statement)
            .bind(self.mesh)
            .bind(self.name)
            .bind(self.rows_max)
            .bind(bytes_min);
        let rows = pool.fetch_all(query).await?;
        if rows.len() != self.at.len() {
            return Err(unreadable("bytes"));
        }
        for (at, row) in self.at.iter().zip(&rows) {
            loads[*at] = load(row)?;
        }
        Ok(())
    }
}

#[async_trait]
impl Envelopes for PostgresStore {
    async fn accept(&self, now: Timestamp, batch: &[NewEnvelope]) -> Result<Vec<Accepted>> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        if takes_several_statements(batch) {
            let mut call = self.pool.begin().await?;
            let answers = accept_in(&mut call, now, batch).await?;
            call.commit().await?;
            return Ok(answers);
        }
        let Prepared { columns, posts, properties, fates } = prepare(batch);
        let query = statement(now, columns, posts, properties);
        let answers = self.pool.fetch_one(query).await?;
        answered(now, batch, fates, &answers)
    }

    async fn waiting_load(&self, asked: &[(Holder, u64)]) -> Result<Vec<WaitingLoad>> {
        let (mut mailboxes, mut senders, mut meshes) =
            (Asked::default(), Asked::default(), Asked::default());
        for (at, (holder, rows_max)) in asked.iter().enumerate() {
            match holder {
                Holder::Mailbox { mesh, target } => {
                    mailboxes.push(at, mesh.as_str(), &clean(target), *rows_max);
                }
                Holder::Sender { mesh, member } => {
                    senders.push(at, mesh.as_str(), member.as_str(), *rows_max);
                }
                Holder::Mesh { mesh } => meshes.push(at, mesh.as_str(), "", *rows_max),
            }
        }
        let mut loads = vec![WaitingLoad::default(); asked.len()];
        let statements = [
            (
                mailboxes,
                waiting_load!(
                    "hashtextextended(q.target_spec, 0) = hashtextextended(box.name, 0)
                        and q.mesh_id = box.mesh and q.target_spec = box.name
                        and q.delivered_at is null"
                ),
            ),
            (
                senders,
                waiting_load!(
                    "q.mesh_id = box.mesh and q.sender_member_id = box.name
                        and q.delivered_at is null and left(q.target_spec, 1) <> '#'"
                ),
            ),
            (
                meshes,
                waiting_load!(
                    "q.mesh_id = box.mesh and q.delivered_at is null
                        and left(q.target_spec, 1) <> '#'"
                ),
            ),
        ];
        for (asked, statement) in statements {
            asked.read(&self.pool, statement, &mut loads).await?;
        }
        Ok(loads)
    }

    async fn repeats(&self, batch: &[NewEnvelope]) -> Result<Vec<Option<MessageId>>> {
        let mesh: Vec<&str> = batch.iter().map(|envelope| envelope.mesh.as_str()).collect();
        let member: Vec<&str> =
            batch.iter().map(|envelope| envelope.sender_member.as_str()).collect();
        let client_id: Vec<Option<Cow<'_, str>>> = batch
            .iter()
            .map(|envelope| clean_optional(envelope.client_message_id.as_deref()))
            .collect();
        // As `broker_accept_v1` looks for them.
        let query = sqlx::query(
            "select coalesce(
                (select q.id from mesh.message_queue q
                 where hashtextextended(q.client_message_id, 0)
                        = hashtextextended(e.client_id, 0)
                    and q.client_message_id = e.client_id and q.mesh_id = e.mesh
                    and q.sender_member_id = e.member
                 limit 1),
                (select s.message_id from mesh.send_key s
                 where hashtextextended(s.client_message_id, 0)
                        = hashtextextended(e.client_id, 0)
                    and s.client_message_id = e.client_id and s.mesh_id = e.mesh
                    and s.sender_member_id = e.member
                 limit 1)) as known
             from unnest($1::text[], $2::text[], $3::text[])
                with ordinality as e (mesh, member, client_id, at)
             order by e.at",
        )
        .bind(mesh)
        .bind(member)
        .bind(client_id);
        self.pool.records(query, |row| row.optional_id("known")).await
    }
}

/// Whether more than their rows is written: what webhooks are told, what is withdrawn.
fn takes_several_statements(batch: &[NewEnvelope]) -> bool {
    let is_noted = |reach: &Reach| matches!(reach, Reach::Direct { note: Some(_), .. });
    batch.iter().any(|envelope| is_noted(&envelope.reach))
        || said(batch).any(|(_, properties)| properties.supersedes.is_some())
}

/// Takes envelopes inside of a transaction: queue row and audit row each.
pub(in crate::store) async fn accept_in(
    call: &mut Call,
    now: Timestamp,
    batch: &[NewEnvelope],
) -> Result<Vec<Accepted>> {
    if batch.is_empty() {
        return Ok(Vec::new());
    }
    let Prepared { columns, posts, properties, fates } = prepare(batch);
    let answers = call.fetch_optional(statement(now, columns, posts, properties)).await?;
    let answers = answered(now, batch, fates, &answers.ok_or_else(|| unreadable("o_seq"))?)?;
    properties::supersede(call, now, batch, &answers).await?;
    let notes = notes(batch, &answers);
    if !notes.is_empty() {
        call.execute(webhooks::postgres::put(now, &notes)).await?;
    }
    Ok(answers)
}

/// The parameters of the statement, and where each envelope's answer comes from.
struct Prepared<'a> {
    columns: Arrays<'a>,
    posts: Posts<'a>,
    properties: Properties<'a>,
    fates: Vec<Fate>,
}

fn prepare(batch: &[NewEnvelope]) -> Prepared<'_> {
    let (order, repeats) = arrange(batch);
    let mut fates: Vec<Fate> = vec![Fate::Row(0); batch.len()];
    let mut columns = Arrays::default();
    let mut posts = Posts::default();
    for (row, at) in order.into_iter().enumerate() {
        columns.push(&batch[at]);
        posts.push(row, &batch[at]);
        fates[at] = Fate::Row(row);
    }
    for (at, first) in repeats {
        fates[at] = Fate::Repeats(first);
    }
    Prepared { columns, posts, properties: Properties::of(batch), fates }
}

fn answered(
    now: Timestamp,
    batch: &[NewEnvelope],
    fates: Vec<Fate>,
    row: &PgRow,
) -> Result<Vec<Accepted>> {
    let has_posts = batch.iter().any(|envelope| matches!(envelope.reach, Reach::Topic(_)));
    let answers = Answers::read(row, has_posts)?;
    let mut accepted: Vec<Accepted> = Vec::with_capacity(batch.len());
    for fate in fates {
        accepted.push(match fate {
            Fate::Row(row) => answers.of(row, now)?,
            Fate::Repeats(first) => Accepted::Duplicate {
                id: match &accepted[first] {
                    Accepted::New { .. } => batch[first].id.clone(),
                    Accepted::Duplicate { id } => id.clone(),
                },
            },
        });
    }
    Ok(accepted)
}

/// Where an envelope's answer comes from.
#[derive(Clone, Copy)]
enum Fate {
    /// A row of the statement.
    Row(usize),
    /// The answer of an earlier envelope of the batch, whose key it repeats.
    Repeats(usize),
}

/// The envelopes to write, those of one mesh together and in their order; and
/// those that repeat the key of an earlier one, with that one.
fn arrange(batch: &[NewEnvelope]) -> (Vec<usize>, Vec<(usize, usize)>) {
    let mut keys = HashMap::with_capacity(batch.len());
    let mut order = Vec::with_capacity(batch.len());
    let mut repeats = Vec::new();
    for (at, envelope) in batch.iter().enumerate() {
        if let Some(client_id) = envelope.client_message_id.as_deref() {
            match keys.entry((&envelope.mesh, &envelope.sender_member, clean(client_id))) {
                Entry::Occupied(first) => {
                    repeats.push((at, *first.get()));
                    continue;
                }
                Entry::Vacant(free) => {
                    free.insert(at);
                }
            }
        }
        order.push(at);
    }
    order.sort_by_key(|&at| &batch[at].mesh);
    (order, repeats)
}

/// The statement that takes envelopes, with the function that writes their rows.
macro_rules! accept {
    ($columns:literal, $properties:literal, $function:literal) => {
        concat!("select o_seq, o_previous, o_duplicate", $columns, $properties, " from ", $function)
    };
}

/// The function for batches without posts.
macro_rules! without_posts {
    ($properties:literal) => {
        accept!(
            "",
            $properties,
            "mesh.broker_accept_v2($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,
                $15, $16, $17, $18, $19, $20)"
        )
    };
}

/// The function for batches with posts.
macro_rules! with_posts {
    ($properties:literal) => {
        accept!(
            ", o_roster",
            $properties,
            "mesh.broker_accept_topics_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13,
                $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29)"
        )
    };
}

fn statement<'a>(
    now: Timestamp,
    columns: Arrays<'a>,
    posts: Posts<'a>,
    properties: Properties<'a>,
) -> Query<'a> {
    match (posts.is_empty(), properties.is_empty()) {
        (true, true) => columns.bind(sqlx::query(without_posts!("")), now),
        (true, false) => {
            let query = sqlx::query(without_posts!(
                ", mesh.broker_properties_v2($21, $22, $23, $24, $25, $26, $27, $28, $29)"
            ));
            properties.bind(columns.bind(query, now))
        }
        (false, true) => posts.bind(columns.bind(sqlx::query(with_posts!("")), now)),
        (false, false) => {
            let query = sqlx::query(with_posts!(
                ", mesh.broker_properties_v2($30, $31, $32, $33, $34, $35, $36, $37, $38)"
            ));
            properties.bind(posts.bind(columns.bind(query, now)))
        }
    }
}

fn load(row: &PgRow) -> Result<WaitingLoad> {
    let [messages, bytes] = [row.int("messages")?, row.int("bytes")?];
    Ok(WaitingLoad { messages: messages.unsigned_abs(), bytes: bytes.unsigned_abs() })
}
