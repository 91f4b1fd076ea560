//! `peer stream`: streams, what is published to them, and what comes in.
//!
//! `listen` prints one object per line with `--json`: the frames as they came.

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCandidates as Candidates;
use serde_json::{Value, json};

use super::asking::{Live, Shown};
use super::{WhoArgs, complete, output};
use crate::client::{Client, Inbound, Inbox};
use crate::protocol::{
    CreateStream, DeleteStream, ListStreams, Publish, StreamData, StreamInfo, Subscribe,
};

/// Arguments of `peer stream`.
#[derive(Debug, Args)]
pub(crate) struct StreamArgs {
    /// What to do with streams.
    #[command(subcommand)]
    pub(crate) verb: StreamVerb,
}

/// What a peer can do with streams.
#[derive(Debug, Subcommand)]
pub(crate) enum StreamVerb {
    /// Make a stream, unless there is one of that name
    Create(CreateArgs),
    /// Delete a stream, whoever made it; who subscribes goes on to
    Delete(DeleteArgs),
    /// Show the streams that were made, and how many subscribe
    List(WhoArgs),
    /// Tell whoever subscribes now
    Publish(PublishArgs),
    /// Show what is published, until Ctrl-C
    Listen(ListenArgs),
}

/// Arguments of `peer stream create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The stream's name
    #[arg(add = Candidates::new(complete::streams))]
    pub(crate) stream: String,
    /// Who makes it.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// Arguments of `peer stream delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The stream's name
    #[arg(add = Candidates::new(complete::streams))]
    pub(crate) stream: String,
    /// Who deletes it.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// Arguments of `peer stream publish`.
#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// The stream's name
    #[arg(add = Candidates::new(complete::streams))]
    pub(crate) stream: String,
    /// What to publish: JSON; anything else is published as text
    pub(crate) data: String,
    /// Who publishes.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// Arguments of `peer stream listen`.
#[derive(Debug, Args)]
pub(crate) struct ListenArgs {
    /// The streams' names
    #[arg(required = true)]
    pub(crate) streams: Vec<String>,
    /// End after so many
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Who listens.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

pub(super) async fn run(
    args: &StreamArgs,
    json: bool,
    data_dir: &Path,
) -> anyhow::Result<ExitCode> {
    match &args.verb {
        StreamVerb::Create(args) => create(args, json, data_dir).await?,
        StreamVerb::Delete(args) => delete(args, json, data_dir).await?,
        StreamVerb::List(who) => {
            let shown = Shown {
                headings: ["name", "subscribers", "made by", "at"],
                row,
                nothing: "no stream was made yet",
            };
            who.list(data_dir, json, ListStreams::default(), shown).await?;
        }
        StreamVerb::Publish(args) => publish(args, json, data_dir).await?,
        StreamVerb::Listen(args) => return listen(args, json, data_dir).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(args: &CreateArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let ask = CreateStream { name: args.stream.clone() };
    let stream = args.who.ask(data_dir, &ask).await?;
    let text = format!("there is a stream {}", output::printable(&stream.name));
    output::answer(json, &stream, &text)
}

async fn delete(args: &DeleteArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let DeleteArgs { stream, who } = args;
    who.ask(data_dir, &DeleteStream { name: stream.clone() }).await?;
    let text = format!("there is no stream {}", output::printable(stream));
    output::answer(json, &json!({ "name": stream }), &text)
}

fn row(stream: &StreamInfo) -> [String; 4] {
    let StreamInfo { name, subscriber_count, created_by, created_at, .. } = stream;
    let made_by = Some(created_by.as_str()).filter(|name| !name.is_empty());
    [name.clone(), subscriber_count.to_string(), output::or_dash(made_by), created_at.to_string()]
}

async fn publish(args: &PublishArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let PublishArgs { stream, data, who } = args;
    let data = serde_json::from_str(data).unwrap_or_else(|_| Value::String(data.clone()));
    who.ask(data_dir, &Publish { stream: stream.clone(), data }).await?;
    output::answer(json, &json!({ "stream": stream }), &format!("published to {stream}"))
}

async fn listen(args: &ListenArgs, json: bool, data_dir: &Path) -> anyhow::Result<ExitCode> {
    let kept = args.who.choose(data_dir)?;
    let (client, inbox) = args.who.visit(&kept).await?;
    let listened = hear(args, json, &client, inbox).await;
    client.close().await;
    listened
}

async fn hear(
    args: &ListenArgs,
    json: bool,
    client: &Client,
    inbox: Inbox,
) -> anyhow::Result<ExitCode> {
    for stream in &args.streams {
        client.ask(&Subscribe { stream: stream.clone() }).await?;
    }
    let (mut live, mut heard) = (Live::new(inbox)?, 0);
    while args.count.is_none_or(|count| heard < count) {
        match live.next().await {
            Some(Inbound::Other { kind, body }) if kind == "stream_data" => {
                heard += 1;
                show(json, body)?;
            }
            Some(Inbound::Closed { .. }) => return Ok(ExitCode::FAILURE),
            Some(_) => {}
            None => break,
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(json: bool, body: Value) -> anyhow::Result<()> {
    if json {
        return output::json(&body);
    }
    let StreamData { stream, data, published_by, .. } = serde_json::from_value(body)?;
    // Peers choose the names, and the data.
    let line = format!("{stream} {published_by}: {data}");
    Ok(output::line(&output::printable(&line))?)
}
