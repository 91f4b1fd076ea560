//! What a command that looks for faults has looked at, and how it says so.

use std::process::ExitCode;

use serde::Serialize;
use serde_json::json;

/// How good what was found is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// The finding is as it should be.
    Ok,
    /// Things work, and the finding will hurt some day.
    Warn,
    /// Things cannot work.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub(crate) struct Check {
    /// What was looked at.
    pub(crate) name: &'static str,
    /// How good it is.
    pub(crate) status: Status,
    /// What was found.
    pub(crate) found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) todo: Option<String>,
}

impl Check {
    /// What is as it should be.
    pub(crate) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, found: found.into(), todo: None }
    }

    /// What works, and may not for long.
    pub(crate) fn warn(
        name: &'static str,
        found: impl Into<String>,
        todo: impl Into<String>,
    ) -> Self {
        Self { name, status: Status::Warn, found: found.into(), todo: Some(todo.into()) }
    }

    /// What keeps the rest from working.
    pub(crate) fn fail(
        name: &'static str,
        found: impl Into<String>,
        todo: impl Into<String>,
    ) -> Self {
        Self { name, status: Status::Fail, found: found.into(), todo: Some(todo.into()) }
    }

    /// What was found, and what to do, for people.
    pub(crate) fn to_text(&self) -> String {
        let status = match self.status {
            Status::Ok => "ok  ",
            Status::Warn => "warn",
            Status::Fail => "FAIL",
        };
        let mut text = format!("{status}  {:<9} {}", self.name, self.found);
        if let Some(todo) = &self.todo {
            text.push_str("\n                -> ");
            text.push_str(todo);
        }
        text
    }
}

/// Says all of them. The exit code is 1 when one fails.
pub(crate) fn report(as_json: bool, checks: &[Check]) -> anyhow::Result<ExitCode> {
    let failed = checks.iter().any(|check| check.status == Status::Fail);
    if as_json {
        super::json(&json!({"ok": !failed, "checks": checks}))?;
    } else {
        for check in checks {
            super::line(&super::printable_lines(&check.to_text()))?;
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
