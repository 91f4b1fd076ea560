//! Messages to groups and to everyone: sealed for all members where those who are here can
//! open them.

use std::collections::HashSet;
use std::fmt;

use super::requests::next_page;
use super::{Body, Client, ClientError, Outgoing};
use crate::id::Key;
use crate::protocol::{Ack, ListMembers, MemberListed, SealingPolicy, capability};

/// Members that a sentence names; of more it says how many.
const NAMES_MAX: usize = 5;

/// Whether anybody but its recipients can read what was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// Nobody can.
    Sealed,
    /// The broker can: it was sent in clear, as the mesh asks, or since these members, by
    /// name, could not have opened it, or since the broker has no sealed ones.
    InClear {
        /// Members that are here and cannot open what is sealed.
        because_of: Vec<String>,
    },
}

impl Secrecy {
    /// Whether nobody else can.
    #[must_use]
    pub const fn is_sealed(&self) -> bool {
        matches!(self, Self::Sealed)
    }
}

impl fmt::Display for Secrecy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sealed => out.write_str("sealed"),
            Self::InClear { because_of } if because_of.is_empty() => out.write_str("in clear"),
            Self::InClear { because_of } => {
                let names = because_of[..because_of.len().min(NAMES_MAX)].join(", ");
                let others = match because_of.len().saturating_sub(NAMES_MAX) {
                    0 => String::new(),
                    others => format!(" and {others} more"),
                };
                write!(out, "in clear, since {names}{others} cannot open what is sealed")
            }
        }
    }
}

/// A message that was taken.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The broker's answer.
    pub ack: Ack,
    /// Who can read it.
    pub secrecy: Secrecy,
}

impl Client {
    /// Every member of the mesh, here or away.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn list_members(&self) -> Result<Vec<MemberListed>, ClientError> {
        Ok(self.members_and_policy().await?.0)
    }

    /// The members, and what the mesh asks of messages to many.
    async fn members_and_policy(&self) -> Result<(Vec<MemberListed>, SealingPolicy), ClientError> {
        let (mut members, mut ask) = (Vec::new(), ListMembers::default());
        loop {
            let page = self.ask(&ask).await?;
            members.extend(page.members);
            ask.cursor = next_page(page.more, page.cursor, ask.cursor.as_ref());
            if ask.cursor.is_none() {
                return Ok((members, page.sealing));
            }
        }
    }

    /// Sends so that the broker cannot read it, where that is possible, and says whether it
    /// was: to a key always; to a group or to everyone if all that are here can open it, or
    /// if the mesh takes none in clear. Members that are away get it when they are back, with
    /// a client that can open it; whom it is not for now, the ack says.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_sealed(&self, mut message: Outgoing<'_>) -> Result<Sent, ClientError> {
        let (recipients, secrecy) = match message.target {
            "*" => self.recipients().await?,
            group if group.starts_with('@') => self.recipients().await?,
            topic if topic.starts_with('#') => (None, self.seal_post(&mut message).await?),
            _ => (None, Secrecy::Sealed),
        };
        let ack = self.send_nowait_to(message, recipients.as_deref()).await?.await?;
        if ack.queued {
            return Ok(Sent { ack, secrecy });
        }
        Err(ClientError::Rejected(Box::new(ack.into())))
    }

    /// Seals a post for its topic's members, where that is possible.
    async fn seal_post(&self, message: &mut Outgoing<'_>) -> Result<Secrecy, ClientError> {
        let Body::Text(text) = message.body else { return Ok(Secrecy::Sealed) };
        let text = String::from_utf8_lossy(text);
        let (sealed, secrecy) = self.seal_for_later(message.target, &text).await?;
        if let Some(sealed) = sealed {
            message.body = Body::Kept(sealed);
        }
        Ok(secrecy)
    }

    /// Whom to seal for; nobody where it is to go in clear.
    pub(super) async fn recipients(&self) -> Result<(Option<Vec<Key>>, Secrecy), ClientError> {
        let offers = self.hello_ack().features;
        if !offers.iter().any(|feature| feature == capability::SEALED_MULTICAST) {
            return Ok((None, Secrecy::InClear { because_of: Vec::new() }));
        }
        let (members, policy) = self.members_and_policy().await?;
        if policy == SealingPolicy::Off {
            return Ok((None, Secrecy::InClear { because_of: Vec::new() }));
        }
        let own = self.member_pubkey();
        let others: Vec<MemberListed> =
            members.into_iter().filter(|member| member.pubkey != own).collect();
        let unable: Vec<String> = others
            .iter()
            .filter(|member| member.online && !member.sealed)
            .map(|member| member.name.clone())
            .collect();
        // Where all must be sealed, those who cannot open it get nothing.
        if !unable.is_empty() && policy != SealingPolicy::Required {
            return Ok((None, Secrecy::InClear { because_of: unable }));
        }
        let keys: HashSet<Key> = others.into_iter().map(|member| member.pubkey).collect();
        Ok((Some(keys.into_iter().collect()), Secrecy::Sealed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_names_a_few_of_those_because_of_whom_it_is_in_clear() {
        let because_of = |names: &[&str]| Secrecy::InClear {
            because_of: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        assert_eq!(because_of(&[]).to_string(), "in clear");
        let one = because_of(&["old"]).to_string();
        assert_eq!(one, "in clear, since old cannot open what is sealed");
        let many = because_of(&["a", "b", "c", "d", "e", "f", "g"]).to_string();
        assert_eq!(many, "in clear, since a, b, c, d, e and 2 more cannot open what is sealed");
    }
}
