//! `peer budget`: what may still be sent and asked.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use clap_complete::engine::ArgValueCandidates as Candidates;

use super::send::{is_direct, recipient};
use super::{WhoArgs, complete};
use crate::cli::output;
use crate::protocol::{Allowed, Budget, BudgetResult};

/// Arguments of `peer budget`.
#[derive(Debug, Args)]
pub(crate) struct BudgetArgs {
    /// Also what is left for that peer: a name or a key
    #[arg(add = Candidates::new(complete::recipients))]
    to: Option<String>,
    /// Whose budget.
    #[command(flatten)]
    who: WhoArgs,
}

pub(super) async fn run(
    args: &BudgetArgs,
    json: bool,
    data_dir: &Path,
) -> anyhow::Result<ExitCode> {
    let kept = args.who.choose(data_dir)?;
    let (client, _inbox) = args.who.visit(&kept).await?;
    let to = match &args.to {
        Some(to) if is_direct(to) => Some(recipient(&client, data_dir, &kept, to).await?.key),
        other => other.clone(),
    };
    let budget = client.ask(&Budget { to }).await;
    client.close().await;
    let budget = budget?;
    if json {
        output::json(&budget)?;
    } else {
        output::table(["what", "left", "of", "per minute", "full again in"], rows(&budget))?;
        if budget.stale {
            output::line("this is one node's part: it does not reach the others now")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn rows(budget: &BudgetResult) -> Vec<[String; 5]> {
    let limit = |what: &str, allowed: Option<Allowed>| {
        let Allowed { per_minute, burst, left, full_in_ms, .. } = allowed?;
        let numbers = [left, burst, per_minute].map(|number| number.to_string());
        let [left, burst, per_minute] = numbers;
        Some([what.to_owned(), left, burst, per_minute, seconds(full_in_ms)])
    };
    let waiting = budget.waiting.map(|waiting| {
        let left = waiting.bytes_max.saturating_sub(waiting.bytes);
        let dash = || output::or_dash(None::<&str>);
        let numbers = [left, waiting.bytes_max].map(|number| number.to_string());
        let [left, max] = numbers;
        ["bytes that may wait".to_owned(), left, max, dash(), dash()]
    });
    let rows = [
        limit("messages", budget.member),
        limit("messages to that peer", budget.pair),
        limit("messages to many", budget.multicast),
        limit("urgent ones to admins, besides", budget.urgent),
        limit("requests, in units", budget.requests),
        waiting,
    ];
    rows.into_iter().flatten().collect()
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1_000, ms % 1_000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_off_has_no_row() {
        let next_in_ms = None;
        let member = Allowed { per_minute: 600, burst: 100, left: 97, next_in_ms, full_in_ms: 300 };
        let budget = BudgetResult { member: Some(member), ..BudgetResult::default() };
        let row = ["messages", "97", "100", "600", "0.3 s"].map(str::to_owned);
        assert_eq!(rows(&budget), [row]);
    }
}
