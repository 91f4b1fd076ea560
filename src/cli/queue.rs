//! `claudemesh-broker queue`: what waits for delivery. Metadata only: nonce and
//! ciphertext never leave the store here.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{lookup, output};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::store::MessageState;

/// What can be asked about the queue.
#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// Show what waits in a mesh's queue, oldest first
    Show {
        /// The mesh's slug or id
        mesh: String,
        /// At most this many
        #[arg(short = 'n', long, default_value_t = 100,
              value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
    },
}

pub(crate) async fn run(
    command: QueueCommand,
    json: bool,
    config: &Config,
) -> anyhow::Result<ExitCode> {
    let QueueCommand::Show { mesh, limit } = command;
    let (mesh, messages) = lookup::with_store(config, async |store| {
        let mesh = lookup::mesh(store, &mesh).await?;
        let messages = store.messages.queued(&mesh.id, limit).await?;
        Ok((mesh, messages))
    })
    .await?;
    if json {
        let messages: Vec<Value> = messages.iter().map(describe).collect();
        output::json(&json!({"meshId": mesh.id, "slug": mesh.slug, "messages": messages}))?;
    } else if messages.is_empty() {
        output::line(&format!("Nothing waits in {}.", mesh.slug))?;
    } else {
        let now = Timestamp::now();
        output::table(
            ["id", "to", "from member", "priority", "bytes", "waiting", "held by"],
            messages.iter().map(|message| cells(message, now)),
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn cells(message: &MessageState, now: Timestamp) -> [String; 7] {
    let waiting_s = now.ms_since(message.created_at).max(0).unsigned_abs() / 1000;
    [
        message.id.to_string(),
        message.target_spec.clone(),
        message.sender_member.to_string(),
        message.priority.as_str().to_owned(),
        message.ciphertext_bytes.to_string(),
        humantime::format_duration(std::time::Duration::from_secs(waiting_s)).to_string(),
        output::or_dash(message.claimed_by.as_ref()),
    ]
}

fn describe(message: &MessageState) -> Value {
    json!({
        "id": message.id,
        "seq": message.seq,
        "senderMemberId": message.sender_member,
        "targetSpec": message.target_spec,
        "priority": message.priority,
        "multicast": message.multicast,
        "ciphertextBytes": message.ciphertext_bytes,
        "createdAt": message.created_at,
        "deliveredAt": message.delivered_at,
        "claimedBy": message.claimed_by,
    })
}
