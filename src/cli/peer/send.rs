//! `peer send`, and who is meant by a name.

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;

use super::contacts::{Contacts, name_of, remember};
use super::{Failure, SendArgs, output};
use crate::auth::is_public_key;
use crate::client::{Client, ClientError, Outgoing};
use crate::keyring::Kept;
use crate::limits;
use crate::protocol::{Ack, PeerInfo, Priority};

/// The code of a message over one of its sender's limits.
const RATE_LIMIT: &str = "rate_limit";
/// How long a message waits in all for such a limit.
const WAIT_MAX: Duration = Duration::from_secs(15);

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
    let message = Outgoing {
        ttl_ms: args.ttl.map(|seconds| seconds * 1000),
        reply_to_id: args.reply_to.clone(),
        expects_reply: args.expects_reply,
        ..Outgoing::new(&target, priority, text.as_str())
    };
    let sent = in_time(&client, message).await;
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

/// Sends; over one of its sender's limits, once the broker takes more, if that is soon.
async fn in_time(client: &Client, message: Outgoing<'_>) -> Result<Ack, ClientError> {
    let began = Instant::now();
    let mut has_said = false;
    loop {
        let error = match client.send_with(message.clone()).await {
            Ok(ack) => return Ok(ack),
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

/// Whom `to` means.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Recipient {
    /// A member's key, so that the message waits if nobody is there.
    pub(super) key: String,
    /// The name that the member was enrolled under, as far as it is known.
    name: Option<String>,
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

/// The key that `to` means: itself if it is one, else that of the one peer of this
/// name, here now or met before. An enrolled name comes before a session's, which is
/// its own choice; a name that was met before means the key that it had then.
fn key_of(to: &str, peers: &[PeerInfo], contacts: &Contacts) -> Result<Recipient, Failure> {
    if is_public_key(to) {
        return Ok(Recipient { key: to.to_owned(), name: None });
    }
    let same = |name: &str| name.to_lowercase() == to.to_lowercase();
    let here = |fits: &dyn Fn(&PeerInfo) -> bool| -> Vec<(&str, &str)> {
        let fitting = peers.iter().filter(|peer| fits(peer));
        fitting.map(|peer| (name_of(peer), peer.member_pubkey.as_str())).collect()
    };
    let known: Vec<(&str, &str)> = contacts.named(to).collect();
    let mut found = here(&|peer| peer.member_name.as_deref().is_some_and(same));
    if found.is_empty() {
        found = here(&|peer| same(&peer.display_name));
    }
    found.sort_by_key(|(_, key)| *key);
    found.dedup_by_key(|(_, key)| *key);
    if let ([(_, key)], [(_, before), ..]) = (&found[..], &known[..])
        && !known.iter().any(|(_, known)| known == key)
    {
        return Err(another_key(to, key, before));
    }
    if found.is_empty() {
        found = known;
    }
    if found.is_empty() && to.len() >= limits::KEY_PREFIX_DIGITS_MIN {
        found = here(&|peer| peer.member_pubkey.starts_with(to));
        found.sort_by_key(|(_, key)| *key);
        found.dedup_by_key(|(_, key)| *key);
    }
    match found[..] {
        [(name, key)] => Ok(Recipient { key: key.to_owned(), name: Some(name.to_owned()) }),
        [] => {
            let mut names: Vec<_> =
                peers.iter().map(|peer| output::printable(&peer.display_name)).collect();
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
            let list: Vec<String> = found
                .iter()
                .map(|(name, key)| format!("{} {key}", output::printable(name)))
                .collect();
            let message = format!(
                "{to:?} may mean any of these; give the key instead:\n  {}",
                list.join("\n  ")
            );
            Err(Failure::new("ambiguous_recipient", message))
        }
    }
}

/// Whoever is called so now is not who was met under that name: perhaps the same
/// person with a new key, perhaps somebody else.
fn another_key(to: &str, now: &str, before: &str) -> Failure {
    let message = format!(
        "{to:?} has another key than when it was met: {} now, {} then; nothing was sent. Ask \
         them which is theirs. Then give the whole key instead of the name, or take the new \
         one from now on: claudemesh-broker peer forget {}",
        short(now),
        short(before),
        output::shell_word(to),
    );
    Failure::new("key_changed", message)
}

/// A key's first characters, as lists show them.
pub(super) fn short(key: &str) -> &str {
    key.get(..12).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str, key: &str) -> PeerInfo {
        super::super::contacts::tests::peer(name, None, key)
    }

    fn found(to: &str, peers: &[PeerInfo], contacts: &Contacts) -> Result<String, &'static str> {
        let recipient = key_of(to, peers, contacts).map_err(|failure| failure.code);
        recipient.map(|recipient| recipient.key)
    }

    fn met(peers: &[PeerInfo]) -> Contacts {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = super::super::contacts::tests::kept(folder.path(), "m", "ws://a/ws");
        remember(folder.path(), &kept, peers);
        Contacts::of(folder.path(), &kept)
    }

    #[test]
    fn a_name_means_the_member_whatever_its_case_and_sessions() {
        let (ada, bob) = ("ab".repeat(32), "bc".repeat(32));
        let peers = [peer("Ada", &ada), peer("Ada", &ada), peer("bob", &bob)];
        let none = Contacts::default();
        assert_eq!(found("ada", &peers, &none), Ok(ada.clone()));
        assert_eq!(found("BOB", &peers, &none), Ok(bob.clone()));
        assert_eq!(found(&bob, &[], &none), Ok(bob.clone()));
        assert_eq!(found(&ada[..8], &peers, &none), Ok(ada));
    }

    #[test]
    fn two_of_a_name_are_listed_and_nobody_is_guessed() {
        let peers = [peer("ada", &"ab".repeat(32)), peer("Ada", &"bc".repeat(32))];
        let failure = key_of("ada", &peers, &Contacts::default()).unwrap_err();
        assert_eq!(failure.code, "ambiguous_recipient");
        assert!(failure.message.contains(&"bc".repeat(32)), "{failure}");
        let failure = key_of("carol", &peers, &Contacts::default()).unwrap_err();
        assert_eq!(failure.code, "no_such_recipient");
        assert!(failure.message.contains("ada"), "{failure}");
    }

    #[test]
    fn an_enrolled_name_comes_before_a_sessions() {
        let (ada, mallory) = ("ab".repeat(32), "cd".repeat(32));
        let named = super::super::contacts::tests::peer;
        let peers = [named("laptop", Some("ada"), &ada), named("ada", Some("mallory"), &mallory)];
        assert_eq!(found("ada", &peers, &Contacts::default()), Ok(ada.clone()));
        assert_eq!(found("laptop", &peers, &Contacts::default()), Ok(ada));
    }

    #[test]
    fn nothing_is_sealed_for_a_new_key_of_a_known_name() {
        let (ada, mallory) = ("ab".repeat(32), "cd".repeat(32));
        let known = met(&[peer("ada", &ada)]);
        let here = [peer("Ada", &mallory)];
        let failure = key_of("ada", &here, &known).unwrap_err();
        assert_eq!(failure.code, "key_changed");
        for words in ["abababababab", "cdcdcdcdcdcd", "peer forget ada"] {
            assert!(failure.message.contains(words), "{failure}");
        }
        assert_eq!(found(&mallory, &here, &known), Ok(mallory), "a key is a key");
        assert_eq!(found("ada", &[], &known), Ok(ada), "away, it means whom it meant");
    }

    #[test]
    fn a_name_in_a_failure_cannot_steer_the_terminal() {
        let peers = [peer("\u{1b}]0;x\u{7}\nb", &"ab".repeat(32))];
        let failure = key_of("carol", &peers, &Contacts::default()).unwrap_err();
        assert!(!failure.message.contains(char::is_control), "{failure}");
    }
}
