//! The key by which heads of audit chains are signed, and how often nodes do it.

use std::io;
use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::secret::Secret;

/// Hex digits of an ed25519 seed.
const SEED_DIGITS: usize = 64;

/// The key by which heads of audit chains are signed, and how often nodes do it.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// `AUDIT_KEY`: the key, which must not be where the database is. Default none: heads
    /// are not signed. An ed25519 seed as 64 hex digits, or the whole path of a file that
    /// has it.
    pub key: Option<AuditKeySource>,
    /// `AUDIT_HEAD_ROWS`: after how many rows of a chain a node signs where it ends.
    /// Default 1000, 1 to 1000000.
    pub head_rows: i64,
    /// `AUDIT_HEAD_SECONDS`: after how long it does so in any case where the chain has
    /// grown. Default 600, 0.1 to 86400.
    pub head_ms: i64,
}

/// Where the key is.
#[derive(Clone, Debug)]
pub enum AuditKeySource {
    /// In the environment itself: 64 hex digits.
    Seed(Secret),
    /// In a file, which is read when something is to be signed.
    File(PathBuf),
}

impl AuditConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            key: reader.text("AUDIT_KEY").and_then(|text| source(reader, &text)),
            head_rows: reader.number("AUDIT_HEAD_ROWS", 1..=1_000_000),
            head_ms: reader.seconds_ms("AUDIT_HEAD_SECONDS", 100..=86_400_000),
        }
    }
}

impl AuditKeySource {
    /// What is there, which should be a seed as 64 hex digits.
    ///
    /// # Errors
    /// The file's, if it is one.
    pub fn read(&self) -> io::Result<Secret> {
        match self {
            Self::Seed(seed) => Ok(seed.clone()),
            Self::File(path) => Ok(Secret::new(std::fs::read_to_string(path)?.trim())),
        }
    }
}

/// Only a whole path is taken for one: a seed that lacks a digit must not be shown as the
/// name of a file that is not there.
fn source(reader: &mut Reader<'_>, text: &str) -> Option<AuditKeySource> {
    if text.len() == SEED_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Some(AuditKeySource::Seed(Secret::new(text)));
    }
    if Path::new(text).is_absolute() {
        return Some(AuditKeySource::File(text.into()));
    }
    reader.refuse(
        "AUDIT_KEY",
        "set 64 hex digits, or the whole path of a file that has them; `claudemesh-broker audit \
         key --new FILE` makes one",
    );
    None
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn load(value: &str) -> Result<Option<AuditKeySource>, String> {
        let env = |name: &str| match name {
            "AUDIT_KEY" => Some(value.to_owned()),
            "CLAUDEMESH_DATA_DIR" => Some("/data".to_owned()),
            _ => None,
        };
        Config::load(&env).map(|config| config.audit.key).map_err(|errors| errors.to_string())
    }

    #[test]
    fn a_key_is_a_seed_or_the_whole_path_of_a_file() {
        let seed = "0F".repeat(32);
        let Ok(Some(AuditKeySource::Seed(secret))) = load(&seed) else { panic!("a seed") };
        assert_eq!(secret.expose(), seed);
        let Ok(Some(AuditKeySource::File(path))) = load("/etc/mesh/audit.key") else {
            panic!("a file")
        };
        assert_eq!(path, Path::new("/etc/mesh/audit.key"));
        assert!(matches!(load(""), Ok(None)));
    }

    #[test]
    fn a_key_that_lacks_a_digit_is_refused_and_not_shown() {
        for torn in [&"ab".repeat(32)[1..], "audit.key", &"xy".repeat(32)] {
            let error = load(torn).expect_err("no key");
            assert!(error.contains("AUDIT_KEY") && !error.contains(torn), "{error}");
        }
    }
}
