//! Tests: the scripts' texts have the names of their declarations, and only these.

use std::collections::BTreeSet;
use std::path::Path;

use crate::redis::script::calls::messages;
use crate::redis::script::catalog::SCRIPTS;
use crate::redis::script::declaration::{Names, Part, Script, mentions};
use crate::redis::script::declared::Declared;

const PARTS: [Part; 5] = [
    Part::Log,
    Part::Append,
    Part::Reading,
    Part::Directory,
    Part::Events,
];
/// Most positional parameters of a function.
const MOST_PARAMETERS: usize = 5;

/// The names that the comment at the head of a script has under a title, in the form of [`declared`]: each begins a line,
/// and deeper lines go on with its meaning.
fn documented(script: &Script, title: &str) -> Vec<String> {
    let head = script.text.lines().take_while(|line| line.starts_with("--"));
    let lines = head
        .skip_while(|line| line.strip_prefix("-- ") != Some(title))
        .skip(1);
    let items = lines.map_while(|line| line.strip_prefix("--   "));
    let names = items.filter(|item| !item.starts_with(' ')).map(|item| {
        // The meaning follows after three spaces at least, or the longest name of a list ends with two.
        let name = item.split("  ").next().unwrap_or_default();
        name.trim_end().to_owned()
    });
    names.collect()
}

/// The declared names: `name`, `name {part, part}`, and all repeated ones together, `name… name…`.
fn declared(names: &Names) -> Vec<String> {
    let single = names.single.iter().map(|named| match named.parts {
        [] => named.name.to_owned(),
        parts => format!("{} {{{}}}", named.name, parts.join(", ")),
    });
    let repeated: Vec<_> = names.repeated.iter().map(|name| format!("{name}…")).collect();
    let repeated = (!repeated.is_empty()).then(|| repeated.join(" "));
    single.chain(repeated).collect()
}

/// All names of a script, those of its keys first.
fn bound(script: &Script) -> Vec<&'static str> {
    let names = |names: &Names| {
        let single = names.single.iter().map(|named| named.name);
        single.chain(names.repeated.iter().copied()).collect::<Vec<_>>()
    };
    [names(&script.keys), names(&script.arguments)].concat()
}

fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("--"))
}

/// The names that a file declares outside of its functions.
fn top_level(text: &str) -> BTreeSet<&str> {
    let declarations = code(text).filter_map(|line| line.strip_prefix("local "));
    declarations
        .flat_map(|line| match line.strip_prefix("function ") {
            Some(function) => vec![function.split('(').next().unwrap_or_default()],
            None => line.split(" =").next().unwrap_or_default().split(", ").collect(),
        })
        .collect()
}

#[test]
fn the_comment_of_each_script_has_exactly_the_declared_names_in_order() {
    for script in SCRIPTS {
        for (title, names) in [("KEYS", &script.keys), ("ARGV", &script.arguments)] {
            assert!(
                code(&script.text.replace("\n-- ", "\n")).any(|line| line == title),
                "{}.lua has no line `-- {title}`",
                script.name
            );
            assert_eq!(
                documented(script, title),
                declared(names),
                "{} of {}.lua",
                title,
                script.name
            );
        }
    }
}

#[test]
fn each_script_uses_all_of_its_names() {
    // A script that tells another operation the places of its arguments passes all of them on.
    for script in SCRIPTS
        .iter()
        .filter(|script| !mentions(script.text, "last_argument"))
    {
        for names in [&script.keys, &script.arguments] {
            for named in names.single {
                assert!(
                    mentions(script.text, named.name),
                    "{}.lua: {}",
                    script.name,
                    named.name
                );
            }
            if let Some(first) = names.repeated.first() {
                let first = format!("FIRST_{}", first.to_uppercase());
                assert!(mentions(script.text, &first), "{}.lua: {first}", script.name);
            }
        }
    }
}

#[test]
fn no_script_has_a_numbered_key_or_argument() {
    let parts = PARTS.iter().map(|part| (format!("{part:?}"), part.text()));
    let scripts = SCRIPTS.iter().map(|script| (script.name.to_owned(), script.text));
    for (name, text) in parts.chain(scripts) {
        for table in ["KEYS", "ARGV"] {
            for line in code(text) {
                let numbered = line.split(table).skip(1).any(|rest| {
                    rest.trim_start_matches('[')
                        .starts_with(|c: char| c.is_ascii_digit())
                });
                assert!(
                    !numbered && !line.contains(&format!("#{table}")),
                    "{name}: {line}"
                );
            }
        }
    }
}

#[test]
fn names_are_distinct_and_hide_nothing() {
    const RESERVED: [&str; 19] = [
        "KEYS",
        "ARGV",
        "key",
        "last_key",
        "argument",
        "last_argument",
        "operations",
        "redis",
        "string",
        "table",
        "math",
        "cmsgpack",
        "struct",
        "type",
        "next",
        "end",
        "function",
        "local",
        "until",
    ];
    let shared: BTreeSet<_> = PARTS.iter().flat_map(|part| top_level(part.text())).collect();
    assert!(shared.contains("append") && shared.contains("hub"), "{shared:?}");
    for script in SCRIPTS {
        let (names, mut seen) = (bound(script), BTreeSet::new());
        let own = top_level(script.text);
        for name in &names {
            assert!(seen.insert(*name), "{} has {name} twice", script.name);
            let taken = shared.contains(name) || RESERVED.contains(name);
            assert!(!taken, "{}: {name} is the name of something else", script.name);
        }
        for named in script.keys.single.iter().chain(script.arguments.single) {
            assert!(
                !own.contains(named.name),
                "{}.lua hides its {}",
                script.name,
                named.name
            );
        }
    }
}

#[test]
fn each_file_is_a_script_or_a_shared_part() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/redis/script/lua");
    let name = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let files: BTreeSet<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| name(&entry.unwrap().path()))
        .collect();
    let parts = PARTS.iter().map(|part| format!("{part:?}").to_lowercase());
    let known: BTreeSet<_> = SCRIPTS
        .iter()
        .map(|script| script.name.to_owned())
        .chain(parts)
        .collect();
    assert_eq!(files, known);
}

#[test]
fn functions_take_few_positional_parameters() {
    let parts = PARTS.iter().map(|part| part.text());
    for text in parts.chain(SCRIPTS.iter().map(|script| script.text)) {
        for line in code(text) {
            let Some((_, parameters)) = line
                .split_once("function ")
                .and_then(|(_, rest)| rest.split_once('('))
            else {
                continue;
            };
            let count = parameters.split(',').count();
            assert!(count <= MOST_PARAMETERS, "{line}");
        }
    }
}

#[test]
fn arguments_can_be_passed_on() {
    let passes = [
        (messages::PublishOnce::SCRIPT, messages::Publish::SCRIPT),
        (messages::PublishOnce::SCRIPT, messages::PublishDirect::SCRIPT),
        (messages::PublishNumbered::SCRIPT, messages::Publish::SCRIPT),
    ];
    for (from, passed_to) in passes {
        assert!(
            declared(&from.arguments).starts_with(&declared(&passed_to.arguments)),
            "{} {}",
            from.name,
            passed_to.name
        );
        assert!(declared(&passed_to.keys).is_empty(), "{}", passed_to.name);
    }
}

#[test]
fn the_topics_of_messages_are_arguments() {
    let publishing = SCRIPTS.iter().filter_map(|script| Some((script, script.topic?)));
    let mut names = Vec::new();
    for (script, topic) in publishing {
        assert!(script.arguments.place(topic).is_some(), "{}", script.name);
        names.push(script.name);
    }
    assert_eq!(
        names,
        [
            "publish",
            "publish_direct",
            "publish_once",
            "publish_numbered",
            "reply"
        ]
    );
}
