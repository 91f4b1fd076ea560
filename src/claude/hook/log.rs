//! The log of hooks: what went wrong, a line each, in a file that stays small. No body, no
//! key, no token and nothing that the user typed is in it.

use std::fs::{self, OpenOptions};
use std::io::Write as _;

use super::Home;
use crate::clock::Timestamp;
use crate::{limits, output, private};

/// Writes a line. Whatever fails here fails silently: there is no other place.
pub(super) fn write(home: &Home, event: &str, error: &anyhow::Error) {
    let path = home.log_file();
    if fs::metadata(&path).is_ok_and(|file| file.len() >= limits::HOOK_LOG_BYTES_MAX) {
        fs::rename(&path, path.with_extension("log.old")).ok();
    }
    let sentence = output::printable(&format!("{event}: {error:#}")).into_owned();
    let sentence: String = sentence.chars().take(1_000).collect();
    let line = format!("{} {sentence}\n", Timestamp::now());
    if private::make_file(&path).is_ok()
        && let Ok(mut file) = OpenOptions::new().append(true).open(&path)
    {
        file.write_all(line.as_bytes()).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_private_bounded_and_one_line_for_each_failure() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home::at(folder.path());
        write(&home, "stop\nforged", &anyhow::anyhow!("one\ntwo \u{1b}[2J"));
        let path = home.log_file();
        let text = fs::read_to_string(&path).expect("written");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("one\u{fffd}two") && !text.contains('\u{1b}'), "{text}");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(&path).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let long = "x".repeat(100_000);
        for _ in 0..1_000 {
            write(&home, "stop", &anyhow::anyhow!(long.clone()));
        }
        let sizes = fs::read_dir(path.parent().expect("a folder")).expect("listed");
        let sizes: Vec<u64> =
            sizes.map(|file| file.expect("there").metadata().expect("there").len()).collect();
        assert_eq!(sizes.len(), 2, "the log and the one before it");
        assert!(sizes.iter().all(|size| *size < limits::HOOK_LOG_BYTES_MAX + 4_096));
    }
}
