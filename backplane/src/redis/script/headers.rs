//! The keys and arguments of a script, as the comment at its head numbers them.

/// The numbers of keys and arguments that a script takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::redis) struct Header {
    keys: Count,
    arguments: Count,
}

/// A number of keys or arguments: the last ones may be missing, where the comment says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count {
    most: usize,
    /// Any number of further ones may follow (`…`).
    open: bool,
}

impl Header {
    /// Reads the comment at the head of a script.
    pub(in crate::redis) fn read(script: &str) -> Self {
        let lines = script.lines().map_while(|line| line.strip_prefix("--"));
        let text = lines.map(str::trim).collect::<Vec<_>>().join(" ");
        let (text, _) = text.split_once("Returns ").unwrap_or((&text, ""));
        let (before, arguments) = text.split_once("ARGV: ").unwrap_or((text, ""));
        let (_, keys) = before.split_once("KEYS: ").unwrap_or((before, ""));
        Self {
            keys: Count::read(keys),
            arguments: Count::read(arguments),
        }
    }

    /// Whether a call with so many keys and arguments fits.
    pub(in crate::redis) fn fits(self, keys: usize, arguments: usize) -> bool {
        self.keys.fits(keys) && self.arguments.fits(arguments)
    }
}

impl Count {
    fn read(text: &str) -> Self {
        let open = text.contains("… ") || text.contains("then for each");
        let mut most = 0;
        let mut rest = text;
        // Each item begins with its number: `1 log, 2 stream`.
        loop {
            let next = format!("{}", most + 1);
            let found = rest.match_indices(&next).find(|(place, _)| {
                let before = rest.get(..*place).unwrap_or_default();
                let after = rest.get(place + next.len()..).unwrap_or_default();
                (before.is_empty() && most == 0 || before.ends_with(", ")) && after.starts_with([' ', '…'])
            });
            let Some((place, _)) = found else {
                return Self { most, open };
            };
            most += 1;
            rest = rest.get(place + next.len()..).unwrap_or_default();
        }
    }

    fn fits(self, count: usize) -> bool {
        self.open || count <= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::script::catalog::scripts;

    /// The highest index of `KEYS` or `ARGV` that a script names outside of its comments, and the number of different
    /// ones.
    fn used(script: &str, table: &str) -> (usize, usize) {
        let code = script.lines().filter(|line| !line.trim_start().starts_with("--"));
        let mut indices: Vec<usize> = code
            .flat_map(|line| line.split(table).skip(1))
            .filter_map(|rest| rest.strip_prefix('[')?.split(']').next()?.parse().ok())
            .collect();
        indices.sort_unstable();
        indices.dedup();
        (indices.last().copied().unwrap_or(0), indices.len())
    }

    #[test]
    fn each_script_uses_the_keys_and_arguments_that_its_comment_numbers() {
        assert!(scripts().count() > 40);
        for (name, script) in scripts() {
            let Header { keys, arguments } = Header::read(script);
            for (table, count) in [("KEYS", keys), ("ARGV", arguments)] {
                let (highest, different) = used(script, table);
                assert!(
                    highest <= count.most,
                    "{name:?} uses {table}[{highest}] of {count:?}"
                );
                // Keys may stand there for the cluster alone, and an open list is read in a loop.
                let read_otherwise =
                    count.open || table == "KEYS" || script.contains("(ARGV)") || script.contains(", ARGV)");
                assert!(
                    read_otherwise || different == count.most,
                    "{name:?} uses {different} of {count:?} {table}"
                );
            }
        }
    }

    #[test]
    fn a_head_is_read() {
        let head = Header::read(
            "-- Does 1 thing.\n-- KEYS: 1 log, 2 stream,\n--       3 tail of 2 things\n-- ARGV: 1 node, 2… groups\n-- Returns 1, 2 or 3.\ncode",
        );
        assert!(head.fits(3, 100) && head.fits(2, 0) && !head.fits(4, 1));
        assert!(Header::read("-- Nothing.\ncode").fits(0, 0) && !Header::read("code").fits(1, 0));
    }
}
