//! Questions of a peer at a terminal, each by a visit of its own; and lists, which are
//! asked for to their end and shown alike.

use std::io;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::WhoArgs;
use crate::cli::{Failure, output};
use crate::client::{Client, ClientError, Inbound, Inbox, Kept as KeptTexts, Secrecy};
use crate::protocol::{
    ApikeyList, Ask, ContextEntry, ListContexts, ListScheduled, ListSkills, ListState, ListStreams,
    ListTasks, ListWebhooks, ListedApikey, ScheduledRow, SkillEntry, StateEntry, StreamInfo,
    TaskRow, TopicList, TopicListed, TopicMemberListed, TopicMembers, VaultList, VaultListed,
    WebhookRow,
};

/// A list that comes in pages.
pub(super) trait Paged: Ask {
    /// What it is a list of.
    type Row: Serialize;
    /// What the rows are called for scripts.
    const ROWS: &'static str;
    /// An answer's rows, and where the list goes on.
    fn page(answer: Self::Answer) -> (Vec<Self::Row>, Option<String>);
    /// Asks for what follows.
    fn go_on(&mut self, cursor: String);
    /// The answer, if it has texts that are kept for all members.
    fn kept(_: &mut Self::Answer) -> Option<&mut (dyn KeptTexts + Send)> {
        None
    }
}

/// Lists: the question, and the field of its answer with the rows; `kept` where these have
/// texts that are kept for all members.
macro_rules! paged {
    ($($ask:ident => $rows:ident: $row:ident $(, $kept:ident)?;)*) => {
        $(impl Paged for $ask {
            type Row = $row;
            const ROWS: &'static str = stringify!($rows);

            fn page(answer: Self::Answer) -> (Vec<$row>, Option<String>) {
                (answer.$rows, answer.cursor)
            }

            fn go_on(&mut self, cursor: String) {
                self.cursor = Some(cursor);
            }

            $(fn $kept(answer: &mut Self::Answer) -> Option<&mut (dyn KeptTexts + Send)> {
                Some(answer)
            })?
        })*
    };
}

paged! {
    ApikeyList => keys: ListedApikey;
    ListContexts => contexts: ContextEntry;
    ListScheduled => messages: ScheduledRow;
    ListSkills => skills: SkillEntry;
    ListState => entries: StateEntry, kept;
    ListStreams => streams: StreamInfo;
    ListTasks => tasks: TaskRow, kept;
    ListWebhooks => webhooks: WebhookRow;
    TopicList => topics: TopicListed;
    TopicMembers => members: TopicMemberListed;
    VaultList => entries: VaultListed;
}

/// How people are shown a list.
pub(super) struct Shown<T, const N: usize> {
    pub(super) headings: [&'static str; N],
    pub(super) row: fn(&T) -> [String; N],
    /// The sentence for a list without rows.
    pub(super) nothing: &'static str,
}

impl WhoArgs {
    /// Asks one thing.
    pub(super) async fn ask<R: Ask>(&self, data_dir: &Path, ask: &R) -> anyhow::Result<R::Answer> {
        let kept = self.choose(data_dir)?;
        let (client, _inbox) = self.visit(&kept).await?;
        let answer = client.ask(ask).await;
        client.close().await;
        answer.map_err(explain)
    }

    /// Asks for something to be kept for all members, and says whether it is sealed.
    pub(super) async fn keep<R: Ask + KeptTexts + Send>(
        &self,
        data_dir: &Path,
        ask: R,
    ) -> anyhow::Result<(R::Answer, Secrecy)> {
        let kept = self.choose(data_dir)?;
        let (client, _inbox) = self.visit(&kept).await?;
        let answer = client.keep(ask).await;
        client.close().await;
        answer.map_err(explain)
    }

    /// Asks one thing, whose answer has texts that were kept for all members.
    pub(super) async fn ask_opened<R>(&self, data_dir: &Path, ask: &R) -> anyhow::Result<R::Answer>
    where
        R: Ask,
        R::Answer: KeptTexts + Send,
    {
        let kept = self.choose(data_dir)?;
        let (client, _inbox) = self.visit(&kept).await?;
        let answer = client.ask_opened(ask).await;
        client.close().await;
        answer.map_err(explain)
    }

    /// Asks for a list to its end.
    pub(super) async fn ask_all<R: Paged>(
        &self,
        data_dir: &Path,
        ask: R,
    ) -> anyhow::Result<Vec<R::Row>> {
        let kept = self.choose(data_dir)?;
        let (client, _inbox) = self.visit(&kept).await?;
        let rows = all(&client, ask).await;
        client.close().await;
        rows
    }

    /// Asks for a list to its end and prints it.
    pub(super) async fn list<R: Paged, const N: usize>(
        &self,
        data_dir: &Path,
        json: bool,
        ask: R,
        shown: Shown<R::Row, N>,
    ) -> anyhow::Result<()> {
        let rows = self.ask_all(data_dir, ask).await?;
        if json {
            let rows = Map::from_iter([(R::ROWS.to_owned(), json!(rows))]);
            return output::json(&rows);
        }
        if rows.is_empty() {
            return Ok(output::line(shown.nothing)?);
        }
        Ok(output::table(shown.headings, rows.iter().map(shown.row))?)
    }
}

/// A list to its end.
pub(super) async fn all<R: Paged>(client: &Client, mut ask: R) -> anyhow::Result<Vec<R::Row>> {
    let mut rows = Vec::new();
    loop {
        let mut page = client.ask(&ask).await.map_err(explain)?;
        if let Some(kept) = R::kept(&mut page) {
            client.open_all(kept).await.map_err(explain)?;
        }
        let (more, cursor) = R::page(page);
        // A broker that does not end is not followed for ever.
        let is_last = more.is_empty();
        rows.extend(more);
        match cursor {
            Some(cursor) if !is_last => ask.go_on(cursor),
            _ => return Ok(rows),
        }
    }
}

/// Codes of the broker that scripts may go by.
const FOR_SCRIPTS: [&str; 11] = [
    "conflict",
    "forbidden",
    "invalid_argument",
    "invalid_cron",
    "must_be_sealed",
    "not_found",
    "quota",
    "task_not_claimable",
    "task_not_claimed",
    "task_not_found",
    "topic_not_found",
];

/// The broker's code for scripts, where they may go by it.
pub(super) fn explain(error: ClientError) -> anyhow::Error {
    let of_broker = error.code().and_then(|code| FOR_SCRIPTS.into_iter().find(|of| *of == code));
    let of_broker = match error {
        ClientError::CommonKey(_) => Some("no_common_key"),
        _ => of_broker,
    };
    match of_broker {
        Some(code) => Failure::new(code, error.to_string()).into(),
        None => error.into(),
    }
}

/// `text`, or standard input for `-`.
pub(super) fn text_or_input(text: &str) -> io::Result<String> {
    if text == "-" { io::read_to_string(io::stdin()) } else { Ok(text.to_owned()) }
}

/// As much of an id as tells things of a kind apart.
pub(super) fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// Digits of a whole id.
const ID_DIGITS: usize = 32;

/// The id that is meant by its beginning, of those that there are.
pub(super) fn whole_id<'a>(
    typed: &str,
    kind: &str,
    ids: impl Iterator<Item = &'a str>,
) -> Result<String, Failure> {
    let found: Vec<&str> = ids.filter(|id| id.starts_with(typed)).take(2).collect();
    match found[..] {
        _ if typed.is_empty() || typed.len() >= ID_DIGITS => Ok(typed.to_owned()),
        [id] => Ok(id.to_owned()),
        [] => {
            let message = format!("there is no {kind} whose id begins with {typed}");
            Err(Failure::new("not_found", message))
        }
        _ => {
            let message = format!("several ids of {kind}s begin with {typed}; give more of it");
            Err(Failure::new("ambiguous", message))
        }
    }
}

/// What comes in, until somebody ends it.
pub(super) struct Live {
    inbox: Inbox,
    interrupt: Signal,
    terminate: Signal,
}

impl Live {
    pub(super) fn new(inbox: Inbox) -> io::Result<Self> {
        let (interrupt, terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { inbox, interrupt, terminate })
    }

    /// The next; `None` when a signal ends it.
    pub(super) async fn next(&mut self) -> Option<Inbound> {
        let Self { inbox, interrupt, terminate } = self;
        let ended = || Inbound::Closed { code: 1006, reason: String::new() };
        tokio::select! {
            inbound = inbox.recv() => Some(inbound.unwrap_or_else(ended)),
            _ = interrupt.recv() => None,
            _ = terminate.recv() => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_meant_by_as_much_of_it_as_tells_it_apart() {
        let ids = ["abc1".repeat(8), "abd2".repeat(8)];
        let meant = |typed: &str| {
            let found = whole_id(typed, "task", ids.iter().map(String::as_str));
            found.map_err(|failure| failure.code)
        };
        assert_eq!(meant("abc"), Ok(ids[0].clone()));
        assert_eq!(meant(&ids[1]), Ok(ids[1].clone()));
        assert_eq!(meant("ab"), Err("ambiguous"));
        assert_eq!(meant("x"), Err("not_found"));
        assert_eq!(
            meant(&"f".repeat(32)),
            Ok("f".repeat(32)),
            "the broker says that there is none"
        );
    }
}
