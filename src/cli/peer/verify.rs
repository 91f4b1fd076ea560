//! `peer verify`: two people compare their keys by another way than the broker's.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use clap_complete::engine::ArgValueCandidates as Candidates;
use serde_json::json;

use super::members::describe;
use super::{Failure, WhoArgs, complete, output};
use crate::auth::fingerprint;
use crate::client::{Judged, Trust};
use crate::keyring::contacts;
use crate::keyring::known::Known;
use crate::limits;

/// Arguments of `peer verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Whose key: a member's name, its id, its key, or the beginning of its key
    #[arg(add = Candidates::new(complete::recipients))]
    member: String,
    /// Take the key that it has now, from now on
    #[arg(long)]
    accept: bool,
    /// Who compares.
    #[command(flatten)]
    who: WhoArgs,
}

pub(super) async fn run(
    args: &VerifyArgs,
    json: bool,
    data_dir: &Path,
) -> anyhow::Result<ExitCode> {
    let kept = args.who.choose(data_dir)?;
    let (client, _inbox) = args.who.visit_knowing(&kept, data_dir).await?;
    let judged = client.judged_members().await;
    client.close().await;
    let mut judged = find(judged?, &args.member)?;
    let number = fingerprint(&kept.file.public_key, &judged.member.pubkey);
    if args.accept {
        let member = &judged.member;
        Known::of(data_dir, &kept).accept(member)?;
        contacts::take(data_dir, &kept, &member.name, member.pubkey.as_str())?;
        (judged.trust, judged.is_refused, judged.why) = (Trust::Verified, false, None);
    }
    let mut object = describe(&judged);
    object["fingerprint"] = number.as_str().into();
    object["ownPubkey"] = json!(kept.file.public_key);
    object["accepted"] = args.accept.into();
    output::answer(json, &object, &text(&judged, &number, args.accept))?;
    Ok(ExitCode::SUCCESS)
}

fn text(judged: &Judged, number: &str, is_accepted: bool) -> String {
    let Judged { member, trust, why, .. } = judged;
    let (name, key) = (output::printable(&member.name), &member.pubkey);
    if is_accepted {
        return format!("the key of {name} is {key} from now on");
    }
    // Two halves of 30 digits, a line each.
    let (first, second) = number.split_at(number.len() / 2);
    let why = why.as_deref().map(|why| format!(": {}", output::printable(why))).unwrap_or_default();
    format!(
        "{name} is {}{why}\n  key     {key}\n  number  {}\n          {}\n\
         Read the number to {name} by another way. If `peer verify` shows the same there, nobody \
         stands between you; then `--accept` keeps the key.",
        trust.as_str(),
        first.trim(),
        second.trim(),
    )
}

/// The one member that a word means.
fn find(members: Vec<Judged>, word: &str) -> Result<Judged, Failure> {
    let lower = word.to_lowercase();
    let is = |judged: &Judged| {
        let member = &judged.member;
        let is_prefix = word.len() >= limits::KEY_PREFIX_DIGITS_MIN;
        member.name.to_lowercase() == lower
            || member.member_id.as_str() == word
            || is_prefix && member.pubkey.as_str().starts_with(&lower)
    };
    let mut found: Vec<Judged> = members.into_iter().filter(is).collect();
    match found.len() {
        1 => Ok(found.swap_remove(0)),
        0 => {
            let message = format!(
                "no member is called {word:?}; `claudemesh-broker peer members` shows all there are"
            );
            Err(Failure::new("no_such_member", message))
        }
        _ => {
            let keys: Vec<&str> =
                found.iter().map(|judged| judged.member.pubkey.as_str()).collect();
            let message = format!(
                "{word:?} may mean any of these; give the key instead:\n  {}",
                keys.join("\n  ")
            );
            Err(Failure::new("ambiguous_member", message))
        }
    }
}
