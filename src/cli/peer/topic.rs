//! `peer topic`: topics, who is in them, what is said there.
//!
//! `tail` asks for what is new once a second, over a visit: a session of its own would be
//! handed its member's mail, which it does not show.

use std::collections::HashSet;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCandidates as Candidates;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::asking::{Shown, explain, text_or_input};
use super::{Failure, PriorityArg, WhoArgs, complete, output};
use crate::client::{Client, ClientError, Outgoing, Sent};
use crate::id::MessageId;
use crate::protocol::{
    Priority, TopicCreate, TopicHistory, TopicInvite, TopicJoin, TopicLeave, TopicList,
    TopicListed, TopicMarkRead, TopicMemberListed, TopicMembers, TopicPosted, Visibility,
};
use crate::sealing;

/// Between two looks of `tail`.
const LOOK: Duration = Duration::from_secs(1);

/// What a peer can do with topics.
#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Make a topic, or join the one of that name
    Create(CreateArgs),
    /// Show the topics that you see
    List(WhoArgs),
    /// Get what is posted from now on, and read what was
    Join(NamedArgs),
    /// Get nothing more of it
    Leave(NamedArgs),
    /// Let a member join a topic that is not public; for its leads
    Invite(InviteArgs),
    /// Show who is in a topic, and up to when each has read it
    Members(NamedArgs),
    /// Say something to everybody in it
    Post(PostArgs),
    /// Show what was said, the oldest first
    History(HistoryArgs),
    /// Show what is said, until Ctrl-C
    Tail(TailArgs),
    /// Say that you have read it
    Read(NamedArgs),
}

/// Arguments of `peer topic create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The topic's name
    pub(crate) topic: String,
    /// What it is about
    #[arg(long)]
    pub(crate) description: Option<String>,
    /// Who sees it
    #[arg(long, value_enum, default_value_t = VisibilityArg::Public)]
    pub(crate) visibility: VisibilityArg,
    /// Who makes it.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// Who sees a topic, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum VisibilityArg {
    /// Everybody in the mesh, and may join
    Public,
    /// Its members, whom a lead invites
    Private,
    /// As private; for two
    Dm,
}

impl From<VisibilityArg> for Visibility {
    fn from(typed: VisibilityArg) -> Self {
        match typed {
            VisibilityArg::Public => Self::Public,
            VisibilityArg::Private => Self::Private,
            VisibilityArg::Dm => Self::Dm,
        }
    }
}

/// Arguments of the commands that need a topic and no more.
#[derive(Debug, Args)]
pub(crate) struct NamedArgs {
    /// The topic, by name or id
    #[arg(add = Candidates::new(complete::topics))]
    pub(crate) topic: String,
    /// Who asks.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// Arguments of `peer topic invite`.
#[derive(Debug, Args)]
pub(crate) struct InviteArgs {
    /// The topic, by name or id
    #[arg(add = Candidates::new(complete::topics))]
    pub(crate) topic: String,
    /// The member: its id, its key, or a name that one has
    pub(crate) member: String,
    /// Who invites.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// Arguments of `peer topic post`.
#[derive(Debug, Args)]
pub(crate) struct PostArgs {
    /// The topic, by name or id
    #[arg(add = Candidates::new(complete::topics))]
    pub(crate) topic: String,
    /// What to say; `-` reads it from standard input. `@name` mentions a member
    pub(crate) text: String,
    /// `now` interrupts, `next` and `low` wait until the recipient is idle
    #[arg(long, value_enum, default_value_t = PriorityArg::Next)]
    pub(crate) priority: PriorityArg,
    /// Who posts.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// Arguments of `peer topic history`.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// The topic, by name or id
    #[arg(add = Candidates::new(complete::topics))]
    pub(crate) topic: String,
    /// As many at most, up to 200
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) limit: i64,
    /// Those before this post
    #[arg(long, value_name = "ID")]
    pub(crate) before: Option<String>,
    /// Who reads.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// Arguments of `peer topic tail`.
#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    /// The topic, by name or id
    #[arg(add = Candidates::new(complete::topics))]
    pub(crate) topic: String,
    /// Begin with the last so many
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: i64,
    /// End after so many
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Who reads.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

pub(super) async fn run(
    command: TopicCommand,
    json: bool,
    data_dir: &Path,
) -> anyhow::Result<ExitCode> {
    match command {
        TopicCommand::Create(args) => create(args, json, data_dir).await?,
        TopicCommand::List(who) => list(&who, json, data_dir).await?,
        TopicCommand::Join(args) => {
            let ask = TopicJoin { topic: args.topic.clone(), role: None };
            args.who.ask(data_dir, &ask).await?;
            done(json, &args.topic, "joined", "you are in")?;
        }
        TopicCommand::Leave(args) => {
            args.who.ask(data_dir, &TopicLeave { topic: args.topic.clone() }).await?;
            done(json, &args.topic, "left", "you have left")?;
        }
        TopicCommand::Invite(InviteArgs { topic, member, who }) => {
            let ask = TopicInvite { topic: topic.clone(), member: member.clone() };
            who.ask(data_dir, &ask).await?;
            done(json, &topic, "invited", &format!("{member} may join"))?;
        }
        TopicCommand::Members(args) => members(args, json, data_dir).await?,
        TopicCommand::Post(args) => post(args, json, data_dir).await?,
        TopicCommand::History(args) => history(args, json, data_dir).await?,
        TopicCommand::Tail(args) => tail(&args, json, data_dir).await?,
        TopicCommand::Read(args) => {
            args.who.ask(data_dir, &TopicMarkRead { topic: args.topic.clone() }).await?;
            done(json, &args.topic, "read", "you have read")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn done(json: bool, topic: &str, action: &str, sentence: &str) -> anyhow::Result<()> {
    let line = format!("{sentence} {topic}");
    output::answer(json, &json!({ "topic": topic, "action": action }), &output::printable(&line))
}

async fn create(args: CreateArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let CreateArgs { topic, description, visibility, who } = args;
    let ask = TopicCreate {
        name: topic,
        description,
        visibility: Some(visibility.into()),
        encrypted_key_pubkey: None,
        encrypted_key: None,
        nonce: None,
    };
    let made = who.ask(data_dir, &ask).await?;
    let did = if made.created { "made" } else { "was there already, and you are in it" };
    let line = format!("{} {did}", made.topic.name);
    output::answer(json, &made, &output::printable(&line))
}

async fn list(who: &WhoArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let shown = Shown {
        headings: ["topic", "seen by", "members", "about"],
        row: |topic: &TopicListed| {
            let about = topic.description.as_deref().filter(|text| !text.is_empty());
            let visibility = topic.visibility.as_str().to_owned();
            let members = topic.member_count.to_string();
            [topic.name.clone(), visibility, members, output::or_dash(about)]
        },
        nothing: "there is no topic yet; make one: peer topic create NAME",
    };
    who.list(data_dir, json, TopicList::default(), shown).await
}

async fn members(args: NamedArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let shown = Shown {
        headings: ["name", "as", "since", "has read up to"],
        row: |member: &TopicMemberListed| {
            let role = member.role.as_str().to_owned();
            let read = output::or_dash(member.last_read_at);
            [member.display_name.clone(), role, member.joined_at.to_string(), read]
        },
        nothing: "nobody is in it",
    };
    let ask = TopicMembers { topic: args.topic, cursor: None };
    args.who.list(data_dir, json, ask, shown).await
}

async fn post(args: PostArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let PostArgs { topic, text, priority, who } = args;
    let text = text_or_input(&text)?;
    let kept = who.choose(data_dir)?;
    let (client, _inbox) = who.visit(&kept).await?;
    let target = format!("#{}", topic.trim_start_matches('#'));
    let message = Outgoing::new(&target, Priority::from(priority), text.as_str());
    let sent = client.send_sealed(message).await;
    client.close().await;
    let Sent { ack, secrecy, .. } = sent.map_err(|error| match error {
        ClientError::Rejected(why) => Failure::new("rejected", why.reason).into(),
        error => explain(error),
    })?;
    let line = format!("posted to {target} as {}, {secrecy}", ack.message_id);
    let sealed = secrecy.is_sealed();
    let object = json!({ "topic": topic, "messageId": ack.message_id, "sealed": sealed });
    output::answer(json, &object, &output::printable(&line))
}

async fn history(args: HistoryArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let HistoryArgs { topic, limit, before, who } = args;
    let before_id = before.map(MessageId::from);
    let ask = TopicHistory { topic, limit: Some(limit), before_id };
    let page = who.ask_opened(data_dir, &ask).await?;
    if json {
        let messages: Vec<Value> = page.messages.iter().rev().map(object).collect();
        return output::json(
            &json!({ "topic": page.topic, "messages": messages, "more": page.more }),
        );
    }
    for posted in page.messages.iter().rev() {
        output::line(&line(posted))?;
    }
    Ok(())
}

async fn tail(args: &TailArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let kept = args.who.choose(data_dir)?;
    let (client, _inbox) = args.who.visit(&kept).await?;
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let done = tokio::select! {
        done = follow(args, json, &client) => done,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    client.close().await;
    done
}

async fn follow(args: &TailArgs, json: bool, client: &Client) -> anyhow::Result<()> {
    let limit = args.limit.clamp(1, 200);
    // What was shown last. Posts that are gone by now are never looked for again.
    let mut shown: Option<HashSet<MessageId>> = None;
    let mut count = 0;
    loop {
        let new = match &shown {
            None => page(client, &args.topic, None, limit).await?,
            Some(shown) => since(client, &args.topic, shown).await?,
        };
        for posted in new.iter().rev() {
            if json {
                output::json(&object(posted))?;
            } else {
                output::line(&line(posted))?;
            }
            count += 1;
            if args.count == Some(count) {
                return Ok(());
            }
        }
        if !new.is_empty() || shown.is_none() {
            shown = Some(new.into_iter().map(|posted| posted.id).collect());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What came after what was shown, the newest first.
async fn since(
    client: &Client,
    topic: &str,
    shown: &HashSet<MessageId>,
) -> anyhow::Result<Vec<TopicPosted>> {
    let mut new: Vec<TopicPosted> = Vec::new();
    loop {
        let before = new.last().map(|posted| posted.id.clone());
        let found = page(client, topic, before, 50).await?;
        let read = found.len();
        let unseen: Vec<_> =
            found.into_iter().take_while(|posted| !shown.contains(&posted.id)).collect();
        let is_end = unseen.len() < read || read == 0;
        new.extend(unseen);
        if is_end {
            return Ok(new);
        }
    }
}

async fn page(
    client: &Client,
    topic: &str,
    before_id: Option<MessageId>,
    limit: i64,
) -> anyhow::Result<Vec<TopicPosted>> {
    let ask = TopicHistory { topic: topic.to_owned(), limit: Some(limit), before_id };
    Ok(client.ask_opened(&ask).await.map_err(explain)?.messages)
}

/// A post, with its text where that can be read.
fn object(posted: &TopicPosted) -> Value {
    let mut object = json!(posted);
    object["text"] = json!(text_of(posted));
    object
}

fn text_of(posted: &TopicPosted) -> Option<String> {
    let is_readable = posted.body_version == 1 || posted.sealed;
    is_readable.then(|| sealing::open_plain(&posted.ciphertext)).flatten()
}

fn line(posted: &TopicPosted) -> String {
    let text = text_of(posted).unwrap_or_else(|| "(sealed with the topic's key)".to_owned());
    let name = output::printable(&posted.sender_name);
    let mark = if posted.sealed || posted.body_version == 2 { "" } else { "[in clear] " };
    format!("{}  {name}  {mark}{}", posted.created_at, output::printable_lines(&text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn posted(name: &str, text: &str, body_version: i64) -> TopicPosted {
        TopicPosted {
            id: "m".into(),
            sender_pubkey: "k".into(),
            sender_member_id: "a".into(),
            sender_name: name.to_owned(),
            nonce: String::new(),
            ciphertext: sealing::plain(text).ciphertext_b64,
            body_version,
            reply_to_id: None,
            created_at: Timestamp::from_ms(0),
            sealed: false,
        }
    }

    #[test]
    fn a_post_cannot_steer_the_terminal_and_one_that_is_sealed_says_so() {
        let shown = line(&posted("b\u{1b}ob", "hi\u{1b}[2J", 1));
        assert!(!shown.contains('\u{1b}') && shown.contains("hi"), "{shown}");
        let sealed = posted("bob", "secret", 2);
        assert!(line(&sealed).contains("sealed") && !line(&sealed).contains("secret"));
        assert_eq!(object(&sealed)["text"], Value::Null);
        assert_eq!(object(&posted("bob", "hi", 1))["text"], "hi");
    }
}
