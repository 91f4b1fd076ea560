//! What is checked in for Prometheus and Grafana, read by real parsers and held
//! against what a node exports; and how a message is followed in the logs.

use std::collections::BTreeSet;
use std::convert::Infallible;

use promql_parser::parser::{Expr, parse};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde_json::{Value, json};

use crate::harness::http;
use crate::harness::raw::hello_frame;
use crate::harness::{Node, Raw, Setup, text_of, until};

/// What Prometheus knows by itself.
const FOREIGN: [&str; 1] = ["up"];

fn yaml(path: &str) -> Value {
    serde_yaml_ng::from_str(&text_of(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The families that a running node exports: name and kind.
async fn families() -> Vec<(String, String)> {
    let node = Node::start().await;
    let text = http::get(&node, "/metrics").await.body;
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let families = types.filter_map(|line| line.split_once(' '));
    families.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

/// The series of a family.
fn series((name, kind): (String, String)) -> Vec<String> {
    let endings: &[&str] = match kind.as_str() {
        "counter" => &["_total"],
        "histogram" => &["_bucket", "_sum", "_count"],
        "info" => &["_info"],
        _ => &[""],
    };
    endings.iter().map(|end| format!("{name}{end}")).collect()
}

#[derive(Default)]
struct Names(BTreeSet<String>);

impl ExprVisitor for Names {
    type Error = Infallible;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, Infallible> {
        let name = match expr {
            Expr::VectorSelector(selector) => selector.name.clone(),
            Expr::MatrixSelector(selector) => selector.vs.name.clone(),
            _ => None,
        };
        self.0.extend(name);
        Ok(true)
    }
}

/// The series that an expression reads. It must be one.
fn read_by(expression: &str) -> BTreeSet<String> {
    let expression = expression.replace("$__rate_interval", "5m");
    let parsed = parse(&expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
    let mut names = Names::default();
    let Ok(_) = walk_expr(&mut names, &parsed);
    assert!(!names.0.is_empty(), "{expression} reads nothing");
    names.0
}

fn expressions_of_alerts() -> Vec<String> {
    let alerts = yaml("deploy/prometheus/alerts.yml");
    let groups = alerts["groups"].as_array().expect("groups");
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().expect("rules"));
    let mut names = BTreeSet::new();
    let mut expressions = Vec::new();
    for rule in rules {
        let name = rule["alert"].as_str().expect("a name");
        assert!(names.insert(name), "{name} stands there twice");
        let severity = rule["labels"]["severity"].as_str();
        assert!(matches!(severity, Some("page" | "ticket")), "{name}: {severity:?}");
        for text in ["summary", "description"] {
            assert!(rule["annotations"][text].is_string(), "{name} has no {text}");
        }
        expressions.push(rule["expr"].as_str().expect("an expression").to_owned());
    }
    assert!(expressions.len() > 10, "{names:?}");
    expressions
}

pub(crate) fn expressions_of_dashboard() -> Vec<String> {
    let text = text_of("deploy/grafana/claudemesh-broker.json");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "every panel has an id of its own");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let expressions = targets.map(|target| target["expr"].as_str().expect("text").to_owned());
    let expressions: Vec<String> = expressions.collect();
    assert!(expressions.len() > 20, "{expressions:?}");
    expressions
}

#[tokio::test]
async fn alerts_and_dashboard_read_only_what_is_exported() {
    let known: BTreeSet<String> = families().await.into_iter().flat_map(series).collect();
    for expression in expressions_of_alerts().into_iter().chain(expressions_of_dashboard()) {
        for name in read_by(&expression) {
            assert!(
                known.contains(&name) || FOREIGN.contains(&name.as_str()),
                "{name} is exported by nothing: {expression}"
            );
        }
    }
}

#[test]
fn the_reader_of_expressions_finds_what_they_read() {
    let names = read_by("sum(rate(a_total{x=\"y\"}[$__rate_interval])) / max(b) > 1 + c offset 1h");
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a_total", "b", "c"]);
}

#[test]
fn prometheus_is_told_of_the_alerts_and_the_job_that_they_name() {
    let config = yaml("deploy/prometheus/prometheus.yml");
    assert_eq!(config["rule_files"], json!(["alerts.yml"]));
    let scrape = &config["scrape_configs"][0];
    assert_eq!(scrape["metrics_path"], "/metrics");
    let job = format!("job=\"{}\"", scrape["job_name"].as_str().expect("a name"));
    let alerts = expressions_of_alerts();
    assert!(alerts.iter().any(|expression| expression.contains(&job)), "{job}");
}

#[tokio::test]
async fn every_metric_is_documented_and_nothing_else_is() {
    let docs = text_of("docs/ADMIN.md");
    let rows = docs.lines().filter_map(|line| line.strip_prefix("| `broker_"));
    let documented: BTreeSet<String> =
        rows.filter_map(|row| row.split('`').next()).map(|name| format!("broker_{name}")).collect();
    let exported: BTreeSet<String> = families()
        .await
        .into_iter()
        .map(|(name, kind)| match kind.as_str() {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name,
        })
        .collect();
    assert_eq!(documented, exported);
}

#[tokio::test]
async fn what_is_looked_at_is_what_is_there() {
    let node = Node::start_with(|config| config.presence.connections_per_mesh_max = 1).await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let _a = Raw::hello(&node, &alice).await;
    let (refused, _) = Raw::refused(&node, hello_frame(&node.mesh, &bob)).await;
    assert_eq!(refused["code"], "capacity");
    until("the gauges have been set", async || {
        crate::harness::metric(&node, "broker_leases_held").await == 1
    })
    .await;
    for (name, value) in [
        ("broker_leases_denied_total", 1),
        ("broker_ready", 1),
        ("broker_cluster_degraded", 0),
        ("broker_db_pool_max", 4),
    ] {
        assert_eq!(crate::harness::metric(&node, name).await, value, "{name}");
    }
    let text = http::get(&node, "/metrics").await.body;
    let build = format!("broker_build_info{{version=\"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(text.contains(&build), "{build}");
}

/// The fields of the log lines with that sentence, for one message.
fn lines_of(log: &str, sentence: &str, message: &str) -> Vec<Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"] == sentence && line["message_id"] == message).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_followed_from_node_to_node_by_its_id() {
    let cluster = Setup::new(2).set("LOG_FORMAT", "json").start_processes().await;
    let [first, second] = &cluster.nodes[..] else { panic!("two nodes") };
    let (alice, bob) = (first.member("alice").await, first.member("bob").await);
    let mut a = Raw::hello(first, &alice).await;
    let mut b = Raw::hello(second, &bob).await;
    let sent = a.sent(bob.pubkey().as_str(), "now", "c2VjcmV0").await;
    assert_eq!(b.message().await["messageId"], sent.as_str());
    until("both nodes have written their lines", async || {
        !lines_of(&cluster.processes[0].log(), "message accepted", &sent).is_empty()
            && !lines_of(&cluster.processes[1].log(), "message delivered", &sent).is_empty()
    })
    .await;
    let accepted = lines_of(&cluster.processes[0].log(), "message accepted", &sent);
    let delivered = lines_of(&cluster.processes[1].log(), "message delivered", &sent);
    assert_eq!((accepted.len(), delivered.len()), (1, 1));
    assert_eq!(accepted[0]["mesh"], first.mesh.as_str());
    assert_eq!(delivered[0]["mesh"], first.mesh.as_str());
    assert!(delivered[0]["presence"].is_string());
    for process in &cluster.processes {
        assert!(!process.log().contains("c2VjcmV0"), "a ciphertext in a log");
    }
}
