//! `claudemesh-broker audit anchor`: where a chain ends, for a place outside the database;
//! and how such notes are read back.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use super::key;
use crate::audit::{Anchor, AnchorError, KnownHeads};
use crate::cli::{Failure, output};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::id::{Key, MeshId};
use crate::store::{Mesh, Stores};

/// As much of a file with anchors as is read: about fifty thousand of them.
const FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Prints where the chain ends.
pub(super) async fn print(
    store: &Stores,
    mesh: &Mesh,
    config: &Config,
    json: bool,
) -> anyhow::Result<()> {
    let key = key::configured(config)?;
    let newest = store.audit.before(&mesh.id, None, i64::MAX, 1).await?;
    let row = newest.first().ok_or_else(|| {
        let message =
            format!("the chain of {} has no rows yet: there is nothing to anchor", mesh.slug);
        Failure::new("empty_chain", message)
    })?;
    let anchor = Anchor {
        mesh_id: mesh.id.clone(),
        row_id: row.id,
        hash: row.hash.clone(),
        name_hash: row.name_hash.as_deref().map(hex::encode),
        taken_at: Timestamp::now(),
        public_key: None,
        signature: None,
    };
    let anchor = match key {
        Some(key) => anchor.signed(&key),
        None => anchor,
    };
    let mut object = serde_json::to_value(&anchor)?;
    object["slug"] = json!(mesh.slug);
    output::answer(json, &object, &text(&anchor))
}

fn text(anchor: &Anchor) -> String {
    let Anchor { mesh_id, row_id, hash, name_hash, taken_at, public_key, signature } = anchor;
    let mut text = format!(
        "mesh       {mesh_id}\nrow        {row_id}\nhead       {hash}\nnames      {}\ntaken      \
         {taken_at}",
        output::or_dash(name_hash.as_ref())
    );
    match (public_key, signature) {
        (Some(key), Some(signature)) => {
            text.push_str(&format!("\nkey        {key}\nsignature  {signature}"));
        }
        _ => text.push_str("\nNot signed: AUDIT_KEY is not set."),
    }
    text
}

/// What is known of a chain from elsewhere.
#[derive(Default)]
pub(super) struct Known {
    pub(super) heads: KnownHeads,
    /// How many heads those are.
    pub(super) count: usize,
    /// By whom anchors were signed.
    pub(super) signed_by: Vec<Key>,
    /// The first anchor that is not believed.
    pub(super) refused: Option<(i64, AnchorError)>,
}

impl Known {
    /// Adds the anchors of that mesh in a file: JSON objects, one after the other, among
    /// which those of other meshes are passed over.
    pub(super) fn read(&mut self, file: &Path, mesh: &Mesh, trusted: &[Key]) -> anyhow::Result<()> {
        let anchors = anchors_in(file, &mesh.id)?;
        if anchors.is_empty() {
            let message = format!(
                "{} has no anchor of {}; `claudemesh-broker audit anchor {} --json` prints one",
                file.display(),
                mesh.slug,
                mesh.slug
            );
            return Err(Failure::new("no_anchor", message).into());
        }
        for anchor in anchors {
            match anchor.verify(trusted) {
                Ok(key) => {
                    key.into_iter().for_each(|key| self.note_signer(key));
                    self.note(anchor.row_id, &anchor.hash, anchor.name_hash.as_deref());
                }
                Err(error) => _ = self.refused.get_or_insert((anchor.row_id, error)),
            }
        }
        Ok(())
    }

    /// Adds a key by which something was signed.
    pub(super) fn note_signer(&mut self, key: &Key) {
        if !self.signed_by.contains(key) {
            self.signed_by.push(key.clone());
        }
    }

    /// Adds one head.
    pub(super) fn note(&mut self, row_id: i64, hash: &str, name_hash: Option<&str>) {
        self.heads.note(row_id, hash, name_hash);
        self.count += 1;
    }
}

fn anchors_in(file: &Path, mesh: &MeshId) -> anyhow::Result<Vec<Anchor>> {
    let shown = file.display();
    let mut text = String::new();
    let opened = File::open(file).with_context(|| format!("cannot read {shown}"))?;
    let read = opened.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    read.with_context(|| format!("cannot read {shown}"))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let message = format!("{shown} is larger than {FILE_BYTES_MAX} bytes; give a part of it");
        return Err(Failure::new("too_large", message).into());
    }
    let mut anchors = Vec::new();
    for anchor in serde_json::Deserializer::from_str(&text).into_iter::<Anchor>() {
        let anchor = anchor.map_err(|error| {
            let message = format!(
                "{shown} is no file of anchors, as `claudemesh-broker audit anchor --json` prints \
                 them: {error}"
            );
            Failure::new("invalid_anchor", message)
        })?;
        if anchor.mesh_id == *mesh {
            anchors.push(anchor);
        }
    }
    Ok(anchors)
}
