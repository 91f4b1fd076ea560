//! `claude doctor`: what keeps messages from reaching a session's model, and what to do.
//!
//! It changes nothing. Files of hosts are read as they are; the broker is asked whether
//! it is well, and nothing else.

use std::process::ExitCode;

use clap::Args;

use super::host::{Host, HostKind};
use super::install::here;
use crate::config::process_env;
use crate::output::check;
use crate::private;

mod entries;
mod mesh;
mod switches;

/// Arguments of `claude doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Look at Codex instead of Claude Code
    #[arg(long)]
    codex: bool,
}

/// Runs every check. The exit code is 1 when one fails.
pub(crate) async fn run(args: &DoctorArgs, json: bool) -> anyhow::Result<ExitCode> {
    let places = here()?;
    let kind = if args.codex { HostKind::Codex } else { HostKind::Claude };
    let host = Host::find(&places, kind).await;
    let mut checks = vec![entries::host(kind, host.as_ref())];
    if args.codex {
        checks.extend(entries::codex(&places));
    } else {
        let version = host.as_ref().and_then(|host| host.version);
        let plugin = super::copies::plugin(&places);
        checks.push(entries::server(&places, plugin.as_deref()));
        checks.push(entries::hooks(&places, version, plugin.as_deref()));
        checks.push(entries::copies(&places, plugin.as_deref()));
        checks.push(switches::hooks_run(&places));
        checks.push(switches::trust(&places));
        checks.push(switches::channel(&places, version, &process_env));
        checks.push(switches::inbox(version, &process_env));
        checks.push(switches::permissions(&places, plugin.is_some()));
    }
    checks.extend(mesh::check(&private::data_dir_of_user()?).await);
    check::report(json, &checks)
}
