//! `peer info`: a mesh as a whole.

use std::path::Path;
use std::process::ExitCode;

use super::WhoArgs;
use crate::cli::output;
use crate::protocol::{MeshInfo, MeshInfoResult};

/// As many names are shown of a list.
const NAMES_SHOWN: usize = 10;

pub(super) async fn run(who: &WhoArgs, json: bool, data_dir: &Path) -> anyhow::Result<ExitCode> {
    let info = who.ask(data_dir, &MeshInfo {}).await?;
    if json {
        output::json(&info)?;
    } else {
        output::table(["what", "how many", "names"], rows(&info))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn rows(info: &MeshInfoResult) -> Vec<[String; 3]> {
    let row = |what: &str, count: String, names: String| [what.to_owned(), count, names];
    let count = |what: &str, count: i64| row(what, count.to_string(), String::new());
    let of = |name: &str, count: i64| format!("{count} {name}");
    let tasks = &info.tasks;
    let all = tasks.open + tasks.claimed + tasks.done;
    let by_status = [of("open", tasks.open), of("claimed", tasks.claimed), of("done", tasks.done)];
    vec![
        row("peers", info.peers.to_string(), String::new()),
        row("groups", info.groups.len().to_string(), shown(&info.groups)),
        row("tasks", all.to_string(), by_status.join(", ")),
        row("state", info.state_count.to_string(), shown(&info.state_keys)),
        row("streams", info.stream_count.to_string(), shown(&info.streams)),
        count("memories", info.memory_count),
        count("contexts", info.context_count),
        count("skills", info.skill_count),
    ]
}

fn shown(names: &[String]) -> String {
    let mut text = names.iter().take(NAMES_SHOWN).cloned().collect::<Vec<_>>().join(" ");
    if names.len() > NAMES_SHOWN {
        text.push_str(" …");
    }
    text
}
