//! The judgement on disconnect hooks: one for each connection that ended, none for a living one. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Within this time after its death a node's connections are removed: its lease, and what finding it and removing take.
const NOTICED: Duration = Duration::from_secs(10);

/// Everything wrong with the hooks of single connections, but for repetitions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Hooks {
    /// Connections that had one, and live.
    pub(crate) of_living: Vec<String>,
    /// Connections that ended and had none.
    pub(crate) never: Vec<String>,
    /// The same, where no node can know of them: their node died, and Redis forgot before the others had noticed.
    pub(crate) unknowable: usize,
}

/// Lines of the stage itself.
const KILLED: &str = "! killed ";
const FORGOT: &str = "! forgot ";

/// The line that says that a node was killed.
pub(crate) fn killed(node: usize, at: Duration) -> String {
    format!("{KILLED}node-{node} {}\n", at.as_millis())
}

/// The line that says that Redis may have forgotten something.
pub(crate) fn forgot(at: Duration) -> String {
    format!("{FORGOT}{}\n", at.as_millis())
}

/// Connections by the node that they began on, and whether no node can know of their end.
#[derive(Default)]
struct Began<'a> {
    /// Without an end so far, and nothing was forgotten since.
    connections: BTreeMap<&'a str, &'a str>,
    /// Nodes that were killed, when, and what they had.
    dead: Vec<(u128, Vec<&'a str>)>,
    unknowable: BTreeSet<&'a str>,
}

impl<'a> Began<'a> {
    fn read(record: &'a str) -> Self {
        let mut began = Self::default();
        for line in record.lines() {
            began.note(line);
        }
        began
    }

    fn note(&mut self, line: &'a str) {
        if let Some((id, node)) = line.strip_prefix("+ ").and_then(|line| line.split_once(' ')) {
            self.connections.insert(id, node.trim_start_matches('('));
        } else if let Some((node, at)) = line.strip_prefix(KILLED).and_then(|line| line.split_once(' ')) {
            let on_it = |name: &str| name.strip_prefix(node).is_some_and(|life| life.starts_with('-'));
            let connections = self.connections.iter().filter(|(_, name)| on_it(name));
            let connections: Vec<_> = connections.map(|(id, _)| *id).collect();
            for id in &connections {
                self.connections.remove(id);
            }
            self.dead.push((at.parse().unwrap_or_default(), connections));
        } else if let Some(at) = line.strip_prefix(FORGOT) {
            let at: u128 = at.parse().unwrap_or_default();
            let lost = self
                .dead
                .iter()
                .filter(|(killed, _)| at < killed + NOTICED.as_millis());
            self.unknowable
                .extend(lost.flat_map(|(_, connections)| connections));
        }
    }
}

/// The hooks of each connection, by the reasons that they were given.
fn ends(record: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut ends: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in record.lines().filter_map(|line| line.strip_prefix("- ")) {
        let (id, reason) = line.split_once(' ').unwrap_or((line, ""));
        ends.entry(id).or_default().push(reason);
    }
    ends
}

/// The connections that had more than one hook, with the reasons.
pub(crate) fn repeated(record: &str) -> Vec<(String, Vec<String>)> {
    let ends = ends(record).into_iter();
    let repeated = ends.filter(|(_, reasons)| reasons.len() > 1);
    let owned = |reasons: Vec<&str>| reasons.into_iter().map(str::to_owned).collect();
    repeated
        .map(|(id, reasons)| (id.to_owned(), owned(reasons)))
        .collect()
}

/// Judges a record. `living` are connections that still exist; as many more as `unknown` exist whose ids are unknown.
pub(crate) fn judge(record: &str, living: &BTreeSet<String>, unknown: usize) -> Hooks {
    let ends = ends(record);
    let unknowable = Began::read(record).unknowable;
    let began = record.lines().filter_map(|line| line.strip_prefix("+ "));
    let open: Vec<_> = began
        .map(|line| (line.split(' ').next().unwrap_or_default(), line))
        .filter(|(id, _)| !ends.contains_key(id) && !living.contains(*id))
        .collect();
    let (excused, open): (Vec<_>, Vec<_>) = open.into_iter().partition(|(id, _)| unknowable.contains(id));
    // Clients whose ids are unknown have the newest connections, most likely.
    let mut never: Vec<_> = open.into_iter().map(|(_, line)| line.to_owned()).collect();
    never.truncate(never.len().saturating_sub(unknown));
    let of_living = ends.keys().filter(|id| living.contains(**id));
    Hooks {
        of_living: of_living.map(|id| (*id).to_owned()).collect(),
        never,
        unknowable: excused.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(record: &str, living: &[&str], unknown: usize) -> [usize; 2] {
        let living = living.iter().map(|id| (*id).to_owned()).collect();
        let hooks = judge(record, &living, unknown);
        [hooks.of_living.len(), hooks.never.len()]
    }

    #[test]
    fn nobody_knows_what_a_dead_node_had_where_redis_forgets_at_once() {
        let died = |after: u64| {
            let began = "+ a (node-1-1)\n+ b (node-10-1)\n+ c (node-1-1)\n- c x (node-1-1)\n";
            let (at, then) = (Duration::from_secs(1), Duration::from_secs(1 + after));
            let record = format!("{began}{}{}+ d (node-1-2)\n", killed(1, at), forgot(then));
            let hooks = judge(&record, &BTreeSet::new(), 0);
            (hooks.never, hooks.unknowable)
        };
        let [a, b, d] = ["a (node-1-1)", "b (node-10-1)", "d (node-1-2)"].map(str::to_owned);
        assert_eq!(died(5), (vec![b.clone(), d.clone()], 1));
        assert_eq!(died(15), (vec![a, b, d], 0));
    }

    #[test]
    fn whoever_ended_has_one_hook_and_whoever_lives_has_none() {
        let record = "+ a\n+ b\n- a closed by the client (n1)\n+ c\n";
        assert_eq!(judged(record, &["b", "c"], 0), [0, 0]);
        assert_eq!(judged(record, &["c"], 0), [0, 1], "b ended");
        assert_eq!(judged(record, &["c"], 1), [0, 0], "b may be somebody unknown");
        assert_eq!(judged(record, &["a", "b", "c"], 0), [1, 0], "a lives");
    }

    #[test]
    fn two_hooks_are_one_too_many() {
        let record = "+ a\n- a x (n1)\n- b x (n1)\n- a the node died (n2)\n";
        let reasons = ["x (n1)", "the node died (n2)"].map(str::to_owned).to_vec();
        assert_eq!(repeated(record), [("a".to_owned(), reasons)]);
    }
}
