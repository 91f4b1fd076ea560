//! How a command that failed says so.

use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;

use clap::error::ErrorKind as UsageErrorKind;
use serde_json::{Value, json};

use crate::config::ConfigErrors;
use crate::output::{self, Failure};
use crate::store::StoreError;

/// The exit code when the command or the configuration is wrong.
const WRONG_INPUT: u8 = 2;

/// Says what went wrong: a sentence on standard error, with `json` also an
/// object on standard output. Returns the exit code.
///
/// A reader that went away (`| head`) is no failure.
pub fn report(json: bool, error: &anyhow::Error) -> ExitCode {
    if error.chain().any(is_broken_pipe) {
        return ExitCode::SUCCESS;
    }
    let wrong_settings = error.downcast_ref::<ConfigErrors>();
    let message = sentence(error);
    let mut object = json!({"code": code_of(error), "message": message});
    if let (Some(errors), Some(fields)) = (wrong_settings, object.as_object_mut()) {
        fields.insert("problems".to_owned(), json!(errors.0));
    }
    say(json, &message, &object);
    ExitCode::from(if wrong_settings.is_some() { WRONG_INPUT } else { 1 })
}

/// Prints what clap has to say: help, the version, or what is wrong with the
/// arguments. Returns the exit code.
pub(crate) fn report_usage(json: bool, error: &clap::Error) -> ExitCode {
    if error.use_stderr() && json {
        let shows_help = UsageErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
        let message = if error.kind() == shows_help {
            "the command is not complete; see --help".to_owned()
        } else {
            first_paragraph(&error.render().to_string())
        };
        print_object(&json!({"code": "usage", "message": message}));
    }
    // Nobody is left to tell when this fails.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { WRONG_INPUT } else { 0 })
}

/// What clap found wrong, without its hints and its usage line.
fn first_paragraph(text: &str) -> String {
    let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ").trim_start_matches("error: ").to_owned()
}

fn say(json: bool, message: &str, object: &Value) {
    // eprintln! would panic when standard error is closed. The message may hold names
    // of peers.
    let _ = writeln!(io::stderr(), "claudemesh-broker: {}", output::printable_lines(message));
    if json {
        print_object(object);
    }
}

fn print_object(error: &Value) {
    if let Ok(line) = output::json_line(&json!({ "error": error })) {
        let _ = io::stdout().write_all(line.as_bytes());
    }
}

fn sentence(error: &anyhow::Error) -> String {
    match error.downcast_ref::<StoreError>() {
        Some(StoreError::Unavailable(_) | StoreError::Unknown(_)) => {
            format!("{error:#}; `claudemesh-broker doctor` looks for the cause")
        }
        _ => format!("{error:#}"),
    }
}

fn code_of(error: &anyhow::Error) -> &'static str {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.code;
    }
    if error.is::<ConfigErrors>() {
        return "config";
    }
    match error.downcast_ref::<StoreError>() {
        Some(StoreError::Unavailable(_) | StoreError::Unknown(_)) => "store_unavailable",
        Some(StoreError::Broken(_)) => "store_broken",
        Some(StoreError::Conflict(_)) => "conflict",
        Some(StoreError::NotFound(_)) => "not_found",
        Some(StoreError::Full(_)) => "quota",
        None if error.chain().any(|cause| cause.is::<io::Error>()) => "io",
        None => "failed",
    }
}

fn is_broken_pipe(cause: &(dyn std::error::Error + 'static)) -> bool {
    let of_io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
    let of_json =
        cause.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
    [of_io, of_json].contains(&Some(ErrorKind::BrokenPipe))
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn each_kind_of_failure_has_its_code() {
        let broken = || StoreError::Broken("x".to_owned());
        let cases: [(anyhow::Error, &str); 6] = [
            (Failure::new("invalid_slug", "no").into(), "invalid_slug"),
            (ConfigErrors(Vec::new()).into(), "config"),
            (StoreError::Unavailable("gone".to_owned()).into(), "store_unavailable"),
            (anyhow::Error::from(broken()).context("while listing"), "store_broken"),
            (io::Error::other("disk").into(), "io"),
            (anyhow::anyhow!("odd"), "failed"),
        ];
        for (error, code) in cases {
            assert_eq!(code_of(&error), code, "{error}");
        }
    }

    #[test]
    fn a_sentence_holds_the_cause_and_where_to_look() {
        let error: anyhow::Error = StoreError::Unavailable("disk full".to_owned()).into();
        let text = sentence(&error);
        assert!(text.contains("disk full") && text.contains("doctor"), "{text}");
        let error = Err::<(), _>(io::Error::other("disk")).context("cannot write a.jsonl");
        assert_eq!(sentence(&error.unwrap_err()), "cannot write a.jsonl: disk");
    }

    #[test]
    fn a_usage_error_names_the_arguments_that_are_missing() {
        let text = "error: required arguments were not provided:\n  <SLUG>\n\nUsage: x <SLUG>\n";
        assert_eq!(first_paragraph(text), "required arguments were not provided: <SLUG>");
    }

    #[test]
    fn a_reader_that_left_is_no_failure() {
        let gone = io::Error::from(ErrorKind::BrokenPipe);
        assert!(anyhow::Error::from(gone).context("printing").chain().any(is_broken_pipe));
        assert!(!is_broken_pipe(&io::Error::from(ErrorKind::NotFound)));
    }
}
