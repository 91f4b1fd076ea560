//! Codex's `config.toml` with our server put in or taken out: for where its own program,
//! which does that otherwise, is not there. Pure.

use serde_json::{Value, json};
use toml_edit::{Array, DocumentMut, Item, Table, TableLike, value};

use super::description::{SERVER, SERVER_ARGS};
use super::json_text::Unfit;
use super::servers::{self, Entry};
use super::settings::Edited;

const SERVERS: &str = "mcp_servers";

/// The entry under our server's name.
pub(crate) fn entry(text: &str) -> Result<Entry, Unfit> {
    let document = parse(text)?;
    let found = document.get(SERVERS).and_then(Item::as_table_like);
    let found = found.and_then(|servers| servers.get(SERVER)?.as_table_like());
    Ok(servers::of(found.map(json_of).as_ref()))
}

/// Puts our server in; the caller has seen that no other has the name.
pub(crate) fn put(text: &str, program: &str) -> Result<Edited, Unfit> {
    let mut document = parse(text)?;
    let before = entry(text)?;
    if before == Entry::Ours(program.to_owned()) {
        return Ok(Edited { text: text.to_owned(), changes: Vec::new() });
    }
    let servers = document.entry(SERVERS).or_insert_with(|| {
        let mut table = Table::new();
        // Only the server's own heading is written.
        table.set_implicit(true);
        Item::Table(table)
    });
    let shape = || Unfit::Shape(format!("{SERVERS:?}"), "a table");
    let servers = servers.as_table_like_mut().ok_or_else(shape)?;
    let mut ours = Table::new();
    ours.insert("command", value(program));
    ours.insert("args", value(SERVER_ARGS.into_iter().collect::<Array>()));
    let change = if before == Entry::Missing {
        servers.insert(SERVER, Item::Table(ours));
        "server claudemesh added"
    } else {
        // What the user has set for it besides stays.
        let there = servers.get_mut(SERVER).and_then(Item::as_table_like_mut).ok_or_else(shape)?;
        for (key, item) in ours {
            there.insert(&key, item);
        }
        "server claudemesh: our older entry replaced"
    };
    Ok(Edited { text: document.to_string(), changes: vec![change.to_owned()] })
}

/// Takes our server out.
pub(crate) fn remove(text: &str) -> Result<Edited, Unfit> {
    let mut document = parse(text)?;
    if !matches!(entry(text)?, Entry::Ours(_)) {
        return Ok(Edited { text: text.to_owned(), changes: Vec::new() });
    }
    if let Some(servers) = document.get_mut(SERVERS).and_then(Item::as_table_like_mut) {
        servers.remove(SERVER);
        if servers.is_empty() {
            document.remove(SERVERS);
        }
    }
    Ok(Edited { text: document.to_string(), changes: vec!["server claudemesh removed".to_owned()] })
}

/// Whether the user has switched hooks off.
pub(crate) fn hooks_are_off(text: &str) -> bool {
    let Ok(document) = parse(text) else { return false };
    let features = document.get("features").and_then(Item::as_table_like);
    let is_off =
        |name: &str| features.and_then(|features| features.get(name)?.as_bool()) == Some(false);
    is_off("hooks") || is_off("codex_hooks")
}

fn parse(text: &str) -> Result<DocumentMut, Unfit> {
    text.parse().map_err(|error: toml_edit::TomlError| Unfit::Toml(error.message().to_owned()))
}

fn json_of(table: &dyn TableLike) -> Value {
    let text = |key: &str| table.get(key).and_then(Item::as_str);
    let args = table.get("args").and_then(Item::as_array);
    let args: Option<Vec<&str>> =
        args.map(|args| args.iter().map(|arg| arg.as_str().unwrap_or_default()).collect());
    let mut entry = json!({"command": text("command"), "url": text("url")});
    if let Some(args) = args {
        entry["args"] = json!(args);
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: &str = "/opt/bin/claudemesh-broker";
    const FOREIGN: &str = "\
# mine
model = \"gpt\"   # the good one

[mcp_servers.other]
command = 'other'
args = [ \"a\",
  \"b\" ]

[features]
x = true
";

    #[test]
    fn the_server_comes_and_goes_and_the_rest_keeps_its_bytes() {
        for text in ["", FOREIGN] {
            let after = put(text, PROGRAM).expect("TOML");
            assert_eq!(after.changes, ["server claudemesh added"]);
            assert!(after.text.contains(
                "[mcp_servers.claudemesh]\ncommand = \"/opt/bin/claudemesh-broker\"\nargs = \
                 [\"claude\", \"mcp\"]\n"
            ));
            assert_eq!(entry(&after.text), Ok(Entry::Ours(PROGRAM.to_owned())));
            let again = put(&after.text, PROGRAM).expect("TOML");
            assert_eq!((again.text.as_str(), again.changes), (after.text.as_str(), Vec::new()));
            assert_eq!(remove(&after.text).expect("TOML").text, text);
        }
    }

    #[test]
    fn an_upgrade_keeps_what_the_user_set_for_the_server() {
        let old = "[mcp_servers.claudemesh]\ncommand = \"/old/claudemesh-broker\"\nargs = \
                   [\"claude\", \"mcp\"]\ntool_timeout_sec = 90\n";
        let after = put(old, PROGRAM).expect("TOML");
        assert!(after.text.contains("tool_timeout_sec = 90") && !after.text.contains("/old/"));
    }

    #[test]
    fn a_server_of_that_name_in_any_writing_is_seen() {
        let foreign = [
            "[mcp_servers.claudemesh]\ncommand = \"claudemesh\"\nargs = [\"mcp\"]\n",
            "mcp_servers = { claudemesh = { command = \"claudemesh\", args = [\"mcp\"] } }\n",
            "mcp_servers.claudemesh.command = \"claudemesh\"\nmcp_servers.claudemesh.args = [\"mcp\"]\n",
        ];
        for text in foreign {
            assert_eq!(entry(text), Ok(Entry::Foreign("claudemesh mcp".to_owned())), "{text}");
            assert_eq!(remove(text).expect("TOML").text, text);
        }
    }

    #[test]
    fn what_is_no_toml_is_refused() {
        for text in ["a = ", "[a", "mcp_servers = 1"] {
            assert!(put(text, PROGRAM).is_err(), "{text}");
        }
        assert!(hooks_are_off("[features]\nhooks = false\n"));
        assert!(!hooks_are_off(FOREIGN) && !hooks_are_off("["));
    }
}
