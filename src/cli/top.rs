//! `claudemesh-broker top`: what the admin API shows, in a terminal.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;
use url::Url;

use super::{Failure, output, probe};
use crate::client::http::{call, http_url};
use crate::config::{Config, ConfigErrors, Env, Secret};
use crate::http::admin::PREFIX;
use crate::http::admin::views::{MeshDetail, Meshes, Nodes, Series};

mod rows;
mod screen;
mod shown;

use shown::Shown;

/// Between two readings.
const INTERVAL: Duration = Duration::from_secs(1);
/// As much of an answer that is no broker's as is shown.
const FOREIGN_CHARS_MAX: usize = 80;

/// What to watch, and how.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// The broker, http://, https://, ws:// or wss://; by default the one of this
    /// machine that the settings name
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// A file with the admin token in its first line; without: ADMIN_TOKEN
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Show this mesh too: its peers, what waits, its leases
    #[arg(long, value_name = "SLUG|ID")]
    mesh: Option<String>,
    /// Print how it is now, once
    #[arg(long)]
    once: bool,
}

pub(crate) async fn run(
    args: TopArgs,
    json: bool,
    config: Result<Config, ConfigErrors>,
    env: Env<'_>,
) -> anyhow::Result<ExitCode> {
    let base = match &args.url {
        Some(url) => url.clone(),
        None => format!("http://{}", probe::reachable(&config?.listen)),
    };
    let source = Source::new(&args, &base, env)?;
    if args.once || json {
        loop {
            let shown = source.read(args.mesh.as_deref()).await?;
            if json {
                output::json(&shown)?
            } else {
                rows::print(&shown)?
            }
            if args.once {
                return Ok(ExitCode::SUCCESS);
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
    // The first reading says what is wrong on an ordinary line.
    let first = source.read(args.mesh.as_deref()).await?;
    watch_live(source, args.mesh, first).await?;
    Ok(ExitCode::SUCCESS)
}

/// The screen runs on a thread of its own, since it waits for keys; it names
/// the mesh that it wants to see.
async fn watch_live(source: Source, mesh: Option<String>, first: Shown) -> anyhow::Result<()> {
    let (readings, shown) = watch::channel(Ok(first));
    let (choice, chosen) = watch::channel(mesh);
    let address = source.url.origin().ascii_serialization();
    let mut screen = tokio::task::spawn_blocking(move || screen::run(&address, &shown, &choice));
    let mut chosen = chosen;
    loop {
        tokio::select! {
            ended = &mut screen => return ended.context("the screen failed")?,
            () = tokio::time::sleep(INTERVAL) => {}
            Ok(()) = chosen.changed() => {}
        }
        let mesh = chosen.borrow_and_update().clone();
        let reading = source.read(mesh.as_deref()).await.map_err(|error| format!("{error:#}"));
        let _ = readings.send(reading);
    }
}

/// A broker's admin API.
struct Source {
    url: Url,
    bearer: String,
}

impl Source {
    fn new(args: &TopArgs, base: &str, env: Env<'_>) -> anyhow::Result<Self> {
        let token = match &args.token_file {
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .with_context(|| format!("{} cannot be read", file.display()))?;
                text.lines().next().map(str::to_owned)
            }
            None => env("ADMIN_TOKEN"),
        };
        // During a rotation there are two of them; either will do.
        let token = token.unwrap_or_default();
        let token = token.split(',').map(str::trim).find(|token| !token.is_empty());
        let Some(token) = token else {
            let text =
                "there is no token: set ADMIN_TOKEN as the broker has it, or give --token-file";
            return Err(Failure::new("no_token", text).into());
        };
        let token = Secret::new(token);
        Ok(Self { url: http_url(base, PREFIX)?, bearer: format!("Bearer {}", token.expose()) })
    }

    /// The broker as it is now.
    async fn read(&self, mesh: Option<&str>) -> anyhow::Result<Shown> {
        let (nodes, meshes, series) = tokio::try_join!(
            self.get::<Nodes>("/nodes"),
            self.get::<Meshes>("/meshes"),
            self.get::<Series>("/series"),
        )?;
        let mesh = match mesh {
            Some(mesh) => {
                let mesh: String = url::form_urlencoded::byte_serialize(mesh.as_bytes()).collect();
                Some(self.get::<MeshDetail>(&format!("/meshes/{mesh}")).await?)
            }
            None => None,
        };
        Ok(Shown::new(nodes, meshes, series, mesh))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let mut url = self.url.clone();
        url.set_path(&format!("{}{path}", self.url.path()));
        let headers = [("authorization", self.bearer.as_str())];
        let (status, body) = call(Method::GET, &url, &headers, None).await?;
        if status == StatusCode::OK {
            return serde_json::from_slice(&body)
                .with_context(|| format!("{url} answers something else than a broker does"));
        }
        Err(refusal(status, &body).into())
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> Failure {
    let answer: Value = serde_json::from_slice(body).unwrap_or_else(|_| json!({}));
    let said = answer["error"]["message"].as_str();
    match (status, said) {
        (StatusCode::UNAUTHORIZED, _) => {
            Failure::new("unauthorized", "the broker does not take this admin token")
        }
        (StatusCode::NOT_FOUND, None) => {
            let text = "the broker's admin API is off: start the broker with ADMIN_TOKEN set";
            Failure::new("admin_off", text)
        }
        (_, Some(said)) => Failure::new("refused", said),
        (_, None) => {
            let text = String::from_utf8_lossy(body);
            let text: String = text.chars().take(FOREIGN_CHARS_MAX).collect();
            let text = output::printable(text.trim()).into_owned();
            Failure::new("refused", format!("the broker answered {status}: {text}"))
        }
    }
}
