//! The figures of a bench, for people.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde_json::Value;

use super::Round;
use super::outcome::{Checks, Outcome};
use super::surface;

/// All rounds, and what follows from them.
pub(super) fn of(name: &str, summary: &Value, rounds: &[Round]) -> String {
    let mut out = String::new();
    for (number, round) in rounds.iter().enumerate() {
        let number = number + 1;
        let _ = writeln!(out, "{name}, round {number}: broker\n{}", figures(&round.broker));
        if let Some(floor) = &round.floor {
            let _ = writeln!(out, "{name}, round {number}: floor\n{}", figures(floor));
        }
    }
    let unit = summary["unit"].as_str().unwrap_or_default();
    let is_paced = rounds.iter().any(|round| round.broker.extra.contains_key("states"));
    if !is_paced {
        let _ = writeln!(out, "{:<18}{} {unit}/s", "median", summary["perSecond"]);
    }
    if let Some(ratio) = summary.get("ratio") {
        let of = ratio["of"].as_str().unwrap_or_default();
        let _ = writeln!(
            out,
            "{:<18}{} of the floor's {of} (median of {})",
            "ratio", ratio["median"], ratio["rounds"]
        );
    }
    let ok = summary["ok"] == true;
    let verdict = if ok {
        "everything came exactly once, in order, and was what was sent"
    } else {
        "FAILED: see the lines above"
    };
    let _ = writeln!(out, "{:<18}{verdict}", "check");
    out
}

fn figures(outcome: &Outcome) -> String {
    let mut out = surface::rows::text(&outcome.extra);
    let mut line = |what: &str, text: String| {
        let _ = writeln!(out, "  {what:<16}{text}");
    };
    let unit = outcome.unit;
    if outcome.extra.contains_key("bytesPerSocket") {
        let extra = |name: &str| outcome.extra.get(name).cloned().unwrap_or_default();
        line("sockets", outcome.count.to_string());
        line("memory", format!("{} bytes per socket", extra("bytesPerSocket")));
        line("CPU", format!("{} % of a core, idle", extra("cpuPercentOfACore")));
    } else if let Some(percent) = outcome.extra.get("cpuPercentOfACore") {
        let none = outcome.extra.get("cpuPercentWithNone").cloned().unwrap_or_default();
        line("waiting", outcome.count.to_string());
        line("CPU", format!("{percent} % of a core, {none} % with none of them"));
    } else if !outcome.extra.contains_key("states") {
        let (count, seconds) = (outcome.count, outcome.seconds);
        let rate = outcome.per_second();
        line("throughput", format!("{rate:.0} {unit}/s  ({count} in {seconds:.2} s)"));
    }
    for (what, histogram) in [("end to end", &outcome.end_to_end), ("ack", &outcome.ack)] {
        if !histogram.is_empty() {
            line(what, latencies(histogram));
        }
    }
    line(
        "broker",
        format!(
            "{:.2} s CPU, {:.1} us for each; {:.1} MB resident, {:.1} MB at most",
            outcome.broker.cpu_seconds,
            outcome.cpu_us_each(),
            megabytes(outcome.broker.resident()),
            megabytes(outcome.broker.resident_peak()),
        ),
    );
    line("load generator", format!("{:.2} s CPU", outcome.load.cpu_seconds));
    line("check", check(&outcome.checks));
    out
}

fn check(checks: &Checks) -> String {
    let Checks { sent, acked, expected, received, .. } = checks;
    let mut text = format!("{acked} of {sent} accepted, {received} of {expected} received");
    for (count, what) in [
        (checks.refused, "refused"),
        (checks.duplicates, "duplicates"),
        (checks.lost, "lost"),
        (checks.reordered, "out of order"),
        (checks.unreadable, "unreadable"),
        (checks.disconnected, "connections failed"),
    ] {
        if count > 0 {
            let _ = write!(text, ", {count} {what}");
        }
    }
    if let Some(problem) = &checks.first_problem {
        let _ = write!(text, "; first: {problem}");
    }
    text
}

fn latencies(histogram: &Histogram<u64>) -> String {
    let ms = |percentile: f64| histogram.value_at_percentile(percentile) as f64 / 1000.0;
    format!(
        "p50 {:.2} ms, p90 {:.2}, p99 {:.2}, p99.9 {:.2}, max {:.2}",
        ms(50.0),
        ms(90.0),
        ms(99.0),
        ms(99.9),
        histogram.max() as f64 / 1000.0
    )
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
