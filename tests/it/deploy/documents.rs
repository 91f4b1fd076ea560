//! The commands that documents tell operators to type are ones that the program
//! has. Those for backups are run by `backup.rs`.

use std::ffi::OsString;

use claudemesh_broker::command::Cli;
use claudemesh_broker::config::{SETTINGS, Setting};

use super::text_of;

/// A line's words, as a shell takes them apart.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in line.chars() {
        match (quote, letter) {
            (None, '#') if word.is_none() => break,
            (None, ' ') => words.extend(word.take()),
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (Some(open), _) if open == letter => quote = None,
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// The program's own words in a line of a document, if it is run there: by
/// itself, with variables before it, or in a container.
fn command(line: &str) -> Option<Vec<String>> {
    let all = words(line);
    let leads_on = |word: &String| {
        ["$", "sudo", "node-1", "--", "-C"].contains(&word.as_str()) || word.contains('=')
    };
    let at = (0..all.len()).find(|at| {
        let program = all[*at].split(' ').next().and_then(|path| path.rsplit('/').next());
        let is_run = all[..*at].last().is_none_or(leads_on);
        program == Some("claudemesh-broker") && is_run
    })?;
    if all[at].contains(' ') {
        // A whole command in one word, for another shell.
        return Some(words(&all[at]));
    }
    let is_redirected =
        |word: &String| word == ">>" || word.starts_with(['<', '>']) && !word.ends_with('>');
    Some(all[at..].iter().take_while(|word| !is_redirected(word)).cloned().collect())
}

#[test]
fn the_readme_lists_every_setting_as_the_program_does() {
    let readme = text_of("README.md");
    for Setting { name, default, meaning, .. } in SETTINGS {
        let default = if default.is_empty() { "-".to_owned() } else { format!("`{default}`") };
        let row = format!("| `{name}` | {default} | {meaning} |");
        assert!(readme.contains(&row), "README.md lacks the row\n{row}");
    }
}

#[test]
fn every_command_in_the_documents_is_one_that_the_program_has() {
    let mut count = 0;
    for file in ["README.md", "docs/ADMIN.md", "docs/DEPLOY.md", "docs/OPERATIONS.md"] {
        let text = text_of(file);
        let blocks = text.split("```").skip(1).step_by(2);
        for words in blocks.flat_map(str::lines).filter_map(command) {
            let parsed = Cli::from_args(words.iter().map(OsString::from));
            assert!(parsed.is_ok(), "{file}: {words:?}");
            count += 1;
        }
    }
    assert!(count > 20, "only {count} were found");
}
