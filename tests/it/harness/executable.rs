//! Programs that a test puts somewhere and then starts.
//!
//! A file is written by another process: while this one has it open for writing,
//! a test beside it may fork, and Linux starts no program that any process has
//! open for writing (`ETXTBSY`, execve(2)).

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes a script that everybody may start.
pub fn write_program(file: &Path, script: &str) {
    let mut install = Command::new("install")
        .args(["-m", "755", "/dev/stdin"])
        .arg(file)
        .stdin(Stdio::piped())
        .spawn()
        .expect("install starts");
    let mut stdin = install.stdin.take().expect("piped");
    stdin.write_all(script.as_bytes()).expect("it is read");
    drop(stdin);
    assert!(install.wait().expect("it ends").success(), "{} is not written", file.display());
}

/// Copies a program, for everybody to start.
pub fn copy_program(from: &Path, to: &Path) {
    let status = Command::new("install").args(["-m", "755"]).args([from, to]).status();
    assert!(status.expect("install starts").success(), "{} is not copied", from.display());
}
