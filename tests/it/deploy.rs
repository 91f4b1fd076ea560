//! The files under `deploy/` and `fly.toml`: they parse, and what they name is
//! there: settings, commands, paths, routes; and their times fit.
//!
//! In the files beside this one they are run, as far as this machine has the
//! programs: the image's build and its last stage, the script for Fly.io, the
//! servers that compose names, Prometheus, the load balancer, systemd's checks; and
//! what is built in is held against the licences that allow it. Not checked: that a
//! cluster takes the manifests.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use claudemesh_broker::command::Cli;
use claudemesh_broker::config::{Config, SETTINGS};
use dockerfile_parser::{Dockerfile, Instruction};
use serde::Deserialize as _;
use serde_yaml_ng::Value as Yaml;

use crate::harness::{Node, http, root, text_of};

mod balancer;
mod confined;
mod documents;
mod image;
mod licences;
mod servers;
mod setup;
mod watch;

type Env = BTreeMap<String, String>;

fn yaml(path: &str) -> Vec<Yaml> {
    serde_yaml_ng::Deserializer::from_str(&text_of(path))
        .map(|document| {
            Yaml::deserialize(document).unwrap_or_else(|error| panic!("{path}: {error}"))
        })
        .collect()
}

fn compose() -> Yaml {
    let mut compose = yaml("deploy/compose.yaml").remove(0);
    // What is merged in may have merged something in itself.
    for _ in 0..2 {
        compose.apply_merge().expect("mappings");
    }
    compose
}

fn fly(path: &str) -> toml::Table {
    text_of(path).parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn dockerfile() -> Dockerfile {
    Dockerfile::parse(&text_of("deploy/Dockerfile")).expect("a Dockerfile")
}

/// The unit's lines by section and name, all of a name in their order. Strict:
/// what systemd would only warn of is an error.
fn unit() -> BTreeMap<String, Vec<(String, String)>> {
    let mut sections: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    let mut current = None;
    for line in text_of("deploy/systemd/claudemesh-broker.service").lines() {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
            current = Some(name.to_owned());
            continue;
        }
        let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("not a line: {line}"));
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{line}");
        let section = current.clone().unwrap_or_else(|| panic!("before any section: {line}"));
        sections.entry(section).or_default().push((name.to_owned(), value.to_owned()));
    }
    sections
}

fn unit_values<'a>(
    unit: &'a BTreeMap<String, Vec<(String, String)>>,
    wanted: &'a str,
) -> impl Iterator<Item = &'a str> {
    let service = unit["Service"].iter();
    service.filter(move |(name, _)| name == wanted).map(|(_, value)| value.as_str())
}

fn strings(list: &Yaml) -> Vec<String> {
    let list = list.as_sequence().unwrap_or_else(|| panic!("a list: {list:?}"));
    list.iter().map(|text| text.as_str().expect("text").to_owned()).collect()
}

fn mapping(of: &Yaml) -> Env {
    let pairs = of.as_mapping().unwrap_or_else(|| panic!("a mapping: {of:?}")).iter();
    pairs
        .map(|(name, value)| {
            let value = value.as_str().unwrap_or_else(|| panic!("text for {name:?}"));
            (name.as_str().expect("a name").to_owned(), value.to_owned())
        })
        .collect()
}

/// As compose fills it in: with the default, or as if somebody had set it.
fn filled_in(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        // Two of them are one that is meant.
        if let Some(tail) = after.strip_prefix('$') {
            out.push_str(before);
            out.push('$');
            rest = tail;
            continue;
        }
        let after = after.strip_prefix('{').expect("a reference in braces");
        let (inside, tail) = after.split_once('}').expect("a closed reference");
        out.push_str(before);
        out.push_str(inside.split_once(":-").map_or("0123456789abcdef", |(_, default)| default));
        rest = tail;
    }
    out + rest
}

fn broker_services(compose: &Yaml) -> Vec<(String, Yaml)> {
    let services = compose["services"].as_mapping().expect("services").iter();
    services
        .filter(|(_, service)| service["image"] == "claudemesh-broker")
        .map(|(name, service)| (name.as_str().expect("a name").to_owned(), service.clone()))
        .collect()
}

fn pod() -> Yaml {
    yaml("deploy/kubernetes/deployment.yaml").remove(0)["spec"]["template"]["spec"].clone()
}

/// The variables of every file that sets some.
fn environments() -> Vec<(&'static str, Env)> {
    let mut all = Vec::new();
    let mut of_fly: Env = fly("fly.toml")["env"]
        .as_table()
        .expect("env")
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned()))
        .collect();
    for name in setup::broker_secrets(&text_of("deploy/fly/setup.sh")) {
        let value = match name.as_str() {
            "DATABASE_URL" => "postgres://u:p@db/mesh",
            "REDIS_URL" => "redis://:p@cache.internal:6379",
            _ => "0123456789abcdef",
        };
        of_fly.insert(name, value.to_owned());
    }
    all.push(("fly.toml", of_fly));
    for (_, service) in broker_services(&compose()) {
        let env = mapping(&service["environment"]);
        let env = env.into_iter().map(|(name, value)| (name, filled_in(&value))).collect();
        all.push(("compose.yaml", env));
    }
    let secret = yaml("deploy/kubernetes/secret.example.yaml").remove(0);
    let mut of_pod = mapping(&secret["stringData"]);
    for variable in pod()["containers"][0]["env"].as_sequence().expect("env") {
        let value = variable["value"].as_str().unwrap_or("a-pod").to_owned();
        of_pod.insert(variable["name"].as_str().expect("a name").to_owned(), value);
    }
    all.push(("kubernetes", of_pod));
    let unit = unit();
    let of_unit = unit_values(&unit, "Environment").map(|line| {
        let (name, value) = line.split_once('=').expect("a variable");
        (name.to_owned(), value.to_owned())
    });
    all.push(("systemd", of_unit.collect()));
    let of_image =
        dockerfile().instructions.into_iter().filter_map(|instruction| match instruction {
            Instruction::Env(env) => Some(env.vars),
            _ => None,
        });
    let of_image = of_image.flatten().map(|var| (var.key.content, var.value.to_string()));
    all.push(("Dockerfile", of_image.filter(|(name, _)| name != "PATH").collect()));
    all
}

#[test]
fn every_variable_is_a_setting_and_all_values_are_valid_together() {
    for (file, env) in environments() {
        assert!(!env.is_empty(), "{file}");
        for name in env.keys() {
            assert!(SETTINGS.iter().any(|setting| setting.name == name), "{file} sets {name}");
        }
        let home = |name: &str| (name == "CLAUDEMESH_DATA_DIR").then(|| "/data".to_owned());
        let config = Config::load(&|name| env.get(name).cloned().or_else(|| home(name)));
        let config = config.unwrap_or_else(|errors| panic!("{file}: {errors}"));
        let clustered = config.deployment.to_string() == "clustered";
        assert_eq!(clustered, !["systemd", "Dockerfile"].contains(&file), "{file}");
    }
}

#[test]
fn every_command_is_one_that_the_program_has() {
    let mut commands: Vec<Vec<String>> = Vec::new();
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let release = fly("fly.toml")["deploy"]["release_command"].as_str().map(words);
    commands.push(release.expect("a release command"));
    for (_, service) in broker_services(&compose()) {
        if !service["command"].is_null() {
            commands.push(strings(&service["command"]));
        }
    }
    let pod = pod();
    commands.push(strings(&pod["initContainers"][0]["command"]));
    commands.push(strings(&pod["containers"][0]["command"]));
    let unit = unit();
    commands.extend(unit_values(&unit, "ExecStart").map(words));
    for instruction in dockerfile().instructions {
        match instruction {
            Instruction::Cmd(cmd) => {
                let exec = cmd.into_exec().expect("a list, since there is no shell");
                commands.push(exec.as_str_vec().into_iter().map(str::to_owned).collect());
            }
            Instruction::Misc(misc) if misc.instruction.content == "HEALTHCHECK" => {
                let text = misc.arguments.to_string();
                let list = text.split_once("CMD").expect("a command").1.trim();
                commands.push(serde_json::from_str(list).expect("a list"));
            }
            _ => {}
        }
    }
    assert_eq!(commands.len(), 7, "{commands:?}");
    for command in commands {
        let program = Path::new(&command[0]).file_name().expect("a name");
        assert_eq!(program, "claudemesh-broker", "{command:?}");
        let parsed = Cli::from_args(command.iter().map(OsString::from));
        assert!(parsed.is_ok(), "{command:?}");
    }
}

#[test]
fn every_path_that_is_copied_or_mounted_is_there() {
    let mut paths: Vec<PathBuf> = Vec::new();
    for path in ["fly.toml", "deploy/fly/valkey.toml"] {
        let config = fly(path);
        paths.extend(
            config["build"].get("dockerfile").and_then(|path| path.as_str()).map(Into::into),
        );
        for file in config.get("files").and_then(|files| files.as_array()).into_iter().flatten() {
            paths.push(file["local_path"].as_str().expect("a path").into());
        }
    }
    let compose = compose();
    for (_, service) in compose["services"].as_mapping().expect("services") {
        if !service["build"].is_null() {
            let text = |name: &str| service["build"][name].as_str().expect("text").to_owned();
            paths.push(Path::new("deploy").join(text("context")).join(text("dockerfile")));
        }
        for volume in service["volumes"].as_sequence().into_iter().flatten() {
            let from = volume.as_str().expect("text").split(':').next().expect("a source");
            if from.starts_with('.') {
                paths.push(Path::new("deploy").join(from));
            } else {
                let names = compose["volumes"].as_mapping().expect("volumes");
                assert!(names.contains_key(from), "{from}");
            }
        }
    }
    let ignored = text_of(".dockerignore");
    for instruction in dockerfile().instructions {
        let Instruction::Copy(copy) = instruction else { continue };
        if copy.flags.iter().any(|flag| flag.name.content == "from") {
            continue;
        }
        for source in copy.sources {
            let line = format!("!{}", source.content);
            assert!(ignored.lines().any(|entry| entry == line), "{line} in .dockerignore");
            paths.push(source.content.into());
        }
    }
    assert!(paths.len() > 8, "{paths:?}");
    for path in paths {
        assert!(root().join(&path).exists(), "{}", path.display());
    }
}

#[test]
fn there_is_time_to_drain() {
    let default =
        SETTINGS.iter().find(|setting| setting.name == "DRAIN_SECONDS").expect("a setting").default;
    let drain = |env: &Env| -> i64 {
        env.get("DRAIN_SECONDS").map_or(default, String::as_str).parse().expect("seconds")
    };
    let environments: BTreeMap<&str, Env> = environments().into_iter().collect();
    let of_fly = fly("fly.toml")["kill_timeout"].as_integer().expect("seconds");
    // More than five minutes Fly.io does not give.
    assert!(of_fly > drain(&environments["fly.toml"]) && of_fly <= 300);
    let pod = pod();
    let before = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"].as_i64();
    let given = pod["terminationGracePeriodSeconds"].as_i64().expect("seconds");
    assert!(given > before.expect("seconds") + drain(&environments["kubernetes"]));
    let unit = unit();
    let stop: i64 = unit_values(&unit, "TimeoutStopSec")
        .next()
        .and_then(|seconds| seconds.parse().ok())
        .expect("it");
    assert!(stop > drain(&environments["systemd"]));
    for (name, service) in broker_services(&compose()) {
        let env = mapping(&service["environment"]);
        if name != "migrate" {
            let given =
                service["stop_grace_period"].as_str().and_then(|span| span.strip_suffix('s'));
            let given: i64 = given.and_then(|seconds| seconds.parse().ok()).expect("seconds");
            assert!(given > drain(&env), "{name}");
        }
    }
    for (file, signal) in [
        ("fly.toml", fly("fly.toml")["kill_signal"].as_str().map(str::to_owned)),
        ("systemd", unit_values(&unit, "KillSignal").next().map(str::to_owned)),
    ] {
        assert_eq!(signal.as_deref(), Some("SIGTERM"), "{file}");
    }
}

#[tokio::test]
async fn every_probe_names_a_route_that_answers() {
    let mut routes = Vec::new();
    let config = fly("fly.toml");
    for check in config["http_service"]["checks"].as_array().expect("checks") {
        routes.push(check["path"].as_str().expect("a path").to_owned());
    }
    routes.push(config["metrics"]["path"].as_str().expect("a path").to_owned());
    let pod = pod();
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let get = &pod["containers"][0][probe]["httpGet"];
        routes.push(get["path"].as_str().expect("a path").to_owned());
    }
    let caddy = text_of("deploy/compose/Caddyfile");
    let mut lines = caddy.lines().filter_map(|line| line.trim().strip_prefix("health_uri "));
    routes.push(lines.next().expect("a health check").to_owned());
    let scrape = yaml("deploy/compose/prometheus.yml").remove(0);
    let scraped = scrape["scrape_configs"][0]["metrics_path"].as_str().expect("a path");
    routes.push(scraped.to_owned());
    let node = Node::start().await;
    for route in routes {
        assert_eq!(http::get(&node, &route).await.status, 200, "{route}");
    }
}

#[test]
fn the_balancer_and_the_scrapes_know_every_node_and_the_port() {
    let compose = compose();
    let nodes: Vec<String> = broker_services(&compose)
        .into_iter()
        .filter(|(name, _)| name != "migrate")
        .map(|(name, service)| {
            assert_eq!(service["hostname"].as_str(), Some(name.as_str()));
            format!("{name}:7900")
        })
        .collect();
    assert_eq!(nodes.len(), 3);
    let caddy = text_of("deploy/compose/Caddyfile");
    let line = caddy.lines().find_map(|line| line.trim().strip_prefix("reverse_proxy "));
    let line = line.and_then(|opening| opening.strip_suffix(" {")).expect("a proxy");
    assert_eq!(line.split(' ').collect::<Vec<_>>(), nodes);
    assert_eq!(caddy.matches('{').count(), caddy.matches('}').count());
    let scrape = yaml("deploy/compose/prometheus.yml").remove(0);
    assert_eq!(strings(&scrape["scrape_configs"][0]["static_configs"][0]["targets"]), nodes);
    // Only those on the balancer's network are believed about addresses.
    let network = &compose["networks"]["frontend"]["ipam"]["config"][0]["subnet"];
    let service = &compose["services"]["node-1"];
    assert_eq!(network, &service["environment"]["TRUSTED_PROXIES"]);
    let config = fly("fly.toml");
    let port = config["http_service"]["internal_port"].as_integer();
    assert_eq!(port, config["metrics"]["port"].as_integer());
    assert_eq!(port.map(|port| port.to_string()).as_deref(), config["env"]["BROKER_PORT"].as_str());
}

#[test]
fn nodes_on_fly_stay_up_and_count_sockets() {
    let config = fly("fly.toml");
    let service = &config["http_service"];
    assert_eq!(service["auto_stop_machines"].as_str(), Some("off"));
    assert_eq!(service["concurrency"]["type"].as_str(), Some("connections"));
    let limit = |name: &str| service["concurrency"][name].as_integer().expect(name);
    assert!(limit("soft_limit") < limit("hard_limit"));
    // Blue-green needs a check, and no volume.
    assert_eq!(config["deploy"]["strategy"].as_str(), Some("bluegreen"));
    assert!(config.get("mounts").is_none());
    for path in ["deploy/fly/valkey.conf", "deploy/compose.yaml"] {
        let text = text_of(path);
        for needed in ["noeviction", "maxmemory", "pubsub 64mb 32mb 60"] {
            assert!(text.contains(needed), "{needed} in {path}");
        }
    }
}

#[test]
fn selectors_and_references_of_the_manifests_agree() {
    let name = "claudemesh-broker";
    let label = |of: &Yaml| of["app.kubernetes.io/name"].as_str() == Some(name);
    let deployment = yaml("deploy/kubernetes/deployment.yaml").remove(0);
    let spec = &deployment["spec"];
    assert!(
        label(&spec["selector"]["matchLabels"]) && label(&spec["template"]["metadata"]["labels"])
    );
    let service = yaml("deploy/kubernetes/service.yaml").remove(0);
    assert!(label(&service["spec"]["selector"]));
    assert!(service["spec"]["sessionAffinity"].is_null(), "any node serves any peer");
    let port = &spec["template"]["spec"]["containers"][0]["ports"][0];
    assert_eq!(service["spec"]["ports"][0]["targetPort"], port["name"]);
    assert_eq!(port["containerPort"].as_i64(), Some(7900));
    let budget = yaml("deploy/kubernetes/disruption-budget.yaml").remove(0);
    assert!(label(&budget["spec"]["selector"]["matchLabels"]));
    let scaler = yaml("deploy/kubernetes/autoscaler.yaml").remove(0);
    assert_eq!(scaler["spec"]["scaleTargetRef"]["name"], deployment["metadata"]["name"]);
    let secret = yaml("deploy/kubernetes/secret.example.yaml").remove(0);
    for container in ["initContainers", "containers"] {
        let from = &spec["template"]["spec"][container][0]["envFrom"][0]["secretRef"]["name"];
        assert_eq!(from, &secret["metadata"]["name"]);
    }
}

#[tokio::test]
async fn the_autoscaler_counts_what_a_node_exports() {
    let scaler = yaml("deploy/kubernetes/autoscaler.yaml").remove(0);
    let name = scaler["spec"]["metrics"][0]["pods"]["metric"]["name"].as_str().expect("a name");
    let node = Node::start().await;
    let text = http::get(&node, "/metrics").await.body;
    assert!(text.lines().any(|line| line.starts_with(&format!("{name} "))), "{name}");
}

#[test]
fn systemd_takes_the_unit() {
    let unit = unit();
    for section in ["Unit", "Service", "Install"] {
        assert!(unit.contains_key(section), "{section}");
    }
    // systemd-analyze wants the program to be where the unit says.
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("claudemesh-broker.service");
    let text = text_of("deploy/systemd/claudemesh-broker.service");
    std::fs::write(&file, text.replace("/usr/local/bin/claudemesh-broker", "/bin/true"))
        .expect("a file");
    let Ok(said) = Command::new("systemd-analyze").arg("verify").arg(&file).output() else {
        eprintln!("not run: systemd-analyze is not installed");
        return;
    };
    let text = String::from_utf8_lossy(&said.stderr);
    let about_it: Vec<&str> =
        text.lines().filter(|line| line.contains("claudemesh-broker.service")).collect();
    assert!(about_it.is_empty(), "{about_it:?}");
    // What it makes of the confinement, as ten times its mark.
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=true", "--threshold=20", "--no-pager"]).arg(&file);
    let said = command.output().expect("it is there");
    assert!(said.status.success(), "{said:?}");
}
