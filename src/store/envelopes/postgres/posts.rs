//! What the posts of a batch are beside their envelopes, an array per column.

use std::borrow::Cow;

use crate::id;
use crate::store::postgres::chain::Query;
use crate::store::postgres::row::clean;
use crate::store::{NewEnvelope, Reach};

/// The posts of a batch, and whom they mention. Rows count from 1, as the function's do.
#[derive(Default)]
pub(super) struct Posts<'a> {
    row: Vec<i32>,
    topic: Vec<&'a str>,
    nonce: Vec<Cow<'a, str>>,
    ciphertext: Vec<Cow<'a, str>>,
    version: Vec<i32>,
    mention_row: Vec<i32>,
    mention_topic: Vec<&'a str>,
    mention_id: Vec<String>,
    mention_member: Vec<&'a str>,
}

impl<'a> Posts<'a> {
    /// Whether the batch has none.
    pub(super) fn is_empty(&self) -> bool {
        self.row.is_empty()
    }

    /// The envelope in that row of the batch, if it is a post.
    pub(super) fn push(&mut self, row: usize, envelope: &'a NewEnvelope) {
        let Reach::Topic(post) = &envelope.reach else { return };
        let row = i32::try_from(row + 1).unwrap_or(i32::MAX);
        self.row.push(row);
        self.topic.push(post.topic.as_str());
        self.nonce.push(clean(&envelope.nonce));
        self.ciphertext.push(clean(&envelope.ciphertext));
        self.version.push(post.body_version);
        for member in &post.mentions {
            self.mention_row.push(row);
            self.mention_topic.push(post.topic.as_str());
            self.mention_id.push(id::random());
            self.mention_member.push(member.as_str());
        }
    }

    /// Binds them, after the envelopes' own columns.
    pub(super) fn bind(self, query: Query<'a>) -> Query<'a> {
        query
            .bind(self.row)
            .bind(self.topic)
            .bind(self.nonce)
            .bind(self.ciphertext)
            .bind(self.version)
            .bind(self.mention_row)
            .bind(self.mention_topic)
            .bind(self.mention_id)
            .bind(self.mention_member)
    }
}
