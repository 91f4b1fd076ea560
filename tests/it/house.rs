//! How the house is built: which module imports which, and what ARCHITECTURE.md
//! says of it.

mod conditions;
mod documents;
mod graph;
mod map;
mod modules;
mod names;
mod references;
mod requests;
mod small;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use graph::Graph;
use modules::{Crate, Id};
use references::references_of;

/// The rooms that a peer as a library is made of: words, the wire, proof and sealing.
const OF_A_PEER: [&str; 10] = [
    "id", "clock", "limits", "config", "metrics", "logging", "protocol", "codec", "auth", "sealing",
];
/// The rooms of a coding session: those of a peer, and what this user's commands share.
const OF_A_SESSION: [&str; 14] = [
    "id", "clock", "limits", "config", "metrics", "logging", "protocol", "codec", "auth",
    "sealing", "client", "keyring", "output", "private",
];
const WORDS: [&str; 6] = ["id", "clock", "limits", "config", "metrics", "logging"];

/// The rooms below `features` that hold no request.
const SHARED_BY_FEATURES: [&str; 8] =
    ["context", "dispatch", "listing", "moderators", "on_behalf", "receipts", "relaying", "shapes"];

const LINES_MAX: usize = 500;

struct House {
    all: Crate,
    graph: Graph,
}

impl House {
    fn read(text_of: &dyn Fn(&str) -> Option<String>) -> Self {
        let (all, code) = Crate::read(text_of);
        let graph = Graph::of(&all, &references_of(&all, &code));
        Self { all, graph }
    }

    fn room(&self, name: &str) -> Id {
        let room = self.all.modules[0].children.get(name);
        *room.unwrap_or_else(|| panic!("there is no room {name}"))
    }
}

static HOUSE: LazyLock<House> =
    LazyLock::new(|| House::read(&|file| fs::read_to_string(source().join(file)).ok()));

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn source() -> PathBuf {
    root().join("src")
}

#[test]
fn no_module_imports_what_imports_it() {
    let cycles = HOUSE.graph.cycles(&HOUSE.all);
    assert!(cycles.is_empty(), "imports run in a circle:\n\n{}", cycles.join("\n"));
}

#[test]
fn the_map_names_every_room_below_whatever_it_uses() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let cycles = HOUSE.graph.cycles(&HOUSE.all);
    assert!(cycles.is_empty(), "no order of rooms while imports run in a circle");
    let right = map::table(&HOUSE.all, &HOUSE.graph, &map::rows_of(&page));
    let stands = map::lines_of(&page).join("\n");
    assert!(stands == right, "the map of ARCHITECTURE.md is to be:\n\n{right}\n");
    assert!(!right.contains(map::BLANK), "a room of the map has no sentence yet");
}

#[test]
fn the_wire_and_a_peer_know_nothing_of_the_broker() {
    let mut wrong = Vec::new();
    let rooms = [
        ("protocol", WORDS.as_slice()),
        ("client", OF_A_PEER.as_slice()),
        ("claude", OF_A_SESSION.as_slice()),
    ];
    for (room, may) in rooms {
        let from = HOUSE.room(room);
        for to in HOUSE.graph.imports_of(&HOUSE.all, from) {
            if !may.contains(&HOUSE.all.name_of(to)) {
                wrong.extend(
                    HOUSE
                        .graph
                        .places(&HOUSE.all, from, to)
                        .into_iter()
                        .map(|place| format!("{place} -> {}", HOUSE.all.name_of(to))),
                );
            }
        }
    }
    assert!(wrong.is_empty(), "not for them to know:\n{}", wrong.join("\n"));
}

/// A room that names the node can reach everything, and has no unit tests for that.
#[test]
fn only_the_root_and_sockets_know_the_whole_node() {
    let node = HOUSE.room("node");
    let mut wrong = Vec::new();
    for room in HOUSE.all.modules[0].children.values() {
        if !["app", "socket"].contains(&HOUSE.all.name_of(*room)) {
            wrong.extend(HOUSE.graph.places(&HOUSE.all, *room, node));
        }
    }
    assert!(wrong.is_empty(), "take parts instead of the node:\n{}", wrong.join("\n"));
}

/// What features share is in rooms of its own, so that one can go without another.
#[test]
fn no_feature_imports_a_feature() {
    let children = &HOUSE.all.modules[HOUSE.room("features")].children;
    let features: Vec<Id> = children
        .iter()
        .filter(|(name, _)| !SHARED_BY_FEATURES.contains(&name.as_str()))
        .map(|(_, module)| *module)
        .collect();
    assert!(features.len() >= 4, "there are features: {features:?}");
    let mut wrong = Vec::new();
    for from in &features {
        for to in features.iter().filter(|to| *to != from) {
            wrong.extend(HOUSE.graph.places(&HOUSE.all, *from, *to));
        }
    }
    assert!(wrong.is_empty(), "share it in a room that is no feature:\n{}", wrong.join("\n"));
}

#[test]
fn no_file_is_too_long_to_read() {
    let files: BTreeSet<&str> =
        HOUSE.all.modules.iter().map(|module| module.file.as_str()).collect();
    let mut long = Vec::new();
    for file in files {
        let text = fs::read_to_string(source().join(file)).expect("a file of the crate");
        let lines = text.lines().count();
        if lines > LINES_MAX {
            long.push(format!("{file}: {lines} lines"));
        }
    }
    assert!(long.is_empty(), "more than {LINES_MAX} lines:\n{}", long.join("\n"));
}
