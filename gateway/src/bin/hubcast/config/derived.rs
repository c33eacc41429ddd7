//! Limits that depend on the resources of the process: its memory and its file descriptors.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};

/// The keys of such limits.
pub(super) const KEYS: [&str; 5] = [
    "limits.connections",
    "limits.connections_per_address",
    "limits.tcp_connections",
    "limits.tcp_connections_per_address",
    "limits.held_bytes",
];

/// Memory for one connection that is idle or nearly so, with its share of everything else.
const CONNECTION_BYTES: u64 = 24 * 1024;
/// File descriptors that are not for clients: Redis, listeners, the log.
const OWN_FILES: u64 = 128;
const MEBIBYTE: u64 = 1024 * 1024;
/// The smallest limit that means "no limit": control groups of version 1 report a number beyond all memory.
const NO_LIMIT: u64 = 1 << 60;

/// The resources of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Means {
    memory: Memory,
    files: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Memory {
    /// The limit of its control group.
    Group(u64),
    /// The machine has that much.
    Machine(u64),
    Unknown,
}

impl Means {
    pub(super) fn of_this_process() -> Self {
        Self {
            memory: Memory::read(Path::new("/")),
            files: getrlimit(Resource::Nofile).maximum,
        }
    }

    /// The limits, by their keys. An ordinary application meets none of them.
    pub(super) fn limits(&self) -> Vec<(&'static str, u64)> {
        let (Memory::Group(memory) | Memory::Machine(memory)) = self.memory else {
            return Vec::new(); // no bound, as far as is known
        };
        let files = self.files.unwrap_or(u64::MAX);
        let most = files.saturating_sub(OWN_FILES.min(files / 4)).max(1);
        let connections = (memory / CONNECTION_BYTES).clamp(1, most);
        let tcp = connections.saturating_add(connections / 2).min(most);
        let half = |number: u64| (number / 2).max(1);
        let values = [
            connections,
            half(connections),
            tcp,
            half(tcp),
            (memory / 8).max(MEBIBYTE),
        ];
        KEYS.into_iter().zip(values).collect()
    }
}

/// The text for the origin of a value: "by …".
impl fmt::Display for Means {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.memory {
            Memory::Group(bytes) => write!(
                f,
                "the memory limit of the control group, {} MiB",
                bytes / MEBIBYTE
            ),
            Memory::Machine(bytes) => write!(f, "the memory of the machine, {} MiB", bytes / MEBIBYTE),
            Memory::Unknown => f.write_str("default"),
        }
    }
}

impl Memory {
    /// `root` is `/`, but in tests.
    fn read(root: &Path) -> Self {
        let machine = machine_memory(root);
        let group = group_limit(root).filter(|limit| machine.is_none_or(|machine| *limit < machine));
        match (group, machine) {
            (Some(limit), _) => Self::Group(limit),
            (None, Some(bytes)) => Self::Machine(bytes),
            (None, None) => Self::Unknown,
        }
    }
}

fn machine_memory(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?;
    kibibytes.checked_mul(1024)
}

/// The least limit of the process's control group and those above it. In a container its own group is the root.
fn group_limit(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut limits = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let (mount, file) = if controllers.is_empty() {
            ("sys/fs/cgroup", "memory.max") // version 2
        } else if controllers.split(',').any(|controller| controller == "memory") {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        let mount = root.join(mount);
        let mut group = PathBuf::from(group.trim_start_matches('/'));
        loop {
            limits.extend(read_limit(&mount.join(&group).join(file)));
            if !group.pop() {
                break;
            }
        }
    }
    limits.into_iter().min()
}

fn read_limit(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?; // "max" is no number
    text.trim().parse::<u64>().ok().filter(|limit| *limit < NO_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 1 kB\n");

    #[test]
    fn the_least_limit_of_the_groups_above_counts() {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "0::/kubepods/pod1/own\n"),
            ("sys/fs/cgroup/kubepods/memory.max", "max\n"),
            ("sys/fs/cgroup/kubepods/pod1/memory.max", "536870912\n"),
            ("sys/fs/cgroup/kubepods/pod1/own/memory.max", "1073741824\n"),
        ];
        let root = tree(&files);
        assert_eq!(Memory::read(root.path()), Memory::Group(512 * MEBIBYTE));
        let container = tree(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/memory.max", "268435456\n"),
        ]);
        assert_eq!(Memory::read(container.path()), Memory::Group(256 * MEBIBYTE));
    }

    #[test]
    fn version_1_is_read_too_and_without_a_limit_the_machine_counts() {
        let group = ("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n");
        let file = "sys/fs/cgroup/memory/memory.limit_in_bytes";
        let limited = tree(&[MEMINFO, group, (file, "134217728\n")]);
        assert_eq!(Memory::read(limited.path()), Memory::Group(128 * MEBIBYTE));
        let unlimited = tree(&[MEMINFO, group, (file, "9223372036854771712\n")]);
        assert_eq!(Memory::read(unlimited.path()), Memory::Machine(16_384 * MEBIBYTE));
        assert_eq!(Memory::read(tree(&[]).path()), Memory::Unknown);
    }

    #[test]
    fn limits_follow_memory_and_files() {
        let limits = |memory: u64, files: u64| {
            let means = Means {
                memory: Memory::Group(memory * MEBIBYTE),
                files: Some(files),
            };
            means
                .limits()
                .into_iter()
                .map(|(_, value)| value)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            limits(512, 1 << 20),
            [21_845, 10_922, 32_767, 16_383, 64 * MEBIBYTE]
        );
        assert_eq!(
            limits(16_384, 4_096),
            [3_968, 1_984, 3_968, 1_984, 2_048 * MEBIBYTE]
        );
        assert_eq!(limits(0, 0), [1, 1, 1, 1, MEBIBYTE]);
    }
}
