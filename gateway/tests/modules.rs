//! The top modules of the library import each other in one direction.
#![allow(clippy::panic, clippy::expect_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

type Graph = BTreeMap<String, BTreeSet<String>>;

/// Modules that may import each other in a circle: a hub runs its connections, a connection calls its hub, and the fan-out
/// is given by the one to the other.
const KNOT: [&str; 3] = ["fanout", "hub", "session"];

/// Adds the imports of the files below a folder.
fn read(folder: &Path, top: Option<&str>, graph: &mut Graph) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).expect("a name");
        let module = top.unwrap_or(name);
        if path.is_dir() {
            read(&path, Some(module), graph);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !["lib", "main"].contains(&module)
            && !name.ends_with("tests")
        {
            let text = fs::read_to_string(&path).expect("the file can be read");
            let imports = graph.entry(module.to_owned()).or_default();
            imports.extend(imported(&text).filter(|import| import != module));
        }
    }
}

/// The top modules that a file names outside of its tests and comments.
fn imported(text: &str) -> impl Iterator<Item = String> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines
        .flat_map(|line| line.split("crate::").skip(1))
        .filter_map(|after| {
            let end = after.find(|c: char| !c.is_ascii_lowercase() && c != '_')?;
            let name = &after[..end];
            (!name.is_empty()).then(|| name.to_owned())
        })
}

fn reachable(graph: &Graph, from: &str) -> BTreeSet<String> {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from.to_owned()]);
    while let Some(module) = next.pop() {
        for import in graph.get(&module).into_iter().flatten() {
            if seen.insert(import.clone()) {
                next.push(import.clone());
            }
        }
    }
    seen
}

#[test]
fn modules_import_each_other_in_one_direction() {
    let mut graph = Graph::new();
    read(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        None,
        &mut graph,
    );
    assert!(graph.len() > 10, "{graph:?}");
    for (module, imports) in &graph {
        let imports: Vec<_> = imports.iter().map(String::as_str).collect();
        println!("{module} → {}", imports.join(", "));
    }
    let in_circles: Vec<_> = graph
        .keys()
        .filter(|module| reachable(&graph, module).contains(*module))
        .collect();
    assert_eq!(
        in_circles, KNOT,
        "see the order of the modules in ARCHITECTURE.md"
    );
}
