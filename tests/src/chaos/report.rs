//! The table.

use super::ledger::{Row, Summary};
use super::schedule::Kind;

/// What the run showed.
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

    /// Clients that stood still without being told.
    pub fn silent(&self) -> u64 {
        self.summary.total.silent
    }

    /// Connections that had to start anew, and were told so.
    pub fn resets(&self) -> u64 {
        self.summary.total.resets
    }

    /// Connections that went on over another socket.
    pub fn resumes(&self) -> u64 {
        self.summary.total.resumes
    }

    /// Whether everything was exact or explicit, and no node panicked.
    pub fn is_exact(&self) -> bool {
        self.summary.total.wrong() == 0 && self.panics.is_empty()
    }

    /// The table, for people.
    pub fn render(&self) -> String {
        let mut lines = vec![self.title.clone(), String::new(), header()];
        let rows = Kind::ALL
            .iter()
            .filter_map(|kind| Some((kind.name(), self.summary.kinds.get(kind)?)));
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

const COLUMNS: [&str; 9] = [
    "faults",
    "resets",
    "resumes",
    "elsewhere",
    "lost",
    "duplicated",
    "reordered",
    "silent",
    "errors",
];

fn header() -> String {
    let columns = COLUMNS.map(|column| format!("{column:>11}"));
    format!("{:<26}{}", "", columns.concat())
}

fn line(name: &str, row: &Row) -> String {
    let values = [
        row.faults,
        row.resets,
        row.resumes,
        row.moved,
        row.lost,
        row.duplicated,
        row.reordered,
        row.silent,
        row.errors,
    ];
    format!(
        "{name:<26}{}",
        values.map(|value| format!("{value:>11}")).concat()
    )
}
