//! Checks a client's invocations: each one that succeeded arrived once and in order, each other one at most once.
//! Pure: judges two lists.

use std::collections::BTreeMap;

use super::member::{Finding, Trouble};

/// How an invocation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With success.
    Done,
    /// With an error.
    Failed,
    /// Never: an explicit reset came between.
    Reset,
}

/// The task of an invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Come back.
    Echo,
    /// Reach the watcher.
    Send,
}

/// One invocation.
#[derive(Debug, Clone)]
pub(crate) struct Invocation {
    pub(crate) number: u64,
    pub(crate) deed: Deed,
    /// The watcher's session at that time, if it had joined everything.
    pub(crate) watched: Option<u64>,
    /// `None`: no completion has come.
    pub(crate) outcome: Option<Outcome>,
    pub(crate) fault: usize,
}

/// One message that the watcher got.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) number: u64,
    /// The watcher's session.
    pub(crate) session: u64,
    pub(crate) fault: usize,
}

/// Everything that was wrong with one client's invocations. `session` is the watcher's last one.
pub(crate) fn judge(invocations: &[Invocation], arrivals: &[Arrival], session: u64) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |trouble, fault, what: String| findings.push(Finding { trouble, fault, what });
    let sends = || {
        let sends = invocations.iter().filter(|call| call.deed == Deed::Send);
        sends.map(|call| (call.number, call))
    };
    let sent: BTreeMap<u64, &Invocation> = sends().collect();
    for call in invocations.iter().filter(|call| call.outcome.is_none()) {
        let what = format!("{:?} {} was never answered", call.deed, call.number);
        found(Trouble::Lost, call.fault, what);
    }
    let mut seen: BTreeMap<u64, u32> = BTreeMap::new();
    let mut newest = 0;
    for arrival in arrivals {
        let number = arrival.number;
        let times = seen.entry(number).or_default();
        *times += 1;
        match sent.get(&number).map(|call| call.outcome) {
            None => found(
                Trouble::Duplicated,
                arrival.fault,
                format!("{number} was never sent"),
            ),
            Some(_) if *times > 1 => {
                let what = format!("{number} arrived {times} times, after {newest}");
                found(Trouble::Duplicated, arrival.fault, what);
            }
            Some(Some(Outcome::Done)) if number < newest => {
                let what = format!("{number} arrived after {newest}");
                found(Trouble::Reordered, arrival.fault, what);
            }
            Some(Some(Outcome::Done)) => newest = number,
            Some(_) => {}
        }
    }
    for call in sent.values() {
        let is_promised = call.outcome == Some(Outcome::Done) && !seen.contains_key(&call.number);
        if is_promised && was_watched(call, arrivals, session) {
            let what = format!("{} succeeded and never arrived", call.number);
            found(Trouble::Lost, call.fault, what);
        }
    }
    findings
}

/// Returns whether a missing message should have been seen: the watcher's session goes on, or a later message came in
/// it.
fn was_watched(call: &Invocation, arrivals: &[Arrival], session: u64) -> bool {
    let later = |watched| {
        let mut arrivals = arrivals.iter();
        arrivals.any(|arrival| arrival.session == watched && arrival.number > call.number)
    };
    call.watched
        .is_some_and(|watched| watched == session || later(watched))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sends(outcomes: &[Option<Outcome>]) -> Vec<Invocation> {
        let calls = outcomes.iter().zip(1..).map(|(outcome, number)| Invocation {
            number,
            deed: Deed::Send,
            watched: Some(1),
            outcome: *outcome,
            fault: 0,
        });
        calls.collect()
    }

    fn arrive(numbers: &[u64]) -> Vec<Arrival> {
        let arrivals = numbers.iter().map(|number| Arrival {
            number: *number,
            session: 1,
            fault: 0,
        });
        arrivals.collect()
    }

    fn troubles(calls: &[Invocation], numbers: &[u64]) -> Vec<Trouble> {
        let findings = judge(calls, &arrive(numbers), 1);
        findings.iter().map(|finding| finding.trouble).collect()
    }

    const DONE: Option<Outcome> = Some(Outcome::Done);
    const FAILED: Option<Outcome> = Some(Outcome::Failed);
    const RESET: Option<Outcome> = Some(Outcome::Reset);

    #[test]
    fn all_once_and_in_order_is_right() {
        assert_eq!(troubles(&sends(&[DONE; 3]), &[1, 2, 3]), []);
    }

    #[test]
    fn a_success_that_never_arrives_is_a_loss() {
        assert_eq!(troubles(&sends(&[DONE; 3]), &[1, 3]), [Trouble::Lost]);
        assert_eq!(
            troubles(&sends(&[DONE; 3]), &[1, 2]),
            [Trouble::Lost],
            "also the last"
        );
    }

    #[test]
    fn an_arrival_twice_is_a_duplicate_whatever_the_completion_said() {
        for outcome in [DONE, FAILED, RESET, None] {
            let calls = sends(&[DONE, outcome, DONE]);
            assert!(troubles(&calls, &[1, 2, 2, 3]).contains(&Trouble::Duplicated));
            assert!(troubles(&calls, &[1, 2, 3, 2]).contains(&Trouble::Duplicated));
        }
    }

    #[test]
    fn successes_keep_their_order() {
        assert_eq!(troubles(&sends(&[DONE; 3]), &[1, 3, 2]), [Trouble::Reordered]);
    }

    #[test]
    fn what_failed_or_was_reset_arrives_at_most_once_and_at_any_time() {
        for outcome in [FAILED, RESET] {
            let calls = sends(&[DONE, outcome, DONE]);
            for numbers in [&[1, 3][..], &[1, 2, 3], &[1, 3, 2]] {
                assert_eq!(troubles(&calls, numbers), []);
            }
        }
    }

    #[test]
    fn an_invocation_without_an_answer_is_a_loss() {
        assert_eq!(troubles(&sends(&[DONE, None]), &[1, 2]), [Trouble::Lost]);
        let mut echo = sends(&[None]);
        echo[0].deed = Deed::Echo;
        assert_eq!(troubles(&echo, &[]), [Trouble::Lost]);
    }

    #[test]
    fn echoes_need_not_arrive() {
        let mut echo = sends(&[DONE]);
        echo[0].deed = Deed::Echo;
        assert_eq!(troubles(&echo, &[]), []);
        assert_eq!(troubles(&echo, &[1]), [Trouble::Duplicated], "nobody sent that");
    }

    #[test]
    fn only_what_the_watcher_was_there_for_can_be_lost() {
        let calls = sends(&[DONE; 3]);
        assert_eq!(
            judge(&calls, &arrive(&[1]), 2),
            [],
            "the watcher's session ended after 1"
        );
        let lost = judge(&calls, &arrive(&[1, 3]), 2);
        assert_eq!(lost.len(), 1, "2 is missing in the middle of a session: {lost:?}");
        let mut unwatched = calls;
        unwatched[1].watched = None;
        assert_eq!(judge(&unwatched, &arrive(&[1, 3]), 1), []);
    }
}
