//! `peer send`, and who is meant by a name.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::json;

use super::keyring::{self, Kept};
use super::{Failure, SendArgs, output};
use crate::auth::is_public_key;
use crate::client::ClientError;
use crate::protocol::{PeerInfo, Priority};

/// People met in a mesh, by name: their member keys.
type Contacts = BTreeMap<String, String>;

pub(super) async fn run(args: &SendArgs, json: bool, data_dir: &Path) -> anyhow::Result<ExitCode> {
    let kept = args.who.choose(data_dir)?;
    let text = text_of(args)?;
    let (client, _inbox) = args.who.visit(&kept).await?;
    let target = if is_direct(&args.to) {
        let peers = client.list_peers().await?;
        remember(data_dir, &kept, &peers);
        key_of(&args.to, &peers, &contacts(data_dir, &kept))?
    } else {
        args.to.clone()
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
            "priority": priority,
            "queued": ack.queued,
        }))?;
    } else {
        output::line(&format!("sent to {} as {}", args.to, ack.message_id))?;
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

fn is_direct(target: &str) -> bool {
    target != "*" && !target.starts_with(['@', '#'])
}

/// The key that `to` means: itself if it is one, else that of the one peer of
/// this name, here now or met before. A member's key, so that the message
/// waits if nobody is there.
fn key_of(to: &str, peers: &[PeerInfo], contacts: &Contacts) -> Result<String, Failure> {
    if is_public_key(to) {
        return Ok(to.to_owned());
    }
    let mut found: Vec<(&str, &str)> = peers
        .iter()
        .filter(|peer| peer.display_name.to_lowercase() == to.to_lowercase())
        .map(|peer| (peer.display_name.as_str(), peer.member_pubkey.as_str()))
        .collect();
    if found.is_empty() {
        let known = contacts.iter().filter(|(name, _)| name.to_lowercase() == to.to_lowercase());
        found = known.map(|(name, key)| (name.as_str(), key.as_str())).collect();
    }
    if found.is_empty() && to.len() >= 8 {
        let begins = |peer: &&PeerInfo| peer.member_pubkey.starts_with(to);
        let peers = peers.iter().filter(begins);
        found =
            peers.map(|peer| (peer.display_name.as_str(), peer.member_pubkey.as_str())).collect();
    }
    found.sort_by_key(|(_, key)| *key);
    found.dedup_by_key(|(_, key)| *key);
    match found[..] {
        [(_, key)] => Ok(key.to_owned()),
        [] => {
            let mut names: Vec<&str> =
                peers.iter().map(|peer| peer.display_name.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            let message = format!(
                "nobody here is called {to:?} (here are {}); to reach somebody who is away, give \
                 the key",
                names.join(", ")
            );
            Err(Failure::new("no_such_recipient", message))
        }
        _ => {
            let list: Vec<String> =
                found.iter().map(|(name, key)| format!("{name} {key}")).collect();
            let message = format!(
                "{to:?} may mean any of these; give the key instead:\n  {}",
                list.join("\n  ")
            );
            Err(Failure::new("ambiguous_recipient", message))
        }
    }
}

fn contacts_file(data_dir: &Path, kept: &Kept) -> PathBuf {
    data_dir.join("peers").join(format!("{}.contacts.json", kept.file.mesh_id))
}

/// Who was met in the mesh, with this user's own peers of it.
fn contacts(data_dir: &Path, kept: &Kept) -> Contacts {
    let mut contacts = read_contacts(&contacts_file(data_dir, kept));
    for own in keyring::all(data_dir).unwrap_or_default() {
        if own.file.mesh_id == kept.file.mesh_id {
            contacts.insert(own.file.name.clone(), own.file.public_key.to_string());
        }
    }
    contacts
}

/// Notes who wrote, if nobody is known by that name yet: who only visits is listed
/// for nobody.
pub(super) fn met(data_dir: &Path, kept: &Kept, name: &str, key: &str) {
    let path = contacts_file(data_dir, kept);
    let mut contacts = read_contacts(&path);
    if !contacts.contains_key(name) {
        contacts.insert(name.to_owned(), key.to_owned());
        write_contacts(&path, &contacts);
    }
}

fn read_contacts(path: &Path) -> Contacts {
    let read = std::fs::read(path).ok();
    read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// A convenience: without it names of the absent are not known.
fn write_contacts(path: &Path, contacts: &Contacts) {
    let written = serde_json::to_vec_pretty(contacts)
        .map_err(anyhow::Error::from)
        .and_then(|bytes| crate::cli::enrol::write_private(path, &bytes));
    if let Err(error) = written {
        tracing::debug!(error = format!("{error:#}"), "contacts not noted");
    }
}

/// Notes who is here, so that they can be written to by name when they are
/// away. Two of one name are not noted: which one was meant nobody could tell.
pub(super) fn remember(data_dir: &Path, kept: &Kept, peers: &[PeerInfo]) {
    let path = contacts_file(data_dir, kept);
    let before = read_contacts(&path);
    let mut after = before.clone();
    for peer in peers {
        let clashes = peers.iter().any(|other| {
            other.display_name == peer.display_name && other.member_pubkey != peer.member_pubkey
        });
        if clashes {
            after.remove(&peer.display_name);
        } else {
            after.insert(peer.display_name.clone(), peer.member_pubkey.clone());
        }
    }
    if after != before {
        write_contacts(&path, &after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str, key: &str) -> PeerInfo {
        serde_json::from_value(json!({
            "pubkey": "s", "memberPubkey": key, "displayName": name, "status": "idle",
            "summary": null, "groups": [], "sessionId": "", "cwd": "",
            "connectedAt": "2026-01-01T00:00:00.000Z", "peerRole": "session",
        }))
        .expect("a row")
    }

    fn found(to: &str, peers: &[PeerInfo], contacts: &Contacts) -> Result<String, &'static str> {
        key_of(to, peers, contacts).map_err(|failure| failure.code)
    }

    #[test]
    fn a_name_means_the_member_whatever_its_case_and_sessions() {
        let (ada, bob) = ("ab".repeat(32), "bc".repeat(32));
        let peers = [peer("Ada", &ada), peer("Ada", &ada), peer("bob", &bob)];
        let none = Contacts::new();
        assert_eq!(found("ada", &peers, &none), Ok(ada.clone()));
        assert_eq!(found("BOB", &peers, &none), Ok(bob.clone()));
        assert_eq!(found(&bob, &[], &none), Ok(bob.clone()));
        assert_eq!(found(&ada[..8], &peers, &none), Ok(ada));
    }

    #[test]
    fn two_of_a_name_are_listed_and_nobody_is_guessed() {
        let peers = [peer("ada", &"ab".repeat(32)), peer("Ada", &"bc".repeat(32))];
        let failure = key_of("ada", &peers, &Contacts::new()).unwrap_err();
        assert_eq!(failure.code, "ambiguous_recipient");
        assert!(failure.message.contains(&"bc".repeat(32)), "{failure}");
        let failure = key_of("carol", &peers, &Contacts::new()).unwrap_err();
        assert_eq!(failure.code, "no_such_recipient");
        assert!(failure.message.contains("ada"), "{failure}");
    }

    #[test]
    fn somebody_who_is_away_is_known_from_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let secret = crate::auth::SecretKey::generate();
        let file = keyring::KeyFile::new("m".into(), "team".into(), "me", String::new(), &secret);
        let kept = Kept { path: folder.path().join("x"), file };
        let bob = "bc".repeat(32);
        remember(folder.path(), &kept, &[peer("bob", &bob)]);
        met(folder.path(), &kept, "bob", &"de".repeat(32));
        met(folder.path(), &kept, "eve", &"ef".repeat(32));
        let known = contacts(folder.path(), &kept);
        assert_eq!(found("Bob", &[], &known), Ok(bob.clone()), "whoever took that name later");
        assert_eq!(found("eve", &[], &known), Ok("ef".repeat(32)), "who wrote can be answered");
        let other = "cd".repeat(32);
        remember(folder.path(), &kept, &[peer("bob", &bob), peer("bob", &other)]);
        let known = contacts(folder.path(), &kept);
        assert_eq!(found("bob", &[], &known), Err("no_such_recipient"));
    }
}
