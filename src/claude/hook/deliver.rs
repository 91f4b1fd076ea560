//! What the model is shown at which event: between two tools only what is urgent, or has
//! been held for too long; at a turn's end the rest, which puts the end off, a few times;
//! beside what the user types, and at a start, everything.
//!
//! A message counts as seen once the answer that holds it was written and flushed, inside
//! the hook's own deadline, which is shorter than any host's.

use serde_json::Value;

use super::event::{Call, Event};
use super::harness::Harness;
use super::{Home, Mouth};
use crate::claude::framing::{self, Room, shown};
use crate::claude::home::{Binding, Host, HostInbox, Process, Start};
use crate::claude::spool::{Letter, Spool, Wanted, Way};
use crate::clock::Timestamp;
use crate::config::process_env;
use crate::limits;

/// As many messages are looked at for one text: more never fit.
const LETTERS_MAX: u32 = 64;

/// Messages whose senders wait for an answer, as they are named to a model that forgot.
const UNANSWERED_MAX: u32 = 8;

/// Sessions that are no more whose mail a new one looks for.
const LEFT_BEHIND_MAX: usize = 4;

/// Does what the event asks for, and says what the model is to be shown.
pub(super) async fn run(
    home: &Home,
    call: &Call,
    harness: Harness,
    peer: Option<&str>,
    mouth: &Mouth,
) -> anyhow::Result<()> {
    let now = Timestamp::now();
    let inbox = inbox(call, harness);
    let host = Host {
        session: &call.session,
        process: host_process(harness),
        start: call.start,
        inbox: inbox.as_ref(),
    };
    if call.event == Event::SessionEnd {
        return end(home, call, &host, now).await;
    }
    let Some(binding) = home.bind(&host, peer, now)? else { return Ok(()) };
    let spool = home.spool(&binding.session).await?;
    begin(home, &spool, &binding, call, now).await?;
    let (wanted, way) = wanted(call, now);
    let waits = !spool.waiting(wanted, 1, now).await?.is_empty();
    let may = match call.event {
        Event::Stop => waits && spool.may_continue(call.prompt.as_deref(), call.continued).await?,
        _ => harness.shows(call.event),
    };
    if !may {
        return rests(call, &spool, now).await;
    }
    let intro = match call.event {
        Event::SessionStart => introduction(home, &spool, &binding, call).await?,
        _ => String::new(),
    };
    let text = Text { call, harness, wanted, way, intro };
    if !text.show(&spool, mouth, now).await? {
        rests(call, &spool, now).await?;
    }
    Ok(())
}

/// Nothing was shown: a turn that was about to end has ended.
async fn rests(call: &Call, spool: &Spool, now: Timestamp) -> anyhow::Result<()> {
    if call.event == Event::Stop {
        spool.idles(now).await?;
    }
    Ok(())
}

/// The running host. Codex names none, and what it inherits may be another host's.
pub(super) fn host_process(harness: Harness) -> Process {
    let named = match harness {
        Harness::Claude => process_env("CLAUDE_PID"),
        Harness::Codex => None,
    };
    Process::host(named.as_deref())
}

fn inbox(call: &Call, harness: Harness) -> Option<HostInbox> {
    let says = matches!(call.event, Event::SessionStart | Event::UserPromptSubmit);
    if !says || harness == Harness::Codex {
        return None;
    }
    let set = |name| process_env(name).filter(|value| !value.is_empty());
    let socket = set("CLAUDE_CODE_MESSAGING_SOCKET")?;
    Some(HostInbox { socket, token: set("CLAUDE_CODE_MESSAGING_TOKEN") })
}

/// Keeps where the host is in its work, and takes over what nobody else will read.
async fn begin(
    home: &Home,
    spool: &Spool,
    binding: &Binding,
    call: &Call,
    now: Timestamp,
) -> anyhow::Result<()> {
    let prompt = call.prompt.as_deref();
    match call.event {
        // A context is compacted in the middle of a turn as well.
        Event::SessionStart if call.start == Start::GoesOn => {}
        Event::SessionStart => spool.idles(now).await?,
        Event::UserPromptSubmit => spool.turn_begins(prompt, now).await?,
        Event::PostToolBatch | Event::PostToolUse | Event::PostToolUseFailure => {
            spool.works(prompt, now).await?;
        }
        // A turn that its user broke off has no end of its own.
        Event::Notification if call.waits => spool.idles(now).await?,
        Event::Notification | Event::Stop | Event::SessionEnd => {}
    }
    if call.start == Start::New
        && let Some(session) = home.session(&binding.session)?
    {
        let left = home.left_behind(&session.peer, &binding.session)?;
        for other in left.iter().take(LEFT_BEHIND_MAX) {
            let other = home.spool(other).await?;
            spool.take_over(&other, now).await?;
            other.close().await;
        }
    }
    Ok(())
}

async fn end(home: &Home, call: &Call, host: &Host<'_>, now: Timestamp) -> anyhow::Result<()> {
    if let Some(binding) = home.of_host(host)? {
        home.spool(&binding.session).await?.idles(now).await?;
    }
    if !call.goes_on {
        home.unbind(host.process)?;
    }
    Ok(())
}

fn wanted(call: &Call, now: Timestamp) -> (Wanted, Way) {
    let all = Wanted::default();
    match call.event {
        Event::SessionStart | Event::Notification | Event::SessionEnd => (all, Way::SessionStart),
        Event::UserPromptSubmit => (all, Way::Prompt),
        Event::PostToolBatch | Event::PostToolUse | Event::PostToolUseFailure => {
            let held = Some(now.plus_ms(-limits::HELD_MAX_MS));
            (Wanted { urgent_or_before: held, ..all }, Way::Tools)
        }
        // What a turn's end was put off for once is not a reason to do it again.
        Event::Stop => (Wanted { untried_by: Some(Way::Stop), ..all }, Way::Stop),
    }
}

/// Who the session is, and whom it owes an answer where its model may have forgotten.
async fn introduction(
    home: &Home,
    spool: &Spool,
    binding: &Binding,
    call: &Call,
) -> anyhow::Result<String> {
    let Some(session) = home.session(&binding.session)? else { return Ok(String::new()) };
    let (mesh, name) = session.peer.split_once('/').unwrap_or(("", &session.peer));
    let mut text = format!(
        "claudemesh: this session is the peer \"{}\" of the mesh \"{}\". Other agents there are \
         reached with the tools of the MCP server claudemesh (list_peers, send_message, \
         check_messages); their messages are shown here as they come.",
        shown(name),
        shown(mesh)
    );
    if call.forgot {
        let open = spool.unanswered(UNANSWERED_MAX).await?;
        if !open.is_empty() {
            let open: Vec<String> = open.iter().map(named).collect();
            text.push_str("\nclaudemesh: shown earlier, and not answered yet: ");
            text.push_str(&open.join(", "));
            text.push('.');
        }
    }
    Ok(text)
}

fn named(letter: &Letter) -> String {
    let message = &letter.message;
    format!("{} from {}", shown(message.message_id.as_str()), shown(&message.sender_name))
}

/// An answer that is about to be given.
struct Text<'a> {
    call: &'a Call,
    harness: Harness,
    wanted: Wanted,
    way: Way,
    intro: String,
}

impl Text<'_> {
    /// Shows what there is; says whether there was anything, and the host has it.
    async fn show(&self, spool: &Spool, mouth: &Mouth, now: Timestamp) -> anyhow::Result<bool> {
        let (frame, ids) = self.taken(spool, now).await?;
        if self.intro.is_empty() && ids.is_empty() {
            return Ok(false);
        }
        let mut parts = vec![self.intro.clone(), frame];
        let rest = spool.waiting(self.wanted, u32::MAX, now).await?.len();
        if rest > 0 {
            parts.push(framing::more(i64::try_from(rest)?));
        }
        parts.retain(|part| !part.is_empty());
        let answer: Value = self.harness.encode(self.call, &parts.join("\n"));
        match mouth.says(&answer.to_string()) {
            Ok(true) => {
                spool.seen(&ids, self.way, Timestamp::now()).await?;
                Ok(true)
            }
            Ok(false) => {
                spool.give_back(&ids).await?;
                Ok(false)
            }
            Err(error) => {
                spool.give_back(&ids).await?;
                Err(anyhow::Error::from(error).context("the answer could not be written"))
            }
        }
    }

    /// The messages that fit, held for this way.
    async fn taken(&self, spool: &Spool, now: Timestamp) -> anyhow::Result<(String, Vec<i64>)> {
        // The line that says how many more there are has its place, too.
        let around = framing::units(&self.intro) + framing::units(&framing::more(i64::MAX)) + 4;
        let text = limits::HOOK_TEXT_CHARS_MAX.saturating_sub(around);
        let room = Room { text, body: limits::HOOK_BODY_CHARS_MAX };
        let mut letters = spool.waiting(self.wanted, LETTERS_MAX, now).await?;
        let framed = framing::frame(&letters, room, now);
        let until = now.plus_ms(limits::OFFER_MS);
        let granted = spool.offer(&framed.ids, self.way, until, now).await?;
        if granted.len() == framed.ids.len() {
            return Ok((framed.text, framed.ids));
        }
        // Another hook of the same event was quicker with some of them.
        letters.retain(|letter| granted.contains(&letter.id));
        let framed = framing::frame(&letters, room, now);
        Ok((framed.text, framed.ids))
    }
}
