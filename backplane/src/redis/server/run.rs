//! The name of a server's run, which changes exactly when the server may have forgotten something.

/// Number of an id's digits that are part of a name.
const DIGITS: usize = 10;

/// One run of one server as a master.
///
/// `master_replid` is no part of it: a living master takes a new one when its first replica comes, and when the last
/// one has been away for `repl-backlog-ttl`. A promotion of any kind keeps the former one in `master_replid2`, with the
/// offset up to which it was followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::redis) struct Run {
    /// The id of the server's process.
    pub(in crate::redis) id: String,
    /// The id of its newest promotion; empty where there was none, or where the server has forgotten it with its
    /// backlog.
    pub(in crate::redis) mark: String,
}

impl Run {
    /// Reads the sections `server` and `replication` of `INFO`; `None` where they do not name the run.
    pub(in crate::redis) fn read(server: &str, replication: &str) -> Option<Self> {
        let id = digits(field(server, "run_id")?)?;
        let former = field(replication, "master_replid2").unwrap_or_default();
        let followed = field(replication, "second_repl_offset").and_then(|offset| offset.parse::<u64>().ok());
        let mark = match (digits(former), followed) {
            (Some(former), Some(offset)) if former.bytes().any(|digit| digit != b'0') => {
                format!("{former}{offset}")
            }
            _ => String::new(),
        };
        Some(Self {
            id: id.to_owned(),
            mark,
        })
    }

    /// Returns whether a server that was in this run still is, now that it names itself `fresh`: it forgets its mark
    /// with its replication backlog, and gains one only by a promotion. `is_same_run` in `log.lua` is the same rule.
    pub(in crate::redis) fn goes_on_as(&self, fresh: &Self) -> bool {
        self.id == fresh.id && (fresh.mark.is_empty() || self.mark == fresh.mark)
    }
}

/// A field of an answer to `INFO`.
pub(in crate::redis) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

/// The first digits of an id. They become part of scripts.
fn digits(id: &str) -> Option<&str> {
    let digits = id.get(..DIGITS)?;
    digits
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric())
        .then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_ID: &str = "0000000000000000000000000000000000000000";

    fn id(letter: char) -> String {
        letter.to_string().repeat(40)
    }

    fn read(run: char, replid: char, former: &str, offset: i64) -> Run {
        let server = format!("# Server\r\nredis_version:7.0.15\r\nrun_id:{}\r\n", id(run));
        let replication = format!(
            "role:master\r\nmaster_replid:{}\r\nmaster_replid2:{former}\r\nmaster_repl_offset:1\r\n\
             second_repl_offset:{offset}\r\n",
            id(replid)
        );
        Run::read(&server, &replication).unwrap()
    }

    #[test]
    fn info_fields_are_found() {
        let info = "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\n";
        assert_eq!(field(info, "redis_version"), Some("7.0.15"));
        assert_eq!(field(info, "run"), None);
    }

    #[test]
    fn a_name_is_plain_or_none() {
        assert_eq!(read('a', 'b', NO_ID, -1).mark, "");
        assert_eq!(read('a', 'b', &id('c'), 71).mark, "cccccccccc71");
        let server = format!("run_id:{}\r\n", "'quoted' or not".repeat(3));
        assert_eq!(Run::read(&server, ""), None);
        assert_eq!(Run::read("run_id:abc\r\n", ""), None);
    }

    #[test]
    fn equal_names_are_the_same_run() {
        let run = read('a', 'b', &id('c'), 5);
        assert!(run.goes_on_as(&run.clone()));
    }

    #[test]
    fn a_replica_that_attaches_changes_nothing() {
        let (alone, followed) = (read('a', 'b', NO_ID, -1), read('a', 'd', NO_ID, -1));
        assert_eq!(alone, followed, "the replication id does not count");
        assert!(alone.goes_on_as(&followed) && followed.goes_on_as(&alone));
    }

    #[test]
    fn a_backlog_that_is_freed_takes_the_mark_along() {
        let (promoted, freed) = (read('a', 'b', &id('c'), 5), read('a', 'd', NO_ID, -1));
        assert!(promoted.goes_on_as(&freed));
    }

    #[test]
    fn a_promotion_is_another_run() {
        let first = read('a', 'b', NO_ID, -1);
        let second = read('a', 'c', &id('b'), 5);
        let third = read('a', 'd', &id('c'), 9);
        let further = read('a', 'd', &id('b'), 6);
        for (before, after) in [(&first, &second), (&second, &third), (&second, &further)] {
            assert!(!before.goes_on_as(after), "{before:?} {after:?}");
        }
    }

    #[test]
    fn a_restart_is_another_run() {
        let before = read('a', 'b', &id('c'), 5);
        for after in [read('e', 'b', &id('c'), 5), read('e', 'f', NO_ID, -1)] {
            assert!(!before.goes_on_as(&after) && !after.goes_on_as(&before));
        }
    }

    proptest::proptest! {
        /// After any events, a server's names differ exactly where it may have forgotten something, and the newest name
        /// stands for all earlier ones of its run.
        #[test]
        fn names_change_exactly_with_what_may_be_forgotten(steps in proptest::collection::vec(0..4_u8, 1..40)) {
            let mut server = Server::new();
            let mut in_run = vec![server.name()];
            for step in steps {
                if server.step(step) {
                    let name = server.name();
                    let before = in_run.last().unwrap();
                    proptest::prop_assert!(!before.goes_on_as(&name), "{before:?} {name:?}");
                    in_run = vec![name];
                } else {
                    let name = server.name();
                    for before in &in_run {
                        proptest::prop_assert!(before.goes_on_as(&name), "{before:?} {name:?}");
                    }
                    in_run.push(name);
                }
            }
        }
    }

    /// A model of a server, as far as its name depends on it.
    struct Server {
        run: u32,
        replid: u32,
        former: Option<(u32, u64)>,
        replicas: bool,
        backlog: bool,
        offset: u64,
        ids: u32,
    }

    impl Server {
        fn new() -> Self {
            Self {
                run: 1,
                replid: 1,
                former: None,
                replicas: false,
                backlog: false,
                offset: 0,
                ids: 1,
            }
        }

        fn new_id(&mut self) -> u32 {
            self.ids += 1;
            self.ids
        }

        fn name(&self) -> Run {
            let former = self.former.map_or(NO_ID.to_owned(), |(id, _)| {
                format!("{id:040}").chars().rev().collect()
            });
            let replication = format!(
                "master_replid:{:040}\nmaster_replid2:{former}\nsecond_repl_offset:{}\n",
                self.replid,
                self.former
                    .map_or(-1, |(_, offset)| i64::try_from(offset).unwrap())
            );
            let run: String = format!("{:040}", self.run).chars().rev().collect();
            Run::read(&format!("run_id:{run}\n"), &replication).unwrap()
        }

        /// Returns whether something may have been forgotten.
        fn step(&mut self, step: u8) -> bool {
            self.offset += 1;
            match step {
                0 if !self.replicas => {
                    self.replicas = true;
                    if !self.backlog {
                        (self.backlog, self.replid, self.former) = (true, self.new_id(), None);
                    }
                    false
                }
                1 if self.backlog => {
                    (self.replicas, self.backlog, self.replid, self.former) =
                        (false, false, self.new_id(), None);
                    false
                }
                2 => {
                    let (followed, own) = (self.new_id(), self.new_id());
                    (self.replid, self.former) = (own, Some((followed, self.offset)));
                    (self.replicas, self.backlog) = (false, true);
                    true
                }
                3 => {
                    let ids = self.ids + 2;
                    *self = Self {
                        run: ids,
                        replid: ids,
                        ids,
                        ..Self::new()
                    };
                    true
                }
                _ => false,
            }
        }
    }
}
