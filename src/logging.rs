//! Log lines: human on a terminal, JSON elsewhere, always on standard error, so
//! that standard output holds nothing but what a command answers.

use std::io::IsTerminal as _;

use tracing::Subscriber;
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Layer, Registry};

use crate::config::{LogConfig, LogFormat};

/// The names of the lines that tell of a message's way (docs/LOGGING.md). Whoever
/// makes something of these lines knows them by their names: a sentence is for
/// people, and may be bettered.
pub mod milestone {
    /// A message is on disk.
    pub const ACCEPTED: &str = "message.accepted";
    /// A message was put on a recipient's socket.
    pub const DELIVERED: &str = "message.delivered";
    /// A recipient has confirmed a message.
    pub const CONFIRMED: &str = "message.confirmed";
}

/// What makes traces of lines.
pub type TraceLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum LogInitError {
    /// The filter is none; `Config::load` refuses such.
    #[error("the log filter is wrong: {0}")]
    Filter(#[from] ParseError),
    /// Something else in this process logs already.
    #[error("logging was started before: {0}")]
    Started(#[from] TryInitError),
}

/// Starts logging for the whole process; `traces` sees lines whatever the filter
/// says of them.
///
/// # Errors
/// When the filter cannot be parsed, or when logging was started before.
pub fn init(config: &LogConfig, traces: Option<TraceLayer>) -> Result<(), LogInitError> {
    let is_terminal = std::io::stderr().is_terminal();
    match traces {
        None => Registry::default().with(lines(config, is_terminal, std::io::stderr)?).try_init(),
        Some(traces) => {
            let lines = lines(config, is_terminal, std::io::stderr)?;
            Registry::default().with(traces).with(lines).try_init()
        }
    }?;
    Ok(())
}

/// Libraries that print frames and statements below this level, and those hold
/// ciphertext: what the filter says of them does not count.
const LIBRARIES: [(&str, &str); 7] = [
    ("tungstenite", "info"),
    ("tokio_tungstenite", "info"),
    ("hyper", "info"),
    ("hyper_util", "info"),
    ("sqlx", "warn"),
    ("redis", "info"),
    ("rmcp", "warn"),
];

fn directives(filter: &str) -> String {
    let of_library = |directive: &&str| {
        LIBRARIES.iter().any(|(library, _)| directive.trim_start().starts_with(library))
    };
    let own = filter.split(',').filter(|directive| !of_library(directive)).map(str::to_owned);
    let capped = LIBRARIES.iter().map(|(library, level)| format!("{library}={level}"));
    own.chain(capped).collect::<Vec<_>>().join(",")
}

fn lines<S, W>(
    config: &LogConfig,
    is_terminal: bool,
    writer: W,
) -> Result<impl Layer<S>, ParseError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(directives(&config.filter))?;
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let layer = match config.format_on(is_terminal) {
        LogFormat::Json => layer.json().flatten_event(true).with_span_list(false).boxed(),
        // Only ever switched off: NO_COLOR holds on a terminal too.
        LogFormat::Human if !is_terminal => layer.with_ansi(false).boxed(),
        LogFormat::Human => layer.boxed(),
    };
    Ok(layer.with_filter(filter))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[test]
    fn no_filter_makes_the_libraries_print_frames() {
        let capped = directives("debug,tungstenite::protocol=trace,claudemesh_broker=trace");
        assert!(capped.starts_with("debug,claudemesh_broker=trace,"), "{capped}");
        assert!(capped.contains("tungstenite=info") && !capped.contains("protocol=trace"));
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Option<LogFormat>, filter: &str) -> String {
        let written = Lines::default();
        let writer = written.clone();
        let config = LogConfig { format, filter: filter.to_owned() };
        let lines = lines(&config, false, move || writer.clone()).expect("a valid filter");
        tracing::subscriber::with_default(Registry::default().with(lines), || {
            let _span = tracing::info_span!("session", mesh = "m1").entered();
            tracing::info!(peers = 3, "a peer joined");
            tracing::debug!("too much");
        });
        let bytes = written.0.lock().clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn away_from_a_terminal_a_line_is_one_json_object() {
        let text = logged(None, "info");
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).expect("one JSON object");
        assert_eq!(line["message"], "a peer joined");
        assert_eq!(line["peers"], 3);
        assert_eq!(line["span"]["mesh"], "m1");
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn a_human_line_in_a_file_has_no_colours() {
        let text = logged(Some(LogFormat::Human), "info");
        assert!(text.contains("a peer joined"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn what_the_filter_refuses_costs_nothing() {
        let config = LogConfig { format: None, filter: "info".to_owned() };
        let lines = lines(&config, false, std::io::sink).expect("a valid filter");
        let hint = Registry::default().with(lines).max_level_hint();
        assert_eq!(hint, Some(tracing::level_filters::LevelFilter::INFO));
    }

    #[test]
    fn the_filter_decides() {
        assert_eq!(logged(None, "debug").lines().count(), 2);
        assert_eq!(logged(None, "error"), "");
        let config = LogConfig { format: None, filter: "info=loud".to_owned() };
        assert!(lines::<Registry, _>(&config, false, std::io::sink).is_err());
    }
}
