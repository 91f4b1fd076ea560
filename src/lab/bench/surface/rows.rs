//! The figures of each state, for programs and for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::lab::bench::args::{HostWork, SessionState};
use crate::lab::bench::outcome::{histogram_of, percentiles};

/// What of all this is not a host's: nobody is to read the figures as more than they are.
const STANDS_IN: &str = "a stand-in for the host, in which a model takes no time and a tool is a \
    wait; its hooks and its server are real processes";

/// What the sessions of one state noted.
#[derive(Debug, Default)]
pub(super) struct Row {
    /// From the ack until the host has the text for its model.
    pub(super) given_us: Vec<u32>,
    /// From the ack until the sender was told that the message is surfaced.
    pub(super) surfaced_us: Vec<u32>,
    pub(super) ack_us: Vec<u32>,
    /// How long the hooks ran that gave a message.
    pub(super) hook_us: Vec<u32>,
    /// Hooks between an ack and the model, at most.
    pub(super) hooks_max: u64,
    /// Messages by the way on which they came.
    pub(super) ways: BTreeMap<String, u64>,
}

impl Row {
    /// Takes in what another session noted.
    pub(super) fn add(&mut self, other: Self) {
        self.given_us.extend(other.given_us);
        self.surfaced_us.extend(other.surfaced_us);
        self.ack_us.extend(other.ack_us);
        self.hook_us.extend(other.hook_us);
        self.hooks_max = self.hooks_max.max(other.hooks_max);
        for (way, count) in other.ways {
            *self.ways.entry(way).or_default() += count;
        }
    }

    pub(super) fn to_json(&self, state: SessionState) -> Value {
        let figures = |latencies| percentiles(&histogram_of(latencies));
        json!({
            "state": state.as_str(),
            "count": self.given_us.len(),
            "givenUs": figures(&self.given_us),
            "surfacedUs": figures(&self.surfaced_us),
            "hookUs": figures(&self.hook_us),
            "hooksAtMost": self.hooks_max,
            "ways": self.ways,
        })
    }
}

/// What the bench plays, in a sentence.
pub(super) fn stands_in(work: HostWork) -> String {
    format!("{STANDS_IN}; busy: tools of {} ms, {} in a turn", work.tool, work.turn)
}

/// The rows of a round, for people.
pub(in crate::lab::bench) fn text(extra: &serde_json::Map<String, Value>) -> String {
    let mut out = String::new();
    let Some(states) = extra.get("states").and_then(Value::as_array) else { return out };
    for row in states {
        let name = row["state"].as_str().unwrap_or_default();
        let ways = row["ways"].as_object().into_iter().flatten();
        let ways: Vec<String> = ways.map(|(way, count)| format!("{count} by {way}")).collect();
        for (what, field) in
            [("given", "givenUs"), ("surfaced", "surfacedUs"), ("its hook", "hookUs")]
        {
            let figures = &row[field];
            let ms = |at: &str| figures[at].as_f64().unwrap_or_default() / 1000.0;
            if figures.is_object() {
                let first = if what == "given" { name } else { "" };
                let _ = writeln!(
                    out,
                    "  {first:<16}{what:<10}p50 {:.1} ms, p99 {:.1}, max {:.1}",
                    ms("p50"),
                    ms("p99"),
                    ms("max")
                );
            }
        }
        let hooks = &row["hooksAtMost"];
        let _ = writeln!(out, "{:18}{}; hooks after an ack: {hooks} at most", "", ways.join(", "));
    }
    let stands_in = extra.get("standsIn").and_then(Value::as_str).unwrap_or_default();
    let _ = writeln!(out, "  {:<16}from the ack until the host has the text", "given");
    let _ = writeln!(out, "  {:<16}from the ack until the sender is told so", "surfaced");
    let _ = writeln!(out, "  {:<16}{stands_in}", "measured with");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_it_measured_and_what_it_did_not() {
        let mut row = Row { given_us: vec![1_000], surfaced_us: vec![9_000], ..Row::default() };
        row.ways.insert("stop".to_owned(), 1);
        row.add(Row { given_us: vec![2_000], hooks_max: 2, ..Row::default() });
        let row = row.to_json(SessionState::BusyNext);
        assert_eq!((&row["count"], &row["givenUs"]["max"]), (&json!(2), &json!(2_000)));
        assert_eq!(row["hookUs"], Value::Null);
        let stands_in = stands_in(HostWork { tool: 1000, turn: 3 });
        let extra = json!({"states": [row], "standsIn": stands_in});
        let text = text(extra.as_object().expect("an object"));
        assert!(text.contains("busy-next") && text.contains("max 2.0"), "{text}");
        assert!(text.contains("1 by stop") && text.contains("a model takes no time"), "{text}");
        assert!(!text.contains("its hook  "), "no hook gave any: {text}");
    }
}
