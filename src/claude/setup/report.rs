//! What installing and uninstalling say that they did.

use std::path::Path;

use serde::Serialize;
use serde_json::json;

use crate::output;

/// What became of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// It is different now.
    Changed,
    /// It was as it should be.
    Kept,
    /// The user has to do it.
    Todo,
    /// Worth knowing.
    Note,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Step {
    pub(crate) outcome: Outcome,
    /// A file, or a host.
    pub(crate) what: String,
    /// What is different in it, or what to do.
    pub(crate) details: Vec<String>,
}

/// All of it, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    steps: Vec<Step>,
}

impl Report {
    /// Notes what became of a file or a host.
    pub(crate) fn add(&mut self, outcome: Outcome, what: impl Into<String>, details: Vec<String>) {
        self.steps.push(Step { outcome, what: what.into(), details });
    }

    /// Notes what is different in a file, if anything is.
    pub(crate) fn file(&mut self, path: &Path, details: Vec<String>, unchanged: &str) {
        let what = path.display().to_string();
        if details.is_empty() {
            self.add(Outcome::Kept, what, vec![unchanged.to_owned()]);
        } else {
            self.add(Outcome::Changed, what, details);
        }
    }

    fn changed(&self) -> bool {
        self.steps.iter().any(|step| step.outcome == Outcome::Changed)
    }

    /// Says it.
    pub(crate) fn print(&self, as_json: bool, next: &str) -> anyhow::Result<()> {
        let object = json!({"changed": self.changed(), "steps": self.steps, "next": next});
        let mut lines = Vec::new();
        for step in &self.steps {
            let outcome = match step.outcome {
                Outcome::Changed => "changed",
                Outcome::Kept => "kept   ",
                Outcome::Todo => "TO DO  ",
                Outcome::Note => "note   ",
            };
            lines.push(format!("{outcome}  {}", step.what));
            lines.extend(step.details.iter().map(|detail| format!("           {detail}")));
        }
        lines.push(format!("next: {next}"));
        let text = output::printable_lines(&lines.join("\n"));
        output::answer(as_json, &object, &text)
    }
}
