//! Whom `to` means.
//!
//! A member may have several sessions, and those of one user are often all of one member.
//! So a name that is a session's own means that session; a member's name means the member,
//! wherever it is; and an answer goes back to the very session that wrote, if that is still
//! here. Nobody is guessed.

use super::super::shown::{self, NAME_CHARS};
use super::At;
use crate::auth::is_public_key;
use crate::claude::spool::Incoming;
use crate::client::Client;
use crate::keyring::contacts::Contacts;
use crate::keyring::recipient::{key_of, short};
use crate::limits;
use crate::protocol::{PeerInfo, PeerRole};

/// Whom a message goes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Whom {
    /// The target, as the broker takes it.
    pub(super) target: String,
    /// Words for it.
    pub(super) shown: String,
}

impl Whom {
    /// Looks `to` up among those who are here and those who were met; `answered` is the
    /// message that is answered, if one is.
    pub(super) async fn of(
        at: &At,
        client: &Client,
        to: &str,
        answered: Option<&Incoming>,
    ) -> Result<Self, String> {
        let to = to.trim();
        if to == "*" || to.starts_with(['@', '#']) {
            let shown = shown::text(to, NAME_CHARS);
            return Ok(Self { target: to.to_owned(), shown });
        }
        let peers = client.list_peers().await.map_err(|error| shown::why(&error))?;
        // The contacts as they were known before this look.
        let contacts = at.contacts().await;
        at.meet(&peers).await;
        let own = Own {
            session: client.pubkey().to_string(),
            member: client.member_pubkey().to_string(),
        };
        choose(to, &peers, &contacts, &own, answered)
    }
}

/// Who asks.
struct Own {
    session: String,
    member: String,
}

fn choose(
    to: &str,
    peers: &[PeerInfo],
    contacts: &Contacts,
    own: &Own,
    answered: Option<&Incoming>,
) -> Result<Whom, String> {
    if let Some(message) = answered.filter(|message| wrote(message, to)) {
        return Ok(back_to(message, peers));
    }
    if is_public_key(to) {
        return Ok(Whom { target: to.to_owned(), shown: short(to).to_owned() });
    }
    let others: Vec<&PeerInfo> = peers
        .iter()
        .filter(|peer| peer.peer_role == PeerRole::Session && peer.pubkey != own.session)
        .collect();
    let sessions = sessions_of(to, &others);
    let is_member = |name: &str| name.to_lowercase() == to.to_lowercase();
    let enrolled = peers.iter().any(|peer| peer.member_name.as_deref().is_some_and(is_member))
        || contacts.named(to).next().is_some();
    if !enrolled || sessions.iter().all(|session| session.member_pubkey == own.member) {
        match sessions[..] {
            [one] => return Ok(session(one)),
            [_, _, ..] => return Err(several(to, &sessions)),
            [] => {}
        }
    }
    let found = key_of(to, peers, contacts).map_err(|failure| advice(&failure.message))?;
    if found.key == own.member {
        return Err(own_name(to, &others, own));
    }
    let name = found.name.unwrap_or_else(|| to.to_owned());
    let shown = format!("{} ({})", shown::text(&name, NAME_CHARS), short(&found.key));
    Ok(Whom { target: found.key, shown })
}

/// Whether `to` means who wrote the message.
fn wrote(message: &Incoming, to: &str) -> bool {
    let lower = to.to_lowercase();
    let names = [Some(&message.sender_name), message.sender_session_name.as_ref()];
    let keys = [Some(&message.sender_key), message.sender_session_key.as_ref()];
    let is_prefix = to.len() >= limits::KEY_PREFIX_DIGITS_MIN;
    names.into_iter().flatten().any(|name| name.to_lowercase() == lower)
        || keys.into_iter().flatten().any(|key| is_prefix && key.as_str().starts_with(&lower))
}

fn back_to(message: &Incoming, peers: &[PeerInfo]) -> Whom {
    let here = message
        .sender_session_key
        .as_ref()
        .and_then(|key| peers.iter().find(|peer| peer.pubkey == key.as_str()));
    match here {
        Some(peer) => session(peer),
        None => {
            let name = shown::text(&message.sender_name, NAME_CHARS);
            let key = message.sender_key.as_str();
            Whom { target: key.to_owned(), shown: format!("{name} ({})", short(key)) }
        }
    }
}

fn session(peer: &PeerInfo) -> Whom {
    let name = shown::text(&peer.display_name, NAME_CHARS);
    let member = peer.member_name.as_deref().filter(|name| *name != peer.display_name);
    let member = member.map(|name| format!("a session of {}, ", shown::text(name, NAME_CHARS)));
    let shown = format!("{name} ({}{})", member.unwrap_or_default(), short(&peer.pubkey));
    Whom { target: peer.pubkey.clone(), shown }
}

/// The sessions that chose this name, or whose key begins so.
fn sessions_of<'a>(to: &str, others: &[&'a PeerInfo]) -> Vec<&'a PeerInfo> {
    let lower = to.to_lowercase();
    let named = |peer: &&&PeerInfo| peer.display_name.to_lowercase() == lower;
    let found: Vec<&PeerInfo> = others.iter().filter(named).copied().collect();
    if !found.is_empty() || to.len() < limits::KEY_PREFIX_DIGITS_MIN {
        return found;
    }
    others.iter().filter(|peer| peer.pubkey.starts_with(&lower)).copied().collect()
}

fn several(to: &str, sessions: &[&PeerInfo]) -> String {
    let to = shown::text(to, NAME_CHARS);
    let each: Vec<String> = sessions.iter().map(|peer| session(peer).shown).collect();
    format!(
        "{to} may mean any of these; give the first 16 digits of the key that list_peers shows instead: {}",
        each.join(", ")
    )
}

/// A message to one's own member would come back to this session.
fn own_name(to: &str, others: &[&PeerInfo], own: &Own) -> String {
    let siblings: Vec<&PeerInfo> =
        others.iter().filter(|peer| peer.member_pubkey == own.member).copied().collect();
    let to = shown::text(to, NAME_CHARS);
    if siblings.is_empty() {
        return format!("{to} is you; nobody else of that name is here.");
    }
    let each: Vec<String> = siblings.iter().map(|peer| session(peer).shown).collect();
    format!(
        "{to} is you. Other sessions of yours: {}; use a session's own name or key.",
        each.join(", ")
    )
}

/// A sentence that was written for people at a terminal.
fn advice(message: &str) -> String {
    format!("{} (list_peers shows who is here.)", shown::text(message, 600))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::id::{Key, MessageId};
    use crate::protocol::Priority;

    fn peer(name: &str, member: &str, member_key: &str, key: &str) -> PeerInfo {
        let mut peer = crate::keyring::contacts::tests::peer(name, Some(member), member_key);
        key.clone_into(&mut peer.pubkey);
        peer
    }

    fn key(letters: &str) -> String {
        letters.repeat(32)
    }

    fn own() -> Own {
        Own { session: key("00"), member: key("0a") }
    }

    fn to(to: &str, peers: &[PeerInfo], answered: Option<&Incoming>) -> Result<String, String> {
        choose(to, peers, &Contacts::default(), &own(), answered).map(|whom| whom.target)
    }

    fn message(from: &str, member_key: &str, session_key: &str) -> Incoming {
        Incoming {
            message_id: MessageId::from("m1"),
            client_message_id: None,
            sender_key: Key::from(member_key),
            sender_session_key: Some(Key::from(session_key)),
            sender_name: from.to_owned(),
            sender_session_name: Some("api".to_owned()),
            mesh: "team".to_owned(),
            target: None,
            to_many: None,
            for_session: false,
            priority: Priority::Next,
            subtype: None,
            sent_at: Timestamp::from_ms(0),
            expires_at: None,
            thread_id: None,
            reply_to_id: None,
            expects_reply: None,
            hop: None,
            newer_from_sender: None,
            is_sealed: None,
            redelivered: false,
            seq: None,
            body: String::new(),
        }
    }

    #[test]
    fn a_sessions_own_name_means_that_session_and_a_members_name_the_member() {
        let peers = [
            peer("api", "ada", &key("0a"), &key("11")),
            peer("web", "ada", &key("0a"), &key("00")),
            peer("laptop", "bob", &key("0b"), &key("22")),
            peer("desk", "bob", &key("0b"), &key("33")),
        ];
        assert_eq!(to("api", &peers, None), Ok(key("11")));
        assert_eq!(to("API", &peers, None), Ok(key("11")));
        assert_eq!(to("bob", &peers, None), Ok(key("0b")));
        assert_eq!(to("desk", &peers, None), Ok(key("33")));
        assert_eq!(to(&key("33")[..16], &peers, None), Ok(key("33")));
        assert_eq!(to(&key("0b"), &peers, None), Ok(key("0b")));
        let wrong = to("ada", &peers, None).unwrap_err();
        assert!(wrong.contains("is you") && wrong.contains("api"), "{wrong}");
    }

    #[test]
    fn two_sessions_of_a_name_are_told_apart_by_their_keys() {
        let peers = [
            peer("api", "bob", &key("0b"), &key("11")),
            peer("api", "carol", &key("0c"), &key("22")),
        ];
        let wrong = to("api", &peers, None).unwrap_err();
        assert!(wrong.contains(&key("11")[..12]) && wrong.contains("carol"), "{wrong}");
    }

    #[test]
    fn no_session_takes_the_name_of_a_member() {
        let peers = [
            peer("desk", "bob", &key("0b"), &key("22")),
            peer("bob", "mallory", &key("0e"), &key("ee")),
        ];
        assert_eq!(to("bob", &peers, None), Ok(key("0b")));
    }

    #[test]
    fn sessions_of_one_member_under_its_name_write_to_each_other() {
        let peers = [
            peer("ada", "ada", &key("0a"), &key("11")),
            peer("ada", "ada", &key("0a"), &key("00")),
        ];
        assert_eq!(to("ada", &peers, None), Ok(key("11")));
    }

    #[test]
    fn an_answer_goes_to_the_session_that_wrote_or_to_its_member() {
        let asked = message("bob", &key("0b"), &key("22"));
        let desk = peer("desk", "bob", &key("0b"), &key("33"));
        let laptop = peer("laptop", "bob", &key("0b"), &key("22"));
        let both = [desk.clone(), laptop];
        for name in ["bob", "api", &key("22"), &key("22")[..16], &key("0b")] {
            assert_eq!(to(name, &both, Some(&asked)), Ok(key("22")), "{name}");
        }
        assert_eq!(to("bob", &[desk], Some(&asked)), Ok(key("0b")), "that session is gone");
        assert_eq!(to("desk", &both, Some(&asked)), Ok(key("33")), "somebody else is meant");
    }
}
