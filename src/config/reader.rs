//! Reads variables through the injected lookup and collects every problem.
//!
//! A wrong value never stops the reading: the problem is noted, the default
//! stands in, and `Config::load` refuses the whole at the end.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::error::ConfigError;
use super::secret::{REDACTED, Secret, redact_url};
use super::settings::{Privacy, setting};

/// Looks a variable up; `None` when it is not set.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A token shorter than this can be guessed.
const TOKEN_CHARS_MIN: usize = 16;

/// Reads settings; see the module.
pub(super) struct Reader<'a> {
    env: Env<'a>,
    problems: Vec<ConfigError>,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(env: Env<'a>) -> Self {
        Self { env, problems: Vec::new() }
    }

    pub(super) fn into_problems(self) -> Vec<ConfigError> {
        self.problems
    }

    /// Notes that `name` is wrong; `problem` says what to set instead.
    pub(super) fn refuse(&mut self, name: &'static str, problem: impl Into<String>) {
        let value = lookup(self.env, name).map(|value| shown(name, &value));
        self.problems.push(ConfigError { name, value, problem: problem.into() });
    }

    /// The variable's text, trimmed; empty counts as not set.
    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        // Only a known setting is ever read, or the listing would miss it.
        let _known = setting(name);
        lookup(self.env, name)
    }

    /// A span of time given in seconds, in milliseconds.
    pub(super) fn seconds_ms(&mut self, name: &'static str, range_ms: RangeInclusive<i64>) -> i64 {
        let expected = format!(
            "set seconds from {} to {}, decimals allowed, no unit",
            seconds(*range_ms.start()),
            seconds(*range_ms.end()),
        );
        self.parsed(name, &expected, |text| {
            parse_seconds_ms(text).filter(|ms| range_ms.contains(ms))
        })
    }

    /// As [`Self::seconds_ms`], for a timer rather than a span between instants.
    pub(super) fn timer_ms(&mut self, name: &'static str, range_ms: RangeInclusive<i64>) -> u64 {
        self.seconds_ms(name, range_ms).unsigned_abs()
    }

    /// A whole number.
    pub(super) fn number<T>(&mut self, name: &'static str, range: RangeInclusive<T>) -> T
    where
        T: FromStr + PartialOrd + Display,
    {
        let expected = format!("set a whole number from {} to {}", range.start(), range.end());
        self.parsed(name, &expected, |text| {
            text.parse::<T>().ok().filter(|number| range.contains(number))
        })
    }

    /// A yes or no.
    pub(super) fn flag(&mut self, name: &'static str) -> bool {
        self.parsed(name, "set true or false", |text| match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Some(true),
            "0" | "false" | "no" | "off" => Some(false),
            _ => None,
        })
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, name: &'static str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(name)?;
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(&text));
        if found.is_none() {
            let list: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.refuse(name, format!("set {}", list.join(" or ")));
        }
        found.map(|(_, value)| *value)
    }

    /// A comma-separated list; each item is parsed by `parse`, whose error says
    /// what to write instead.
    pub(super) fn list<T>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let text = self.text(name).unwrap_or_default();
        let mut items = Vec::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            match parse(item) {
                Ok(item) => items.push(item),
                Err(problem) => self.refuse(name, problem),
            }
        }
        items
    }

    /// Tokens; two are listed while one replaces the other.
    pub(super) fn tokens(&mut self, name: &'static str) -> Vec<Secret> {
        self.list(name, parse_token)
    }

    /// As [`Self::tokens`], with a word that stands for one which is not listed:
    /// `None`.
    pub(super) fn tokens_or_word(&mut self, name: &'static str, word: &str) -> Vec<Option<Secret>> {
        self.list(name, |token| match token {
            token if token == word => Ok(None),
            token => parse_token(token).map(Some),
        })
    }

    /// Text that becomes part of keys and labels: an id or a region.
    pub(super) fn label(&mut self, name: &'static str) -> Option<String> {
        let text = self.text(name)?;
        if is_label(&text) {
            return Some(text);
        }
        self.refuse(
            name,
            format!("set 1 to {LABEL_BYTES_MAX} letters, digits, dots, hyphens or underscores"),
        );
        None
    }

    fn parsed<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> T {
        let default = setting(name).default;
        if let Some(text) = self.text(name) {
            match parse(&text) {
                Some(value) => return value,
                None => self.refuse(name, format!("{expected}; the default is {default}")),
            }
        }
        let Some(value) = parse(default) else {
            panic!("the default of {name}, {default:?}, is outside its own range");
        };
        value
    }
}

/// Longest node id and region.
pub(super) const LABEL_BYTES_MAX: usize = 64;

/// Whether `text` can be a node id or a region.
pub(super) fn is_label(text: &str) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&text.len()) && text.chars().all(is_label_char)
}

/// Whether `c` may stand in a node id or a region.
pub(super) const fn is_label_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')
}

/// The variable's text, trimmed; empty counts as not set, as compose files and
/// shells write it.
pub(super) fn lookup(env: Env<'_>, name: &str) -> Option<String> {
    env(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// `value` as a listing or an error may show it.
pub(super) fn shown(name: &str, value: &str) -> String {
    match setting(name).privacy {
        Privacy::Open => value.to_owned(),
        Privacy::Url => redact_url(value),
        Privacy::Secret => REDACTED.to_owned(),
    }
}

/// `12`, `0.2`, `1.125`: digits and at most three decimals. Not a float: `1e3`,
/// `inf` and `NaN` are no spans of time.
fn parse_seconds_ms(text: &str) -> Option<i64> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || decimals.len() > 3 {
        return None;
    }
    let whole: i64 = whole.parse().ok()?;
    let thousandths: i64 = format!("{decimals:0<3}").parse().ok()?;
    whole.checked_mul(1000)?.checked_add(thousandths)
}

fn parse_token(token: &str) -> Result<Secret, String> {
    if token.len() < TOKEN_CHARS_MIN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "set tokens of at least {TOKEN_CHARS_MIN} visible ASCII characters, separated by \
             commas; `openssl rand -hex 32` makes a good one"
        ));
    }
    Ok(Secret::new(token))
}

fn seconds(ms: i64) -> String {
    let text = format!("{}.{:03}", ms / 1000, ms % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_take_decimals_and_nothing_else() {
        for (text, ms) in [("0.2", 200), ("90", 90_000), ("1.125", 1125), ("0", 0), ("2.50", 2500)]
        {
            assert_eq!(parse_seconds_ms(text), Some(ms), "{text}");
        }
        for text in ["", ".", "1.", ".5", "-1", "+1", "1e3", "inf", "NaN", "30s", "0.0001", "1.2.3"]
        {
            assert_eq!(parse_seconds_ms(text), None, "{text}");
        }
        assert_eq!(parse_seconds_ms("99999999999999999999"), None, "too large, not a panic");
        assert_eq!(parse_seconds_ms("9223372036854775807"), None, "too large, not a panic");
    }

    #[test]
    fn seconds_print_without_idle_zeros() {
        assert_eq!(seconds(100), "0.1");
        assert_eq!(seconds(86_400_000), "86400");
    }

    #[test]
    fn a_wrong_number_is_noted_and_the_default_stands_in() {
        let env = |name: &str| (name == "BROKER_PORT").then(|| "70000".to_owned());
        let mut reader = Reader::new(&env);
        assert_eq!(reader.number::<u32>("BROKER_PORT", 0..=65_535), 7900);
        let problems = reader.into_problems();
        assert_eq!(problems.len(), 1);
        assert_eq!(
            problems[0].to_string(),
            "BROKER_PORT is \"70000\": set a whole number from 0 to 65535; the default is 7900"
        );
    }

    #[test]
    fn a_short_token_is_refused_without_being_shown() {
        let env =
            |name: &str| (name == "HOOK_TOKEN").then(|| "0123456789abcdef-ok, tooshort".to_owned());
        let mut reader = Reader::new(&env);
        assert_eq!(reader.tokens("HOOK_TOKEN").len(), 1, "the good one of the two");
        let problems = reader.into_problems();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].value.as_deref(), Some(REDACTED));
        assert!(!problems[0].to_string().contains("tooshort"), "{}", problems[0]);
    }

    #[test]
    fn empty_counts_as_not_set() {
        let env = |_: &str| Some("  ".to_owned());
        let mut reader = Reader::new(&env);
        assert_eq!(reader.text("REDIS_URL"), None);
        assert!(!reader.flag("REDIS_CLUSTER"));
        assert!(reader.into_problems().is_empty());
    }
}
