//! `peer listen`: a session that shows what comes in.

use std::collections::HashSet;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use super::control::{self, Control};
use super::{ListenArgs, about, connect, output};
use crate::client::{self, Client, ClientOptions, Inbound, Inbox};
use crate::clock::Timestamp;
use crate::keyring::recipient::short;
use crate::keyring::{contacts, heads};
use crate::protocol::{Group, Push, SetStatus, SetSummary};

pub(super) async fn run(
    args: &ListenArgs,
    json: bool,
    data_dir: &Path,
) -> anyhow::Result<ExitCode> {
    let kept = args.who.choose(data_dir)?;
    let mut options = ClientOptions::session(kept.file.identity()?);
    about(&mut options);
    if !args.groups.is_empty() {
        options.about.groups = Some(groups(&args.groups));
    }
    let (client, inbox) = connect(&kept, options).await?;
    let control = open_control(&kept).await;
    introduce(&client, args).await?;
    let object = json!({
        "type": "listening",
        "peer": kept.file.full_name(),
        "pubkey": client.pubkey(),
        "memberPubkey": client.member_pubkey(),
        "presenceId": client.presence_id(),
        "node": client.hello_ack().node,
    });
    let (name, slug) = (&kept.file.name, &kept.file.mesh_slug);
    output::answer(json, &object, &format!("listening as {name} in {slug}; Ctrl-C ends it"))?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let shown = tokio::select! {
        shown = show(args, json, &client, inbox, (data_dir, &kept)) => Some(shown),
        () = serve_control(control.as_ref(), &client) => None,
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
    };
    client.close().await;
    shown.unwrap_or(Ok(ExitCode::SUCCESS))
}

async fn open_control(kept: &super::Kept) -> Option<Control> {
    match control::open(kept).await {
        Ok(control) => control,
        Err(error) => {
            tracing::warn!(%error, "`peer status` will not reach this peer");
            None
        }
    }
}

async fn serve_control(control: Option<&Control>, client: &Client) {
    match control {
        Some(control) => control.serve(client).await,
        None => std::future::pending().await,
    }
}

fn groups(names: &[String]) -> Vec<Group> {
    let group = |name: &String| Group { name: name.trim_start_matches('@').to_owned(), role: None };
    names.iter().map(group).collect()
}

/// Says what the hello cannot: status and summary.
async fn introduce(client: &Client, args: &ListenArgs) -> anyhow::Result<()> {
    if let Some(status) = args.status {
        client.ask(&SetStatus { status: status.into() }).await?;
    }
    if let Some(summary) = &args.summary {
        client.ask(&SetSummary { summary: summary.clone() }).await?;
    }
    Ok(())
}

async fn show(
    args: &ListenArgs,
    json: bool,
    client: &Client,
    mut inbox: Inbox,
    (data_dir, kept): (&Path, &super::Kept),
) -> anyhow::Result<ExitCode> {
    let mut checks = JoinSet::new();
    check(&mut checks, client, (data_dir, kept));
    let mut messages = 0;
    let mut passers_by = PassersBy::default();
    client.hand_on_keys_beside(None);
    loop {
        // The checks ask the broker, whose answers come behind what waits in the inbox.
        let inbound = tokio::select! {
            inbound = inbox.recv() => inbound,
            Some(Ok(Some(doubt))) = checks.join_next() => {
                tell(&doubt, json, kept)?;
                continue;
            }
        };
        let Some(inbound) = inbound else { return Ok(ExitCode::FAILURE) };
        let inbound = client.opened(inbound).await;
        if json {
            output::json(&object(&inbound))?;
        } else if !passers_by.is_one(&inbound) {
            output::line(&line(&inbound))?;
        }
        match inbound {
            Inbound::Message { push, .. } => {
                if let (Some(name), Some(key)) = (&push.sender_name, &push.sender_member_pubkey) {
                    contacts::met(data_dir, kept, name, key.as_str());
                }
                messages += 1;
                if args.count == Some(messages) {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            Inbound::Event { event, data } if event == client::RESEAL_NEEDED => {
                client.hand_on_keys_beside(Some(data));
            }
            Inbound::Reconnected { same_presence, .. } => {
                if !same_presence {
                    introduce(client, args).await?;
                }
                check(&mut checks, client, (data_dir, kept));
            }
            Inbound::Closed { .. } => return Ok(ExitCode::FAILURE),
            _ => {}
        }
    }
}

/// Begins to compare what the broker shows of the audit chain with what it has shown before.
fn check(
    checks: &mut JoinSet<Option<heads::Doubt>>,
    client: &Client,
    (data_dir, kept): (&Path, &super::Kept),
) {
    let (client, data_dir, kept) = (client.clone(), data_dir.to_owned(), kept.clone());
    checks.spawn(async move { heads::check(&data_dir, &kept, &client).await });
}

fn tell(doubt: &heads::Doubt, json: bool, kept: &super::Kept) -> anyhow::Result<()> {
    let (code, message) = (doubt.code(), doubt.sentence(kept));
    if json {
        return output::json(&json!({"type": "warning", "code": code, "message": message}));
    }
    output::line(&format!("{}  ! {}", time(Timestamp::now()), output::printable(&message)))?;
    Ok(())
}

/// Members that only pass by: each command that one of them types is a
/// connection of its own, back and gone again.
#[derive(Default)]
struct PassersBy(HashSet<String>);

impl PassersBy {
    /// As many passers-by are remembered; of those beyond, the leaving is shown.
    const MAX: usize = 1024;

    /// Whether `inbound` is about one. Sessions never `return`, they join.
    fn is_one(&mut self, inbound: &Inbound) -> bool {
        let Inbound::Event { event, data } = inbound else { return false };
        let Some(key) = data["pubkey"].as_str() else { return false };
        match event.as_str() {
            "peer_returned" => {
                if self.0.len() < Self::MAX {
                    self.0.insert(key.to_owned());
                }
                true
            }
            "peer_left" => self.0.contains(key),
            _ => false,
        }
    }
}

/// What came in, as an object for `--json`.
fn object(inbound: &Inbound) -> Value {
    match inbound {
        Inbound::Message { push, is_sealed, .. } => json!({
            "type": "message",
            "messageId": push.message_id,
            "from": push.sender_name,
            "senderPubkey": push.sender_pubkey,
            "senderMemberPubkey": push.sender_member_pubkey,
            "priority": push.priority,
            "text": inbound.text(),
            "sealed": is_sealed,
            "createdAt": push.created_at,
            "replyToId": push.reply_to_id,
        }),
        Inbound::Event { event, data } => json!({"type": "event", "event": event, "data": data}),
        Inbound::Error(error) => {
            json!({"type": "error", "code": error.code, "message": error.message})
        }
        Inbound::Other { kind, body } => json!({"type": "other", "kind": kind, "body": body}),
        Inbound::Disconnected { code, reason } => {
            json!({"type": "disconnected", "code": code, "reason": reason})
        }
        Inbound::Reconnected { presence_id, same_presence } => json!({
            "type": "reconnected", "presenceId": presence_id, "samePresence": same_presence,
        }),
        Inbound::Closed { code, reason } => {
            json!({"type": "closed", "code": code, "reason": reason})
        }
    }
}

/// What came in, as a line for people.
fn line(inbound: &Inbound) -> String {
    let now = Timestamp::now();
    match inbound {
        Inbound::Message { push, is_sealed, .. } => {
            let text = inbound.text().unwrap_or("(a message that this peer has no key for)");
            let lines: Vec<_> = text.lines().map(output::printable).collect();
            let urgent = match push.priority {
                crate::protocol::Priority::Now => " (now)",
                _ => "",
            };
            let at = time(push.created_at);
            let secrecy = if *is_sealed { "" } else { " [in clear]" };
            format!(
                "{at}  {}{urgent}{secrecy}: {}",
                output::printable(&sender(push)),
                lines.join("\n          ")
            )
        }
        Inbound::Event { event, data } => {
            let name = data["name"].as_str().unwrap_or("somebody");
            let what = match event.as_str() {
                "peer_joined" => "is here",
                "peer_returned" => "is back",
                "peer_left" => "left",
                "peer_hidden" => "hides",
                "peer_visible" => "shows again",
                other => other,
            };
            let key = data["pubkey"].as_str().map(|key| format!(" ({})", short(key)));
            let who = format!("{name}{}", key.unwrap_or_default());
            format!("{}  - {} {}", time(now), output::printable(&who), output::printable(what))
        }
        Inbound::Error(error) => {
            format!("{}  ! {}", time(now), output::printable(&error.message))
        }
        Inbound::Other { kind, .. } => format!("{}  - {}", time(now), output::printable(kind)),
        Inbound::Disconnected { code, reason } => {
            format!(
                "{}  ! connection lost ({code} {}), coming back",
                time(now),
                output::printable(reason)
            )
        }
        Inbound::Reconnected { .. } => format!("{}  - back", time(now)),
        Inbound::Closed { code, reason } => {
            let meaning = match *code {
                4001 => "an admin removed this session".to_owned(),
                4002 => "this member is banned from the mesh; ask an admin to unban it".to_owned(),
                _ => format!("{code} {}", output::printable(reason)),
            };
            format!("{}  ! closed: {meaning}", time(now))
        }
    }
}

/// A name and the key that it stands for: anybody may take a name.
fn sender(push: &Push) -> String {
    let key = push.sender_member_pubkey.as_ref().unwrap_or(&push.sender_pubkey).short();
    match &push.sender_name {
        Some(name) => format!("{name} ({key})"),
        None => key.to_owned(),
    }
}

/// The instant's hours, minutes and seconds in UTC.
fn time(at: Timestamp) -> String {
    at.to_string().get(11..19).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::MeshId;
    use crate::protocol::SystemEvent;

    fn message(name: &str, text: &str) -> Inbound {
        let event = SystemEvent { event: "".into(), data: Value::Null };
        let mut push = event.into_push(MeshId::from("m"), Timestamp::from_ms(0));
        push.sender_name = Some(name.to_owned());
        Inbound::Message {
            push: Box::new(push),
            plaintext: Some(text.as_bytes().to_vec()),
            is_sealed: true,
        }
    }

    #[test]
    fn a_message_cannot_steer_the_terminal() {
        let line = line(&message("b\u{1b}ob", "hi\u{1b}[2J\nthere"));
        assert!(!line.contains('\u{1b}'), "{line:?}");
        assert!(line.starts_with("00:00:00  b"), "{line:?}");
        assert_eq!(line.lines().count(), 2);
    }

    #[test]
    fn a_message_is_one_object() {
        let object = object(&message("bob", "hi"));
        assert_eq!((&object["type"], &object["from"]), (&json!("message"), &json!("bob")));
        assert_eq!(object["text"], "hi");
        let unreadable = Inbound::Closed { code: 4002, reason: "banned".to_owned() };
        assert!(line(&unreadable).contains("unban"));
    }

    #[test]
    fn commands_of_others_are_not_shown_as_comings_and_goings() {
        let event = |event: &str, key: &str| Inbound::Event {
            event: event.to_owned(),
            data: json!({"name": "a", "pubkey": key}),
        };
        let mut passers_by = PassersBy::default();
        assert!(!passers_by.is_one(&event("peer_joined", "k1")));
        assert!(!passers_by.is_one(&event("peer_left", "k1")));
        assert!(passers_by.is_one(&event("peer_returned", "k2")));
        assert!(passers_by.is_one(&event("peer_left", "k2")));
    }

    #[test]
    fn groups_are_named_with_or_without_the_sign() {
        let named = groups(&["@dev".to_owned(), "dev/api".to_owned()]);
        assert_eq!(named[0].name, "dev");
        assert_eq!(named[1].name, "dev/api");
    }
}
