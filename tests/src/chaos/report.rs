//! The table.

use super::fault::Kind;
use super::ledger::{Row, Summary};

/// The result of a run.
#[derive(Debug, Clone)]
pub struct Report {
    pub(super) title: String,
    pub(super) summary: Summary,
    pub(super) facts: Vec<(&'static str, String)>,
    pub(super) panics: Vec<String>,
}

impl Report {
    /// Messages that were promised and never came.
    pub fn lost(&self) -> u64 {
        self.summary.total.lost
    }

    /// Messages that came more often than once.
    pub fn duplicated(&self) -> u64 {
        self.summary.total.duplicated
    }

    /// Messages that came after later ones.
    pub fn reordered(&self) -> u64 {
        self.summary.total.reordered
    }

    /// Clients that stood still without being notified.
    pub fn silent(&self) -> u64 {
        self.summary.total.silent
    }

    /// Connections that had to start anew, and were notified.
    pub fn resets(&self) -> u64 {
        self.summary.total.resets
    }

    /// Connections that went on over another socket.
    pub fn resumes(&self) -> u64 {
        self.summary.total.resumes
    }

    /// Resets, members, hooks and nodes that were wrong, in words and numbers.
    pub fn wrong_states(&self) -> [(&'static str, u64); 5] {
        let total = &self.summary.total;
        [
            ("unexplained resets", total.unexplained),
            ("wrong members", total.members),
            ("hooks twice", total.twice),
            ("hooks never", total.never),
            ("healthy nodes shut out", total.shut_out),
        ]
    }

    /// Returns whether everything was exact or explicit, and no node panicked.
    pub fn is_exact(&self) -> bool {
        self.summary.total.wrong() == 0 && self.panics.is_empty()
    }

    /// The table, for people.
    pub fn render(&self) -> String {
        let mut lines = vec![self.title.clone(), String::new(), header()];
        let rows = Kind::ALL
            .iter()
            .filter_map(|kind| Some((kind.names().0, self.summary.kinds.get(kind)?)));
        lines.extend(rows.map(|(name, row)| line(name, row)));
        lines.push(line("all", &self.summary.total));
        lines.push(String::new());
        let latency = &self.summary.latency;
        let millis = |micros: u64| micros as f64 / 1e3;
        lines.push(format!(
            "resume, from the broken socket to the Sequence: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
            millis(latency.value_at_quantile(0.5)),
            millis(latency.value_at_quantile(0.99)),
            millis(latency.max()),
        ));
        lines.extend(self.facts.iter().map(|(name, value)| format!("{name}: {value}")));
        self.list(&mut lines, "explicit resets, by reason", |summary| {
            let reasons = summary.reasons.iter();
            reasons.map(|(why, count)| format!("{count:>7}  {why}")).collect()
        });
        self.list(&mut lines, "findings", |summary| summary.notes.clone());
        self.list(&mut lines, "panics of nodes", |_| self.panics.clone());
        lines.join("\n")
    }

    fn list(&self, lines: &mut Vec<String>, title: &str, items: impl Fn(&Summary) -> Vec<String>) {
        let items = items(&self.summary);
        if !items.is_empty() {
            lines.push(format!("\n{title}:"));
            lines.extend(items.iter().map(|item| format!("  {item}")));
        }
    }
}

const COLUMNS: [&str; 15] = [
    "faults",
    "resets",
    "unexplained",
    "resumes",
    "elsewhere",
    "lost",
    "doubled",
    "reordered",
    "silent",
    "members",
    "hooks twice",
    "hooks never",
    "shut out",
    "errors",
    "silence s",
];

fn header() -> String {
    let columns = COLUMNS.map(|column| format!("{column:>12}"));
    format!("{:<26}{}", "", columns.concat())
}

fn line(name: &str, row: &Row) -> String {
    let counts = [
        row.faults,
        row.resets,
        row.unexplained,
        row.resumes,
        row.moved,
        row.lost,
        row.duplicated,
        row.reordered,
        row.silent,
        row.members,
        row.twice,
        row.never,
        row.shut_out,
        row.errors,
    ];
    let counts = counts.map(|count| format!("{count:>12}")).concat();
    format!("{name:<26}{counts}{:>12.1}", row.silence.as_secs_f64())
}
