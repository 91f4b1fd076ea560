//! Whom a name means: of those who are in the mesh now, and of those who were met before.
//! Nobody is guessed, and nothing is sealed for a new key of a known name.

use super::contacts::{Contacts, name_of};
use crate::auth::is_public_key;
use crate::limits;
use crate::output::{self, Failure};
use crate::protocol::PeerInfo;

/// Whom `to` means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Recipient {
    /// A member's key, so that the message waits if nobody is there.
    pub(crate) key: String,
    /// The name that the member was enrolled under, as far as it is known.
    pub(crate) name: Option<String>,
}

/// The key that `to` means: itself if it is one, else that of the one peer of this
/// name, here now or met before. An enrolled name comes before a session's, which is
/// its own choice; a name that was met before means the key that it had then.
pub(crate) fn key_of(
    to: &str,
    peers: &[PeerInfo],
    contacts: &Contacts,
) -> Result<Recipient, Failure> {
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
    let word = output::shell_word(to);
    let message = format!(
        "{to:?} has another key than when it was met: {} now, {} then; nothing was sent. Compare \
         the number of `claudemesh-broker peer verify {word}` with them by another way; if it is \
         the same for both, take the key: claudemesh-broker peer verify {word} --accept",
        short(now),
        short(before),
    );
    Failure::new("key_changed", message)
}

/// A key's first characters, as lists show them.
pub(crate) fn short(key: &str) -> &str {
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
        super::super::contacts::remember(folder.path(), &kept, peers);
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
        for words in ["abababababab", "cdcdcdcdcdcd", "peer verify ada --accept"] {
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
