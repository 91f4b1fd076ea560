//! What commands print: text for people, one JSON object for scripts; and how one that
//! fails says why. Whatever prints fails when standard output cannot be written.
//!
//! What comes from strangers never steers a terminal by way of this room. The commands
//! call it, those of [`crate::cli`] and of `claude` alike; it knows none of them.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

pub(crate) mod check;

/// A failure with a code for scripts and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    /// Scripts compare the code, which is stable.
    pub(crate) code: &'static str,
    /// What is wrong and what to do.
    pub(crate) message: String,
}

impl Failure {
    /// A failure, ready for `?`.
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Prints `value` as one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    raw(json_line(value)?.as_bytes())?;
    Ok(())
}

/// Prints what a command answers: `object` for scripts, `text` for people.
pub(crate) fn answer(as_json: bool, object: &impl Serialize, text: &str) -> anyhow::Result<()> {
    if as_json { json(object) } else { Ok(line(text)?) }
}

/// `value` as one line of JSON. Beyond what JSON asks for, what would steer a terminal
/// is escaped: the same value for a program, and harmless to look at.
pub(crate) fn json_line(value: &impl Serialize) -> serde_json::Result<String> {
    let mut line = inert_json(value)?;
    line.push('\n');
    Ok(line)
}

/// As [`json_line`], without the end of the line.
pub(crate) fn inert_json(value: &impl Serialize) -> serde_json::Result<String> {
    let text = serde_json::to_string(value)?;
    let mut line = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        if steers(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                line.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            line.push(c);
        }
    }
    Ok(line)
}

/// Prints a line of text. Not `println!`, which panics when the reader left.
pub(crate) fn line(text: &str) -> io::Result<()> {
    raw(format!("{text}\n").as_bytes())
}

pub(crate) fn raw(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Prints rows under headings: with borders and fitted to its width on a
/// terminal, in plain columns elsewhere.
pub(crate) fn table<const N: usize>(
    headings: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> io::Result<()> {
    let mut table = Table::new();
    if io::stdout().is_terminal() {
        table.load_preset(presets::UTF8_BORDERS_ONLY);
        table.set_content_arrangement(ContentArrangement::Dynamic);
    } else {
        table.load_preset(presets::NOTHING);
    }
    table.set_header(headings);
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell)));
    }
    line(&table.trim_fmt())
}

/// `text` without the characters that would steer a terminal: names come from
/// strangers.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if text.contains(steers) {
        Cow::Owned(text.replace(steers, "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// As [`printable`], for text of several lines that are ours.
pub(crate) fn printable_lines(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// Whether a terminal would do something at this character, or show nothing for it:
/// controls, marks of direction, separators of lines, what has no width, tags.
pub(crate) fn steers(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// `text` as a shell takes it for one word.
pub(crate) fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@%+=,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// `text`, or a dash for nothing.
pub(crate) fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}

/// `1 member`, `2 members`.
pub(crate) fn count(number: impl TryInto<u64> + Copy, noun: &str) -> String {
    let number = number.try_into().unwrap_or_default();
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_steer_the_terminal() {
        assert_eq!(printable("Ada Lovelace ü"), "Ada Lovelace ü");
        assert_eq!(printable("a\u{1b}[2Jb\nc\u{202e}d"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
        let hidden = "\u{61c}\u{200b}\u{200d}\u{2028}\u{2029}\u{2066}\u{feff}\u{e0041}\u{9b}\u{7f}";
        assert!(printable(hidden).chars().all(|c| c == '\u{fffd}'));
        assert_eq!(printable_lines("a\u{9b}\nb"), "a\u{fffd}\nb");
    }

    #[test]
    fn json_steers_no_terminal_and_says_the_same() {
        let name = "a\u{9b}2J\u{202e}\u{e0041}ü\u{7f}";
        let line = json_line(&name).expect("a text");
        assert_eq!(line, "\"a\\u009b2J\\u202e\\udb40\\udc41ü\\u007f\"\n");
        assert_eq!(serde_json::from_str::<String>(&line).expect("JSON"), name);
    }

    #[test]
    fn a_shell_reads_a_word_as_it_was() {
        assert_eq!(shell_word("/var/lib/mesh-1"), "/var/lib/mesh-1");
        assert_eq!(shell_word("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(shell_word(""), "''");
    }

    #[test]
    fn one_of_a_kind_has_no_plural() {
        assert_eq!(count(1_i64, "member"), "1 member");
        assert_eq!(count(0_usize, "row"), "0 rows");
    }
}
