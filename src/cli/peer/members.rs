//! `peer members`: who is in the mesh, here or away, and whose keys are proven.

use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::{WhoArgs, output};
use crate::client::Judged;
use crate::keyring::recipient::short;

pub(super) async fn run(who: &WhoArgs, json: bool, data_dir: &Path) -> anyhow::Result<ExitCode> {
    let kept = who.choose(data_dir)?;
    let (client, _inbox) = who.visit_knowing(&kept, data_dir).await?;
    let judged = client.judged_members().await;
    client.close().await;
    let judged = judged?;
    if json {
        let members: Vec<Value> = judged.iter().map(describe).collect();
        output::json(&json!({ "members": members }))?;
    } else {
        let headings = ["name", "role", "here", "key", "trust", "why"];
        output::table(headings, judged.iter().map(|judged| row(judged, &kept.file.public_key)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A member for scripts; without its certificate, which nobody reads.
pub(super) fn describe(judged: &Judged) -> Value {
    let Judged { member, trust, why, .. } = judged;
    json!({
        "memberId": member.member_id,
        "name": member.name,
        "role": member.role,
        "pubkey": member.pubkey,
        "online": member.online,
        "sealed": member.sealed,
        "trust": trust.as_str(),
        "why": why,
    })
}

fn row(judged: &Judged, own: &crate::id::Key) -> [String; 6] {
    let Judged { member, trust, why, .. } = judged;
    let you = if member.pubkey == *own { " (you)" } else { "" };
    [
        format!("{}{you}", member.name),
        member.role.to_string(),
        if member.online { "yes" } else { "no" }.to_owned(),
        short(member.pubkey.as_str()).to_owned(),
        trust.as_str().to_owned(),
        why.clone().unwrap_or_default(),
    ]
}
