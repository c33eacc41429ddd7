//! The files of the wings `server` and `script` of the Redis backplane import each other in one direction.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

type Graph = BTreeMap<String, BTreeSet<String>>;

const WINGS: [&str; 2] = ["server", "script"];

/// The files of the wings that a text imports outside of its tests and comments.
fn imports(text: &str) -> impl Iterator<Item = String> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines
        .flat_map(|line| line.split("crate::redis::").skip(1))
        .filter_map(|path| {
            let mut parts = path.split(|c: char| !c.is_ascii_lowercase() && c != '_' && c != ':');
            let (wing, rest) = parts.next()?.split_once("::")?;
            let file = rest.split("::").next()?;
            WINGS.contains(&wing).then(|| format!("{wing}/{file}"))
        })
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn graph() -> Graph {
    let mut graph = Graph::new();
    for wing in WINGS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/redis").join(wing);
        for path in rust_files(&folder) {
            // The files of a folder count as parts of the file that is called as it.
            let within = path.strip_prefix(&folder).unwrap().with_extension("");
            let name = within.iter().next().unwrap().to_str().unwrap();
            if name != "mod" {
                let file = format!("{wing}/{name}");
                let text = fs::read_to_string(&path).unwrap();
                let found = imports(&text).filter(|import| *import != file);
                graph.entry(file.clone()).or_default().extend(found);
            }
        }
    }
    graph
}

fn reachable(graph: &Graph, from: &str) -> BTreeSet<String> {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from.to_owned()]);
    while let Some(file) = next.pop() {
        for import in graph.get(&file).into_iter().flatten() {
            if seen.insert(import.clone()) {
                next.push(import.clone());
            }
        }
    }
    seen
}

#[test]
fn files_of_the_server_and_of_scripts_import_each_other_in_one_direction() {
    let graph = graph();
    for (file, imports) in &graph {
        for import in imports {
            assert!(
                graph.contains_key(import),
                "{file} imports {import}, which is no file"
            );
        }
        println!(
            "{file} → {}",
            imports.iter().cloned().collect::<Vec<_>>().join(", ")
        );
    }
    assert!(graph.len() > 20, "{graph:?}");
    let in_circles: Vec<_> = graph
        .keys()
        .filter(|file| reachable(&graph, file).contains(*file))
        .collect();
    assert!(in_circles.is_empty(), "{in_circles:?}");
}
