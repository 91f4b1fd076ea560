//! What the demo prints: lines for people as it goes, or one object at its end.

use std::io::{self, IsTerminal as _};

use serde::Serialize;
use serde_json::{Value, json};

use crate::audit::Verdict;
use crate::cli::output;

/// Characters of a ciphertext or hash that are shown.
const SHORT_CHARS: usize = 36;
/// The width of the longest name, and a space.
const NAME_WIDTH: usize = 8;

/// A step of the demo.
#[derive(Serialize)]
struct Step {
    step: String,
    lines: Vec<Line>,
}

/// Something that one of those involved did or saw.
#[derive(Serialize)]
struct Line {
    who: String,
    what: &'static str,
    text: String,
}

pub(super) struct Transcript {
    json: bool,
    colours: bool,
    steps: Vec<Step>,
}

impl Transcript {
    pub(super) fn new(json: bool) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let colours = !json && wanted && io::stdout().is_terminal();
        Self { json, colours, steps: Vec::new() }
    }

    /// Begins a step under a heading.
    pub(super) fn step(&mut self, title: &str) -> io::Result<()> {
        self.steps.push(Step { step: title.to_owned(), lines: Vec::new() });
        let heading = format!("{}. {title}", self.steps.len());
        let heading = self.paint("1", &heading);
        self.print(&if self.steps.len() == 1 { heading } else { format!("\n{heading}") })
    }

    pub(super) fn note(&mut self, who: &str, text: &str) -> io::Result<()> {
        self.line(who, "note", text, "0")
    }

    /// Notes that a peer sends.
    pub(super) fn says(&mut self, who: &str, to: &str, text: &str) -> io::Result<()> {
        self.line(who, "says", &format!("{to}: {text}"), "36")
    }

    /// Notes that a peer reads what it got.
    pub(super) fn sees(&mut self, who: &str, from: &str, text: &str) -> io::Result<()> {
        self.line(who, "sees", &format!("{from}: {text}"), "32")
    }

    /// Notes what the broker has of a message.
    pub(super) fn carries(&mut self, from: &str, to: &str, ciphertext: &str) -> io::Result<()> {
        let text = format!("{from} to {to}: {} ({} bytes)", short(ciphertext), ciphertext.len());
        self.line("broker", "sees", &text, "33")
    }

    /// Notes a row of the audit chain.
    pub(super) fn audited(
        &mut self,
        actor: &str,
        event: &str,
        payload: &Value,
        hash: &str,
    ) -> io::Result<()> {
        let hash: String = hash.chars().take(12).collect();
        let target = payload["targetSpec"].as_str().map(|target| format!(" to {}", short(target)));
        let text = format!("{hash}  {event}{} by {actor}", target.unwrap_or_default());
        self.line("chain", "row", &text, "35")
    }

    /// Ends the transcript.
    pub(super) fn finish(self, verdict: &Verdict, seconds: f64) -> anyhow::Result<()> {
        if self.json {
            let audit = json!({"valid": verdict.valid, "entries": verdict.entries});
            return output::json(&json!({
                "steps": self.steps, "audit": audit, "seconds": seconds,
            }));
        }
        let verified = match verdict.first_bad() {
            None => {
                format!("{} rows, each hash follows from the one before: verified", verdict.entries)
            }
            Some(row) => format!("BROKEN at row {row}: this is a bug, please report it"),
        };
        self.print(&self.tell("chain", &verified, if verdict.valid { "32" } else { "31" }))?;
        self.print(&format!(
            "\nThat took {seconds:.1} s and left nothing behind. To do it yourself:\n  \
             claudemesh-broker                          the broker; leave it running\n  \
             claudemesh-broker mesh create my-team      in another terminal\n  \
             claudemesh-broker invite create my-team\n  \
             claudemesh-broker peer join <link> --name alice\n  \
             claudemesh-broker peer listen --as alice"
        ))?;
        Ok(())
    }

    fn line(&mut self, who: &str, what: &'static str, text: &str, colour: &str) -> io::Result<()> {
        self.print(&self.tell(who, text, colour))?;
        if let Some(step) = self.steps.last_mut() {
            step.lines.push(Line { who: who.to_owned(), what, text: text.to_owned() });
        }
        Ok(())
    }

    fn tell(&self, who: &str, text: &str, colour: &str) -> String {
        format!(
            "   {} {}",
            self.paint("2", &format!("{who:<NAME_WIDTH$}")),
            self.paint(colour, text)
        )
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn print(&self, text: &str) -> io::Result<()> {
        if self.json { Ok(()) } else { output::line(text) }
    }
}

fn short(text: &str) -> String {
    if text.chars().count() <= SHORT_CHARS {
        return text.to_owned();
    }
    let start: String = text.chars().take(SHORT_CHARS).collect();
    format!("{start}...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_colours_unless_there_is_a_terminal_for_them() {
        let plain = Transcript { json: false, colours: false, steps: Vec::new() };
        assert_eq!(plain.tell("bob", "hi", "32"), "   bob      hi");
        let bright = Transcript { colours: true, ..plain };
        assert!(bright.tell("bob", "hi", "32").contains("\x1b[32mhi\x1b[0m"));
    }

    #[test]
    fn long_ciphertexts_are_cut() {
        assert_eq!(short("abc"), "abc");
        assert_eq!(short(&"x".repeat(100)).len(), SHORT_CHARS + 3);
    }
}
