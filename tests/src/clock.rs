//! A wall clock that steps while the process that reads it runs. Monotonic clocks go on as they are.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/clock.c");

/// The clock of all processes that are started with it.
#[derive(Debug, Clone)]
pub struct Clock {
    directory: Arc<TempDir>,
}

impl Clock {
    /// Builds one that is right.
    pub fn new() -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a temporary directory"));
        let clock = Self { directory };
        let mut compiler = Command::new("cc");
        compiler
            .args(["-shared", "-fPIC", "-O2", "-o"])
            .arg(clock.library())
            .arg(SOURCE);
        let status = compiler.status().expect("cc can be started");
        assert!(status.success(), "it can't be built: {compiler:?}");
        clock.is_ahead_by(0);
        clock
    }

    fn library(&self) -> std::path::PathBuf {
        self.directory.path().join("clock.so")
    }

    fn offset(&self) -> std::path::PathBuf {
        self.directory.path().join("offset")
    }

    /// Sets by how many seconds it is ahead of the machine's, or slow.
    pub fn is_ahead_by(&self, seconds: i64) {
        let file = File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .open(self.offset());
        // In one write and in place: the file is mapped by its readers.
        let written = file.and_then(|file| file.write_all_at(&seconds.to_ne_bytes(), 0));
        written.expect("the offset can be written");
    }

    /// Gives it to a process that is to be started.
    pub fn give_to(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", self.library())
            .env("CLOCK_OFFSET_FILE", self.offset());
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(clock: &Clock) -> i64 {
        let mut command = Command::new("date");
        clock.give_to(command.arg("+%s"));
        let output = command.output().expect("date can be started");
        let text = String::from_utf8(output.stdout).expect("a number is text");
        text.trim().parse().expect("a number")
    }

    #[test]
    fn processes_see_its_steps() {
        let clock = Clock::new();
        for ahead in [0, 3_600, -7] {
            clock.is_ahead_by(ahead);
            let difference = date(&clock) - crate::jwt::now();
            assert!((ahead - 1..=ahead + 1).contains(&difference), "{difference}");
        }
    }
}
