//! `peer send`.

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;

use super::members::describe;
use super::{Failure, SendArgs, output};
use crate::client::{Client, ClientError, Outgoing, Secrecy, Sent};
use crate::keyring::Kept;
use crate::keyring::contacts::{Contacts, remember};
use crate::keyring::recipient::{Recipient, key_of, short};
use crate::protocol::Priority;

/// The code of a message over one of its sender's limits.
const RATE_LIMIT: &str = "rate_limit";
/// How long a message waits in all for such a limit.
const WAIT_MAX: Duration = Duration::from_secs(15);

pub(super) async fn run(args: &SendArgs, json: bool, data_dir: &Path) -> anyhow::Result<ExitCode> {
    let kept = args.who.choose(data_dir)?;
    let text = text_of(args)?;
    let (client, _inbox) = args.who.visit_knowing(&kept, data_dir).await?;
    let (target, name) = if is_direct(&args.to) {
        let recipient = recipient(&client, data_dir, &kept, &args.to).await?;
        (recipient.key, recipient.name)
    } else {
        (args.to.clone(), None)
    };
    let priority = Priority::from(args.priority);
    let message = Outgoing {
        ttl_ms: args.ttl.map(|seconds| seconds * 1000),
        reply_to_id: args.reply_to.clone(),
        expects_reply: args.expects_reply,
        ..Outgoing::new(&target, priority, text.as_str())
    };
    let sent = in_time(&client, message).await;
    client.close().await;
    let sent = sent.map_err(|error| explain(error, &args.to))?;
    let caveat = sent.caveat();
    let Sent { ack, secrecy, left_out, unverified } = sent;
    if json {
        output::json(&json!({
            "messageId": ack.message_id,
            "to": args.to,
            "targetSpec": target,
            "memberName": name,
            "priority": priority,
            "queued": ack.queued,
            "sealed": secrecy == Secrecy::Sealed,
            "unsealedFor": ack.unsealed_for,
            "leftOut": left_out.iter().map(describe).collect::<Vec<_>>(),
            "unverified": unverified,
        }))?;
    } else {
        // The name that the key was enrolled under, where that is not the one typed.
        let whom = match name.filter(|name| !name.eq_ignore_ascii_case(&args.to)) {
            Some(name) => format!("{} ({name}, {})", args.to, short(&target)),
            None if is_direct(&args.to) => format!("{} ({})", args.to, short(&target)),
            None => args.to.clone(),
        };
        let mut line = format!("sent to {whom} as {}, {secrecy}", ack.message_id);
        if let Some(count) = ack.unsealed_count {
            let members = output::count(count, "member");
            line += &format!("; not for {members} that cannot open what is sealed");
        }
        line += &caveat.map(|caveat| format!("; {caveat}")).unwrap_or_default();
        output::line(&output::printable(&line))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Sends; over one of its sender's limits, once the broker takes more, if that is soon.
async fn in_time(client: &Client, message: Outgoing<'_>) -> Result<Sent, ClientError> {
    let began = Instant::now();
    let mut has_said = false;
    loop {
        let error = match client.send_sealed(message.clone()).await {
            Ok(sent) => return Ok(sent),
            Err(error) => error,
        };
        let wait = error.retry_after().filter(|_| error.code() == Some(RATE_LIMIT));
        let Some(wait) = wait.filter(|wait| began.elapsed() + *wait < WAIT_MAX) else {
            return Err(error);
        };
        if !std::mem::replace(&mut has_said, true) {
            // Standard output is the answer's.
            let _ = writeln!(io::stderr(), "waiting: {}", output::printable(&error.to_string()));
        }
        tokio::time::sleep(wait).await;
    }
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
    if let ClientError::KeyChanged(judged) = &error {
        let code = if judged.is_refused { "not_certified" } else { "key_changed" };
        return Failure::new(code, output::printable(&error.to_string())).into();
    }
    let ClientError::Rejected(rejection) = &error else { return error.into() };
    let reason = &rejection.reason;
    if rejection.code.as_deref() == Some(RATE_LIMIT) {
        let seconds = rejection.retry_after_ms.unwrap_or_default().div_ceil(1_000).max(1);
        let message = format!("{reason}; again in {seconds} s (`peer budget` shows what is left)");
        return Failure::new(RATE_LIMIT, message).into();
    }
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
    let recipient = key_of(to, &peers, &contacts)?;
    client.vet(&recipient.key).await.map_err(|error| explain(error, to))?;
    Ok(recipient)
}
