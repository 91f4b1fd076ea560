//! The documents for those who change the broker name what is there.

use std::fs;

use super::root;

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn documents() -> Vec<String> {
    let mut files = Vec::new();
    for (folder, before) in [("", ""), ("docs", "docs/")] {
        for entry in fs::read_dir(root().join(folder)).expect("a folder") {
            let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
            if name.ends_with(".md") {
                files.push(format!("{before}{name}"));
            }
        }
    }
    files
}

/// Where the links of a text lead, without those to other hosts and without anchors.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|target| !target.is_empty() && !target.contains(':'))
}

#[test]
fn the_readme_leads_to_every_document() {
    let readme = read("README.md");
    let linked: Vec<&str> = links(&readme).collect();
    for file in documents() {
        let is_linked = file == "README.md" || linked.contains(&file.as_str());
        assert!(is_linked, "README.md does not lead to {file}");
    }
}

#[test]
fn every_link_leads_to_a_file() {
    for file in documents() {
        let text = read(&file);
        let path = root().join(&file);
        let folder = path.parent().expect("a folder");
        for target in links(&text) {
            assert!(folder.join(target).exists(), "{file} leads to {target}, which is not there");
        }
    }
}

/// A test is named by the modules that lead to it, and by itself or not.
#[test]
fn every_test_that_contributors_are_told_to_run_is_there() {
    let mut count = 0;
    for file in ["CONTRIBUTING.md", "docs/RELEASING.md"] {
        let text = read(file);
        for (flag, folder) in [("--lib ", "src"), ("--test it ", "tests/it")] {
            for rest in text.split(flag).skip(1) {
                let is_end =
                    |letter: char| letter != ':' && letter != '_' && !letter.is_alphanumeric();
                let name = rest.split(is_end).next().unwrap_or_default();
                let path = root().join(folder).join(name.replace("::", "/"));
                let holder = path.parent().expect("a folder").with_extension("rs");
                let is_module = path.with_extension("rs").exists();
                let test = format!("fn {}()", name.rsplit("::").next().unwrap_or_default());
                let has = |text: String| text.contains(&test);
                let is_test = fs::read_to_string(holder).is_ok_and(has);
                assert!(is_module || is_test, "{file} names {name}, which is not there");
                count += 1;
            }
        }
    }
    assert_eq!(count, 5, "tests that are named");
}
