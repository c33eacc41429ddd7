//! The resources that processes use, from /proc.

use std::fs::read_to_string;

/// Time on processors, of user and system, in clock ticks of 10 ms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage(u64);

impl Usage {
    /// The sum over these processes so far.
    pub(crate) fn of(processes: &[u32]) -> Self {
        Self(processes.iter().map(|id| ticks(*id)).sum())
    }

    /// The time used since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self(self.0 - before.0)
    }

    /// In microseconds.
    pub(crate) fn micros(self) -> f64 {
        self.0 as f64 * 10_000.0
    }
}

fn ticks(process: u32) -> u64 {
    let stat = read_to_string(format!("/proc/{process}/stat")).expect("the process is running");
    // The second field is a name in brackets, which may contain spaces. utime and stime are fields 14 and 15.
    let fields = stat.rsplit_once(')').expect("a name in brackets").1;
    fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().expect("a number"))
        .sum()
}

/// Memory of a process in KiB, with what it shares divided by how many share it.
pub(crate) fn proportional_set_kib(process: u32) -> u64 {
    let rollup = read_to_string(format!("/proc/{process}/smaps_rollup")).expect("the process is running");
    let line = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .expect("a line for Pss");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
