//! Senders and receivers: a publisher and a watcher that are never hurt, and the clients that are.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::client::{Answer, Handle, Role};
use super::kinds::ClientKind;
use super::ledger::Ledger;
use super::member::{Finding, Member, Trouble};
use super::uploads::{Arrival, Deed, Invocation, Outcome, judge};
use crate::random::Random;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding it")
}

/// The group that client `index` sends its own numbers to.
pub(crate) fn upload_group(index: usize) -> String {
    format!("up:{index}")
}

pub(crate) fn group_name(group: usize) -> String {
    format!("g{group}")
}

/// The outcome of each number that was published to each group.
#[derive(Default)]
pub(crate) struct Published(Mutex<Vec<Vec<Option<Outcome>>>>);

impl Published {
    pub(crate) fn new(groups: usize) -> Self {
        Self(Mutex::new(vec![Vec::new(); groups]))
    }

    /// Takes the next number of a group, from 1.
    pub(crate) fn issue(&self, group: usize) -> u64 {
        let mut groups = lock(&self.0);
        groups[group].push(None);
        groups[group].len() as u64
    }

    pub(crate) fn ended(&self, group: usize, outcome: Outcome) {
        if let Some(last) = lock(&self.0)[group].last_mut() {
            *last = Some(outcome);
        }
    }

    fn issued(&self, group: usize) -> u64 {
        lock(&self.0)[group].len() as u64
    }

    fn is_promised(&self, group: usize, number: u64) -> bool {
        let index = usize::try_from(number)
            .ok()
            .and_then(|number| number.checked_sub(1));
        index.is_some_and(|index| lock(&self.0)[group].get(index) == Some(&Some(Outcome::Done)))
    }

    /// The newest number of a group that was published with success.
    pub(crate) fn newest(&self, group: usize) -> u64 {
        let groups = lock(&self.0);
        let newest = groups[group]
            .iter()
            .rposition(|outcome| *outcome == Some(Outcome::Done));
        newest.map_or(0, |index| index as u64 + 1)
    }

    /// How many succeeded, and how many didn't.
    pub(crate) fn totals(&self) -> (usize, usize) {
        let groups = lock(&self.0);
        let outcomes = || groups.iter().flatten();
        let done = outcomes()
            .filter(|outcome| **outcome == Some(Outcome::Done))
            .count();
        (done, outcomes().count() - done)
    }
}

/// Publishes to each group in turn, each time after the last one was answered, until stopped.
pub(crate) async fn publish(
    publisher: Handle,
    published: Arc<Published>,
    groups: usize,
    rate: u32,
    stop: Arc<AtomicBool>,
) {
    let mut pace = interval(Duration::from_secs(1) / rate);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for group in (0..groups).cycle() {
        pace.tick().await;
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let number = published.issue(group);
        let arguments = json!([group_name(group), format!("p:{number}")]);
        let answer = publisher.call("SendToGroup", arguments).await;
        published.ended(group, outcome(&answer));
    }
}

fn outcome(answer: &Answer) -> Outcome {
    match answer {
        Answer::Done(_) => Outcome::Done,
        Answer::Failed => Outcome::Failed,
        Answer::Reset => Outcome::Reset,
    }
}

/// A client that only calls, with the id of its connection.
#[derive(Default)]
pub(crate) struct Publisher(Mutex<Option<String>>);

impl Publisher {
    /// The id of its connection.
    pub(crate) fn connection(&self) -> Option<String> {
        lock(&self.0).clone()
    }
}

impl Role for Publisher {
    fn groups(&self) -> Vec<String> {
        Vec::new()
    }
    fn begins(&self, id: Option<&str>) {
        *lock(&self.0) = id.map(str::to_owned);
    }
    fn joined(&self) {}
    fn message(&self, _: &str, _: &str) {}
    fn ends(&self) {}
}

/// A member of one group, with what it sends.
pub(crate) struct User {
    pub(crate) index: usize,
    pub(crate) kind: ClientKind,
    group: usize,
    published: Arc<Published>,
    ledger: Arc<Ledger>,
    member: Mutex<Member>,
    calls: Mutex<Vec<Invocation>>,
    presence: Mutex<Presence>,
}

/// The connection that a user has at the moment.
#[derive(Default)]
struct Presence {
    is_there: bool,
    id: Option<String>,
    /// The last message, of this or an earlier connection.
    heard: Option<Instant>,
}

impl User {
    pub(crate) fn new(
        index: usize,
        kind: ClientKind,
        group: usize,
        published: &Arc<Published>,
        ledger: &Arc<Ledger>,
    ) -> Self {
        Self {
            index,
            kind,
            group,
            published: Arc::clone(published),
            ledger: Arc::clone(ledger),
            member: Mutex::default(),
            calls: Mutex::default(),
            presence: Mutex::default(),
        }
    }

    pub(crate) fn name(&self) -> String {
        let (kind, group) = (self.kind.name(), group_name(self.group));
        format!("client {} ({kind}) of {group}", self.index)
    }

    /// Its connection, if it has one: the id, where it knows it.
    pub(crate) fn connection(&self) -> Option<Option<String>> {
        let presence = lock(&self.presence);
        presence.is_there.then(|| presence.id.clone())
    }

    /// The group whose numbers it gets.
    pub(crate) fn group(&self) -> usize {
        self.group
    }

    /// Returns whether it is there and has all up to `target`.
    pub(crate) fn has(&self, target: u64) -> bool {
        lock(&self.member).has(target)
    }

    /// How many of its calls succeeded.
    pub(crate) fn done(&self) -> usize {
        let calls = lock(&self.calls);
        calls
            .iter()
            .filter(|call| call.outcome == Some(Outcome::Done))
            .count()
    }

    /// The client should have moved on, and didn't.
    pub(crate) fn is_silent(&self, target: u64) {
        lock(&self.member).is_silent(self.ledger.current(), target);
    }

    fn begin(&self, number: u64, deed: Deed, watched: Option<u64>) {
        lock(&self.calls).push(Invocation {
            number,
            deed,
            watched,
            outcome: None,
            fault: self.ledger.current(),
        });
    }

    fn end(&self, answer: &Answer) {
        if *answer == Answer::Failed {
            self.ledger.error();
        }
        if let Some(call) = lock(&self.calls).last_mut() {
            call.outcome = Some(outcome(answer));
        }
    }

    /// How many calls ended in which way: done, failed, reset.
    pub(crate) fn totals(&self) -> [usize; 3] {
        let calls = lock(&self.calls);
        let count = |wanted| calls.iter().filter(|call| call.outcome == Some(wanted)).count();
        [Outcome::Done, Outcome::Failed, Outcome::Reset].map(count)
    }

    /// Everything that was wrong with what it received.
    pub(crate) fn missed(&self) -> Vec<Finding> {
        lock(&self.member).findings()
    }

    /// Everything that was wrong, in both directions.
    pub(crate) fn findings(&self, watcher: &Watcher) -> Vec<Finding> {
        let mut findings = lock(&self.member).findings();
        if !self.kind.is_resumable() {
            // The client is not notified of messages that Redis forgot.
            findings
                .retain(|finding| finding.trouble != Trouble::Lost || !self.ledger.forgets(finding.fault));
        }
        let seen = lock(&watcher.0);
        let arrivals = seen.arrivals.get(&self.index).map_or(&[][..], Vec::as_slice);
        findings.extend(judge(&lock(&self.calls), arrivals, seen.session));
        findings
    }
}

impl Role for User {
    fn groups(&self) -> Vec<String> {
        vec![group_name(self.group)]
    }

    fn begins(&self, id: Option<&str>) {
        lock(&self.member).begins();
        let mut presence = lock(&self.presence);
        presence.is_there = true;
        presence.id = id.map(str::to_owned);
    }

    fn is(&self, id: &str) {
        lock(&self.presence).id = Some(id.to_owned());
    }

    fn joined(&self) {
        let issued = self.published.issued(self.group);
        lock(&self.member).joined(issued);
    }

    fn message(&self, group: &str, text: &str) {
        let now = Instant::now();
        let before = lock(&self.presence).heard.replace(now);
        if let Some(before) = before {
            self.ledger.silence(now - before);
        }
        let number = text.strip_prefix("p:").and_then(|number| number.parse().ok());
        match number {
            Some(number) if group == group_name(self.group) => {
                let is_promised = |number| self.published.is_promised(self.group, number);
                lock(&self.member).receive(number, self.ledger.current(), is_promised);
            }
            _ => {
                let what = format!("{text:?} came for {group}");
                self.ledger.wrong(Trouble::Duplicated, &self.name(), what);
            }
        }
    }

    fn ends(&self) {
        lock(&self.member).ends();
        lock(&self.presence).is_there = false;
    }
}

/// Calls one method after the other, until stopped.
pub(crate) async fn upload(
    user: Arc<User>,
    handle: Handle,
    watcher: Arc<Watcher>,
    pause: Duration,
    stop: Arc<AtomicBool>,
) {
    let mut random = Random::new(user.index as u64);
    let group = upload_group(user.index);
    let jitter = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX / 4);
    for number in 1_u64.. {
        // Half the pause to one and a half times: clients don't stay in step.
        let pause = Duration::from_millis(random.between(jitter / 2, jitter + jitter / 2));
        sleep(pause).await;
        if stop.load(Ordering::Relaxed) {
            return;
        }
        user.begin(number, Deed::Echo, None);
        let answer = handle.call("Echo", json!([number])).await;
        if let Answer::Done(echo) = &answer
            && *echo != json!(number)
        {
            let what = format!("Echo({number}) was answered with {echo}");
            user.ledger.wrong(Trouble::Reordered, &user.name(), what);
        }
        user.end(&answer);
        user.begin(number, Deed::Send, watcher.session());
        let answer = handle
            .call("SendToGroup", json!([group, number.to_string()]))
            .await;
        user.end(&answer);
    }
}

/// A member of all upload groups, on a node that is never hurt. It is stateful too: after a Redis that forgot something,
/// it is notified, where an ordinary client would just lack messages.
pub(crate) struct Watcher(Mutex<Seen>, usize, Arc<Ledger>);

#[derive(Default)]
struct Seen {
    session: u64,
    id: Option<String>,
    is_complete: bool,
    arrivals: HashMap<usize, Vec<Arrival>>,
}

impl Watcher {
    pub(crate) fn new(clients: usize, ledger: &Arc<Ledger>) -> Self {
        Self(Mutex::default(), clients, Arc::clone(ledger))
    }

    /// The id of its connection.
    pub(crate) fn connection(&self) -> Option<String> {
        lock(&self.0).id.clone()
    }

    /// Its session, if it sees everything.
    pub(crate) fn session(&self) -> Option<u64> {
        let seen = lock(&self.0);
        seen.is_complete.then_some(seen.session)
    }
}

impl Role for Watcher {
    fn groups(&self) -> Vec<String> {
        (0..self.1).map(upload_group).collect()
    }

    fn begins(&self, id: Option<&str>) {
        let mut seen = lock(&self.0);
        seen.session += 1;
        seen.id = id.map(str::to_owned);
    }

    fn joined(&self) {
        lock(&self.0).is_complete = true;
    }

    fn message(&self, group: &str, text: &str) {
        let index = group.strip_prefix("up:").and_then(|index| index.parse().ok());
        let (Some(index), Ok(number)) = (index, text.parse()) else {
            let what = format!("{text:?} came for {group}");
            return self.2.wrong(Trouble::Duplicated, "the watcher", what);
        };
        let mut seen = lock(&self.0);
        let arrival = Arrival {
            number,
            session: seen.session,
            fault: self.2.current(),
        };
        seen.arrivals.entry(index).or_default().push(arrival);
    }

    fn ends(&self) {
        lock(&self.0).is_complete = false;
    }
}
