//! What happened, after which fault.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

use super::member::{Finding, Trouble};
use super::schedule::Kind;

/// How many findings are kept in words.
const NOTES: usize = 40;

/// Counts of one fault, or of all faults of a kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) faults: u64,
    pub(crate) resets: u64,
    pub(crate) resumes: u64,
    pub(crate) moved: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) silent: u64,
    pub(crate) errors: u64,
}

impl Row {
    /// What must not be.
    pub(crate) fn wrong(&self) -> u64 {
        self.lost + self.duplicated + self.reordered + self.silent
    }

    fn add(&mut self, other: &Self) {
        self.faults += other.faults;
        self.resets += other.resets;
        self.resumes += other.resumes;
        self.moved += other.moved;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.silent += other.silent;
        self.errors += other.errors;
    }
}

/// A socket that took the place of a broken one.
#[derive(Debug, Clone)]
pub(crate) struct Resume {
    pub(crate) token: String,
    /// How many sockets this connection had before.
    pub(crate) socket: usize,
    pub(crate) fault: usize,
}

/// Shared by everybody who sees something.
pub(crate) struct Ledger {
    started: Instant,
    book: Mutex<Book>,
}

struct Book {
    kinds: Vec<Kind>,
    rows: Vec<Row>,
    reasons: BTreeMap<String, u64>,
    resumes: Vec<Resume>,
    latency: Histogram<u64>,
    notes: Vec<String>,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        let book = Book {
            kinds: vec![Kind::None],
            rows: vec![Row::default()],
            reasons: BTreeMap::new(),
            resumes: Vec::new(),
            latency: Histogram::new_with_bounds(1, 120_000_000, 3).expect("valid bounds"),
            notes: Vec::new(),
        };
        Self {
            started: Instant::now(),
            book: Mutex::new(book),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("nobody panics while holding it")
    }

    /// From now on, everything is counted as this fault's.
    pub(crate) fn fault(&self, kind: Kind) {
        let mut book = self.book();
        book.kinds.push(kind);
        book.rows.push(Row {
            faults: 1,
            ..Row::default()
        });
    }

    /// The fault that things are counted for.
    pub(crate) fn current(&self) -> usize {
        self.book().rows.len() - 1
    }

    fn count(&self, change: impl FnOnce(&mut Row)) {
        if let Some(row) = self.book().rows.last_mut() {
            change(row);
        }
    }

    pub(crate) fn reset(&self, why: &str) {
        self.count(|row| row.resets += 1);
        *self.book().reasons.entry(why.to_owned()).or_default() += 1;
    }

    /// A client of the control node had to start anew.
    pub(crate) fn control_reset(&self, who: &str, why: &str) {
        *self.book().reasons.entry(format!("{who}: {why}")).or_default() += 1;
    }

    pub(crate) fn error(&self) {
        self.count(|row| row.errors += 1);
    }

    pub(crate) fn resumed(&self, token: &str, socket: usize, took: Duration) {
        let fault = self.current();
        let mut book = self.book();
        book.rows[fault].resumes += 1;
        book.resumes.push(Resume {
            token: token.to_owned(),
            socket,
            fault,
        });
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        book.latency.saturating_record(micros);
    }

    pub(crate) fn found(&self, who: &str, finding: &Finding) {
        let mut book = self.book();
        let row = &mut book.rows[finding.fault];
        match finding.trouble {
            Trouble::Lost => row.lost += 1,
            Trouble::Duplicated => row.duplicated += 1,
            Trouble::Reordered => row.reordered += 1,
            Trouble::Silent => row.silent += 1,
        }
        if book.notes.len() < NOTES {
            let (trouble, fault, what) = (finding.trouble, finding.fault, &finding.what);
            let kind = book.kinds[fault].name();
            book.notes
                .push(format!("{trouble:?} after fault {fault} ({kind}): {who}: {what}"));
        }
    }

    /// Something wrong that was seen just now.
    pub(crate) fn wrong(&self, trouble: Trouble, who: &str, what: String) {
        let fault = self.current();
        self.found(who, &Finding { trouble, fault, what });
    }

    /// Says which node each socket of a token reached, for counting who moved. Returns how many resumes nobody knows that
    /// of.
    pub(crate) fn reached(&self, nodes: &BTreeMap<String, Vec<String>>) -> usize {
        let mut book = self.book();
        let resumes = std::mem::take(&mut book.resumes);
        let mut unknown = 0;
        for resume in &resumes {
            let reached = nodes.get(&resume.token).map_or(&[][..], Vec::as_slice);
            match reached.get(resume.socket.saturating_sub(1)..=resume.socket) {
                Some([before, now]) => book.rows[resume.fault].moved += u64::from(before != now),
                _ => unknown += 1,
            }
        }
        unknown
    }

    /// Progress, for who watches.
    pub(crate) fn say(&self, what: &str) {
        eprintln!("[{:7.2} s] {what}", self.started.elapsed().as_secs_f64());
    }

    /// The sums so far of the fault that things are counted for.
    pub(crate) fn latest(&self) -> Row {
        self.book().rows.last().copied().unwrap_or_default()
    }

    pub(crate) fn summary(&self) -> Summary {
        let book = self.book();
        let mut kinds: BTreeMap<Kind, Row> = BTreeMap::new();
        let mut total = Row::default();
        for (kind, row) in book.kinds.iter().zip(&book.rows) {
            kinds.entry(*kind).or_default().add(row);
            total.add(row);
        }
        Summary {
            kinds,
            total,
            reasons: book.reasons.clone(),
            latency: book.latency.clone(),
            notes: book.notes.clone(),
        }
    }
}

/// All sums.
#[derive(Debug, Clone)]
pub(crate) struct Summary {
    pub(crate) kinds: BTreeMap<Kind, Row>,
    pub(crate) total: Row,
    pub(crate) reasons: BTreeMap<String, u64>,
    pub(crate) latency: Histogram<u64>,
    pub(crate) notes: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_belongs_to_the_fault_before_it() {
        let ledger = Ledger::new();
        ledger.reset("a");
        ledger.fault(Kind::Kill);
        ledger.reset("a");
        ledger.resumed("t", 1, Duration::from_millis(3));
        ledger.fault(Kind::Drain);
        ledger.wrong(Trouble::Lost, "client 1", "5 never came".to_owned());
        let earlier = Finding {
            trouble: Trouble::Duplicated,
            fault: 1,
            what: "6 came twice".to_owned(),
        };
        ledger.found("client 2", &earlier);
        let summary = ledger.summary();
        assert_eq!(summary.reasons["a"], 2);
        assert_eq!(summary.kinds[&Kind::None].resets, 1);
        let kill = summary.kinds[&Kind::Kill];
        assert_eq!(
            (kill.faults, kill.resets, kill.resumes, kill.duplicated),
            (1, 1, 1, 1)
        );
        assert_eq!(summary.kinds[&Kind::Drain].lost, 1);
        assert_eq!(summary.total.wrong(), 2);
        assert_eq!(summary.notes.len(), 2);
    }

    #[test]
    fn only_a_resume_elsewhere_has_moved() {
        let ledger = Ledger::new();
        for socket in [1, 2, 3, 4] {
            ledger.resumed("t", socket, Duration::ZERO);
        }
        let nodes = ["node0", "node0", "node1", "node0"].map(str::to_owned).to_vec();
        let unknown = ledger.reached(&BTreeMap::from([("t".to_owned(), nodes)]));
        assert_eq!(unknown, 1, "the fourth");
        assert_eq!(ledger.summary().total.moved, 2);
    }
}
