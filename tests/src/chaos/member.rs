//! Checks the numbers that a member of a group received against the ones that it may receive. Pure: fed with numbers,
//! it says what was wrong with them.
//!
//! Within one logical session (from a start to an explicit reset) the numbers come without gap, repeat or change of order.
//! A session must get every number that was issued after its join was answered; what was issued before may come or not. A
//! number whose publication failed may come once or not at all, at any time.

use std::collections::{BTreeMap, BTreeSet};

/// A rule was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    Lost,
    Duplicated,
    Reordered,
    /// A client stands still, or lacks the last messages, and was not notified.
    Silent,
}

/// A broken rule, after which fault, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) trouble: Trouble,
    pub(crate) fault: usize,
    pub(crate) what: String,
}

/// One member of one group.
#[derive(Debug, Default)]
pub(crate) struct Member {
    session: Option<Session>,
    /// The highest number that ended sessions received.
    before: u64,
    missing: BTreeMap<u64, usize>,
    findings: Vec<Finding>,
}

#[derive(Debug, Default)]
struct Session {
    /// The newest number that had been issued when the join was answered.
    joined: Option<u64>,
    first: u64,
    last: Option<u64>,
    /// Numbers that were passed over because they were not promised.
    doubtful: BTreeSet<u64>,
}

impl Member {
    /// The client starts anew: it is about to join.
    pub(crate) fn begins(&mut self) {
        self.ends();
        self.session = Some(Session::default());
    }

    /// Its join was answered; `issued` is the newest number by now.
    pub(crate) fn joined(&mut self, issued: u64) {
        if let Some(session) = &mut self.session {
            session.joined = Some(issued);
        }
    }

    /// The client was notified that its session is over.
    pub(crate) fn ends(&mut self) {
        if let Some(session) = self.session.take() {
            self.before = self.before.max(session.last.unwrap_or(0));
        }
    }

    /// A number has come. `promised` says of a number whether its publication succeeded.
    pub(crate) fn receive(&mut self, number: u64, fault: usize, promised: impl Fn(u64) -> bool) {
        let before = self.before;
        let Some(session) = &mut self.session else {
            return self.found(
                Trouble::Duplicated,
                fault,
                &format!("{number} came without a session"),
            );
        };
        if number <= before {
            let what = format!("{number} came again in a new session, after {before}");
            return self.found(Trouble::Duplicated, fault, &what);
        }
        let expected = session.last.or(session.joined).map_or(number, |last| last + 1);
        if number < expected && session.last.is_some() {
            return self.late(number, fault, expected);
        }
        for passed in expected..number {
            if promised(passed) {
                self.missing.insert(passed, fault);
            } else {
                session.doubtful.insert(passed);
            }
        }
        if session.last.is_none() {
            session.first = number;
        }
        session.last = Some(number);
    }

    fn late(&mut self, number: u64, fault: usize, expected: u64) {
        let session = self.session.as_mut();
        if session.as_ref().is_some_and(|session| number < session.first) {
            let what = format!("{number} came after later ones; {expected} was expected");
            return self.found(Trouble::Reordered, fault, &what);
        }
        if session.is_some_and(|session| session.doubtful.remove(&number)) {
            return;
        }
        let what = format!("{number} came, {expected} was expected");
        match self.missing.remove(&number) {
            Some(fault) => self.found(Trouble::Reordered, fault, &what),
            None => self.found(Trouble::Duplicated, fault, &what),
        }
    }

    /// Returns whether it has joined, and has all up to `target` that it was promised.
    pub(crate) fn has(&self, target: u64) -> bool {
        self.session.as_ref().is_some_and(|session| {
            session
                .joined
                .is_some_and(|joined| session.last.unwrap_or(0).max(joined) >= target)
        })
    }

    /// The member should have moved on, and didn't.
    pub(crate) fn is_silent(&mut self, fault: usize, target: u64) {
        let what = match &self.session {
            None => format!("it never came back; {target} is the newest"),
            Some(session) => format!(
                "it stands at {:?}, joined at {:?}; {target} is the newest",
                session.last, session.joined
            ),
        };
        self.found(Trouble::Silent, fault, &what);
    }

    /// Everything that was wrong so far.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let lost = self.missing.iter().map(|(number, fault)| Finding {
            trouble: Trouble::Lost,
            fault: *fault,
            what: format!("{number} never came"),
        });
        self.findings.iter().cloned().chain(lost).collect()
    }

    fn found(&mut self, trouble: Trouble, fault: usize, what: &str) {
        self.findings.push(Finding {
            trouble,
            fault,
            what: what.to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined_at(issued: u64) -> Member {
        let mut member = Member::default();
        member.begins();
        member.joined(issued);
        member
    }

    fn receive(member: &mut Member, numbers: &[u64]) {
        for number in numbers {
            member.receive(*number, 0, |_| true);
        }
    }

    fn troubles(member: &Member) -> Vec<Trouble> {
        member.findings().iter().map(|finding| finding.trouble).collect()
    }

    #[test]
    fn all_numbers_in_order_are_right() {
        let mut member = joined_at(4);
        receive(&mut member, &[5, 6, 7]);
        assert_eq!(troubles(&member), []);
        assert!(member.has(7));
        assert!(!member.has(8));
    }

    #[test]
    fn a_gap_is_a_loss() {
        let mut member = joined_at(0);
        receive(&mut member, &[1, 2, 5]);
        assert_eq!(troubles(&member), [Trouble::Lost, Trouble::Lost]);
    }

    #[test]
    fn a_gap_before_the_first_number_is_a_loss() {
        let mut member = joined_at(4);
        receive(&mut member, &[6]);
        assert_eq!(troubles(&member), [Trouble::Lost]);
    }

    #[test]
    fn numbers_from_before_the_join_was_answered_may_come_or_not() {
        let mut member = joined_at(4);
        receive(&mut member, &[3, 4, 5]);
        assert_eq!(troubles(&member), []);
        let mut member = Member::default();
        member.begins();
        receive(&mut member, &[3, 4]);
        member.joined(4);
        receive(&mut member, &[5]);
        assert_eq!(troubles(&member), []);
    }

    #[test]
    fn a_gap_after_the_first_is_a_loss_even_before_the_join_was_answered() {
        let mut member = Member::default();
        member.begins();
        receive(&mut member, &[3, 5]);
        member.joined(5);
        assert_eq!(troubles(&member), [Trouble::Lost]);
    }

    #[test]
    fn a_repeat_is_a_duplicate() {
        let mut member = joined_at(0);
        receive(&mut member, &[1, 2, 2, 1, 3]);
        assert_eq!(troubles(&member), [Trouble::Duplicated; 2]);
    }

    #[test]
    fn a_late_number_is_a_change_of_order_and_no_loss() {
        let mut member = joined_at(0);
        receive(&mut member, &[1, 3, 2, 4]);
        assert_eq!(troubles(&member), [Trouble::Reordered]);
        receive(&mut member, &[2]);
        assert_eq!(troubles(&member), [Trouble::Reordered, Trouble::Duplicated]);
    }

    #[test]
    fn a_number_before_the_first_that_comes_late_is_a_change_of_order() {
        let mut member = joined_at(4);
        receive(&mut member, &[4, 3, 5]);
        assert_eq!(troubles(&member), [Trouble::Reordered]);
    }

    #[test]
    fn a_reset_begins_a_new_count_and_excuses_only_what_was_between() {
        let mut member = joined_at(0);
        receive(&mut member, &[1, 2]);
        member.ends();
        member.begins();
        assert!(!member.has(2), "it has not joined yet");
        member.joined(8);
        assert!(member.has(8));
        receive(&mut member, &[9, 10]);
        assert_eq!(troubles(&member), []);
        receive(&mut member, &[12]);
        assert_eq!(troubles(&member), [Trouble::Lost]);
    }

    #[test]
    fn a_loss_before_a_reset_stays_a_loss() {
        let mut member = joined_at(0);
        receive(&mut member, &[1, 3]);
        member.begins();
        member.joined(3);
        receive(&mut member, &[4]);
        assert_eq!(troubles(&member), [Trouble::Lost]);
    }

    #[test]
    fn what_an_earlier_session_had_is_a_duplicate_in_the_next() {
        let mut member = joined_at(0);
        receive(&mut member, &[1, 2]);
        member.begins();
        receive(&mut member, &[2, 3]);
        assert_eq!(troubles(&member), [Trouble::Duplicated]);
    }

    #[test]
    fn what_failed_may_be_missing_or_late_but_not_twice() {
        let mut member = joined_at(0);
        for number in [1, 3, 2, 4, 2] {
            member.receive(number, 0, |number| number != 2);
        }
        assert_eq!(troubles(&member), [Trouble::Duplicated]);
        let mut member = joined_at(0);
        for number in [1, 3] {
            member.receive(number, 0, |number| number != 2);
        }
        assert_eq!(troubles(&member), []);
    }

    #[test]
    fn a_finding_belongs_to_the_fault_after_which_it_was_seen() {
        let mut member = joined_at(0);
        member.receive(1, 0, |_| true);
        member.receive(3, 4, |_| true);
        member.receive(3, 5, |_| true);
        let faults: Vec<_> = member
            .findings()
            .iter()
            .map(|finding| (finding.trouble, finding.fault))
            .collect();
        assert_eq!(faults, [(Trouble::Duplicated, 5), (Trouble::Lost, 4)]);
    }

    #[test]
    fn standing_still_is_silence() {
        let mut member = joined_at(0);
        receive(&mut member, &[1]);
        member.is_silent(2, 9);
        assert_eq!(troubles(&member), [Trouble::Silent]);
    }

    #[test]
    fn messages_outside_any_session_are_noticed() {
        let mut member = joined_at(0);
        member.ends();
        receive(&mut member, &[1]);
        assert_eq!(troubles(&member), [Trouble::Duplicated]);
    }
}
