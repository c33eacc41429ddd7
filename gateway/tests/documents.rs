//! The documents of the repository name files, links, tests and commands that exist.
#![allow(clippy::panic, clippy::expect_used, reason = "a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders without documents or sources of this repository.
const FOREIGN: [&str; 4] = ["target", "node_modules", "vendor", "artifacts"];
/// Ends of names by which a word counts as the name of a file.
const ENDS: [&str; 12] = [
    ".rs", ".lua", ".md", ".toml", ".sh", ".yml", ".yaml", ".proto", ".py", ".mjs", ".conf", ".service",
];
/// Files that users make, which documents may name.
const MADE_BY_USERS: [&str; 3] = ["hubcast.toml", "client.mjs", "target/debug/hubcast"];

fn root() -> PathBuf {
    let gateway = Path::new(env!("CARGO_MANIFEST_DIR"));
    gateway.parent().expect("the workspace").to_owned()
}

/// The files below a folder, by their paths from the root.
fn files(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let is_hidden = name.starts_with('.') && name != ".ci";
        if FOREIGN.contains(&name) || is_hidden {
            continue;
        }
        if path.is_dir() {
            files(&path, found);
        } else {
            let path = path.strip_prefix(root()).expect("a file of the repository");
            found.push(path.to_str().expect("a name in UTF-8").to_owned());
        }
    }
}

fn repository() -> Vec<String> {
    let mut found = Vec::new();
    files(&root(), &mut found);
    assert!(found.len() > 300, "{} files", found.len());
    found
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The documents, with their texts.
fn documents(files: &[String]) -> Vec<(&String, String)> {
    let documents = files.iter().filter(|path| path.ends_with(".md"));
    documents.map(|path| (path, read(path))).collect()
}

/// The text without its blocks of code.
fn prose(text: &str) -> String {
    let mut is_code = false;
    let lines = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    });
    lines.map(|line| format!("{line}\n")).collect()
}

/// The parts of a text in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Returns whether a file's path is this name, or ends in it.
fn is_named(path: &str, name: &str) -> bool {
    path.strip_suffix(name)
        .is_some_and(|folder| folder.is_empty() || folder.ends_with('/'))
}

fn is_file_name(word: &str) -> bool {
    let has_end = ENDS
        .iter()
        .any(|end| word.len() > end.len() && word.ends_with(end));
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    has_end && word.chars().all(is_plain) && !word.contains("NAME")
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let text = prose(text);
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| anchor(line.trim_start_matches('#')))
        .collect()
}

/// The targets of the links of a text.
fn links(text: &str) -> Vec<String> {
    let text = prose(text);
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.map(str::to_owned).collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let files = repository();
    let mut wrong = Vec::new();
    let mut count = 0;
    for (path, text) in documents(&files) {
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            count += 1;
            let (target, place) = link.split_once('#').unwrap_or((&link, ""));
            let folder = root().join(path);
            let folder = folder.parent().expect("a folder");
            let file = if target.is_empty() {
                root().join(path)
            } else {
                folder.join(target)
            };
            if !file.exists() {
                wrong.push(format!("{path}: {link}: no such file"));
            } else if !place.is_empty() {
                let text = fs::read_to_string(&file).expect("a document can be read");
                if !anchors(&text).contains(place) {
                    wrong.push(format!("{path}: {link}: no such heading"));
                }
            }
        }
    }
    assert!(count > 50, "only {count} links were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_that_a_document_names_exists() {
    let files = repository();
    let mut wrong = Vec::new();
    let mut count = 0;
    let documents = documents(&files);
    let of_developers =
        |path: &str| ["ARCHITECTURE.md", "CONTRIBUTING.md"].contains(&path) || path.starts_with("docs/");
    for (path, text) in documents.iter().filter(|(path, _)| of_developers(path)) {
        for word in quoted(&prose(text)).filter(|word| is_file_name(word)) {
            count += 1;
            let exists = files.iter().any(|file| is_named(file, word));
            if !exists && !MADE_BY_USERS.contains(&word) {
                wrong.push(format!("{path}: {word}"));
            }
        }
    }
    assert!(count > 100, "only {count} names were found");
    assert!(wrong.is_empty(), "no such files:\n{}", wrong.join("\n"));
}

/// One line of the map: its first words are paths, from the package that the last line without indentation names.
#[test]
fn every_file_of_the_map_exists() {
    let files = repository();
    let architecture = read("ARCHITECTURE.md");
    let map = architecture
        .split("## The map\n")
        .nth(1)
        .and_then(|rest| rest.split("```").nth(1))
        .expect("ARCHITECTURE.md has a map");
    let mut wrong = Vec::new();
    let (mut package, mut outer, mut folder, mut count) = (String::new(), String::new(), String::new(), 0);
    for line in map.lines().skip(1).filter(|line| !line.trim().is_empty()) {
        let indentation = line.len() - line.trim_start().len();
        let first = line.split_whitespace().next().unwrap_or_default();
        if indentation == 0 && first.contains(['/', '.']) {
            (package, folder) = (first.to_owned(), first.to_owned());
        } else if indentation == 2 {
            folder = format!("{package}{first}");
            outer = folder.clone();
        } else if indentation == 4 {
            folder = format!("{outer}{first}");
        }
        if indentation <= 4 && first.contains(['/', '.']) {
            count += 1;
            if !root().join(&folder).exists() {
                wrong.push(format!("{folder} of the map"));
            }
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        for word in line
            .split(|c: char| !is_plain(c))
            .map(|word| word.trim_end_matches('.'))
        {
            if is_file_name(word) {
                count += 1;
                // In the folder of the line, or anywhere in its package.
                let parent = folder.trim_end_matches(".rs").trim_end_matches('/');
                let beside = parent.rsplit_once('/').map_or("", |(parent, _)| parent);
                let is_here = |file: &String| {
                    [parent, beside, package.trim_end_matches('/')]
                        .iter()
                        .any(|folder| file.starts_with(*folder))
                        && is_named(file, word)
                };
                if !files.iter().any(is_here) {
                    wrong.push(format!("{word} in {folder}"));
                }
            }
        }
    }
    assert!(count > 100, "only {count} names were found");
    assert!(wrong.is_empty(), "not there:\n{}", wrong.join("\n"));
}

/// The names of all functions of the sources.
fn functions(files: &[String]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for path in files.iter().filter(|path| path.ends_with(".rs")) {
        let text = read(path);
        for rest in text.split("fn ").skip(1) {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            names.extend(end.map(|end| rest[..end].to_owned()));
        }
    }
    names
}

#[test]
fn every_invariant_names_tests_that_exist() {
    let functions = functions(&repository());
    let architecture = read("ARCHITECTURE.md");
    let section = architecture
        .split("## What must stay true\n")
        .nth(1)
        .and_then(|rest| rest.split("\n## ").next())
        .expect("ARCHITECTURE.md has the invariants");
    let invariants: Vec<_> = section.split("\n* ").skip(1).collect();
    assert!(invariants.len() > 30, "{} invariants", invariants.len());
    for (index, invariant) in invariants.iter().enumerate() {
        let number = format!("**I{}. ", index + 1);
        assert!(
            invariant.starts_with(&number),
            "expected {number} at: {invariant}"
        );
        let (_, tests) = invariant
            .rsplit_once("Tests: ")
            .unwrap_or_else(|| panic!("names no test: {invariant}"));
        let tests: Vec<_> = quoted(tests).collect();
        assert!(!tests.is_empty(), "names no test: {invariant}");
        for test in tests {
            assert!(
                functions.contains(test),
                "{number}names {test}, which is not there"
            );
        }
    }
}

#[test]
fn the_readme_is_short_and_has_the_commands_of_a_fresh_machine() {
    let readme = read("README.md");
    assert!(readme.lines().count() <= 130, "{} lines", readme.lines().count());
    for command in ["cargo run --profile quick -p hubcast -- serve", ".ci/run"] {
        assert!(
            readme.lines().any(|line| line == command),
            "{command} is not in README.md"
        );
    }
}

#[test]
fn every_decision_is_in_the_index_and_says_why() {
    let files = repository();
    let index = read("docs/decisions/README.md");
    let pages = files
        .iter()
        .filter(|path| path.starts_with("docs/decisions/") && !path.ends_with("README.md"));
    let mut count = 0;
    for path in pages {
        count += 1;
        let text = read(path);
        for heading in ["\n## Context\n", "\n## Decision\n", "\n## Consequences\n"] {
            assert!(text.contains(heading), "{path} has no {}", heading.trim());
        }
        let name = path.trim_start_matches("docs/decisions/");
        assert!(index.contains(&format!("({name})")), "{name} is not in the index");
    }
    assert!(count >= 10, "{count} decisions");
}
