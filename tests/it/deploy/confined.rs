//! What containers may, what is published, and what compose wants to be told.

use std::collections::{BTreeMap, BTreeSet};

use super::{compose, pod, strings, text_of, yaml};

/// The variables that compose takes from its surroundings.
fn variables(text: &str) -> BTreeSet<String> {
    let references = text.split("${").skip(1);
    references
        .map(|rest| rest.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect())
        .collect()
}

#[test]
fn what_compose_wants_to_be_told_stands_in_the_example() {
    let example = text_of("deploy/compose/example.env");
    let lines = example.lines().filter(|line| !line.starts_with('#'));
    let named: BTreeSet<String> =
        lines.filter_map(|line| Some(line.split_once('=')?.0.to_owned())).collect();
    assert_eq!(variables(&text_of("deploy/compose.yaml")), named);
}

#[test]
fn containers_have_no_more_than_they_need() {
    let compose = compose();
    for (name, service) in compose["services"].as_mapping().expect("services") {
        let name = name.as_str().expect("a name");
        assert_eq!(strings(&service["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(strings(&service["security_opt"]), ["no-new-privileges:true"], "{name}");
        assert!(service["mem_limit"].is_string(), "{name}");
        let is_ours = service["image"] == "claudemesh-broker" || name == "redis";
        assert!(!is_ours || service["read_only"] == true, "{name}");
        assert!(!is_ours || service["cap_add"].is_null(), "{name}");
        assert!(service["restart"].is_string(), "{name}");
    }
}

#[test]
fn nothing_from_inside_is_published_by_the_ingress_and_who_may_connect_is_named() {
    let ingress = yaml("deploy/kubernetes/ingress.example.yaml").remove(0);
    let paths = ingress["spec"]["rules"][0]["http"]["paths"].as_sequence().expect("paths");
    let published: BTreeMap<&str, &str> = paths
        .iter()
        .map(|path| {
            (path["path"].as_str().expect("a path"), path["pathType"].as_str().expect("a kind"))
        })
        .collect();
    let is_published = |route: &str| {
        published.iter().any(|(path, kind)| match *kind {
            "Exact" => *path == route,
            _ => format!("{route}/").starts_with(&format!("{}/", path.trim_end_matches('/'))),
        })
    };
    for route in ["/ws", "/join", "/hook/set-status", "/health", "/health/ready"] {
        assert!(is_published(route), "{route}");
    }
    for route in ["/metrics", "/dashboard", "/dashboard/app.js", "/admin/v1/nodes", "/"] {
        assert!(!is_published(route), "{route}");
    }
    let service = yaml("deploy/kubernetes/service.yaml").remove(0);
    for path in paths {
        let to = &path["backend"]["service"];
        assert_eq!(to["name"], service["metadata"]["name"]);
        assert_eq!(to["port"]["name"], service["spec"]["ports"][0]["name"]);
    }
    let policy = yaml("deploy/kubernetes/network-policy.yaml").remove(0);
    let selector = &service["spec"]["selector"];
    assert_eq!(&policy["spec"]["podSelector"]["matchLabels"], selector);
    let rule = &policy["spec"]["ingress"][0];
    assert_eq!(rule["ports"][0]["port"], pod()["containers"][0]["ports"][0]["name"]);
    assert!(
        rule["from"].as_sequence().is_some_and(|peers| !peers.is_empty()),
        "not from everywhere"
    );
}
