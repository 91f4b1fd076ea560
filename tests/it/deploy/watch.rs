//! `deploy/prometheus/` and compose's scrape, run by Prometheus against three
//! nodes.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use claudemesh_broker::client;
use http::Method;
use serde_json::Value;
use url::Url;

use super::{compose, text_of};
use crate::harness::child::ChildProcess;
use crate::harness::ports::free_port;
use crate::harness::{Node, Setup, http as plain, until};
use crate::operators::observability::expressions_of_dashboard;

const INSTALL: &str = "install it (Debian: apt-get install prometheus)";

fn promtool(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new("promtool");
    command.args(args).current_dir(folder).stdin(Stdio::null());
    command.output().unwrap_or_else(|error| panic!("promtool does not start ({error}); {INSTALL}"))
}

fn agrees(folder: &Path, args: &[&str]) {
    let said = promtool(folder, args);
    assert!(said.status.success(), "{args:?}: {said:?}");
}

/// Compose's files for Prometheus, where it mounts them.
fn mounted() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for volume in super::strings(&compose()["services"]["prometheus"]["volumes"]) {
        let mut parts = volume.split(':');
        let (from, to) = (parts.next().expect("a source"), parts.next().expect("a place"));
        let Some(from) = from.strip_prefix("./") else { continue };
        let name = to.strip_prefix("/etc/prometheus/").expect("beside each other");
        std::fs::write(folder.path().join(name), text_of(&format!("deploy/{from}")))
            .expect("a file");
    }
    folder
}

#[test]
fn prometheus_takes_the_files_as_they_stand() {
    agrees(&super::root().join("deploy/prometheus"), &["check", "config", "prometheus.yml"]);
    agrees(&super::root().join("deploy/prometheus"), &["check", "rules", "alerts.yml"]);
    agrees(mounted().path(), &["check", "config", "prometheus.yml"]);
}

/// By virtual time, so with the times that stand in the file.
const DOWN: &str = r#"
rule_files: [alerts.yml]
evaluation_interval: 15s
tests:
  - interval: 15s
    input_series:
      - series: 'up{job="claudemesh-broker", instance="node-1:7900"}'
        values: "1x4 0x20"
      - series: 'up{job="claudemesh-broker", instance="node-2:7900"}'
        values: "1x30"
    alert_rule_test:
      - alertname: BrokerDown
        eval_time: 2m
        exp_alerts: []
      - alertname: BrokerDown
        eval_time: 2m30s
        exp_alerts:
          - exp_labels: { severity: page, job: claudemesh-broker, instance: "node-1:7900" }
            exp_annotations:
              summary: "node-1:7900 does not answer"
              description: "Its peers have gone to other nodes if there are any. Look whether the process runs."
"#;

#[test]
fn a_node_that_is_down_is_told_of_after_a_minute_and_no_other() {
    let folder = mounted();
    std::fs::write(folder.path().join("down.yml"), DOWN).expect("a file");
    agrees(folder.path(), &["test", "rules", "down.yml"]);
}

/// A Prometheus of the test's own; it ends with this.
struct Prometheus {
    _child: ChildProcess,
    port: u16,
    folder: tempfile::TempDir,
}

impl Prometheus {
    /// By compose's files; but for the nodes' addresses and for times, which are
    /// fractions of a second.
    fn start(nodes: &[Node]) -> Self {
        let (folder, port) = (mounted(), free_port());
        let at = |name: &str| folder.path().join(name);
        let mut config = std::fs::read_to_string(at("prometheus.yml")).expect("a file");
        for (number, node) in (1..).zip(nodes) {
            config = config.replace(&format!("node-{number}:7900"), &node.address.to_string());
        }
        std::fs::write(at("prometheus.yml"), config.replace(": 15s", ": 250ms")).expect("a file");
        let alerts = std::fs::read_to_string(at("alerts.yml")).expect("a file");
        let hasty = |line: &str| match line.split_once("for: ") {
            Some((before, _)) => format!("{before}for: 250ms\n"),
            None => format!("{line}\n"),
        };
        std::fs::write(at("alerts.yml"), alerts.lines().map(hasty).collect::<String>())
            .expect("a file");
        let log = std::fs::File::create(at("log")).expect("a file");
        let mut command = Command::new("prometheus");
        command
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.level=warn")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        Self { _child: ChildProcess::start(&mut command), port, folder }
    }

    /// The data of an answer of its API; `None` while it starts.
    async fn ask(&self, path: &str, query: &[(&str, &str)]) -> Option<Value> {
        let base = format!("http://127.0.0.1:{}/api/v1/{path}", self.port);
        let url = Url::parse_with_params(&base, query).expect("a URL");
        let (_, body) = client::http::call(Method::GET, &url, &[], None).await.ok()?;
        let answer: Value = serde_json::from_slice(&body).ok()?;
        assert_eq!(answer["status"], "success", "{path} {query:?}: {answer}");
        Some(answer["data"].clone())
    }

    /// The rules: how each fares.
    async fn rules(&self) -> Vec<Value> {
        let data = self.ask("rules", &[]).await.unwrap_or_default();
        let groups = data["groups"].as_array().cloned().unwrap_or_default();
        groups
            .iter()
            .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default())
            .collect()
    }
}

#[tokio::test]
async fn three_nodes_are_scraped_every_rule_is_evaluated_and_a_dead_node_is_told_of() {
    let mut cluster = Setup::new(3).start_processes().await;
    let prometheus = Prometheus::start(&cluster.nodes);
    until("all three nodes are scraped", async || {
        let targets = prometheus.ask("targets", &[("state", "active")]).await.unwrap_or_default();
        let targets = targets["activeTargets"].as_array().cloned().unwrap_or_default();
        targets.len() == 3 && targets.iter().all(|target| target["health"] == "up")
    })
    .await;
    let written = text_of("deploy/prometheus/alerts.yml").matches("- alert: ").count();
    until("every rule has been evaluated", async || {
        let rules = prometheus.rules().await;
        rules.len() == written && rules.iter().all(|rule| rule["health"] != "unknown")
    })
    .await;
    for rule in prometheus.rules().await {
        assert_eq!(rule["health"], "ok", "{rule}");
        assert_ne!(rule["state"], "firing", "nothing is wrong yet: {rule}");
    }
    // Rates want two scrapes.
    until("most of the dashboard has something to show", async || {
        let mut shown = 0;
        for expression in expressions_of_dashboard() {
            let query = expression.replace("$__rate_interval", "5s").replace("$instance", ".*");
            let data = prometheus.ask("query", &[("query", &query)]).await.expect("it runs");
            shown +=
                usize::from(data["result"].as_array().is_some_and(|series| !series.is_empty()));
        }
        shown > expressions_of_dashboard().len() / 2
    })
    .await;

    cluster.processes[2].kill9().await;
    let dead = cluster.nodes[2].address.to_string();
    until("the dead node is told of", async || {
        let rules = prometheus.rules().await;
        let down = rules.iter().find(|rule| rule["name"] == "BrokerDown").expect("a rule");
        let alerts = down["alerts"].as_array().cloned().unwrap_or_default();
        assert!(alerts.iter().all(|alert| alert["labels"]["instance"] == *dead), "{alerts:?}");
        alerts.iter().any(|alert| alert["state"] == "firing")
    })
    .await;
    let log = std::fs::read_to_string(prometheus.folder.path().join("log")).expect("a log");
    assert!(!log.contains("level=error"), "{log}");
}

/// Prometheus itself asks for OpenMetrics; promtool reads only the older form.
#[tokio::test]
async fn who_asks_for_plain_text_gets_metrics_that_promtool_reads() {
    let node = Node::start().await;
    let accept = [("accept", "text/plain;version=0.0.4")];
    let reply = plain::request(&node, "GET", "/metrics", &accept, "").await;
    assert_eq!(reply.status, 200);
    if !reply.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")) {
        eprintln!("not run: this build answers OpenMetrics only");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("metrics"), &reply.body).expect("a file");
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]);
    command.stdin(std::fs::File::open(folder.path().join("metrics")).expect("a file"));
    let said = command.output().unwrap_or_else(|error| panic!("promtool: {error}; {INSTALL}"));
    // 3 is its opinion on names; 1: it could not read them.
    assert_ne!(said.status.code(), Some(1), "{}", String::from_utf8_lossy(&said.stderr));
}
