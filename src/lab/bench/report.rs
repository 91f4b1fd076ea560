//! The figures as one HTML page: tables and plots as inline SVG, nothing that
//! would have to be fetched.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde_json::Value;

use super::Round;
use super::outcome::{BUCKET, Outcome};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 40.0;
const TOP: f64 = 16.0;
const COLOURS: [&str; 4] = ["#1f6feb", "#d29922", "#8250df", "#bf3989"];

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:48rem;margin:2rem auto;\
padding:0 1rem;color:#1f2328;background:#fff}h1{font-size:1.4rem}h2{font-size:1.1rem}\
table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;text-align:left;\
vertical-align:top}svg{width:100%;height:auto}text{font:11px system-ui,sans-serif;fill:#59636e}\
.ok{color:#1a7f37}.bad{color:#cf222e}pre{overflow:auto;background:#f6f8fa;padding:1rem}";

/// One line of a plot.
struct Series {
    name: String,
    points: Vec<(f64, f64)>,
}

/// Writes the page.
pub(super) fn write(path: &Path, summary: &Value, rounds: &[Round]) -> anyhow::Result<()> {
    std::fs::write(path, page(summary, rounds))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn page(summary: &Value, rounds: &[Round]) -> String {
    let mut out = String::new();
    let scenario = summary["scenario"].as_str().unwrap_or_default();
    let title = format!("claudemesh-broker bench {scenario}");
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style>\n<h1>{title}</h1>\n"
    );
    let ok = summary["ok"] == true;
    let (class, verdict) = if ok {
        ("ok", "Everything came exactly once, in order, and was what was sent.")
    } else {
        ("bad", "The check failed: see the counts below.")
    };
    let _ = writeln!(out, "<p class=\"{class}\">{verdict}</p>");
    table(&mut out, summary, rounds);
    if let Some(round) = rounds.first() {
        plots(&mut out, round);
    }
    let raw = serde_json::to_string_pretty(summary).unwrap_or_default();
    let _ = writeln!(out, "<h2>All figures</h2>\n<pre>{}</pre>\n</html>", escaped(&raw));
    out
}

fn table(out: &mut String, summary: &Value, rounds: &[Round]) {
    let unit = summary["unit"].as_str().unwrap_or_default();
    out.push_str("<table><tr><th>round<th>who<th>per second<th>end to end p50, p99<th>");
    out.push_str("ack p50, p99<th>broker CPU each<th>resident at most</tr>\n");
    for (number, round) in rounds.iter().enumerate() {
        for (who, outcome) in [("broker", Some(&round.broker)), ("floor", round.floor.as_ref())] {
            let Some(outcome) = outcome else { continue };
            let _ = writeln!(
                out,
                "<tr><td>{}<td>{who}<td>{:.0} {unit}<td>{}<td>{}<td>{:.1} us<td>{:.1} MB</tr>",
                number + 1,
                outcome.per_second(),
                two(&outcome.end_to_end),
                two(&outcome.ack),
                outcome.cpu_us_each(),
                outcome.broker.resident_peak() as f64 / 1e6,
            );
        }
    }
    out.push_str("</table>\n");
    if let Some(ratio) = summary.get("ratio") {
        let of = ratio["of"].as_str().unwrap_or_default();
        let _ = writeln!(
            out,
            "<p>Broker to floor ({of}): <b>{}</b>, the median of {}.</p>",
            ratio["median"], ratio["rounds"]
        );
    }
}

fn two(histogram: &Histogram<u64>) -> String {
    if histogram.is_empty() {
        return "-".to_owned();
    }
    let ms = |at: f64| histogram.value_at_percentile(at) as f64 / 1000.0;
    format!("{:.2}, {:.2} ms", ms(50.0), ms(99.0))
}

fn plots(out: &mut String, round: &Round) {
    let casts = [("broker", Some(&round.broker)), ("floor", round.floor.as_ref())];
    let mut latencies = Vec::new();
    let mut flows = Vec::new();
    for (who, outcome) in casts {
        let Some(outcome) = outcome else { continue };
        for (what, histogram) in [("end to end", &outcome.end_to_end), ("ack", &outcome.ack)] {
            if !histogram.is_empty() {
                let name = format!("{who}, {what}");
                latencies.push(Series { name, points: percentile_points(histogram) });
            }
        }
        if outcome.over_time.len() > 1 {
            flows.push(Series { name: who.to_owned(), points: flow_points(outcome) });
        }
    }
    if !latencies.is_empty() {
        out.push_str("<h2>Latency by percentile, milliseconds</h2>\n");
        let ticks = [(0.0, "0"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"), (4.0, "99.99 %")];
        let ticks = ticks.map(|(at, label)| (at, label.to_owned()));
        plot(out, &latencies, &ticks);
    }
    if !flows.is_empty() {
        let unit = round.broker.unit;
        let _ = writeln!(out, "<h2>Throughput over time, {unit} per second</h2>");
        let end = flows
            .iter()
            .filter_map(|flow| flow.points.last())
            .map(|point| point.0)
            .fold(0.0, f64::max);
        let ticks: Vec<_> = (0..=4).map(|quarter| end * f64::from(quarter) / 4.0).collect();
        let ticks: Vec<_> = ticks.into_iter().map(|at| (at, format!("{at:.1} s"))).collect();
        plot(out, &flows, &ticks);
    }
}

/// Percentiles on a scale on which each nine is as wide as the one before.
fn percentile_points(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    (0..=80)
        .map(|step| f64::from(step) / 20.0)
        .map(|nines| {
            let percentile = 100.0 * (1.0 - 10_f64.powf(-nines));
            (nines, histogram.value_at_percentile(percentile) as f64 / 1000.0)
        })
        .collect()
}

fn flow_points(outcome: &Outcome) -> Vec<(f64, f64)> {
    let width = BUCKET.as_secs_f64();
    let counts = outcome.over_time.iter().enumerate();
    counts.map(|(bucket, count)| (bucket as f64 * width, *count as f64 / width)).collect()
}

fn plot(out: &mut String, series: &[Series], ticks: &[(f64, String)]) {
    let all = || series.iter().flat_map(|series| &series.points);
    let x_max = all().map(|point| point.0).fold(1e-9, f64::max);
    let y_max = nice(all().map(|point| point.1).fold(1e-9, f64::max));
    let x = |value: f64| LEFT + value / x_max * (WIDTH - LEFT - 10.0);
    let y = |value: f64| HEIGHT - BOTTOM - value / y_max * (HEIGHT - BOTTOM - TOP);
    let _ = writeln!(out, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
    for quarter in 0..=4 {
        let value = y_max * f64::from(quarter) / 4.0;
        let (at, right) = (y(value), WIDTH - 10.0);
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\" stroke=\"#d1d9e0\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            at + 4.0,
            short(value)
        );
    }
    for (at, label) in ticks {
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            x(*at),
            HEIGHT - BOTTOM + 16.0,
            escaped(label)
        );
    }
    for (number, series) in series.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let points: Vec<String> = series
            .points
            .iter()
            .map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1)))
            .collect();
        let points = points.join(" ");
        let _ = writeln!(
            out,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\" points=\"{points}\"/>\
             <text x=\"{:.0}\" y=\"{}\" style=\"fill:{colour}\">{}</text>",
            LEFT + 160.0 * number as f64,
            HEIGHT - 6.0,
            escaped(&series.name)
        );
    }
    out.push_str("</svg>\n");
}

/// The next of 1, 2, 4, 8 times a power of ten.
fn nice(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 4.0, 8.0, 10.0]
        .into_iter()
        .map(|step| step * power)
        .find(|step| *step >= value)
        .unwrap_or(value)
}

fn short(value: f64) -> String {
    if value >= 10_000.0 { format!("{:.0}k", value / 1000.0) } else { format!("{value}") }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, end) in [(0.3, 0.4), (1.0, 1.0), (17.0, 20.0), (81.0, 100.0)] {
            assert!((nice(value) - end).abs() < 1e-9, "{value}: {}", nice(value));
        }
    }

    #[test]
    fn a_plot_stands_for_itself() {
        let mut out = String::new();
        let series = [Series { name: "a<b".to_owned(), points: vec![(0.0, 1.0), (1.0, 2.0)] }];
        plot(&mut out, &series, &[(0.0, "0".to_owned())]);
        assert!(out.starts_with("<svg") && out.ends_with("</svg>\n"), "{out}");
        assert!(out.contains("a&lt;b") && !out.contains("http"), "{out}");
    }
}
