//! `peer send`.

use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::json;

use super::{Failure, SendArgs, output};
use crate::client::{Client, ClientError};
use crate::keyring::Kept;
use crate::keyring::contacts::{Contacts, remember};
use crate::keyring::recipient::{Recipient, key_of, short};
use crate::protocol::Priority;

pub(super) async fn run(args: &SendArgs, json: bool, data_dir: &Path) -> anyhow::Result<ExitCode> {
    let kept = args.who.choose(data_dir)?;
    let text = text_of(args)?;
    let (client, _inbox) = args.who.visit(&kept).await?;
    let (target, name) = if is_direct(&args.to) {
        let recipient = recipient(&client, data_dir, &kept, &args.to).await?;
        (recipient.key, recipient.name)
    } else {
        (args.to.clone(), None)
    };
    let priority = Priority::from(args.priority);
    let sent = client.send(&target, priority, text.as_str()).await;
    client.close().await;
    let ack = sent.map_err(|error| explain(error, &args.to))?;
    if json {
        output::json(&json!({
            "messageId": ack.message_id,
            "to": args.to,
            "targetSpec": target,
            "memberName": name,
            "priority": priority,
            "queued": ack.queued,
        }))?;
    } else {
        // The name that the key was enrolled under, where that is not the one typed.
        let whom = match name.filter(|name| !name.eq_ignore_ascii_case(&args.to)) {
            Some(name) => format!("{} ({name}, {})", args.to, short(&target)),
            None if is_direct(&args.to) => format!("{} ({})", args.to, short(&target)),
            None => args.to.clone(),
        };
        let line = format!("sent to {whom} as {}", ack.message_id);
        output::line(&output::printable(&line))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text_of(args: &SendArgs) -> anyhow::Result<String> {
    if args.text != "-" {
        return Ok(args.text.clone());
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
    Ok(text)
}

fn explain(error: ClientError, to: &str) -> anyhow::Error {
    let ClientError::Rejected(reason) = &error else { return error.into() };
    if reason.starts_with("no connected peer") {
        let message =
            format!("{to} is nobody in this mesh; `claudemesh-broker peer list` shows who is here");
        return Failure::new("no_such_recipient", message).into();
    }
    Failure::new("rejected", format!("the broker did not take the message: {reason}")).into()
}

pub(super) fn is_direct(target: &str) -> bool {
    target != "*" && !target.starts_with(['@', '#'])
}

/// Whom `to` means, of those who are here and those who were met before.
pub(super) async fn recipient(
    client: &Client,
    data_dir: &Path,
    kept: &Kept,
    to: &str,
) -> anyhow::Result<Recipient> {
    let peers = client.list_peers().await?;
    // The contacts as they were known before this look.
    let contacts = Contacts::of(data_dir, kept);
    remember(data_dir, kept, &peers);
    Ok(key_of(to, &peers, &contacts)?)
}
