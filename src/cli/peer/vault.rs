//! `peer vault`: what a member keeps for itself at the broker, which cannot read it.
//!
//! Values are sealed and opened here, to and by the member's own key.

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCandidates as Candidates;
use serde_json::json;

use super::asking::{Shown, text_or_input};
use super::{WhoArgs, complete};
use crate::cli::{Failure, output};
use crate::protocol::{
    VaultAction, VaultDelete, VaultEntryType, VaultGet, VaultList, VaultListed, VaultSet,
};
use crate::sealing::Enclosed;

/// What can be done with a vault.
#[derive(Debug, Subcommand)]
pub(crate) enum VaultCommand {
    /// Keep a value, in place of one under the same key
    Set(SetArgs),
    /// Show a value
    Get(KeyArgs),
    /// Show what there is, without the values
    List(WhoArgs),
    /// Remove a value
    Remove(KeyArgs),
}

/// Arguments of `peer vault set`.
#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// The key
    #[arg(add = Candidates::new(complete::vault_keys))]
    pub(crate) key: String,
    /// The value; `-` reads it from standard input, where no list of processes shows it
    pub(crate) value: String,
    /// It is a file, and goes there where it is used
    #[arg(long, value_name = "PATH")]
    pub(crate) mount: Option<String>,
    /// What it is for; the broker can read this
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// Whose value.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// Arguments of `peer vault get` and `peer vault remove`.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    /// The key
    #[arg(add = Candidates::new(complete::vault_keys))]
    pub(crate) key: String,
    /// Whose value.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

pub(super) async fn run(
    command: VaultCommand,
    json: bool,
    data_dir: &Path,
) -> anyhow::Result<ExitCode> {
    match command {
        VaultCommand::Set(args) => set(args, json, data_dir).await?,
        VaultCommand::Get(args) => get(args, json, data_dir).await?,
        VaultCommand::List(who) => {
            let shown = Shown {
                headings: ["key", "kind", "goes to", "what for", "at"],
                row,
                nothing: "you keep nothing there",
            };
            who.list(data_dir, json, VaultList::default(), shown).await?;
        }
        VaultCommand::Remove(args) => remove(args, json, data_dir).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn set(args: SetArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let SetArgs { key, value, mount, description, who } = args;
    let value = text_or_input(&value)?;
    let kept = who.choose(data_dir)?;
    let enclosed = Enclosed::to(&kept.file.public_key, value.as_bytes())?;
    let ask = VaultSet {
        key,
        ciphertext: enclosed.ciphertext_b64,
        nonce: enclosed.nonce_b64,
        sealed_key: enclosed.sealed_key_b64,
        entry_type: if mount.is_some() { VaultEntryType::File } else { VaultEntryType::Env },
        mount_path: mount,
        description,
    };
    let ack = who.ask(data_dir, &ask).await?;
    output::answer(json, &ack, &format!("{} is kept", ack.key))
}

async fn get(args: KeyArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let KeyArgs { key, who } = args;
    let secret = who.choose(data_dir)?.file.secret()?;
    let ask = VaultGet { keys: vec![key.clone()], cursor: None };
    let found = who.ask(data_dir, &ask).await?.entries.into_iter().find(|entry| entry.key == key);
    let entry = found.ok_or_else(|| not_found(&key))?;
    let enclosed = Enclosed {
        nonce_b64: entry.nonce,
        ciphertext_b64: entry.ciphertext,
        sealed_key_b64: entry.sealed_key,
    };
    let value = enclosed.open(&secret).ok_or_else(|| {
        let text = format!("the value of {key} was not sealed to this peer's key, or was altered");
        Failure::new("not_readable", text)
    })?;
    let value = String::from_utf8(value)
        .map_err(|_| Failure::new("not_readable", format!("the value of {key} is no text")))?;
    if json {
        let object = json!({
            "key": key, "value": value, "entry_type": entry.entry_type,
            "mount_path": entry.mount_path,
        });
        return output::json(&object);
    }
    // A program gets the value as it is, a terminal what cannot steer it.
    let text = match io::stdout().is_terminal() {
        true => output::printable_lines(&value),
        false => value,
    };
    Ok(output::line(&text)?)
}

async fn remove(args: KeyArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let ack = args.who.ask(data_dir, &VaultDelete { key: args.key.clone() }).await?;
    if ack.action == VaultAction::NotFound {
        return Err(not_found(&args.key).into());
    }
    output::answer(json, &ack, &format!("{} is removed", ack.key))
}

fn not_found(key: &str) -> Failure {
    Failure::new("not_found", format!("you keep nothing under {key}"))
}

fn row(entry: &VaultListed) -> [String; 5] {
    [
        entry.key.clone(),
        entry.entry_type.as_str().to_owned(),
        output::or_dash(entry.mount_path.as_deref()),
        output::or_dash(entry.description.as_deref()),
        entry.updated_at.clone(),
    ]
}
