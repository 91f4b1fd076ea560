//! What a shell may complete in a peer's commands: who there is, and the names that the
//! mesh has now.
//!
//! Called by the shell at the press of a key, and silent: whoever cannot be asked within a
//! second is not, and nothing is completed then.

use std::time::Duration;

use clap_complete::engine::CompletionCandidate;

use super::WhoArgs;
use super::asking::{Paged, short};
use crate::client::{Client, ClientError};
use crate::config::{Config, process_env};
use crate::keyring;
use crate::keyring::contacts::name_of;
use crate::private;
use crate::protocol::{
    ListScheduled, ListSkills, ListState, ListStreams, ListTasks, ListWebhooks, TaskRow,
    TaskStatus, TopicList, VaultList,
};

/// A shell's user waits for no longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// This user's own peers, of whom the broker need not be asked.
pub(super) fn own_peers() -> Vec<CompletionCandidate> {
    let kept = Config::load(&process_env).ok().and_then(|config| {
        let data_dir = private::data_dir(&config).ok()?;
        keyring::all(&data_dir).ok()
    });
    kept.unwrap_or_default().iter().map(|kept| candidate(kept.file.full_name(), "")).collect()
}

/// Who is in the mesh now, as messages name them.
pub(super) fn recipients() -> Vec<CompletionCandidate> {
    asked(async |client| {
        let peers = client.list_peers().await?;
        let mut found: Vec<CompletionCandidate> = peers
            .iter()
            .map(|peer| candidate(name_of(peer), peer.summary.as_deref().unwrap_or_default()))
            .collect();
        found.sort();
        found.dedup();
        Ok(found)
    })
}

/// Keys of shared values.
pub(super) fn state_keys() -> Vec<CompletionCandidate> {
    listed(ListState::default(), |entry| candidate(&entry.key, ""))
}

/// Ids of tasks that are not done.
pub(super) fn task_ids() -> Vec<CompletionCandidate> {
    let is_meant = |task: &TaskRow| task.status != TaskStatus::Done;
    asked(async |client| {
        let page = client.ask_opened(&ListTasks::default()).await?;
        let tasks = page.tasks.iter().filter(|task| is_meant(task));
        Ok(tasks.map(|task| candidate(short(&task.id), &task.title)).collect())
    })
}

/// Ids of what is scheduled.
pub(super) fn schedule_ids() -> Vec<CompletionCandidate> {
    listed(ListScheduled::default(), |one| candidate(short(&one.id), &one.to))
}

/// Keys of the vault.
pub(super) fn vault_keys() -> Vec<CompletionCandidate> {
    listed(VaultList::default(), |entry| {
        candidate(&entry.key, entry.description.as_deref().unwrap_or_default())
    })
}

/// Names of skills.
pub(super) fn skills() -> Vec<CompletionCandidate> {
    listed(ListSkills::default(), |skill| candidate(&skill.name, &skill.description))
}

/// Names of streams.
pub(super) fn streams() -> Vec<CompletionCandidate> {
    listed(ListStreams::default(), |stream| candidate(&stream.name, ""))
}

/// Names of topics.
pub(super) fn topics() -> Vec<CompletionCandidate> {
    listed(TopicList::default(), |topic| {
        candidate(&topic.name, topic.description.as_deref().unwrap_or_default())
    })
}

/// Names of webhooks.
pub(super) fn webhooks() -> Vec<CompletionCandidate> {
    listed(ListWebhooks::default(), |hook| candidate(&hook.name, ""))
}

/// The first page of a list, which is as much as a shell can show.
fn listed<R: Paged>(
    ask: R,
    shown: impl Fn(&R::Row) -> CompletionCandidate,
) -> Vec<CompletionCandidate> {
    asked(async |client| Ok(R::page(client.ask(&ask).await?).0.iter().map(&shown).collect()))
}

/// Peers choose the names, and a terminal shows them.
fn candidate(name: impl AsRef<str>, about: &str) -> CompletionCandidate {
    let printable = |text: &str| crate::cli::output::printable(text).into_owned();
    let about = (!about.is_empty()).then(|| printable(about).into());
    CompletionCandidate::new(printable(name.as_ref())).help(about)
}

/// Asks in the name of the peer of the line that is typed.
fn asked(
    ask: impl AsyncFn(&Client) -> Result<Vec<CompletionCandidate>, ClientError>,
) -> Vec<CompletionCandidate> {
    let asking = async {
        let config = Config::load(&process_env).ok()?;
        let data_dir = private::data_dir(&config).ok()?;
        let who = WhoArgs::typed(std::env::args());
        let (client, _inbox) = who.visit(&who.choose(&data_dir).ok()?).await.ok()?;
        let found = ask(&client).await.ok();
        client.close().await;
        found
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let found = runtime.ok().and_then(|runtime| {
        let found = runtime.block_on(async { tokio::time::timeout(PATIENCE, asking).await });
        runtime.shutdown_background();
        found.ok().flatten()
    });
    found.unwrap_or_default()
}

impl WhoArgs {
    /// Who acts, by a line that is not complete and so cannot be parsed.
    fn typed(args: impl Iterator<Item = String>) -> Self {
        let (mut who, mut before) = (Self { name: None, key_file: None, broker: None }, None);
        for arg in args {
            let (option, value) = match arg.split_once('=') {
                Some((option, value)) => (Some(option.to_owned()), value.to_owned()),
                None => (before.take(), arg.clone()),
            };
            match option.as_deref() {
                Some("--as") => who.name = Some(value),
                Some("--key") => who.key_file = Some(value.into()),
                Some("--broker") => who.broker = Some(value),
                _ => {}
            }
            before = Some(arg);
        }
        who
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_not_complete_says_who_acts() {
        let typed = |line: &str| WhoArgs::typed(line.split(' ').map(str::to_owned));
        let who = typed("claudemesh-broker peer state get --as team/ada --broker=ws://a/ws b");
        assert_eq!(who.name.as_deref(), Some("team/ada"));
        assert_eq!(who.broker.as_deref(), Some("ws://a/ws"));
        assert!(typed("claudemesh-broker peer state get").name.is_none());
    }
}
