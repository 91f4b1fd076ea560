//! `peer task`: what is to be done in a mesh, and who does it.
//!
//! `watch` prints one object per line with `--json`: what became of a task.

use std::collections::HashMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCandidates as Candidates;
use serde_json::{Value, json};

use super::asking::{Live, Shown, all, explain, short, text_or_input, whole_id};
use super::{WhoArgs, complete};
use crate::cli::output;
use crate::client::{Client, Inbound, Inbox, Kept, Secrecy, how_kept};
use crate::protocol::{
    Ask, ClaimTask, CompleteTask, CreateTask, ListTasks, ReleaseTask, RenewTask, TaskRow,
    TaskStatus, UpdateTask, WatchTasks,
};

/// What can be done with tasks.
#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// Say what is to be done
    Create(CreateArgs),
    /// Show the tasks, the newest first
    List(ListArgs),
    /// Take a task: of several who do, one has it
    Claim(ClaimArgs),
    /// Say that you still do it, before the claim runs out
    Renew(ClaimArgs),
    /// Give a task back; it is open again
    Release(TaskArgs),
    /// Say that a task is done
    Complete(CompleteArgs),
    /// Change what a task says
    Update(UpdateArgs),
    /// Show what becomes of tasks, until Ctrl-C
    Watch(WatchArgs),
}

/// Arguments of `peer task create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// What is to be done
    pub(crate) title: String,
    /// For whom it is meant
    #[arg(long, value_name = "NAME")]
    pub(crate) assignee: Option<String>,
    /// How urgent it is; `normal` if not said
    #[arg(long, value_name = "TEXT")]
    pub(crate) priority: Option<String>,
    /// A word to find it by; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
    /// Who wants it.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// Arguments of `peer task list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only those of that status
    #[arg(long, value_enum)]
    pub(crate) status: Option<TaskStatusArg>,
    /// Only those for that assignee
    #[arg(long, value_name = "NAME")]
    pub(crate) assignee: Option<String>,
    /// Who asks.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// Arguments of `peer task claim` and `peer task renew`.
#[derive(Debug, Args)]
pub(crate) struct ClaimArgs {
    /// Which task, and whose.
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    /// How long the claim lasts unless it is renewed: 90s, 15m, 2h
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) lease: Option<Duration>,
}

/// Which task, and who does something with it.
#[derive(Debug, Args)]
pub(crate) struct TaskArgs {
    /// The task's id, or the beginning of it
    #[arg(add = Candidates::new(complete::task_ids))]
    pub(crate) id: String,
    /// Who does it.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// Arguments of `peer task complete`.
#[derive(Debug, Args)]
pub(crate) struct CompleteArgs {
    /// Which task, and whose.
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    /// What came of it; `-` reads it from standard input
    #[arg(long, value_name = "TEXT")]
    pub(crate) result: Option<String>,
}

/// Arguments of `peer task update`.
#[derive(Debug, Args)]
#[group(id = "what", required = true, multiple = true, args = ["title", "assignee", "priority", "tags"])]
pub(crate) struct UpdateArgs {
    /// Which task, and whose.
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    /// What is to be done
    #[arg(long, value_name = "TEXT")]
    pub(crate) title: Option<String>,
    /// For whom it is meant; '' for nobody
    #[arg(long, value_name = "NAME")]
    pub(crate) assignee: Option<String>,
    /// How urgent it is
    #[arg(long, value_name = "TEXT")]
    pub(crate) priority: Option<String>,
    /// A word to find it by, in place of those before; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
}

/// Arguments of `peer task watch`.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// End after so many changes
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Who watches.
    #[command(flatten)]
    pub(crate) who: WhoArgs,
}

/// A status of a task, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TaskStatusArg {
    /// Nobody does it
    Open,
    /// Somebody does it
    Claimed,
    /// It is done
    Done,
}

impl From<TaskStatusArg> for TaskStatus {
    fn from(typed: TaskStatusArg) -> Self {
        match typed {
            TaskStatusArg::Open => Self::Open,
            TaskStatusArg::Claimed => Self::Claimed,
            TaskStatusArg::Done => Self::Done,
        }
    }
}

pub(super) async fn run(
    command: TaskCommand,
    json: bool,
    data_dir: &Path,
) -> anyhow::Result<ExitCode> {
    match command {
        TaskCommand::Create(args) => create(args, json, data_dir).await?,
        TaskCommand::List(args) => list(args, json, data_dir).await?,
        TaskCommand::Claim(ClaimArgs { task, lease }) => {
            let ask = |task_id| Ok(ClaimTask { task_id, lease_ms: ms(lease)? });
            change(&task, json, data_dir, "claimed", ask).await?;
        }
        TaskCommand::Renew(ClaimArgs { task, lease }) => {
            let ask = |task_id| Ok(RenewTask { task_id, lease_ms: ms(lease)? });
            change(&task, json, data_dir, "renewed", ask).await?;
        }
        TaskCommand::Release(task) => {
            change(&task, json, data_dir, "released", |task_id| Ok(ReleaseTask { task_id }))
                .await?;
        }
        TaskCommand::Complete(CompleteArgs { task, result }) => {
            let result = result.as_deref().map(text_or_input).transpose()?;
            let ask = |task_id| Ok(CompleteTask { task_id, result });
            change_text(&task, json, data_dir, "done", ask).await?;
        }
        TaskCommand::Update(args) => {
            let UpdateArgs { task, title, assignee, priority, tags } = args;
            let tags = (!tags.is_empty()).then_some(tags);
            let ask = |task_id| Ok(UpdateTask { task_id, title, priority, tags, assignee });
            change_text(&task, json, data_dir, "changed", ask).await?;
        }
        TaskCommand::Watch(args) => return watch(&args, json, data_dir).await,
    }
    Ok(ExitCode::SUCCESS)
}

fn ms(duration: Option<Duration>) -> anyhow::Result<Option<i64>> {
    Ok(duration.map(|duration| i64::try_from(duration.as_millis())).transpose()?)
}

async fn create(args: CreateArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let CreateArgs { title, assignee, priority, tags, who } = args;
    let ask = CreateTask { title, assignee, priority, tags: Some(tags) };
    let (made, secrecy) = who.keep(data_dir, ask).await?;
    let object = json!({ "id": made.id, "sealed": secrecy.is_sealed() });
    let text = format!("this is task {}, {secrecy}", short(&made.id));
    output::answer(json, &object, &output::printable(&text))
}

async fn list(args: ListArgs, json: bool, data_dir: &Path) -> anyhow::Result<()> {
    let status = args.status.map(|status| TaskStatus::from(status).as_str().to_owned());
    let ask = ListTasks { status, assignee: args.assignee, cursor: None };
    let shown = Shown {
        headings: ["id", "what", "kept", "status", "by", "until", "for", "priority", "tags"],
        row,
        nothing: "there are no such tasks",
    };
    args.who.list(data_dir, json, ask, shown).await
}

fn row(task: &TaskRow) -> [String; 9] {
    [
        short(&task.id).to_owned(),
        task.title.clone(),
        how_kept(task.sealed).to_owned(),
        task.status.as_str().to_owned(),
        output::or_dash(task.claimed_by.as_deref()),
        output::or_dash(task.claim_expires_at.as_deref()),
        output::or_dash(task.assignee.as_deref()),
        task.priority.clone(),
        task.tags.join(" "),
    ]
}

/// Does something with one task, which is `done` to it then.
async fn change<R: Ask>(
    task: &TaskArgs,
    json: bool,
    data_dir: &Path,
    done: &str,
    ask: impl FnOnce(String) -> anyhow::Result<R>,
) -> anyhow::Result<()> {
    let (client, id) = found(task, data_dir).await?;
    let changed = match ask(id.clone()) {
        Ok(ask) => client.ask(&ask).await.map(drop).map_err(explain),
        Err(error) => Err(error),
    };
    client.close().await;
    changed?;
    say_done(json, &id, done, None)
}

/// The same, with a text that is kept for all members.
async fn change_text<R: Ask + Kept + Send>(
    task: &TaskArgs,
    json: bool,
    data_dir: &Path,
    done: &str,
    ask: impl FnOnce(String) -> anyhow::Result<R>,
) -> anyhow::Result<()> {
    let (client, id) = found(task, data_dir).await?;
    let changed = match ask(id.clone()) {
        Ok(ask) => client.keep(ask).await.map_err(explain),
        Err(error) => Err(error),
    };
    client.close().await;
    let (_, secrecy) = changed?;
    say_done(json, &id, done, Some(&secrecy))
}

fn say_done(json: bool, id: &str, done: &str, secrecy: Option<&Secrecy>) -> anyhow::Result<()> {
    let mut object = json!({ "id": id, "action": done });
    let mut text = format!("task {} is {done}", short(id));
    if let Some(secrecy) = secrecy {
        object["sealed"] = json!(secrecy.is_sealed());
        text += &format!(", {secrecy}");
    }
    output::answer(json, &object, &output::printable(&text))
}

/// The task that is meant, and the visit in which it was looked for.
async fn found(
    TaskArgs { id, who }: &TaskArgs,
    data_dir: &Path,
) -> anyhow::Result<(Client, String)> {
    let kept = who.choose(data_dir)?;
    let (client, _inbox) = who.visit(&kept).await?;
    let meant = async {
        let tasks = match id.len() {
            0..32 => all(&client, ListTasks::default()).await?,
            _ => Vec::new(),
        };
        Ok(whole_id(id, "task", tasks.iter().map(|task| task.id.as_str()))?)
    };
    let meant: anyhow::Result<String> = meant.await;
    match meant {
        Ok(id) => Ok((client, id)),
        Err(error) => {
            client.close().await;
            Err(error)
        }
    }
}

async fn watch(args: &WatchArgs, json: bool, data_dir: &Path) -> anyhow::Result<ExitCode> {
    let kept = args.who.choose(data_dir)?;
    let (client, inbox) = args.who.visit(&kept).await?;
    let watched = show(args, json, &client, inbox).await;
    client.close().await;
    watched
}

async fn show(
    args: &WatchArgs,
    json: bool,
    client: &Client,
    inbox: Inbox,
) -> anyhow::Result<ExitCode> {
    client.ask(&WatchTasks {}).await.map_err(explain)?;
    let object = json!({ "type": "watching" });
    output::answer(json, &object, "watching the tasks; Ctrl-C ends it")?;
    let (mut live, mut titles, mut seen) = (Live::new(inbox)?, HashMap::new(), 0);
    while args.count.is_none_or(|count| seen < count) {
        match live.next().await {
            Some(Inbound::Event { event, data }) if event == "task" => {
                seen += 1;
                if json {
                    output::json(&told(&data))?;
                } else {
                    let title = title_of(client, &mut titles, &data).await?;
                    output::line(&line(&data, &title))?;
                }
            }
            Some(Inbound::Closed { .. }) => return Ok(ExitCode::FAILURE),
            Some(_) => {}
            None => break,
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn told(data: &Value) -> Value {
    let mut object = data.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.insert("type".to_owned(), json!("task"));
    }
    object
}

/// The title of a task that was told of: events have none.
async fn title_of(
    client: &Client,
    titles: &mut HashMap<String, String>,
    data: &Value,
) -> anyhow::Result<String> {
    let id = data["taskId"].as_str().unwrap_or_default();
    if !titles.contains_key(id) {
        // What is new is on the first page.
        let page = client.ask_opened(&ListTasks::default()).await.map_err(explain)?;
        *titles = page.tasks.into_iter().map(|task| (task.id, task.title)).collect();
    }
    Ok(titles.get(id).cloned().unwrap_or_default())
}

/// Peers choose the names and the titles.
fn line(data: &Value, title: &str) -> String {
    let id = short(data["taskId"].as_str().unwrap_or_default());
    let status = data["status"].as_str().unwrap_or_default();
    let by = data["by"].as_str().map(|by| format!(" ({by})")).unwrap_or_default();
    output::printable(&format!("{id} {status}{by}: {title}")).into_owned()
}
