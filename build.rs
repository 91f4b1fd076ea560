//! Tells the program which commit it is built from.
//!
//! `CLAUDEMESH_COMMIT` says so where there is no repository, as in an image's
//! build. Else git is asked, for release builds only: a debug build that named
//! its commit would be built anew with each. Neither is no failure.

use std::path::Path;
use std::process::Command;

const COMMIT: &str = "CLAUDEMESH_COMMIT";

fn main() {
    println!("cargo::rerun-if-env-changed={COMMIT}");
    println!("cargo::rerun-if-changed=build.rs");
    let given = std::env::var(COMMIT).unwrap_or_default();
    let given = given.trim();
    let commit = if given.is_empty() { from_git() } else { Some(given.to_owned()) };
    let is_plain = |commit: &String| {
        (1..=64).contains(&commit.len())
            && commit.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
    };
    let commit = commit.filter(is_plain).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env={COMMIT}={commit}");
}

fn from_git() -> Option<String> {
    if std::env::var("PROFILE").as_deref() != Ok("release") {
        return None;
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    // It says when the commit changes, whatever branch that is on.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    if Path::new(&log).exists() {
        println!("cargo::rerun-if-changed={log}");
    }
    Some(commit)
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}
