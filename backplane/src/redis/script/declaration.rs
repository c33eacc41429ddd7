//! How a script is declared: the names of its keys and arguments, in one place for the node that calls it and for the
//! server that runs it.
//!
//! The macro of `declared.rs` makes a struct with a field for each key and argument, so that the compiler checks every
//! call. The same names become local variables in front of the script's text ([`Script::bind`]), and `headers.rs` compares
//! them with the comment at the head of its file.

/// A script: its text, and the names by which it has its keys and arguments.
#[derive(Clone, Copy, Debug)]
pub(in crate::redis) struct Script {
    /// The name of its file, and of its operation in a batch.
    pub(in crate::redis) name: &'static str,
    pub(in crate::redis) text: &'static str,
    pub(in crate::redis) scope: Scope,
    pub(in crate::redis) keys: Names,
    pub(in crate::redis) arguments: Names,
    /// The argument that is the topic of the message that the script appends, if it appends one.
    pub(in crate::redis) topic: Option<&'static str>,
}

/// The scripts that have another script's text in them, or the files that stand in front of it.
#[derive(Clone, Copy, Debug)]
pub(in crate::redis) enum Scope {
    /// An operation of batches: of this one and of all that come after it.
    Operation(BatchScript),
    /// A script that is called alone, after the texts of these files.
    Alone(&'static [Part]),
    /// The end of the batch scripts.
    Batch,
}

/// The scripts that carry batches out. Frequent operations have scripts of their own, which the server runs faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::redis) enum BatchScript {
    /// Operations that only publish: they begin with a write that a server without memory refuses.
    Publishing,
    /// Operations on messages.
    Messages,
    /// All operations.
    All,
}

/// A file of functions that several scripts share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::redis) enum Part {
    Log,
    Append,
    Reading,
    Directory,
    Events,
}

/// The names of a script's keys, or of its arguments, in order.
#[derive(Clone, Copy, Debug)]
pub(in crate::redis) struct Names {
    pub(in crate::redis) single: &'static [Named],
    /// The names of the items that may be repeated after them, as often as the caller likes.
    pub(in crate::redis) repeated: &'static [&'static str],
}

/// A key or an argument; with parts it is several arguments, which the script has as the fields of one table.
#[derive(Debug)]
pub(in crate::redis) struct Named {
    pub(in crate::redis) name: &'static str,
    pub(in crate::redis) parts: &'static [&'static str],
    /// True if it may be missing at the end of the keys.
    pub(in crate::redis) optional: bool,
}

impl Script {
    /// The lines that bind the names, in front of the text. An operation of a batch has its keys and arguments among
    /// those of other operations: `key`, `last_key`, `argument` and `last_argument` are the places of its own.
    pub(in crate::redis) fn bind(&self) -> String {
        let (key, last_key, argument, last_argument) = match self.scope {
            Scope::Operation(_) => ("key", "last_key", "argument", "last_argument"),
            Scope::Alone(_) | Scope::Batch => ("1", "#KEYS", "1", "#ARGV"),
        };
        let mut lines = self.keys.bind("KEYS", key, last_key, self.text);
        lines.push_str(&self.arguments.bind("ARGV", argument, last_argument, self.text));
        lines
    }
}

impl Names {
    /// The number of single items, parts counted.
    pub(in crate::redis) fn count(&self) -> usize {
        self.single.iter().map(Named::width).sum()
    }

    /// The place of an item, counted from 0.
    pub(in crate::redis) fn place(&self, name: &str) -> Option<usize> {
        let index = self.single.iter().position(|named| named.name == name)?;
        Some(self.single.iter().take(index).map(Named::width).sum())
    }

    /// Lines that bind those names that a text mentions: keys may be there for the cluster alone. `first` and `last`:
    /// the places of the first and the last item in `table`.
    fn bind(&self, table: &str, first: &str, last: &str, text: &str) -> String {
        let at = |place: usize| match (first.parse::<usize>(), place) {
            (Ok(first), place) => (first + place).to_string(),
            (Err(_), 0) => first.to_owned(),
            (Err(_), place) => format!("{first} + {place}"),
        };
        let (mut names, mut values, mut place) = (Vec::new(), Vec::new(), 0);
        for named in self.single {
            if mentions(text, named.name) {
                names.push(named.name.to_owned());
                values.push(named.value(table, last, &at, place));
            }
            place += named.width();
        }
        if let Some(name) = self.repeated.first() {
            let name = name.to_uppercase();
            names.push(format!("FIRST_{name}"));
            values.push(at(place));
            names.push(format!("LAST_{name}"));
            values.push(last.to_owned());
        }
        if names.is_empty() {
            return String::new();
        }
        format!("local {} = {}\n", names.join(", "), values.join(", "))
    }
}

impl Named {
    fn width(&self) -> usize {
        self.parts.len().max(1)
    }

    fn value(&self, table: &str, last: &str, at: &impl Fn(usize) -> String, place: usize) -> String {
        let item = |place| format!("{table}[{}]", at(place));
        if self.optional {
            return format!("{last} >= {} and {}", at(place), item(place));
        }
        if self.parts.is_empty() {
            return item(place);
        }
        let parts = self.parts.iter().enumerate();
        let fields: Vec<_> = parts
            .map(|(index, part)| format!("{part} = {}", item(place + index)))
            .collect();
        format!("{} ~= '' and {{{}}}", item(place), fields.join(", "))
    }
}

/// Returns whether a Lua text has this identifier outside of comments.
pub(in crate::redis) fn mentions(text: &str, identifier: &str) -> bool {
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let code = text.lines().filter(|line| !line.trim_start().starts_with("--"));
    code.flat_map(|line| {
        line.match_indices(identifier)
            .map(move |(place, _)| (line, place))
    })
    .any(|(line, place)| {
        let before = line.get(..place).unwrap_or_default();
        let after = line.get(place + identifier.len()..).unwrap_or_default();
        !before.ends_with(is_part) && !after.starts_with(is_part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names = Names {
        single: &[
            Named {
                name: "node",
                parts: &[],
                optional: false,
            },
            Named {
                name: "events",
                parts: &["stream", "most"],
                optional: false,
            },
            Named {
                name: "unused",
                parts: &[],
                optional: false,
            },
        ],
        repeated: &["group"],
    };
    const TEXT: &str = "-- unused\nuse(node, events.most, not_unused)";

    #[test]
    fn names_are_bound_in_order() {
        let alone = "local node, events, FIRST_GROUP, LAST_GROUP = \
                     ARGV[1], ARGV[2] ~= '' and {stream = ARGV[2], most = ARGV[3]}, 5, #ARGV\n";
        assert_eq!(NAMES.bind("ARGV", "1", "#ARGV", TEXT), alone);
        let operation = "local node, events, FIRST_GROUP, LAST_GROUP = ARGV[argument], \
                         ARGV[argument + 1] ~= '' and {stream = ARGV[argument + 1], most = ARGV[argument + 2]}, \
                         argument + 4, last_argument\n";
        assert_eq!(NAMES.bind("ARGV", "argument", "last_argument", TEXT), operation);
        assert_eq!(NAMES.place("unused"), Some(3));
        assert_eq!(NAMES.count(), 4);
    }

    #[test]
    fn a_name_is_a_whole_word() {
        assert!(mentions("a = node.x", "node") && mentions("f(node)", "node"));
        assert!(
            !mentions("a = nodes", "node") && !mentions("-- node", "node") && !mentions("my_node", "node")
        );
    }
}
