//! Imports run one way: this holds the table of ARCHITECTURE.md.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each layer with what it must not import, beside what stands above it.
const LAYERS: [(&[&str], &[&str]); 9] = [
    (&["id", "clock", "limits"], &["protocol", "store", "cluster"]),
    (&["protocol", "codec", "auth", "boxes", "audit"], &["store", "cluster", "outbox", "config"]),
    (&["store"], &["cluster", "session", "registry"]),
    (&["cluster"], &["store", "session", "registry"]),
    (&["outbox"], &["store", "cluster", "session", "registry"]),
    (&["accept"], &["cluster", "session", "registry", "outbox"]),
    (&["registry"], &["accept", "redelivery"]),
    (&["router", "redelivery"], &[]),
    (&["client"], &["store", "cluster", "session", "registry", "outbox"]),
];

/// What is above all of them.
const ABOVE: [&str; 8] = ["handlers", "connection", "http", "app", "cli", "lab", "command", "jobs"];

fn files_of(module: &str) -> Vec<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![source.join(format!("{module}.rs"))];
    let mut folders = vec![source.join(module)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok) {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path if path.extension().is_some_and(|ending| ending == "rs") => files.push(path),
                _ => {}
            }
        }
    }
    files
}

/// The modules that a file names by `crate::`, outside of its tests.
fn imports_of(file: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{file:?}: {error}"));
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines
        .flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| {
            rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>()
        })
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn no_module_imports_what_stands_above_it() {
    let mut wrong = Vec::new();
    for (modules, forbidden) in LAYERS {
        let own_layers_above = ["router", "redelivery", "node"];
        for module in modules {
            let is_router = ["router", "redelivery"].contains(module);
            let above = ABOVE.iter().chain(own_layers_above.iter().filter(|_| !is_router));
            let forbidden: Vec<&str> = above.chain(forbidden).copied().collect();
            for file in files_of(module) {
                if file.ends_with("tests.rs") {
                    continue;
                }
                for import in imports_of(&file) {
                    if forbidden.contains(&import.as_str()) && import != *module {
                        wrong.push(format!("{} imports {import}", file.display()));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "imports run one way:\n{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_imports_sees_them() {
    let app = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/app.rs");
    let imports = imports_of(&app);
    for expected in ["store", "cluster", "http", "node"] {
        assert!(imports.contains(expected), "{expected} is missing from {imports:?}");
    }
}
