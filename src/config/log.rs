//! How the broker logs and how it stops.

use tracing_subscriber::EnvFilter;

use super::reader::Reader;
use super::settings::setting;

/// How the broker logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// `LOG_FORMAT`: the form of a line. Default none: by the terminal, see
    /// [`Self::format_on`]. `human` or `json`.
    pub format: Option<LogFormat>,
    /// `LOG`, else `RUST_LOG`: which lines are written, in the directives of
    /// `tracing`. Default `info`.
    pub filter: String,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For reading.
    Human,
    /// One JSON object per line.
    Json,
}

/// How the broker stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainConfig {
    /// `DRAIN_SECONDS`: over how many milliseconds a stopping node sends its
    /// peers away. Default 25 s. 0 to one hour; keep it below the time after
    /// which the platform kills the process.
    pub drain_ms: u64,
}

impl LogConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let words = [("human", LogFormat::Human), ("json", LogFormat::Json)];
        let format = reader.word("LOG_FORMAT", &words);
        // Both are read, so that a wrong one is reported even when it loses.
        let filters = [read_filter(reader, "LOG"), read_filter(reader, "RUST_LOG")];
        let filter = filters.into_iter().flatten().next();
        Self { format, filter: filter.unwrap_or_else(|| setting("RUST_LOG").default.to_owned()) }
    }

    /// The form of a line when the log goes to a terminal, or elsewhere.
    #[must_use]
    pub fn format_on(&self, is_terminal: bool) -> LogFormat {
        self.format.unwrap_or(if is_terminal { LogFormat::Human } else { LogFormat::Json })
    }
}

impl DrainConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self { drain_ms: reader.timer_ms("DRAIN_SECONDS", 0..=3_600_000) }
    }
}

fn read_filter(reader: &mut Reader<'_>, name: &'static str) -> Option<String> {
    let text = reader.text(name)?;
    match EnvFilter::try_new(&text) {
        Ok(_) => Some(text),
        Err(error) => {
            reader.refuse(
                name,
                format!("{error}; set directives such as info or warn,claudemesh_broker=debug"),
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> (LogConfig, usize) {
        let env = |name: &str| {
            set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        let mut reader = Reader::new(&env);
        let log = LogConfig::read(&mut reader);
        (log, reader.into_problems().len())
    }

    #[test]
    fn the_format_follows_the_terminal_unless_set() {
        let (log, _) = read(&[]);
        assert_eq!(log.format_on(true), LogFormat::Human);
        assert_eq!(log.format_on(false), LogFormat::Json);
        let (log, _) = read(&[("LOG_FORMAT", "json")]);
        assert_eq!(log.format_on(true), LogFormat::Json);
        assert_eq!(read(&[("LOG_FORMAT", "xml")]).1, 1);
    }

    #[test]
    fn the_own_variable_wins_over_the_common_one() {
        assert_eq!(read(&[]).0.filter, "info");
        assert_eq!(read(&[("RUST_LOG", "warn")]).0.filter, "warn");
        assert_eq!(read(&[("RUST_LOG", "warn"), ("LOG", "debug")]).0.filter, "debug");
        assert_eq!(read(&[("LOG", "claudemesh_broker=loud")]).1, 1);
    }
}
