//! The events of a run, by the fault that came before them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

use super::fault::Kind;
use super::kinds::ClientKind;
use super::member::{Finding, Trouble};

/// How many findings are kept in words.
const NOTES: usize = 120;

/// The reason of a client whose socket the run itself has cut.
pub(crate) const CUT: &str = "cut";

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
    /// Resets that the fault does not justify.
    pub(crate) unexplained: u64,
    /// Connections that were listed and had ended, or were not and lived.
    pub(crate) members: u64,
    /// Disconnect hooks too many.
    pub(crate) twice: u64,
    /// Disconnect hooks that never ran.
    pub(crate) never: u64,
    /// Healthy nodes that were shut out.
    pub(crate) shut_out: u64,
    /// The longest time for which a client received nothing.
    pub(crate) silence: Duration,
}

impl Row {
    /// Everything that must not be.
    pub(crate) fn wrong(&self) -> u64 {
        let messages = self.lost + self.duplicated + self.reordered + self.silent;
        messages + self.unexplained + self.members + self.twice + self.never + self.shut_out
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
        self.unexplained += other.unexplained;
        self.members += other.members;
        self.twice += other.twice;
        self.never += other.never;
        self.shut_out += other.shut_out;
        self.silence = self.silence.max(other.silence);
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

impl Book {
    fn note(&mut self, what: String) {
        if self.notes.len() < NOTES {
            self.notes.push(what);
        }
    }
}

/// The record of a run, shared by all its tasks.
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

    /// Counts everything from now on as this fault's.
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

    /// A client had to start anew, and was notified.
    pub(crate) fn reset(&self, client: ClientKind, who: &str, why: &str) {
        let mut book = self.book();
        let fault = book.rows.len() - 1;
        let kind = book.kinds[fault];
        // Evicted entries may be missed as late as at the next resume.
        let before = fault.checked_sub(1).map(|before| book.kinds[before]);
        let was_evicted = before == Some(Kind::Evict) && client.is_resumable();
        let is_explained = kind.justifies_reset_of(client) || was_evicted || why == CUT;
        book.rows[fault].resets += 1;
        book.rows[fault].unexplained += u64::from(!is_explained);
        *book
            .reasons
            .entry(format!("{}: {why}", client.name()))
            .or_default() += 1;
        if !is_explained {
            let at = self.started.elapsed().as_secs_f64();
            book.note(format!(
                "[{at:.2} s] reset after fault {fault} ({}): {who}: {why}",
                kind.names().0
            ));
        }
    }

    /// Something of the whole cluster was wrong.
    pub(crate) fn wrong_state(&self, what: &str, count: impl FnOnce(&mut Row)) {
        self.count(count);
        let mut book = self.book();
        let fault = book.rows.len() - 1;
        let kind = book.kinds[fault].names().0;
        book.note(format!("after fault {fault} ({kind}): {what}"));
    }

    /// A client had received nothing for so long.
    pub(crate) fn silence(&self, time: Duration) {
        self.count(|row| row.silence = row.silence.max(time));
    }

    /// Returns whether Redis may have forgotten something in a fault.
    pub(crate) fn forgets(&self, fault: usize) -> bool {
        self.book().kinds[fault].forgets()
    }

    /// A client of the control node had to start anew.
    pub(crate) fn control_reset(&self, who: &str, why: &str) {
        *self.book().reasons.entry(format!("{who}: {why}")).or_default() += 1;
    }

    /// A message of a client was refused, and its connection went on.
    pub(crate) fn refused(&self, client: ClientKind, why: &str) {
        let reason = format!("{}, went on: {why}", client.name());
        *self.book().reasons.entry(reason).or_default() += 1;
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
        let (trouble, fault, what) = (finding.trouble, finding.fault, &finding.what);
        let kind = book.kinds[fault].names().0;
        book.note(format!("{trouble:?} after fault {fault} ({kind}): {who}: {what}"));
    }

    /// Something wrong that was seen just now.
    pub(crate) fn wrong(&self, trouble: Trouble, who: &str, what: String) {
        let fault = self.current();
        self.found(who, &Finding { trouble, fault, what });
    }

    /// Says which node each socket of a token reached, for counting the clients that moved. Returns how many resumes
    /// have an unknown node.
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

    /// Prints progress.
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
        ledger.reset(ClientKind::WebSocket, "client 0", "a");
        ledger.fault(Kind::Kill);
        ledger.reset(ClientKind::WebSocket, "client 0", "a");
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
        assert_eq!(summary.reasons["websocket: a"], 2);
        assert_eq!(summary.total.unexplained, 1, "before any fault");
        assert_eq!(summary.kinds[&Kind::None].resets, 1);
        let kill = summary.kinds[&Kind::Kill];
        assert_eq!(
            (kill.faults, kill.resets, kill.resumes, kill.duplicated),
            (1, 1, 1, 1)
        );
        assert_eq!(summary.kinds[&Kind::Drain].lost, 1);
        assert_eq!(summary.total.wrong(), 3);
        assert_eq!(summary.notes.len(), 3);
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
