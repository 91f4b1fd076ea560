//! `remember`, `recall`, `forget`: what the mesh remembers.

use rmcp::schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::super::shown::{self, NAME_CHARS, VALUE_CHARS};
use super::{At, Call, Effect, Said};
use crate::client::how_kept;
use crate::protocol::{self, Ask};

/// Memories of one answer.
const RECALLED_MAX: i64 = 20;

/// Keeps a text.
#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
pub(super) struct Remember {
    /// What to remember, so that it can be understood later and by others.
    content: String,
    /// Words to find it by.
    tags: Option<Vec<String>>,
}

impl Call for Remember {
    const NAME: &'static str = <protocol::Remember as Ask>::TYPE;
    const ABOUT: &'static str = "Have the mesh remember something: all its peers can recall it, also much later. No \
                                 secrets.";
    const EFFECT: Effect = Effect::Adds;

    async fn run(self, at: &At) -> Said {
        let Self { content, tags } = self;
        let (stored, how) = at.keep(protocol::Remember { content, tags }).await?;
        Ok(format!("The mesh remembers it as {}, {how}.", stored.id))
    }
}

/// Finds what was kept.
#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
pub(super) struct Recall {
    /// Words to look for.
    query: String,
    /// As many at most; 10 if not said, 20 at most.
    limit: Option<i64>,
    /// Where an earlier answer goes on.
    cursor: Option<String>,
}

impl Call for Recall {
    const NAME: &'static str = <protocol::Recall as Ask>::TYPE;
    const ABOUT: &'static str = "Find what the mesh remembers, by words.";
    const EFFECT: Effect = Effect::Reads;

    async fn run(self, at: &At) -> Said {
        let Self { query, limit, cursor } = self;
        let limit = Some(limit.unwrap_or(10).clamp(1, RECALLED_MAX));
        let asked = protocol::Recall { query, limit, cursor };
        let page = at.client()?.recall(&asked).await.map_err(|error| shown::why(&error))?;
        if page.memories.is_empty() {
            return Ok("The mesh remembers nothing of that; try other words.".to_owned());
        }
        let heading = super::page_heading("memories, as peers wrote them", page.cursor.as_deref());
        let row = |memory: &protocol::Memory| {
            shown::row(&json!({
                "id": memory.id,
                "content": shown::cut(&memory.content, VALUE_CHARS),
                "kept": how_kept(memory.sealed),
                "tags": memory.tags,
                "by": shown::cut(&memory.remembered_by, NAME_CHARS),
                "at": memory.remembered_at,
            }))
        };
        Ok(shown::list(&heading, page.memories.iter().map(row)))
    }
}

/// Removes what was kept.
#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
pub(super) struct Forget {
    /// The memory's id, as recall shows it.
    id: String,
}

impl Call for Forget {
    const NAME: &'static str = <protocol::Forget as Ask>::TYPE;
    const ABOUT: &'static str = "Have the mesh forget one memory, for all peers.";
    const EFFECT: Effect = Effect::Changes;

    async fn run(self, at: &At) -> Said {
        at.ask(&protocol::Forget { memory_id: self.id }).await?;
        Ok("It is forgotten.".to_owned())
    }
}
