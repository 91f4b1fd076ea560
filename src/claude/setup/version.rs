//! The release of a host's program, as `--version` says it.

use std::fmt;

/// `2.1.332`: what a host knows follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32, pub(crate) u32);

impl Version {
    /// The first three numbers with dots between them: programs put their name before
    /// or behind, or a suffix of a pre-release.
    pub(crate) fn find(text: &str) -> Option<Self> {
        text.split_whitespace().find_map(|word| {
            let mut numbers = word.trim_start_matches('v').splitn(3, '.');
            let (major, minor) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
            let rest = numbers.next()?;
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            Some(Self(major, minor, rest[..digits].parse().ok()?))
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_print() {
        let cases = [
            ("2.1.332 (Claude Code)", Some(Version(2, 1, 332))),
            ("codex-cli 0.171.0\n", Some(Version(0, 171, 0))),
            ("v2.1.4-beta.1", Some(Version(2, 1, 4))),
            ("claude 2.1", None),
            ("", None),
            ("command not found", None),
            ("99999999999.1.1", None),
        ];
        for (text, version) in cases {
            assert_eq!(Version::find(text), version, "{text:?}");
        }
        assert!(Version(2, 1, 99) < Version(2, 1, 101) && Version(1, 9, 9) < Version(2, 0, 0));
    }
}
