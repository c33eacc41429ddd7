//! Child processes that never outlive the tests.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use rustix::process::{Pid, kill_process_group};

use crate::eventually::eventually;

pub use rustix::process::Signal;

/// A process in a group of its own, with its output in two files. Dropping it kills the group.
pub struct Process {
    child: Child,
    output: PathBuf,
    errors: PathBuf,
    ended: bool,
}

impl Process {
    /// Starts `command`; its standard output goes to `NAME.out` and its standard error to `NAME.err` in `directory`.
    /// Files of an earlier process of that name are continued.
    pub fn start(name: &str, command: &mut Command, directory: &Path) -> Self {
        let (output, errors) = (
            directory.join(format!("{name}.out")),
            directory.join(format!("{name}.err")),
        );
        let open = |path: &Path| {
            File::options()
                .create(true)
                .append(true)
                .open(path)
                .expect("a log file can be opened")
        };
        command
            .stdin(Stdio::null())
            .stdout(open(&output))
            .stderr(open(&errors))
            .process_group(0);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{name} can't be started: {error}: {command:?}"));
        guard(child.id(), '+');
        Self {
            child,
            output,
            errors,
            ended: false,
        }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The text on its standard output so far.
    pub fn output(&self) -> String {
        read(&self.output)
    }

    /// The text on its standard error so far.
    pub fn errors(&self) -> String {
        read(&self.errors)
    }

    /// Sends a signal to it and its children.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a process id is positive");
        let _gone = kill_process_group(pid, signal);
    }

    /// Stops it from running, with its sockets open. When this returns, none of its threads runs any more.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        while !is_stopped(self.id()) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets it run again.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills it, without a chance to tidy up, and waits until it is gone.
    pub fn kill(&mut self) {
        while self.exited().is_none() {
            self.signal(Signal::KILL);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Its exit status, if it has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().expect("a child can be waited for");
        if status.is_some() && !self.ended {
            self.ended = true;
            guard(self.child.id(), '-');
        }
        status
    }

    /// Waits until it ends by itself.
    pub async fn exit(&mut self) -> ExitStatus {
        eventually("the process ends", async || self.exited()).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns whether all threads of a process are stopped. One that has ended counts as well.
fn is_stopped(process: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else {
        return true;
    };
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The state comes after the name, which is in brackets and may contain anything.
        stat.rsplit_once(')')
            .is_none_or(|(_, rest)| rest.trim_start().starts_with(['T', 'Z', 'X']))
    })
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

/// Notifies the watchdog that a process group began (`+`) or ended (`-`).
///
/// The watchdog is a shell that outlives this process, however that ends: when its standard input is closed, it kills
/// what is left.
fn guard(group: u32, change: char) {
    static WATCHDOG: OnceLock<Mutex<Child>> = OnceLock::new();
    let watchdog = WATCHDOG.get_or_init(|| Mutex::new(start_watchdog()));
    let mut watchdog = watchdog.lock().expect("nobody panics while holding it");
    let input = watchdog.stdin.as_mut().expect("its standard input is piped");
    writeln!(input, "{change} {group}").expect("the watchdog lives as long as we do");
}

const WATCHDOG_SCRIPT: &str = r#"
groups=' '
while read -r change group; do
    case $change in
        +) groups="$groups$group " ;;
        -) groups="${groups%% "$group" *} ${groups#* "$group" }" ;;
    esac
done
for group in $groups; do kill -9 "-$group" 2>/dev/null; done
"#;

fn start_watchdog() -> Child {
    let mut command = Command::new("sh");
    command
        .args(["-c", WATCHDOG_SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.process_group(0).spawn().expect("sh can be started")
}
