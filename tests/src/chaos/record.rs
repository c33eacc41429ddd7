//! The judgement on disconnect hooks: one for each connection that ended, none for a living one. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// Everything wrong with the hooks of single connections, but for repetitions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Hooks {
    /// Connections that had one, and live.
    pub(crate) of_living: Vec<String>,
    /// Connections that ended and had none.
    pub(crate) never: Vec<String>,
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

/// Judges a record. `living` are connections that still exist; as many more as `unknown` exist whose ids nobody knows.
pub(crate) fn judge(record: &str, living: &BTreeSet<String>, unknown: usize) -> Hooks {
    let ends = ends(record);
    let began: BTreeSet<_> = record
        .lines()
        .filter_map(|line| line.strip_prefix("+ "))
        .collect();
    let open = began
        .iter()
        .filter(|id| !ends.contains_key(*id) && !living.contains(**id));
    let mut never: Vec<_> = open.map(|id| (*id).to_owned()).collect();
    never.truncate(never.len().saturating_sub(unknown));
    let of_living = ends.keys().filter(|id| living.contains(**id));
    Hooks {
        of_living: of_living.map(|id| (*id).to_owned()).collect(),
        never,
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
