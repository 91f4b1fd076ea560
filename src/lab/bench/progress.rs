//! The progress of a run: a line that moves, on terminals only.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A line that says what is being done, and how far that is.
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Shows on standard error if that is a terminal, else nothing.
    pub(super) fn new(silent: bool) -> Self {
        let bar = if silent { ProgressBar::hidden() } else { ProgressBar::no_length() };
        Self { bar }
    }

    /// Says who is being measured.
    pub(super) fn round(&self, text: String) {
        self.bar.set_prefix(text);
    }

    /// Begins a step without a measure.
    pub(super) fn step(&self, what: &'static str) {
        self.bar.set_style(style("{spinner} {prefix}: {msg}"));
        self.bar.unset_length();
        self.bar.set_message(what);
        self.bar.enable_steady_tick(Duration::from_millis(100));
    }

    /// Begins a step of so many.
    pub(super) fn begin(&self, what: &'static str, length: u64) {
        self.bar.set_style(style("{bar:30} {prefix}: {pos}/{len} {msg}, {per_sec}, {eta} left"));
        self.bar.set_length(length);
        self.bar.set_position(0);
        self.bar.reset_eta();
        self.bar.reset_elapsed();
        self.bar.set_message(what);
    }

    /// Says that so many are done.
    pub(super) fn at(&self, position: u64) {
        self.bar.set_position(position);
    }

    /// Ends the step.
    pub(super) fn done(&self) {
        self.bar.finish_and_clear();
        self.bar.reset();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
