//! `peer audit`: whether the broker shows the audit chain that it has shown before.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{WhoArgs, output};
use crate::cli::Failure;
use crate::keyring::heads;

/// Arguments of `peer audit`.
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// Take what the broker shows now, also where it is signed by another key than before
    #[arg(long)]
    accept: bool,
    /// Who looks.
    #[command(flatten)]
    who: WhoArgs,
}

pub(super) async fn run(args: &AuditArgs, json: bool, data_dir: &Path) -> anyhow::Result<ExitCode> {
    let kept = args.who.choose(data_dir)?;
    let (client, _inbox) = args.who.visit(&kept).await?;
    let shown = client.hello_ack().audit_head;
    if args.accept {
        let shown = shown.clone().ok_or_else(|| {
            Failure::new("no_audit_head", "the broker shows no signed head of the audit chain")
        })?;
        if !heads::accept(data_dir, &kept, *shown)? {
            let doubt = heads::Doubt::Signature;
            return Err(Failure::new(doubt.code(), doubt.sentence(&kept)).into());
        }
    }
    let doubt = heads::check(data_dir, &kept, &client).await;
    client.close().await;
    if let Some(doubt) = doubt {
        return Err(Failure::new(doubt.code(), doubt.sentence(&kept)).into());
    }
    let pinned = heads::pinned(data_dir, &kept)?;
    let text = match (&shown, &pinned) {
        (Some(_), Some(pin)) => format!(
            "The audit chain of {} is the one that was shown before.\n  row {}, signed {}\n  key {}",
            kept.file.mesh_slug, pin.head.row_id, pin.head.taken_at, pin.head.public_key
        ),
        _ => "The broker shows no signed head of the audit chain.".to_owned(),
    };
    output::answer(json, &json!({ "shown": shown, "pinned": pinned }), &text)?;
    Ok(ExitCode::SUCCESS)
}
