//! The programs under test: what Cargo has built, or builds now, beside this program.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The gateway: `HUBCAST_BIN`, or the binary of this profile.
pub fn gateway() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    let find = || match std::env::var_os("HUBCAST_BIN") {
        Some(path) => path.into(),
        None => find(Path::new("hubcast"), &["--bin", "hubcast"]),
    };
    PATH.get_or_init(find).clone()
}

/// The gateway's example `functional_tests`: an application with several hubs of its own.
pub fn functional_tests() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    let (path, which) = ("examples/functional_tests", ["--example", "functional_tests"]);
    PATH.get_or_init(|| find(Path::new(path), &which)).clone()
}

fn find(path: &Path, which: &[&str]) -> PathBuf {
    let program = std::env::current_exe().expect("this program has a path");
    let profile = program
        .ancestors()
        .skip(1)
        .find(|folder| !folder.ends_with("deps"))
        .expect("a target folder");
    let path = profile.join(path);
    if !path.exists() {
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        build.args(["build", "--package", "hubcast", "--target-dir"]);
        build
            .arg(profile.parent().expect("a target folder"))
            .args(which)
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(
            build.status().expect("cargo can be started").success(),
            "it can't be built: {build:?}"
        );
    }
    path
}
