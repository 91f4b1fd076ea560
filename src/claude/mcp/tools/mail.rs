//! `check_messages` and `message_status`.

use rmcp::schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::super::at::unreadable;
use super::super::shown::{self, NAME_CHARS};
use super::{At, Call, Effect, Said};
use crate::claude::framing::{self, Room};
use crate::claude::spool::{Counts, Letter, Wanted, Way};
use crate::clock::Timestamp;
use crate::id::MessageId;
use crate::protocol::{self, Ask, MessageStatusResult};

/// Messages of one answer.
const SHOWN_MAX: u32 = 50;
/// Those of one that says nothing of it.
const SHOWN_DEFAULT: u32 = 20;
/// Characters of one answer, and of one message in it.
const ROOM: Room = Room { text: 24_000, body: 16_000 };
/// The same where a message is longer: then it stands alone.
const ALONE: Room = Room { text: 64_000, body: 60_000 };
/// Messages that one call may name as seen.
const NAMED_MAX: usize = 100;

/// Shows what waits.
#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
pub(super) struct CheckMessages {
    /// As many at most; 20 if not said, 50 at most.
    limit: Option<u32>,
    /// Ids of messages that you have read already, in a `<channel>` block: they do not come
    /// again.
    seen: Option<Vec<String>>,
    /// Show this one message, whole, also if you have read it: for one that was cut.
    id: Option<String>,
}

impl Call for CheckMessages {
    const NAME: &'static str = "check_messages";
    const ABOUT: &'static str = "Read the messages of peers that wait for you. What it shows counts as read, and does not \
                                 come again; call it again for the rest.";
    const EFFECT: Effect = Effect::Adds;

    async fn run(self, at: &At) -> Said {
        for id in self.seen.iter().flatten().take(NAMED_MAX) {
            at.named(id).await?;
        }
        if let Some(id) = &self.id {
            return one(at, id).await;
        }
        let (spool, now) = (&at.link.party().spool, Timestamp::now());
        let limit = self.limit.unwrap_or(SHOWN_DEFAULT).clamp(1, SHOWN_MAX);
        let wanted = Wanted { pushed_too: true, ..Wanted::default() };
        let reading = async {
            let letters = spool.waiting(wanted, limit, now).await?;
            anyhow::Ok((letters, spool.counts(now).await?))
        };
        let (mut letters, counts) = reading.await.map_err(|error| unreadable(&error))?;
        if letters.is_empty() {
            return Ok(nothing(at));
        }
        let short = letters.iter().take_while(|letter| !is_long(letter)).count();
        letters.truncate(short.max(1));
        let frame =
            at.show(letters, Way::ToolResult, if short == 0 { ALONE } else { ROOM }).await?;
        if frame.ids.is_empty() {
            return Ok(nothing(at));
        }
        Ok(format!("{}{}", frame.text, rest(&counts, frame.ids.len())))
    }
}

fn is_long(letter: &Letter) -> bool {
    letter.message.body.len() > ROOM.body
}

/// One message by its id.
async fn one(at: &At, id: &str) -> Said {
    let found = at.link.party().spool.find(&[MessageId::from(id)]).await;
    let letter = found.map_err(|error| unreadable(&error))?.pop();
    let shown = shown::text(id, NAME_CHARS);
    let letter = letter.ok_or_else(|| format!("No message {shown} is on this machine."))?;
    let frame = if letter.seen {
        framing::frame(&[letter], ALONE, Timestamp::now())
    } else {
        at.show(vec![letter], Way::ToolResult, ALONE).await?
    };
    if frame.ids.is_empty() {
        return Err(format!("Message {shown} is being shown another way at this moment."));
    }
    Ok(frame.text)
}

fn nothing(at: &At) -> String {
    match at.client() {
        Ok(_) => "No messages wait. New ones come to you by themselves.".to_owned(),
        Err(why) => format!("No messages wait on this machine. {why}"),
    }
}

fn rest(counts: &Counts, shown: usize) -> String {
    let more = counts.unread.saturating_sub(i64::try_from(shown).unwrap_or(i64::MAX));
    if more > 0 { format!("\n{}", framing::more(more)) } else { String::new() }
}

/// Says how far a message is.
#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
pub(super) struct MessageStatus {
    /// The id that send_message returned, or its first 8 or more characters.
    id: String,
}

impl Call for MessageStatus {
    const NAME: &'static str = <protocol::MessageStatus as Ask>::TYPE;
    const ABOUT: &'static str = "Say how far a message that you sent is, with each recipient: kept (it waits, the peer is \
                                 away or busy), pushed, confirmed (on the peer's machine), surfaced (the peer's model was \
                                 given it), expired, withdrawn, blocked.";
    const EFFECT: Effect = Effect::Reads;

    async fn run(self, at: &At) -> Said {
        if at.named(&self.id).await?.is_some() {
            return Ok("That message was sent to you, and you have it. message_status is for those that you sent."
                .to_owned());
        }
        let client = at.client()?;
        let status = client.message_status(&self.id).await.map_err(|error| shown::why(&error))?;
        Ok(words(&status))
    }
}

fn words(status: &MessageStatusResult) -> String {
    let id = shown::text(&status.message_id, NAME_CHARS);
    if status.recipients.is_empty() {
        return format!("Message {id} has no recipient that is known now.");
    }
    let all = status.recipients.len();
    let counted = |what: &str, count: usize| (count > 0).then(|| format!("{count} {what}"));
    let mut stages: Vec<(&str, usize)> = Vec::new();
    for recipient in &status.recipients {
        let stage = recipient.stage.as_str();
        match stages.iter_mut().find(|(known, _)| *known == stage) {
            Some((_, count)) => *count += 1,
            None => stages.push((stage, 1)),
        }
    }
    let summary: Vec<String> =
        stages.iter().filter_map(|(stage, count)| counted(stage, *count)).collect();
    let heading = format!("Message {id} to {all}: {}.", summary.join(", "));
    let rows = status.recipients.iter().map(|recipient| {
        shown::row(&json!({
            "name": shown::cut(&recipient.name, NAME_CHARS),
            "key": recipient.pubkey.get(..16).unwrap_or(&recipient.pubkey),
            "stage": recipient.stage,
            "at": recipient.at,
        }))
    });
    shown::list(&heading, rows)
}
