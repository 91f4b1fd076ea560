//! What a coding session's transcript says about it.
//!
//! Only where the broker runs on the peer's own machine, and only for peers
//! whose status nobody has set: neither the peer nor a hook. The transcripts
//! are JSON Lines files in `~/.claude/projects/<folder>/`, one per session,
//! where `<folder>` is the working directory with everything but letters and
//! digits replaced by dashes. Called by [`jobs`](crate::jobs) at their pace; never writes
//! there, and never reads on a thread that others wait for.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::Parts;
use super::status::{self, Word};
use crate::clock::Timestamp;
use crate::protocol::{Status, StatusSource};

/// The end of a transcript that is read: the last entry is in it, or is too
/// long to be worth it.
const TAIL_BYTES: u64 = 64 * 1024;

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    message: Option<Message>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    stop_reason: Option<String>,
}

/// Takes over what the transcripts on this machine say of the sessions here about which
/// nobody else has spoken.
pub(crate) async fn infer(parts: &Arc<Parts>) {
    let Some(home) = std::env::home_dir() else { return };
    let stale_ms = parts.config.status_ttl_ms;
    for room in parts.registry.rooms() {
        for (session, record) in room.sessions() {
            let others_spoke = record.status_source != StatusSource::Jsonl;
            if others_spoke || record.cwd.is_empty() || record.visitor {
                continue;
            }
            let (home, cwd) = (home.clone(), record.cwd.clone());
            let reading = tokio::task::spawn_blocking(move || shown(&home, &cwd, stale_ms));
            if let Ok(Some(status)) = reading.await {
                let word = Word::Transcript(status);
                status::apply(parts, &room, &session, word, Timestamp::now()).await;
            }
        }
    }
}

/// The status that the newest transcript of `cwd` shows; `None` without one.
/// A transcript that has not been written to for `stale_ms` shows an idle session. Reads
/// the disk: call it where blocking is allowed.
fn shown(home: &Path, cwd: &str, stale_ms: i64) -> Option<Status> {
    let mut names = folder_names(cwd);
    let (path, modified) = names.find_map(|name| newest(&folder_of(home, &name)))?;
    let stale = Duration::from_millis(u64::try_from(stale_ms).unwrap_or(0));
    // A clock that went back makes it fresh.
    let age = SystemTime::now().duration_since(modified).unwrap_or_default();
    if age > stale {
        return Some(Status::Idle);
    }
    let tail = tail_of(&path)?;
    let last = tail.lines().rev().find_map(|line| serde_json::from_str::<Entry>(line).ok());
    Some(last.map_or(Status::Idle, |entry| status_after(&entry)))
}

/// What the folder may be called: as `cwd` says, without a drive's letter, or as if
/// it began at the root.
fn folder_names(cwd: &str) -> impl Iterator<Item = String> {
    let encode = |path: &str| -> String {
        path.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
    };
    let name = encode(cwd);
    let drive = matches!(cwd.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic());
    let without_drive = drive.then(|| encode(&cwd[2..]));
    let from_root = (!drive && !name.starts_with('-')).then(|| format!("-{name}"));
    std::iter::once(name).chain(without_drive).chain(from_root)
}

fn folder_of(home: &Path, name: &str) -> PathBuf {
    home.join(".claude").join("projects").join(name)
}

fn newest(folder: &Path) -> Option<(PathBuf, SystemTime)> {
    std::fs::read_dir(folder)
        .ok()?
        .filter_map(Result::ok)
        .filter(|entry| entry.path().extension().is_some_and(|ending| ending == "jsonl"))
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.modified().ok()?)))
        .max_by_key(|(_, modified)| *modified)
}

fn tail_of(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES))).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// After a prompt or a tool's result the model works; after its last word it
/// waits.
fn status_after(entry: &Entry) -> Status {
    let stop_reason = entry.message.as_ref().and_then(|message| message.stop_reason.as_deref());
    match (entry.kind.as_str(), stop_reason) {
        ("user", _) | ("assistant", Some("tool_use") | None) => Status::Working,
        _ => Status::Idle,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_transcript(lines: &str) -> tempfile::TempDir {
        let home = tempfile::tempdir().expect("a folder");
        let folder = folder_of(home.path(), "-home-me-my-app");
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("old.txt"), "not one").expect("a file");
        std::fs::write(folder.join("session.jsonl"), lines).expect("a file");
        home
    }

    fn shown_by(lines: &str) -> Option<Status> {
        shown(with_transcript(lines).path(), "/home/me/my.app", 60_000)
    }

    #[test]
    fn a_folder_is_found_by_each_of_its_names() {
        for (cwd, name) in [
            ("/home/me/my.app", "-home-me-my-app"),
            ("C:\\Users\\Alice", "C--Users-Alice"),
            ("C:\\Users\\Alice", "-Users-Alice"),
            ("project/foo", "project-foo"),
            ("project/foo", "-project-foo"),
        ] {
            let home = tempfile::tempdir().expect("a folder");
            let folder = folder_of(home.path(), name);
            std::fs::create_dir_all(&folder).expect("a folder");
            std::fs::write(folder.join("session.jsonl"), PROMPT).expect("a file");
            assert_eq!(shown(home.path(), cwd, 60_000), Some(Status::Working), "{cwd} as {name}");
        }
    }

    const PROMPT: &str = r#"{"type":"user","message":{"content":"do it"}}"#;
    const TOOL: &str = r#"{"type":"assistant","message":{"stop_reason":"tool_use"}}"#;
    const DONE: &str = r#"{"type":"assistant","message":{"stop_reason":"end_turn"}}"#;

    #[test]
    fn the_last_entry_decides() {
        assert_eq!(shown_by(&format!("{DONE}\n{PROMPT}\n")), Some(Status::Working));
        assert_eq!(shown_by(&format!("{PROMPT}\n{TOOL}\n")), Some(Status::Working));
        assert_eq!(shown_by(&format!("{PROMPT}\n{TOOL}\n{DONE}\n")), Some(Status::Idle));
        assert_eq!(shown_by(&format!("{DONE}\n{PROMPT}\n{{\"type\":\"us")), Some(Status::Working));
        assert_eq!(shown_by(""), Some(Status::Idle));
    }

    #[test]
    fn one_that_is_not_written_to_is_idle_and_none_says_nothing() {
        let home = with_transcript(PROMPT);
        assert_eq!(shown(home.path(), "/home/me/my.app", -1), Some(Status::Idle));
        assert_eq!(shown(home.path(), "/elsewhere", 60_000), None);
    }
}
