//! `peer list`: who is here.

use std::collections::HashMap;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::{WhoArgs, output};
use crate::client::{Client, Trust};
use crate::keyring::recipient::short;
use crate::keyring::{Kept, contacts};
use crate::protocol::{PeerInfo, PeerRole};

/// Arguments of `peer list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Also connections that are no sessions: daemons, commands
    #[arg(long)]
    all: bool,
    /// Who asks.
    #[command(flatten)]
    who: WhoArgs,
}

pub(super) async fn run(args: &ListArgs, json: bool, data_dir: &Path) -> anyhow::Result<ExitCode> {
    let kept = args.who.choose(data_dir)?;
    let (client, _inbox) = args.who.visit_knowing(&kept, data_dir).await?;
    let mut peers = client.list_peers().await?;
    let trusts = trusts(&client).await;
    client.close().await;
    contacts::remember(data_dir, &kept, &peers);
    peers.retain(|peer| args.all || peer.peer_role == PeerRole::Session);
    let trust_in = |peer: &PeerInfo| {
        trusts.get(&peer.member_pubkey).copied().unwrap_or(Trust::Unverified).as_str()
    };
    if json {
        let peers = peers.iter().map(|peer| {
            let mut row = serde_json::to_value(peer)?;
            row["trust"] = trust_in(peer).into();
            Ok(row)
        });
        let peers = peers.collect::<serde_json::Result<Vec<Value>>>()?;
        output::json(&json!({ "peers": peers }))?;
    } else if peers.is_empty() {
        output::line(&format!("nobody is in {} now", kept.file.mesh_slug))?;
    } else {
        output::table(
            ["name", "member", "status", "groups", "since", "key", "trust", "doing"],
            peers.iter().map(|peer| row(peer, &kept, trust_in(peer))),
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// How far the key of each member can be relied upon. A broker that lists no members says
/// nothing that could be checked.
async fn trusts(client: &Client) -> HashMap<String, Trust> {
    let judged = client.judged_members().await.unwrap_or_default();
    judged.into_iter().map(|judged| (judged.member.pubkey.to_string(), judged.trust)).collect()
}

fn row(peer: &PeerInfo, kept: &Kept, trust: &str) -> [String; 8] {
    let own = peer.member_pubkey == kept.file.public_key.as_str();
    let name = if own { format!("{} (you)", peer.display_name) } else { peer.display_name.clone() };
    let groups: Vec<String> = peer.groups.iter().map(|group| format!("@{}", group.name)).collect();
    [
        name,
        output::or_dash(peer.member_name.as_deref()),
        peer.status.as_str().to_owned(),
        groups.join(" "),
        peer.connected_at.to_string(),
        short(&peer.member_pubkey).to_owned(),
        trust.to_owned(),
        peer.summary.clone().unwrap_or_default(),
    ]
}
