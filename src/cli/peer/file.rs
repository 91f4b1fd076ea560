//! `peer file`: what another peer shows of its disk.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::mcp::said_no;
use super::{Failure, WhoArgs, output, send};
use crate::client::Client;
use crate::protocol::{PeerDirRequest, PeerFileRequest};

/// What is asked for at once, so that the answer fits into a frame of the default size.
const PART_BYTES: u64 = 45_000;
/// A file that has more is not fetched.
const FILE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What can be read of a peer.
#[derive(Debug, Subcommand)]
pub(crate) enum FileCommand {
    /// Fetch a file
    Get(GetArgs),
    /// Show what is in a folder
    List(FolderArgs),
}

/// Arguments of `peer file get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Whose file: a name or a key
    from: String,
    /// The path, as that peer understands it
    path: String,
    /// Where to write it; standard output if not given
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Who asks.
    #[command(flatten)]
    who: WhoArgs,
}

/// Arguments of `peer file list`.
#[derive(Debug, Args)]
pub(crate) struct FolderArgs {
    /// Whose folder: a name or a key
    from: String,
    /// The path, as that peer understands it
    path: String,
    /// Which names, as that peer understands it
    #[arg(long)]
    pattern: Option<String>,
    /// Who asks.
    #[command(flatten)]
    who: WhoArgs,
}

pub(super) async fn run(
    command: &FileCommand,
    json: bool,
    data_dir: &Path,
) -> anyhow::Result<ExitCode> {
    match command {
        FileCommand::Get(args) => get(args, json, data_dir).await?,
        FileCommand::List(args) => list(args, json, data_dir).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn get(args: &GetArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let kept = args.who.choose(data_dir)?;
    let (client, _inbox) = args.who.visit(&kept).await?;
    let target = send::recipient(&client, data_dir, &kept, &args.from).await?.key;
    let content = fetch(&client, &target, &args.path).await;
    client.close().await;
    let content = content?;
    match &args.output {
        Some(path) => {
            std::fs::write(path, &content)
                .with_context(|| format!("cannot write {}", path.display()))?;
            let object = json!({ "file": path, "bytes": content.len() });
            let text = format!("{} bytes are in {}", content.len(), path.display());
            output::answer(json, &object, &output::printable(&text))
        }
        None if json => output::json(&json!({
            "bytes": content.len(), "content": STANDARD.encode(&content),
        })),
        None => Ok(output::raw(&content)?),
    }
}

/// The file, in parts where the peer reads in parts; others send the whole at once.
async fn fetch(client: &Client, target: &str, path: &str) -> anyhow::Result<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let offset = content.len() as u64;
        let ask = PeerFileRequest {
            target_pubkey: target.to_owned(),
            file_path: path.to_owned(),
            offset: Some(offset),
            length: Some(PART_BYTES),
        };
        let part = client.ask(&ask).await.map_err(said_no)?;
        let odd = || Failure::new("odd_answer", "the peer's answer is no part of a file");
        let bytes = STANDARD.decode(part.content.unwrap_or_default()).map_err(|_| odd())?;
        if part.offset.is_none() && offset == 0 {
            return Ok(bytes);
        }
        if part.offset != Some(offset) {
            return Err(odd().into());
        }
        let is_last = bytes.is_empty();
        content.extend(bytes);
        let total = part.total_bytes.unwrap_or(u64::MAX);
        if is_last || content.len() as u64 >= total {
            return Ok(content);
        }
        if content.len() > FILE_BYTES_MAX {
            let message = format!("the file has more than {FILE_BYTES_MAX} bytes");
            return Err(Failure::new("file_too_large", message).into());
        }
    }
}

async fn list(args: &FolderArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let kept = args.who.choose(data_dir)?;
    let (client, _inbox) = args.who.visit(&kept).await?;
    let target_pubkey = send::recipient(&client, data_dir, &kept, &args.from).await?.key;
    let ask = PeerDirRequest {
        target_pubkey,
        dir_path: args.path.clone(),
        pattern: args.pattern.clone(),
    };
    let answer = client.ask(&ask).await;
    client.close().await;
    let entries = answer.map_err(said_no)?.entries.unwrap_or_default();
    let text = match &entries {
        Value::Array(names) if names.iter().all(Value::is_string) => {
            names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
        }
        other => serde_json::to_string_pretty(other)?,
    };
    output::answer(json, &json!({ "entries": entries }), &output::printable_lines(&text))
}
