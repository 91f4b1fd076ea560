//! `claudemesh-broker health`: asks a broker whether it is well, for health
//! checks in places that have no other program.

use std::process::ExitCode;

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::{Failure, output, probe};
use crate::client::http::{call, http_url};
use crate::config::{Config, ConfigErrors};

/// Whom to ask for what.
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// The broker's address, as http(s) or ws(s) URL; by default the one of this
    /// machine that the settings name
    #[arg(long)]
    url: Option<String>,
    /// Whether it lives, rather than whether it welcomes peers
    #[arg(long)]
    live: bool,
}

/// Asks once. The exit code is 0 when all is well, else 1.
pub(crate) async fn run(
    args: &HealthArgs,
    json: bool,
    config: Result<Config, ConfigErrors>,
) -> anyhow::Result<ExitCode> {
    let base = match &args.url {
        Some(url) => url.clone(),
        None => format!("http://{}", probe::reachable(&config?.listen)),
    };
    let url = http_url(&base, if args.live { "/health" } else { "/health/ready" })?;
    let (status, body) = call(Method::GET, &url, &[], None).await.map_err(|error| {
        Failure::new("no_answer", format!("{url} does not answer ({error}); does it run there?"))
    })?;
    let said: Value = serde_json::from_slice(&body).unwrap_or_default();
    let Some(word) = said["status"].as_str() else {
        let text = format!("{url} answers {status}, and not as a broker does");
        return Err(Failure::new("no_broker", text).into());
    };
    let version = said["version"].as_str().unwrap_or("?");
    let reason = said["reason"].as_str().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let text = format!("{word}{reason}: claudemesh-broker {version} at {url}");
    let object = json!({"ok": status.is_success(), "url": url.as_str(), "said": said});
    output::answer(json, &object, &output::printable(&text))?;
    Ok(if status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
