//! `peer mcp`: the servers that peers host for their mesh.

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Failure, WhoArgs, output};
use crate::client::{Client, ClientError};
use crate::protocol::{McpCall, McpList, McpServerInfo};

/// What can be done with servers of peers.
#[derive(Debug, Subcommand)]
pub(crate) enum McpCommand {
    /// Show the servers of the mesh
    List(McpListArgs),
    /// Call a tool and show what it gives
    Call(McpCallArgs),
}

/// Arguments of `peer mcp list`.
#[derive(Debug, Args)]
pub(crate) struct McpListArgs {
    /// Who asks.
    #[command(flatten)]
    who: WhoArgs,
}

/// Arguments of `peer mcp call`.
#[derive(Debug, Args)]
pub(crate) struct McpCallArgs {
    /// The server's name
    server: String,
    /// The tool's name
    tool: String,
    /// The arguments, as one JSON object
    #[arg(default_value = "{}")]
    args: String,
    /// Who calls.
    #[command(flatten)]
    who: WhoArgs,
}

pub(super) async fn run(
    command: &McpCommand,
    json: bool,
    data_dir: &Path,
) -> anyhow::Result<ExitCode> {
    match command {
        McpCommand::List(args) => list(args, json, data_dir).await?,
        McpCommand::Call(args) => call(args, json, data_dir).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(args: &McpListArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let kept = args.who.choose(data_dir)?;
    let (client, _inbox) = args.who.visit(&kept).await?;
    let servers = servers(&client).await;
    client.close().await;
    let servers = servers?;
    if json {
        output::json(&json!({ "servers": servers }))?;
    } else if servers.is_empty() {
        output::line(&format!("nobody hosts a server in {}", kept.file.mesh_slug))?;
    } else {
        let rows = servers.iter().map(|server| {
            let tools: Vec<&str> = server.tools.iter().map(|tool| tool.name.as_str()).collect();
            let online = if server.online { "online" } else { "offline" };
            [
                server.name.clone(),
                server.hosted_by.clone(),
                online.to_owned(),
                tools.join(" "),
                server.description.clone(),
            ]
        });
        output::table(["server", "host", "state", "tools", "about"], rows)?;
    }
    Ok(())
}

async fn servers(client: &Client) -> Result<Vec<McpServerInfo>, ClientError> {
    let (mut servers, mut ask) = (Vec::new(), McpList::default());
    loop {
        let page = client.ask(&ask).await?;
        servers.extend(page.servers);
        if !page.more || page.cursor == ask.cursor {
            return Ok(servers);
        }
        ask.cursor = page.cursor;
    }
}

async fn call(args: &McpCallArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let not_json = |_| Failure::new("invalid_arguments", "the arguments are no JSON object");
    let given: Value = serde_json::from_str(&args.args).map_err(not_json)?;
    let kept = args.who.choose(data_dir)?;
    let (client, _inbox) = args.who.visit(&kept).await?;
    let call =
        McpCall { server_name: args.server.clone(), tool_name: args.tool.clone(), args: given };
    let answer = client.ask(&call).await;
    client.close().await;
    let result = answer.map_err(said_no)?.result.unwrap_or_default();
    let text = match &result {
        Value::String(text) => text.clone(),
        other => serde_json::to_string_pretty(other)?,
    };
    output::answer(json, &json!({ "result": result }), &output::printable_lines(&text))?;
    Ok(())
}

/// What the other peer, or the broker for it, says instead of an answer.
pub(super) fn said_no(error: ClientError) -> anyhow::Error {
    match error {
        ClientError::Rejected(why) => Failure::new("rejected", why.reason).into(),
        other => other.into(),
    }
}
