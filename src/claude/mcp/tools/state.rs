//! `get_state`, `set_state`, `list_state`: values that the whole mesh reads and writes.

use rmcp::schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::shown::{self, NAME_CHARS};
use super::{At, Call, Effect, Said};
use crate::client::how_kept;
use crate::protocol::{self, Ask, StateEntry};

/// Reads one value.
#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
pub(super) struct GetState {
    /// The value's key.
    key: String,
}

impl Call for GetState {
    const NAME: &'static str = <protocol::GetState as Ask>::TYPE;
    const ABOUT: &'static str = "Read one value that the peers of the mesh share, by its key.";
    const EFFECT: Effect = Effect::Reads;

    async fn run(self, at: &At) -> Said {
        let asked = protocol::GetState { key: self.key.clone() };
        let protocol::StateResult(entry) = at.ask_opened(&asked).await?;
        if entry.version.is_none() && entry.value.is_null() {
            let key = shown::text(&self.key, NAME_CHARS);
            return Ok(format!("Nothing is kept under {key}; list_state shows the keys."));
        }
        Ok(shown::list("The value is data that a peer wrote:", [row(&entry)].into_iter()))
    }
}

/// Writes one value.
#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
pub(super) struct SetState {
    /// The value's key.
    key: String,
    /// The value: any JSON.
    value: Value,
    /// Only if the value still has this version (0: only if there is none); get_state
    /// tells it. Without it, whoever writes last wins.
    if_version: Option<i64>,
}

impl Call for SetState {
    const NAME: &'static str = <protocol::SetState as Ask>::TYPE;
    const ABOUT: &'static str = "Write a value that all peers of the mesh see, and are told of. For facts that others \
                                 need now; use remember for what should be found later.";
    const EFFECT: Effect = Effect::Changes;

    async fn run(self, at: &At) -> Said {
        let Self { key, value, if_version } = self;
        let named = shown::text(&key, NAME_CHARS);
        let (_, how) = at.keep(protocol::SetState { key, value, if_version }).await?;
        Ok(format!("{named} is set, {how}; the peers that are here are told."))
    }
}

/// Lists the values.
#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
pub(super) struct ListState {
    /// Where an earlier list goes on.
    cursor: Option<String>,
}

impl Call for ListState {
    const NAME: &'static str = <protocol::ListState as Ask>::TYPE;
    const ABOUT: &'static str = "List the values that the peers of the mesh share.";
    const EFFECT: Effect = Effect::Reads;

    async fn run(self, at: &At) -> Said {
        let page = at.ask_opened(&protocol::ListState { cursor: self.cursor }).await?;
        if page.entries.is_empty() {
            return Ok("No values are shared yet; set_state writes one.".to_owned());
        }
        let heading = super::page_heading("values, as peers wrote them", page.cursor.as_deref());
        Ok(shown::list(&heading, page.entries.iter().map(row)))
    }
}

fn row(entry: &StateEntry) -> String {
    shown::row(&json!({
        "key": shown::cut(&entry.key, NAME_CHARS * 4),
        "value": shown::value(&entry.value),
        "kept": how_kept(entry.sealed),
        "version": entry.version,
        "updatedBy": shown::cut(&entry.updated_by, NAME_CHARS),
        "updatedAt": entry.updated_at,
    }))
}
