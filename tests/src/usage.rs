//! The resources that processes use, from /proc.

use std::collections::HashMap;
use std::fs::{read_dir, read_to_string};

/// Time on processors that each thread of some processes has had, in nanoseconds. The clock ticks of `/proc/ID/stat` are too
/// coarse for a phase of a few seconds.
pub struct Usage(HashMap<String, u64>);

impl Usage {
    /// The threads of these processes.
    pub fn of(processes: &[u32]) -> Self {
        let mut threads = HashMap::new();
        for process in processes {
            let tasks = read_dir(format!("/proc/{process}/task")).expect("the process is running");
            for task in tasks.flatten() {
                let path = task.path();
                // A thread may end meanwhile.
                if let Some(nanos) = read_to_string(path.join("schedstat"))
                    .ok()
                    .and_then(|text| first(&text))
                {
                    threads.insert(path.to_string_lossy().into_owned(), nanos);
                }
            }
        }
        Self(threads)
    }

    /// Microseconds used since `before`. Threads that have ended since then are not counted.
    pub fn micros_since(&self, before: &Self) -> f64 {
        let used =
            |(thread, nanos): (&String, &u64)| nanos.saturating_sub(*before.0.get(thread).unwrap_or(&0));
        self.0.iter().map(used).sum::<u64>() as f64 / 1e3
    }
}

fn first(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// Memory of these processes in KiB, with what they share divided by how many share it.
pub fn proportional_set_kib(processes: &[u32]) -> f64 {
    let kib = |process: &u32| {
        let rollup = read_to_string(format!("/proc/{process}/smaps_rollup")).expect("the process is running");
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
        kib.expect("a line for Pss")
    };
    processes.iter().map(kib).sum()
}
