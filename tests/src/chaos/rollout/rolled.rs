//! The result of a rollout: counted from what was seen, and as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;

use super::super::member::Trouble;
use super::{RolloutOptions, Seen, lock};

/// The result of a rollout.
#[derive(Debug)]
pub struct Rolled {
    options: RolloutOptions,
    /// How many clients of each kind moved how often.
    moves: BTreeMap<(&'static str, usize), u64>,
    /// Clients that came back, and most of them in any second and in any ten.
    came_back: usize,
    most_in_a_second: usize,
    most_in_ten: usize,
    /// The time from the first SIGTERM to the last exit of the old nodes.
    took: Duration,
    /// Attempts of clients that failed, by reason.
    refused: BTreeMap<String, u64>,
    /// Answers of the balancer with a status of 400 or more.
    http_errors: BTreeMap<String, u64>,
    /// The reason why clients without a promise began anew.
    resets: BTreeMap<String, u64>,
    published: (usize, usize),
    /// Lost, doubled, reordered, silent: of clients that were promised every message, and of the others while
    /// connected.
    promised: [u64; 4],
    others: [u64; 4],
}

impl Rolled {
    pub(super) fn count(options: RolloutOptions, seen: &Seen<'_>, took: Duration) -> Self {
        let mut moves = BTreeMap::new();
        let mut times = Vec::new();
        let (mut promised, mut others) = ([0; 4], [0; 4]);
        for (rider, before) in seen.riders.iter().zip(seen.before) {
            let came = lock(&rider.came);
            let since = came.get(*before..).unwrap_or_default();
            *moves.entry((rider.user.kind.name(), since.len())).or_default() += 1;
            times.extend_from_slice(since);
            let target = seen.published.newest(rider.user.group());
            if !rider.user.has(target) {
                rider.user.is_silent(target);
            }
            let counts = if rider.user.kind.is_resumable() {
                &mut promised
            } else {
                &mut others
            };
            for finding in rider.user.missed() {
                eprintln!("{}: {:?}: {}", rider.user.name(), finding.trouble, finding.what);
                let place = match finding.trouble {
                    Trouble::Lost => 0,
                    Trouble::Duplicated => 1,
                    Trouble::Reordered => 2,
                    Trouble::Silent => 3,
                };
                counts[place] += 1;
            }
        }
        times.sort_unstable();
        let mut http_errors = BTreeMap::new();
        for request in seen.stage.balancer.requests_with("/") {
            if request.status >= 400 {
                let path = request.target.split('?').next().unwrap_or_default();
                let what = format!(
                    "{} {} {path} from {}",
                    request.status, request.method, request.node
                );
                *http_errors.entry(what).or_default() += 1;
            }
        }
        Self {
            options,
            moves,
            came_back: times.len(),
            most_in_a_second: most_within(&times, Duration::from_secs(1)),
            most_in_ten: most_within(&times, Duration::from_secs(10)),
            took,
            refused: lock(seen.refused).clone(),
            http_errors,
            resets: seen.ledger.summary().reasons,
            published: seen.published.totals(),
            promised,
            others,
        }
    }

    /// Returns whether each client that was promised every message got it once and in order, and none stands still.
    pub fn is_exact(&self) -> bool {
        self.promised == [0; 4] && self.others[3] == 0
    }

    /// How often the client in the middle moved.
    fn median(&self) -> usize {
        let clients: u64 = self.moves.values().sum();
        let mut by_count: BTreeMap<usize, u64> = BTreeMap::new();
        for ((_, moves), clients) in &self.moves {
            *by_count.entry(*moves).or_default() += clients;
        }
        let mut seen = 0;
        for (moves, count) in by_count {
            seen += count;
            if 2 * seen >= clients {
                return moves;
            }
        }
        0
    }

    /// As text for people.
    pub fn render(&self) -> String {
        let RolloutOptions {
            nodes,
            surge,
            clients,
            rate,
            deadline,
            ..
        } = &self.options;
        let mut text = format!(
            "{clients} clients, {nodes} nodes replaced {surge} at a time, drain.rate_per_second {rate}, drain.deadline_seconds {deadline}\n\n| client | moves | clients |\n| --- | --- | --- |\n"
        );
        for ((kind, moves), clients) in &self.moves {
            let _ = writeln!(text, "| {kind} | {moves} | {clients} |");
        }
        let _ = writeln!(text, "\nmoves per client, median: {}", self.median());
        let seconds = self.took.as_secs_f64();
        let mean = self.came_back as f64 / seconds.max(0.001);
        let _ = writeln!(
            text,
            "reconnects: {} in {seconds:.1} s of drain, {mean:.0} a second; at most {} within any second, {} within any ten",
            self.came_back, self.most_in_a_second, self.most_in_ten
        );
        let _ = writeln!(
            text,
            "messages: {} published, {} refused",
            self.published.0, self.published.1
        );
        let [lost, duplicated, reordered, silent] = self.promised;
        let _ = writeln!(
            text,
            "promised clients: {lost} lost, {duplicated} doubled, {reordered} reordered, {silent} silent"
        );
        let [lost, duplicated, reordered, silent] = self.others;
        let _ = writeln!(
            text,
            "others, while connected: {lost} lost, {duplicated} doubled, {reordered} reordered, {silent} silent"
        );
        for (title, counts) in [
            ("HTTP errors", &self.http_errors),
            ("failed attempts of clients", &self.refused),
            ("new starts", &self.resets),
        ] {
            let _ = writeln!(text, "{title}: {}", counts.values().sum::<u64>());
            for (what, count) in counts {
                let _ = writeln!(text, "  {count} × {what}");
            }
        }
        text
    }
}

/// Most of these times that lie within any stretch of so long; they are in order.
fn most_within(times: &[Instant], stretch: Duration) -> usize {
    let mut first = 0;
    let mut most = 0;
    for (index, time) in times.iter().enumerate() {
        while *time - times[first] >= stretch {
            first += 1;
        }
        most = most.max(index + 1 - first);
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stretch_begins_anywhere() {
        let begun = Instant::now();
        let times = [0, 900, 950, 1_100, 1_899, 1_900].map(|ms| begun + Duration::from_millis(ms));
        assert_eq!(most_within(&times, Duration::from_secs(1)), 4);
        assert_eq!(most_within(&[], Duration::from_secs(1)), 0);
    }
}
