//! The text format 0.0.4, made from OpenMetrics: for scrapers and checkers that
//! know no other.
//!
//! There a counter's family has the name of its samples, an `info` is a gauge,
//! and units and an end are not written.

/// Our own OpenMetrics in the older format.
pub(super) fn from_open_metrics(open: &str) -> String {
    let mut plain = String::with_capacity(open.len());
    let mut help = None;
    for line in open.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            plain.push_str(line);
            plain.push('\n');
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        let (keyword, family) = (words.next(), words.next().unwrap_or_default());
        let rest = words.next().unwrap_or_default();
        match keyword {
            // Its family's name is known with its type, on the next line.
            Some("HELP") => help = Some(rest.replace("\\\"", "\"")),
            Some("TYPE") => {
                let (family, kind) = named(family, rest);
                if let Some(help) = help.take() {
                    plain.push_str(&format!("# HELP {family} {help}\n"));
                }
                plain.push_str(&format!("# TYPE {family} {kind}\n"));
            }
            _ => {}
        }
    }
    plain
}

fn named(family: &str, kind: &str) -> (String, &'static str) {
    match kind {
        "counter" => (format!("{family}_total"), "counter"),
        "info" => (format!("{family}_info"), "gauge"),
        "gauge" => (family.to_owned(), "gauge"),
        "histogram" => (family.to_owned(), "histogram"),
        "summary" => (family.to_owned(), "summary"),
        _ => (family.to_owned(), "untyped"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::super::Metrics;

    /// What the checker of Prometheus wants of this format.
    #[test]
    fn every_sample_belongs_to_a_family_of_a_type_that_the_format_knows() {
        let metrics = Metrics::new();
        metrics.accept_batch_envelopes.observe(3);
        let (open, plain) = (metrics.render(), metrics.render_plain());
        let known = ["counter", "gauge", "histogram", "summary", "untyped"];
        let mut types = HashMap::new();
        let mut helped = HashSet::new();
        let mut samples = 0;
        for line in plain.lines() {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            match words.as_slice() {
                ["#", "HELP", family, _] => assert!(helped.insert(*family), "{line}"),
                ["#", "TYPE", family, kind] => {
                    assert!(known.contains(kind) && helped.contains(family), "{line}");
                    assert!(types.insert(*family, *kind).is_none(), "{line}");
                }
                ["#", ..] => panic!("no comment of this format: {line}"),
                _ => {
                    let name = line.split(['{', ' ']).next().expect("a name");
                    let parts = ["_bucket", "_sum", "_count"].map(|end| name.strip_suffix(end));
                    let histogram = parts
                        .into_iter()
                        .flatten()
                        .any(|family| types.get(family).is_some_and(|kind| *kind == "histogram"));
                    assert!(histogram || types.contains_key(name), "{line}");
                    samples += 1;
                }
            }
        }
        let is_sample = |line: &&str| !line.starts_with('#');
        assert_eq!(samples, open.lines().filter(is_sample).count());
        assert_eq!(types["broker_connections_total"], "counter");
        assert_eq!(types["broker_build_info"], "gauge");
        assert!(!plain.contains("# EOF") && plain.ends_with('\n'));
    }
}
