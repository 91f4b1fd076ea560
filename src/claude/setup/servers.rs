//! What hosts have under our server's name, read from their own files.

use std::path::Path;

use serde_json::Value;

use super::description::SERVER;
use super::owner;

/// What stands under our server's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Nothing.
    Missing,
    /// Our program, at this path.
    Ours(String),
    /// Another program: its command line.
    Foreign(String),
    /// The file is there and cannot be read.
    Unreadable(String),
}

/// The entry of a JSON file with `mcpServers`: `.claude.json`, `.mcp.json`.
pub(crate) fn in_json(path: &Path) -> Entry {
    match read_json(path) {
        Ok(None) => Entry::Missing,
        Ok(Some(file)) => of(file.get("mcpServers").and_then(|servers| servers.get(SERVER))),
        Err(reason) => Entry::Unreadable(reason),
    }
}

/// What stands in `.claude.json` for one project of this user: it goes before the
/// user's own entry.
pub(crate) fn of_project(path: &Path, project: &Path) -> Entry {
    let Ok(Some(file)) = read_json(path) else { return Entry::Missing };
    let project = file.get("projects").and_then(|all| all.get(project.to_str()?));
    of(project.and_then(|project| project.get("mcpServers")?.get(SERVER)))
}

/// Which entry that is.
pub(crate) fn of(entry: Option<&Value>) -> Entry {
    match entry {
        None | Some(Value::Null) => Entry::Missing,
        Some(entry) => {
            let words = owner::words_of(entry);
            if owner::is_our_server(entry) {
                Entry::Ours(words.into_iter().next().unwrap_or_default())
            } else {
                let url = entry.get("url").and_then(Value::as_str).unwrap_or("something else");
                let line = words.join(" ");
                Entry::Foreign(if line.is_empty() { url.to_owned() } else { line })
            }
        }
    }
}

/// A JSON file that a host keeps; none where it is not there.
pub(crate) fn read_json(path: &Path) -> Result<Option<Value>, String> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    if bytes.trim_ascii().is_empty() {
        return Ok(None);
    }
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whose_entry_stands_under_our_name_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(".claude.json");
        assert_eq!(in_json(&file), Entry::Missing);
        let cases = [
            ("", Entry::Missing),
            ("{}", Entry::Missing),
            (
                r#"{"mcpServers":{"claudemesh":{"command":"/a/claudemesh-broker","args":["claude","mcp"]}}}"#,
                Entry::Ours("/a/claudemesh-broker".to_owned()),
            ),
            (
                r#"{"mcpServers":{"claudemesh":{"command":"claudemesh","args":["mcp"]}}}"#,
                Entry::Foreign("claudemesh mcp".to_owned()),
            ),
            (
                r#"{"mcpServers":{"claudemesh":{"type":"http","url":"https://x"}}}"#,
                Entry::Foreign("https://x".to_owned()),
            ),
        ];
        for (text, entry) in cases {
            std::fs::write(&file, text).expect("written");
            assert_eq!(in_json(&file), entry, "{text}");
        }
        std::fs::write(&file, "{").expect("written");
        assert!(matches!(in_json(&file), Entry::Unreadable(_)));
    }

    #[test]
    fn a_project_of_this_user_may_have_an_entry_of_its_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(".claude.json");
        let text = json!({"projects": {"/work": {"mcpServers": {"claudemesh": {"command": "x"}}}}});
        std::fs::write(&file, text.to_string()).expect("written");
        assert_eq!(of_project(&file, Path::new("/work")), Entry::Foreign("x".to_owned()));
        assert_eq!(of_project(&file, Path::new("/else")), Entry::Missing);
    }
}
