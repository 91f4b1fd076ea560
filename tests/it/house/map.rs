//! The table of rooms in ARCHITECTURE.md. A room's sentence is written by hand;
//! the order and what each room uses follow from the imports.

use std::collections::{BTreeMap, BTreeSet};

use super::graph::Graph;
use super::modules::{Crate, Id};

/// Stands where a sentence has to be written.
pub const BLANK: &str = "(one sentence)";

const HEAD: [&str; 2] = ["| room | what it is | uses |", "| --- | --- | --- |"];

/// A room's name, and what the page says it is.
pub type Row = (String, String);

/// The lines of the page's table, its head included.
pub fn lines_of(page: &str) -> Vec<&str> {
    let lines = page.lines().skip_while(|line| *line != HEAD[0]);
    lines.take_while(|line| line.starts_with('|')).collect()
}

/// The rooms in the order of the page.
pub fn rows_of(page: &str) -> Vec<Row> {
    let rows = lines_of(page).into_iter().skip(HEAD.len()).map(|line| {
        let mut cells = line.trim_matches('|').split(" | ").map(|cell| cell.trim());
        let (room, words) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
        (room.trim_matches('`').to_owned(), words.to_owned())
    });
    rows.collect()
}

/// The table as it has to be: every room once, below all that it uses, and
/// otherwise where the page has it.
pub fn table(all: &Crate, graph: &Graph, rows: &[Row]) -> String {
    let mut order: Vec<&str> = rows.iter().map(|(room, _)| room.as_str()).collect();
    order.extend(all.modules[0].children.keys().map(String::as_str));
    let words: BTreeMap<&str, &str> =
        rows.iter().map(|(room, words)| (room.as_str(), words.as_str())).collect();
    let mut left: Vec<Id> = Vec::new();
    for room in order.iter().filter_map(|room| all.modules[0].children.get(*room)) {
        if !left.contains(room) {
            left.push(*room);
        }
    }
    let (mut lines, mut named) = (HEAD.map(str::to_owned).to_vec(), BTreeSet::new());
    while let Some(at) = left.iter().position(|room| graph.imports_of(all, *room).is_subset(&named))
    {
        let room = left.remove(at);
        named.insert(room);
        let uses: Vec<String> = graph
            .imports_of(all, room)
            .iter()
            .map(|used| format!("`{}`", all.name_of(*used)))
            .collect();
        let name = all.name_of(room);
        let words = words.get(name).filter(|words| !words.is_empty());
        let words = words.copied().unwrap_or(BLANK);
        lines.push(format!("| `{name}` | {words} | {} |", uses.join(", ")));
    }
    assert!(left.is_empty(), "rooms in a circle have no order");
    lines.join("\n")
}
