//! API keys: what is kept of them, and whether one is good.
//!
//! Of a secret only its beginning and its hash are kept. A key is good as long as nobody
//! has revoked it, its time is not over, its mesh is not archived and the member that made
//! it is an active one: that is read anew for every call.

pub(super) mod postgres;
pub(super) mod sqlite;

use async_trait::async_trait;
use serde_json::Value;

use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId};
use crate::protocol::ApiCapability;
use crate::store::columns::Columns;
use crate::store::{Author, Result};

/// Where a key stands in a list, the newest first: when it was made, and its id.
pub type ApiKeyPlace = (Timestamp, String);

/// Keys by which programs call.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait ApiKeys: Send + Sync + 'static {
    /// Keeps a new key of the author's. Of those of the mesh that ended before
    /// `forget_before` nothing is left.
    async fn create(
        &self,
        now: Timestamp,
        author: &Author,
        key: &NewApiKey,
        forget_before: Timestamp,
    ) -> Result<()>;

    /// Keys of a mesh, of one member or of all, the newest first, those after that
    /// place, at most `limit`.
    async fn list<'a>(
        &self,
        mesh: &MeshId,
        issuer: Option<&'a MemberId>,
        after: Option<&'a ApiKeyPlace>,
        limit: i64,
    ) -> Result<Vec<ApiKey>>;

    /// Revokes the key with that id, or the one whose id begins so; of one member's or
    /// of all of the author's mesh.
    async fn revoke<'a>(
        &self,
        now: Timestamp,
        author: &Author,
        issuer: Option<&'a MemberId>,
        id: &str,
    ) -> Result<Revocation>;

    /// Good keys whose secret begins so.
    async fn good(&self, now: Timestamp, prefix: &str) -> Result<Vec<GoodApiKey>>;

    /// Notes that a key was used, unless that was noted since.
    async fn note_use(&self, now: Timestamp, id: &str, since: Timestamp) -> Result<()>;
}

/// A key to keep.
#[derive(Clone, Debug)]
pub struct NewApiKey {
    /// The key's id.
    pub id: String,
    /// What it is for.
    pub label: String,
    /// The secret's hash.
    pub secret_hash: String,
    /// The secret's beginning.
    pub secret_prefix: String,
    /// What its holder may do.
    pub capabilities: Vec<ApiCapability>,
    /// The topics that it is good for; `None`: all of them.
    pub topic_scopes: Option<Vec<String>>,
    /// Until when it is good, if it ends by itself.
    pub expires_at: Option<Timestamp>,
}

impl NewApiKey {
    fn audit(&self) -> AuditEvent {
        AuditEvent::ApikeyCreated {
            key_id: self.id.clone(),
            label: self.label.clone(),
            capabilities: self.capabilities.clone(),
        }
    }
}

/// A key as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// The key's id.
    pub id: String,
    /// What it is for.
    pub label: String,
    /// The secret's beginning.
    pub secret_prefix: String,
    /// What its holder may do.
    pub capabilities: Vec<ApiCapability>,
    /// The topics that it is good for; `None`: all of them.
    pub topic_scopes: Option<Vec<String>>,
    /// The name of the member that made it.
    pub issued_by: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last used, about.
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
    /// Until when it is good, if it ends by itself.
    pub expires_at: Option<Timestamp>,
}

/// A key that is good.
#[derive(Clone, Debug)]
pub struct GoodApiKey {
    /// The key's id.
    pub id: String,
    /// The mesh that it is bound to.
    pub mesh: MeshId,
    /// The secret's hash.
    pub secret_hash: String,
    /// What its holder may do now: no more than the member that made it.
    pub capabilities: Vec<ApiCapability>,
    /// The topics that it is good for; `None`: all of them.
    pub topic_scopes: Option<Vec<String>>,
    /// The member that made it; other programs may have named none.
    pub issuer: Option<Issuer>,
    /// When its use was last noted.
    pub last_used_at: Option<Timestamp>,
}

/// The member that made a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// Its id.
    pub id: MemberId,
    /// Its own key.
    pub key: Key,
    /// The name that it is enrolled under.
    pub name: String,
}

/// What became of a key that was to be revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// The key with that id is revoked, now or since before.
    Revoked(String),
    /// There is no such key.
    Unknown,
    /// More than one key's id begins so.
    Ambiguous,
}

/// A key whose id is, or begins as, the one that was named.
struct Named {
    id: String,
    is_revoked: bool,
    is_whole: bool,
}

impl Named {
    fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            id: row.text("id")?,
            is_revoked: row.flag("is_revoked")?,
            is_whole: row.flag("is_whole")?,
        })
    }

    /// The one that is meant, of two at most, whole ids first.
    fn meant(found: Vec<Self>) -> std::result::Result<Self, Revocation> {
        let is_ambiguous = found.len() > 1 && !found[0].is_whole;
        let first = found.into_iter().next().ok_or(Revocation::Unknown)?;
        if is_ambiguous { Err(Revocation::Ambiguous) } else { Ok(first) }
    }
}

impl ApiKey {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            id: row.text("id")?,
            label: row.text("label")?,
            secret_prefix: row.text("secret_prefix")?,
            capabilities: capabilities(row)?,
            topic_scopes: topic_scopes(row)?,
            issued_by: row.optional_text("issued_by")?,
            created_at: row.time("created_at")?,
            last_used_at: row.optional_time("last_used_at")?,
            revoked_at: row.optional_time("revoked_at")?,
            expires_at: row.optional_time("expires_at")?,
        })
    }
}

impl GoodApiKey {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        let mut capabilities = capabilities(row)?;
        // A member that moderates no longer has keys that do not either.
        if !row.flag("issuer_moderates")? {
            capabilities.retain(|capability| *capability != ApiCapability::Admin);
        }
        let issuer = match row.optional_id("issued_by_member_id")? {
            Some(id) => {
                Some(Issuer { id, key: row.id("issuer_key")?, name: row.text("issuer_name")? })
            }
            None => None,
        };
        Ok(Self {
            id: row.text("id")?,
            mesh: row.id("mesh_id")?,
            secret_hash: row.text("secret_hash")?,
            capabilities,
            topic_scopes: topic_scopes(row)?,
            issuer,
            last_used_at: row.optional_time("last_used_at")?,
        })
    }
}

/// A word of another program that is not known here allows nothing.
fn capabilities(row: &impl Columns) -> Result<Vec<ApiCapability>> {
    let words: Vec<Value> = row.described("capabilities")?;
    Ok(words.into_iter().filter_map(|word| serde_json::from_value(word).ok()).collect())
}

/// None: all topics. A column that cannot be read is good for no topic.
fn topic_scopes(row: &impl Columns) -> Result<Option<Vec<String>>> {
    let Some(text) = row.optional_str("topic_scopes")? else { return Ok(None) };
    let scopes = serde_json::from_str::<Option<Vec<String>>>(text);
    Ok(scopes.unwrap_or_else(|_| Some(Vec::new())))
}
