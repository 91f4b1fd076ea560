//! What the program is built from: licences that allow it, and a list of all.

use std::process::Command;

use serde_json::Value;

/// Licences that ask for no more than to be named. MPL-2.0 also asks that
/// changes to its files are published; there are none.
const ALLOWED: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Whether an SPDX expression can be fulfilled by allowed licences. `AND` binds
/// closer than `OR`; older packages write a slash for `OR`.
fn is_allowed(expression: &str) -> bool {
    let text = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut at = 0;
    let allowed = either(&words, &mut at);
    allowed && at == words.len()
}

fn either(words: &[&str], at: &mut usize) -> bool {
    let mut allowed = both(words, at);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        allowed |= both(words, at);
    }
    allowed
}

fn both(words: &[&str], at: &mut usize) -> bool {
    let mut allowed = one(words, at);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        allowed &= one(words, at);
    }
    allowed
}

fn one(words: &[&str], at: &mut usize) -> bool {
    let Some(word) = words.get(*at) else {
        // Past the end: not an expression at all.
        *at = words.len() + 1;
        return false;
    };
    *at += 1;
    if *word == "(" {
        let allowed = either(words, at);
        let is_closed = words.get(*at) == Some(&")");
        *at += 1;
        return allowed && is_closed;
    }
    let mut name = (*word).to_owned();
    if words.get(*at) == Some(&"WITH") {
        name = format!("{name} WITH {}", words.get(*at + 1).unwrap_or(&""));
        *at += 2;
    }
    ALLOWED.contains(&name.as_str())
}

#[test]
fn an_expression_is_read_as_spdx_means_it() {
    for good in [
        "MIT",
        "MIT/Apache-2.0",
        "GPL-3.0-only OR MIT",
        "(MIT OR GPL-2.0-only) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception OR GPL-2.0-only",
        "GPL-2.0-only AND ISC OR MIT",
    ] {
        assert!(is_allowed(good), "{good}");
    }
    for bad in [
        "",
        "GPL-3.0-only",
        "MIT AND GPL-3.0-only",
        "MIT OR",
        "(MIT",
        "MIT GPL-3.0-only",
        "GPL-2.0-only WITH Classpath-exception-2.0",
        "(MIT OR ISC) AND AGPL-3.0-only",
    ] {
        assert!(!is_allowed(bad), "{bad}");
    }
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\ntests/run fetches it: cargo fetch --locked");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn every_dependency_has_a_licence_that_allows_it() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    assert!(packages.len() > 100);
    let refused: Vec<String> = packages
        .iter()
        .filter(|package| !package["license"].as_str().is_some_and(is_allowed))
        .map(|package| {
            format!("{} {}: {}", package["name"], package["version"], package["license"])
        })
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn the_list_of_parts_names_what_is_built_in_and_not_what_tests_need() {
    if Command::new("jq").arg("--version").output().is_err() {
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/sbom.sh");
    let output = Command::new("bash").arg(script).output().expect("bash");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let list: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (list["bomFormat"].as_str(), list["specVersion"].as_str()),
        (Some("CycloneDX"), Some("1.5"),)
    );
    let parts = list["components"].as_array().expect("components");
    let has = |name: &str| parts.iter().any(|part| part["name"] == name);
    assert!(has("tokio") && has("ed25519-dalek") && has("sqlx"));
    assert!(!has("insta") && !has("proptest"));
    let refs: Vec<&Value> = parts.iter().map(|part| &part["bom-ref"]).collect();
    for dependency in list["dependencies"].as_array().expect("dependencies") {
        for needed in dependency["dependsOn"].as_array().expect("a list") {
            assert!(refs.contains(&needed), "{needed} is needed and not listed");
        }
    }
}
