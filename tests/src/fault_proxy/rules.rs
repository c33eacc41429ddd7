//! Rules decide which command or push is damaged and how: in their order, and by a seed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::resp::Command;
use crate::random::Random;

/// The traffic that a rule concerns.
#[derive(Clone)]
pub enum On {
    /// Commands of which this holds.
    Request(Arc<dyn Fn(&Command) -> bool + Send + Sync>),
    /// Messages that the server sends by itself.
    Push,
}

impl On {
    /// Commands of which this holds.
    pub fn request(holds: impl Fn(&Command) -> bool + Send + Sync + 'static) -> Self {
        Self::Request(Arc::new(holds))
    }

    /// Scripts, of which one key contains `key`.
    pub fn script(key: &'static str) -> Self {
        Self::request(move |command| command.has_key(key))
    }
}

/// The damage to a command or push, and to its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The reply is late by a time between these two, and so is all that follows on its link.
    Delay(Duration, Duration),
    /// The link is cut instead: the server never has the command.
    Cut,
    /// The server carries the command out. Its answer and all that follows on the link are dropped, and the link is cut
    /// after a while.
    Swallow(Duration),
    /// Half of it is passed on, then the link is cut.
    Truncate,
    /// The link is silent in both directions for a while, then everything passes.
    Hold(Duration),
    /// The link is silent in both directions for a while, then it is cut.
    HoldAndCut(Duration),
}

impl Action {
    /// The name under which it is counted.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delay(..) => "delayed",
            Self::Cut => "cut",
            Self::Swallow(_) => "swallowed",
            Self::Truncate => "truncated",
            Self::Hold(_) => "held",
            Self::HoldAndCut(_) => "held and cut",
        }
    }
}

/// One rule.
#[derive(Clone)]
pub struct Rule {
    /// The traffic that it concerns.
    pub on: On,
    /// The damage.
    pub action: Action,
    /// How many of a hundred are met.
    pub percent: u64,
    /// How many are met at most.
    pub times: Option<u64>,
}

impl Rule {
    /// Meets everything that it concerns.
    pub fn always(on: On, action: Action) -> Self {
        Self {
            on,
            action,
            percent: 100,
            times: None,
        }
    }

    /// Meets the first that it concerns, and nothing later.
    pub fn once(on: On, action: Action) -> Self {
        Self {
            times: Some(1),
            ..Self::always(on, action)
        }
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = match self.on {
            On::Request(_) => "request",
            On::Push => "push",
        };
        write!(
            f,
            "{:?} on {on}, {} %, {:?} times",
            self.action, self.percent, self.times
        )
    }
}

/// Something that passes.
pub(super) enum Passing<'a> {
    Request(&'a Command),
    Push,
}

/// The rules of a proxy, and what they did.
#[derive(Debug)]
pub(super) struct Book {
    rules: Vec<Rule>,
    random: Random,
    fired: BTreeMap<&'static str, u64>,
}

/// A decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) action: Action,
    /// How long a delay is.
    pub(super) delay: Duration,
}

impl Book {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rules: Vec::new(),
            random: Random::new(seed),
            fired: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, rule: Rule) {
        self.rules.push(rule);
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    pub(super) fn fired(&self) -> BTreeMap<&'static str, u64> {
        self.fired.clone()
    }

    /// The decision of the first rule that meets it.
    pub(super) fn decide(&mut self, passing: &Passing<'_>) -> Option<Decision> {
        let random = &mut self.random;
        let rule = self.rules.iter_mut().find(|rule| {
            let concerns = match (&rule.on, passing) {
                (On::Request(holds), Passing::Request(command)) => holds(command),
                (On::Push, Passing::Push) => true,
                _ => false,
            };
            concerns && rule.times != Some(0) && random.between(1, 100) <= rule.percent
        })?;
        rule.times = rule.times.map(|times| times - 1);
        let action = rule.action;
        *self.fired.entry(action.name()).or_default() += 1;
        let delay = match action {
            Action::Delay(least, most) => {
                let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                let (least, most) = (millis(least), millis(most));
                Duration::from_millis(self.random.between(least, most.max(least)))
            }
            _ => Duration::ZERO,
        };
        Some(Decision { action, delay })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn command(text: &'static str) -> Command {
        Command::read(&Bytes::from_static(text.as_bytes()))
    }

    fn decides(book: &mut Book, text: &'static str) -> Option<Action> {
        let command = command(text);
        let decision = book.decide(&Passing::Request(&command));
        decision.map(|decision| decision.action)
    }

    #[test]
    fn the_first_rule_that_meets_it_counts_as_often_as_it_may() {
        let mut book = Book::new(1);
        let is_get = || On::request(|command| command.is("GET"));
        book.add(Rule::once(is_get(), Action::Cut));
        book.add(Rule::always(is_get(), Action::Truncate));
        book.add(Rule::always(On::Push, Action::Truncate));
        assert_eq!(decides(&mut book, "SET k v\r\n"), None);
        assert_eq!(decides(&mut book, "GET k\r\n"), Some(Action::Cut));
        assert_eq!(decides(&mut book, "GET k\r\n"), Some(Action::Truncate));
        assert!(book.decide(&Passing::Push).is_some());
        assert_eq!(book.fired(), BTreeMap::from([("cut", 1), ("truncated", 2)]));
        book.clear();
        assert_eq!(decides(&mut book, "GET k\r\n"), None);
    }

    #[test]
    fn a_seed_decides_who_is_met_and_for_how_long() {
        let met = |seed| {
            let mut book = Book::new(seed);
            let action = Action::Delay(Duration::from_millis(10), Duration::from_millis(90));
            let rule = Rule {
                percent: 30,
                ..Rule::always(On::Push, action)
            };
            book.add(rule);
            let decide = |_| book.decide(&Passing::Push).map(|decision| decision.delay);
            (0..1_000).map(decide).collect::<Vec<_>>()
        };
        assert_eq!(met(3), met(3));
        assert_ne!(met(3), met(4));
        let delays: Vec<_> = met(3).into_iter().flatten().collect();
        assert!((200..400).contains(&delays.len()), "{}", delays.len());
        let bounds = Duration::from_millis(10)..=Duration::from_millis(90);
        assert!(delays.iter().all(|delay| bounds.contains(delay)));
    }
}
