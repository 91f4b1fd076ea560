//! `claudemesh-broker migrate`: brings the schema up to date, or says what that
//! would do.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::output;
use crate::app;
use crate::config::Config;
use crate::store::Stores;

/// How to migrate.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct MigrateArgs {
    /// Only say what is pending; exit code 1 when something is
    #[arg(long)]
    check: bool,
}

pub(crate) async fn run(
    args: &MigrateArgs,
    json: bool,
    config: &Config,
) -> anyhow::Result<ExitCode> {
    let store = app::connect_store(config).await?;
    let result = migrate(&store, args.check).await;
    store.database.close().await;
    let names = result?;
    let object = if args.check { json!({"pending": names}) } else { json!({"applied": names}) };
    output::answer(json, &object, &sentence(args.check, &names))?;
    let is_behind = args.check && !names.is_empty();
    Ok(if is_behind { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The migrations that were pending.
async fn migrate(store: &Stores, check: bool) -> anyhow::Result<Vec<String>> {
    let pending = store.database.pending_migrations().await?;
    if !check {
        store.database.migrate().await?;
    }
    Ok(pending)
}

fn sentence(check: bool, names: &[String]) -> String {
    let list = names.iter().map(|name| format!("\n  {name}")).collect::<String>();
    match (names.is_empty(), check) {
        (true, _) => "The schema is up to date.".to_owned(),
        (false, true) => {
            format!("{} pending:{list}", output::count(names.len(), "migration"))
        }
        (false, false) => {
            format!("{} applied:{list}", output::count(names.len(), "migration"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_is_or_was_pending() {
        let names = ["0001_start".to_owned(), "0002_more".to_owned()];
        assert_eq!(sentence(true, &names), "2 migrations pending:\n  0001_start\n  0002_more");
        assert!(sentence(false, &names[..1]).starts_with("1 migration applied:"));
        assert_eq!(sentence(true, &[]), sentence(false, &[]));
    }
}
