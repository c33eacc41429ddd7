//! The programs under test: Cargo builds them from the present sources, once in each process of tests.

use std::ffi::OsStr;
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
    without_settings(gateway().as_os_str())
}

/// The gateway that writes down whose connections begin and end.
pub fn recording_gateway() -> PathBuf {
    example("recording_gateway")
}

/// A command that inherits no settings of a gateway.
pub fn without_settings(program: &OsStr) -> Command {
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

/// The folder of the profile that this program was built in.
fn own_folder() -> PathBuf {
    let program = std::env::current_exe().expect("this program has a path");
    let mut folders = program.ancestors().skip(1);
    let folder = folders.find(|folder| !folder.ends_with("deps"));
    folder.expect("a target folder").to_owned()
}

/// Builds what is not fresh. Returns the folder of this profile.
fn build() -> PathBuf {
    let folder = own_folder();
    // The whole workspace, and with examples, as `cargo test` has it: another choice would have other features of
    // dependencies, and compile them once more.
    let workspace = ["--workspace", "--bin", "hubcast"];
    if folder.ends_with("debug") {
        cargo_build(&folder, "dev", &[&workspace[..], &["--examples"]].concat());
    } else {
        // Chaos and measurements need no other examples, which take long to link. A profile's folder has its name.
        let name = folder
            .file_name()
            .and_then(OsStr::to_str)
            .expect("a folder of a profile");
        cargo_build(
            &folder,
            name,
            &[&workspace[..], &["--example", "recording_gateway"]].concat(),
        );
    }
    folder
}

/// Builds the gateway in a profile for measurements, as it is shipped: without what tests need. `with_example` also builds the
/// recording gateway. Returns the folder of the profile.
pub fn in_profile(profile: &str, with_example: bool) -> PathBuf {
    if profile == "dev" && own_folder().ends_with("debug") {
        return built("");
    }
    let name = if profile == "dev" { "debug" } else { profile };
    let folder = own_folder().with_file_name(name);
    if std::env::var_os("HUBCAST_BIN").is_none() {
        cargo_build(&folder, profile, &["--workspace", "--bin", "hubcast"]);
    }
    if with_example {
        cargo_build(
            &folder,
            profile,
            &["--workspace", "--example", "recording_gateway"],
        );
    }
    folder
}

/// Builds a bench of the gateway. Returns its path.
pub fn bench(name: &str, profile: &str) -> PathBuf {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .args([
            "build",
            "--quiet",
            "--profile",
            profile,
            "--workspace",
            "--bench",
            name,
        ])
        .arg("--message-format=json")
        .arg("--target-dir")
        .arg(own_folder().parent().expect("a target folder"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo can be started");
    assert!(
        output.status.success(),
        "the bench {name} can't be built: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let built = output.stdout.split(|byte| *byte == b'\n').find_map(|line| {
        let message: serde_json::Value = serde_json::from_slice(line).ok()?;
        let path = message["executable"]
            .as_str()
            .filter(|_| message["target"]["name"] == name)?;
        Some(PathBuf::from(path))
    });
    built.unwrap_or_else(|| panic!("cargo says no path of the bench {name}"))
}

fn cargo_build(folder: &Path, profile: &str, arguments: &[&str]) {
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    build
        .args(["build", "--quiet", "--profile", profile])
        .args(arguments)
        .arg("--target-dir")
        .arg(folder.parent().expect("a target folder"))
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    assert!(
        build.status().expect("cargo can be started").success(),
        "it can't be built: {build:?}"
    );
}
