//! The members of groups: those that the REST API lists are those that live.

use std::collections::BTreeSet;

use crate::rest::{Rest, latest};

/// The connections of one group that live.
#[derive(Debug, Default, Clone)]
pub(crate) struct Living {
    pub(crate) ids: BTreeSet<String>,
    /// How many more there are whose ids are unknown.
    pub(crate) unknown: usize,
}

/// Lists the connections of a group; the error says what was answered instead.
pub(crate) async fn list(rest: &Rest, group: &str) -> Result<BTreeSet<String>, String> {
    let mut listed = BTreeSet::new();
    let mut target = latest(&format!("/groups/{group}/connections"));
    loop {
        let response = rest.fetch(&rest.request("GET", &target)).await;
        if response.status() != 200 {
            return Err(format!("status {}", response.status()));
        }
        let page = response.json();
        let members = page["value"].as_array().cloned().unwrap_or_default();
        listed.extend(
            members
                .iter()
                .filter_map(|member| member["connectionId"].as_str().map(str::to_owned)),
        );
        match page["nextLink"]
            .as_str()
            .and_then(|link| link.split_once("/api/"))
        {
            Some((_, rest)) => target = format!("/api/{rest}"),
            None => return Ok(listed),
        }
    }
}

/// Says which connections are listed and have ended, and which live and are not listed; nothing if all is right.
pub(crate) fn differences(listed: &BTreeSet<String>, living: &Living) -> Vec<String> {
    let missing = living
        .ids
        .difference(listed)
        .map(|id| format!("{id} lives and is not listed"));
    let others: Vec<_> = listed.difference(&living.ids).collect();
    let mut differences: Vec<_> = missing.collect();
    if others.len() < living.unknown {
        let lacking = living.unknown - others.len();
        differences.extend((0..lacking).map(|_| "a reader lives and is not listed".to_owned()));
    }
    // It is unknown which of them are too many.
    let ended = others.iter().skip(living.unknown);
    differences.extend(ended.map(|id| format!("{id} is listed and has ended")));
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    fn count(listed: &[&str], known: &[&str], unknown: usize) -> usize {
        let living = Living {
            ids: set(known),
            unknown,
        };
        differences(&set(listed), &living).len()
    }

    #[test]
    fn lists_have_the_living_and_nobody_else() {
        assert_eq!(count(&["a", "b"], &["a", "b"], 0), 0);
        assert_eq!(count(&["a", "b"], &["a"], 0), 1, "b has ended");
        assert_eq!(count(&["a"], &["a", "b"], 0), 1, "b is missing");
        assert_eq!(count(&["a", "r"], &["a"], 1), 0, "r is a reader");
        assert_eq!(count(&["a"], &["a"], 1), 1, "the reader is missing");
        assert_eq!(count(&["a", "r", "s"], &["a"], 1), 1, "a reader too many");
    }
}
