//! Where a tool call takes place: the session that the process has at that moment, and
//! the call itself.

use std::sync::Arc;

use parking_lot::Mutex;
use rmcp::model::RequestId;

use super::calls::Calls;
use super::shown::{self, Said, why};
use super::ways::Ways;
use crate::claude::framing::{self, Framed, Room};
use crate::claude::link::{self, Link, Spoken, State};
use crate::claude::spool::{Letter, Wanted, Way};
use crate::client::{Client, Kept};
use crate::clock::Timestamp;
use crate::id::MessageId;
use crate::keyring::contacts::Contacts;
use crate::limits;
use crate::protocol::{Ask, PeerInfo};

/// Urgent messages that are appended to the answer of another tool.
const APPENDED_MAX: u32 = 5;
/// Characters of those.
const APPENDED: Room = Room { text: 6_000, body: 3_000 };
/// How long an answer holds what it shows, until the pipe says what became of it.
const ANSWER_HOLDS_MS: i64 = limits::OFFER_MS;

/// One call of a tool.
pub(super) struct At {
    pub(super) link: Link,
    pub(super) calls: Arc<Calls<Link>>,
    pub(super) ways: Arc<Mutex<Ways>>,
    pub(super) call: RequestId,
}

impl At {
    /// The connection, or what there is to say instead.
    pub(super) fn client(&self) -> Result<Client, String> {
        match self.link.state() {
            State::Here(client) => Ok(client),
            State::Away(why) => {
                let why = why.map(|why| format!(" ({})", shown::text(&why, 200)));
                Err(format!(
                    "The broker cannot be reached at the moment{}. The connection is made again by \
                     itself: go on with your work, and try again in a minute or so. Messages that \
                     are here already are shown by check_messages.",
                    why.unwrap_or_default()
                ))
            }
            State::Refused(why) => Err(format!(
                "The broker does not let this session in: {}. Tell your user; `claudemesh-broker \
                 claude doctor` says more.",
                shown::text(&why, 200)
            )),
            State::Replaced => Err(
                "Another process has taken this session over, and is the session in the mesh now. \
                                    Tell your user: close one of the two, or reconnect this server."
                    .to_owned(),
            ),
        }
    }

    /// Asks the broker.
    pub(super) async fn ask<R: Ask>(&self, asked: &R) -> Result<R::Answer, String> {
        self.client()?.ask(asked).await.map_err(|error| why(&error))
    }

    /// Asks for something to be kept for all members; says whether it is sealed.
    pub(super) async fn keep<R: Ask + Kept + Send>(
        &self,
        asked: R,
    ) -> Result<(R::Answer, String), String> {
        let (answer, secrecy) = self.client()?.keep(asked).await.map_err(|error| why(&error))?;
        Ok((answer, shown::text(&secrecy.to_string(), shown::SENTENCE_CHARS)))
    }

    /// Asks the broker, and opens what members have kept.
    pub(super) async fn ask_opened<R>(&self, asked: &R) -> Result<R::Answer, String>
    where
        R: Ask,
        R::Answer: Kept + Send,
    {
        self.client()?.ask_opened(asked).await.map_err(|error| why(&error))
    }

    /// Asks the broker for what is said of the session itself, and has it said again
    /// whenever the broker forgets it.
    pub(super) async fn say<R: Ask>(
        &self,
        asked: &R,
        note: impl FnOnce(&mut Spoken) + Send,
    ) -> Result<(), String> {
        self.ask(asked).await?;
        self.link.speak(note);
        Ok(())
    }

    /// The mesh's name.
    pub(super) fn mesh(&self) -> &str {
        &self.link.party().kept.file.mesh_slug
    }

    /// Who was met in the mesh.
    pub(super) async fn contacts(&self) -> Contacts {
        let (data_dir, kept) = (self.link.party().data_dir.clone(), self.link.party().kept.clone());
        let reading = tokio::task::spawn_blocking(move || Contacts::of(&data_dir, &kept));
        reading.await.unwrap_or_default()
    }

    /// Notes who is here.
    pub(super) async fn meet(&self, peers: &[PeerInfo]) {
        link::remember(self.link.party(), peers.to_vec()).await;
    }

    /// The message that the model names by its id. That it can is evidence that it has
    /// seen it.
    pub(super) async fn named(&self, id: &str) -> Result<Option<Letter>, String> {
        let spool = &self.link.party().spool;
        let naming = async {
            let letter = spool.find(&[MessageId::from(id)]).await?.pop();
            if let Some(letter) = &letter {
                let seen = spool.seen(&[letter.id], Way::Channel, Timestamp::now()).await?;
                self.ways.lock().named(&seen);
                self.link.stir();
            }
            anyhow::Ok(letter)
        };
        naming.await.map_err(|error| unreadable(&error))
    }

    /// Notes that the session has answered a message.
    pub(super) async fn answered(&self, id: &MessageId) {
        let noted = self.link.party().spool.answered(id, Timestamp::now()).await;
        if let Err(error) = noted {
            tracing::debug!(error = format!("{error:#}"), "an answer is not noted");
        }
    }

    /// Shows messages in the answer to this call, as many as fit; they are seen when the
    /// answer is with the host.
    pub(super) async fn show(
        &self,
        letters: Vec<Letter>,
        way: Way,
        room: Room,
    ) -> Result<Framed, String> {
        let (spool, now) = (&self.link.party().spool, Timestamp::now());
        let ids: Vec<i64> = letters.iter().map(|letter| letter.id).collect();
        let until = now.plus_ms(ANSWER_HOLDS_MS);
        let got = spool.offer(&ids, way, until, now).await;
        let got = got.map_err(|error| unreadable(&error))?;
        let letters: Vec<Letter> =
            letters.into_iter().filter(|letter| got.contains(&letter.id)).collect();
        let frame = framing::frame(&letters, room, now);
        let (shown, left): (Vec<i64>, Vec<i64>) =
            got.into_iter().partition(|id| frame.ids.contains(id));
        if let Err(error) = spool.give_back(&left).await {
            tracing::debug!(error = format!("{error:#}"), "messages wait for their lease");
        }
        self.ways.lock().shown(&shown);
        self.calls.shows(&self.call, self.link.clone(), shown);
        Ok(frame)
    }

    /// What is urgent and waits, to be appended to an answer.
    pub(super) async fn urgent(&self) -> Option<String> {
        let wanted = Wanted { urgent_or_before: Some(Timestamp::from_ms(0)), ..Wanted::default() };
        let spool = &self.link.party().spool;
        let letters = spool.waiting(wanted, APPENDED_MAX, Timestamp::now()).await.ok()?;
        if letters.is_empty() {
            return None;
        }
        // One that the channel takes in this moment is left to it, and not shown twice.
        let frame = self.show(letters, Way::Beside, APPENDED).await.ok()?;
        (!frame.ids.is_empty()).then_some(frame.text)
    }
}

/// The spool cannot be read or written.
pub(super) fn unreadable(error: &anyhow::Error) -> String {
    tracing::warn!(error = format!("{error:#}"), "the spool fails");
    "The messages on this machine cannot be read at the moment; try again, and tell your user if \
     it stays so: `claudemesh-broker claude doctor` says what is wrong."
        .to_owned()
}

/// An answer with what is urgent behind it.
pub(super) async fn with_urgent(at: &At, said: Said) -> Said {
    match (said, at.urgent().await) {
        (said, None) => said,
        (Ok(text), Some(urgent)) => Ok(format!("{text}\n\n{urgent}")),
        (Err(text), Some(urgent)) => Err(format!("{text}\n\n{urgent}")),
    }
}
