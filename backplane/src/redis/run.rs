//! Which life of which server process a connection leads to.

/// A run of a server: it ends when the server may have forgotten something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Names the process.
    pub(super) id: String,
    /// Names its last promotion, as long as the server knows of it; empty where there was none, or none that it knows of.
    pub(super) mark: String,
}

impl Run {
    /// Whether a server that was in this run still is, now that it names itself `fresh`: it forgets its mark with its
    /// replication backlog, and gains one only by a promotion. `is_same_run` in `log.lua` is the same rule.
    pub(super) fn goes_on_as(&self, fresh: &Self) -> bool {
        self.id == fresh.id && (fresh.mark.is_empty() || self.mark == fresh.mark)
    }
}
