//! The programs under test: Cargo builds them from the present sources, once in each process of tests.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The gateway: `HUBCAST_BIN`, or the binary of this profile.
pub fn gateway() -> PathBuf {
    match std::env::var_os("HUBCAST_BIN") {
        Some(path) => path.into(),
        None => built("hubcast"),
    }
}

/// The gateway, with no variable of its own but those that the caller adds.
pub fn gateway_command() -> Command {
    without_settings(&gateway())
}

/// The gateway that writes down whose connections begin and end, in the same way.
pub fn recording_gateway_command() -> Command {
    without_settings(&example("recording_gateway"))
}

fn without_settings(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (inherited, _) in std::env::vars().filter(|(name, _)| name.starts_with("HUBCAST_")) {
        command.env_remove(inherited);
    }
    command
}

/// An example. In profiles other than `dev` they are those that `cargo test` has built, but for the recording gateway.
pub fn example(name: &str) -> PathBuf {
    built(&format!("examples/{name}"))
}

fn built(path: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(build).join(path)
}

/// Builds what is not fresh. Returns the folder of this profile.
fn build() -> PathBuf {
    let program = std::env::current_exe().expect("this program has a path");
    let profile = program
        .ancestors()
        .skip(1)
        .find(|folder| !folder.ends_with("deps"))
        .expect("a target folder");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    // The whole workspace, and with examples, as `cargo test` has it: another choice would have other features of
    // dependencies, and compile them once more.
    build.args(["build", "--quiet", "--workspace", "--bin", "hubcast"]);
    if profile.ends_with("debug") {
        build.arg("--examples");
    } else {
        // Benchmarks need no other examples, which take long to link. A profile's folder has its name.
        let name = profile.file_name().expect("a folder of a profile");
        build
            .arg("--profile")
            .arg(name)
            .args(["--example", "recording_gateway"]);
    }
    build
        .arg("--target-dir")
        .arg(profile.parent().expect("a target folder"))
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    assert!(
        build.status().expect("cargo can be started").success(),
        "it can't be built: {build:?}"
    );
    profile.to_owned()
}
