//! Clients in other languages, and the official one in a real browser: each is a program in `tests/clients` that prints
//! a line for each of its checks.
//!
//! The needs of a program are prepared once, below `target/clients`. A toolchain that this machine lacks skips its
//! test; that, and every check that a library can't pass, is said on standard error.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use hubcast_tests::cluster::Plan;
use tokio::time::timeout;

/// The bound on one program. Each of its waits has a shorter one, so that it says itself what took too long.
const BOUND: Duration = Duration::from_secs(240);

/// A program and its first arguments, or why this machine can't run it.
pub(crate) type Program = Result<Vec<PathBuf>, String>;

macro_rules! clients {
    ($($name:ident),+ $(,)?) => {
        mod one_node {
            $(#[tokio::test]
            async fn $name() {
                super::check(stringify!($name), super::$name(), 1).await;
            })+
        }
        mod three_nodes {
            $(#[tokio::test]
            async fn $name() {
                super::check(stringify!($name), super::$name(), 3).await;
            })+
        }
    };
}

clients!(browser, go, java, javascript, pysignalr, signalrcore);

/// Runs a program against one node with memory, or against several behind a balancer without sticky sessions: most
/// requests of a client then reach another node than the one that negotiated.
async fn check(name: &str, program: Program, nodes: usize) {
    let program = match program {
        Ok(program) => program,
        Err(reason) => return skipped(name, &reason),
    };
    let plan = match nodes {
        1 => Plan::one_node(),
        _ => Plan::nodes(nodes).balanced().with_short_leases(),
    };
    let mut cluster = plan.set("timeouts.disconnect_seconds", 3).start().await;
    let mut command = tokio::process::Command::new(&program[0]);
    command
        .args(&program[1..])
        .arg(cluster.hub_url())
        .env("NODES", nodes.to_string())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(BOUND, command.output())
        .await
        .unwrap_or_else(|_| panic!("{name} doesn't end"))
        .unwrap_or_else(|error| panic!("{name} can't be started: {error}"));
    let lines = String::from_utf8_lossy(&output.stdout);
    for line in lines.lines().filter(|line| line.starts_with("skipped ")) {
        say(&format!("{name} {line}"));
    }
    assert!(
        output.status.success() && lines.lines().any(|line| line.starts_with("ok ")),
        "{name}: {}\n{lines}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    cluster.is_tidy().await;
}

/// Says that a test can't be run here, and why. A count of the tests looks for such lines.
pub(crate) fn skipped(name: &str, reason: &str) {
    say(&format!("{name} skipped: {reason}"));
}

/// Writes past the capture of a passing test's output.
pub(crate) fn say(line: &str) {
    let _nobody_reads_it = writeln!(std::io::stderr(), "{line}");
}

fn pysignalr() -> Program {
    python("pysignalr_client.py")
}

fn signalrcore() -> Program {
    python("signalrcore_client.py")
}

pub(crate) fn python(script: &str) -> Program {
    static INTERPRETER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let prepare = || {
        has("python3", "--version")?;
        let prepared = prepare_python("python", &source("python").join("requirements.txt"));
        Ok(prepared.unwrap_or_else(|error| panic!("{error}")))
    };
    let interpreter = INTERPRETER.get_or_init(prepare).clone()?;
    // Without files of compiled modules beside the sources.
    Ok(vec![interpreter, "-B".into(), source("python").join(script)])
}

/// Held while something is installed: several tests may need the same, and none must find it half installed.
pub(crate) fn installing() -> MutexGuard<'static, ()> {
    static INSTALLING: Mutex<()> = Mutex::new(());
    INSTALLING.lock().unwrap_or_else(PoisonError::into_inner) // another one's failure is that test's
}

/// Python with what a program requires, in an environment of that name.
pub(crate) fn prepare_python(name: &str, requirements: &Path) -> Result<PathBuf, String> {
    has("python3", "--version")?;
    let _alone = installing();
    let folder = target(name);
    let wanted = std::fs::read(requirements).expect("the requirements are there");
    let mark = folder.join("installed.txt");
    let interpreter = folder.join("bin/python");
    if std::fs::read(&mark).ok().as_ref() != Some(&wanted) {
        let mut venv = Command::new("python3");
        try_run(venv.args(["-m", "venv", "--clear"]).arg(&folder))?;
        let mut pip = Command::new(&interpreter);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        try_run(pip.arg("--requirement").arg(requirements))?;
        std::fs::write(&mark, &wanted).expect("the environment can be written to");
    }
    Ok(interpreter)
}

fn java() -> Program {
    static JAVA: OnceLock<Program> = OnceLock::new();
    let prepare = || java_program("java", "java", "hubcast.tests.Client");
    JAVA.get_or_init(prepare).clone()
}

/// A class of a project for Maven, which builds in a folder of that name.
pub(crate) fn java_program(project: &str, folder: &str, class: &str) -> Program {
    has("javac", "-version")?;
    has("mvn", "--version")?;
    let _alone = installing();
    let maven = |options: &[&str]| {
        let mut maven = Command::new("mvn");
        maven.args(["--quiet", "--batch-mode"]).args(options);
        maven.arg("process-classes").current_dir(source(project));
        maven
    };
    // Packages that were loaded once are enough. Only otherwise is the network used.
    let mut offline = maven(&["--offline"]);
    let offline = offline.stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !offline.is_ok_and(|status| status.success()) {
        run(&mut maven(&[]));
    }
    let folder = target(folder);
    let mut class_path = folder.join("classes").into_os_string();
    class_path.push(":");
    class_path.push(folder.join("lib/*"));
    Ok(vec![
        "java".into(),
        "-classpath".into(),
        class_path.into(),
        class.into(),
    ])
}

fn go() -> Program {
    static GO: OnceLock<Program> = OnceLock::new();
    let prepare = || {
        has("go", "version")?;
        let client = target("go").join("client");
        let mut build = Command::new("go");
        build.args(["build", "-o"]).arg(&client).arg(".");
        run(build.current_dir(source("go")));
        Ok(vec![client])
    };
    GO.get_or_init(prepare).clone()
}

/// Installed for the matrix already.
fn javascript() -> Program {
    Ok(vec!["node".into(), source("js").join("protocol.mjs")])
}

fn browser() -> Program {
    browser_program("client.mjs")
}

/// A script that drives the browser.
pub(crate) fn browser_program(script: &str) -> Program {
    static BROWSER: OnceLock<Program> = OnceLock::new();
    let prepare = || {
        has("node", "--version")?;
        let chromium = std::env::var_os("CHROMIUM").unwrap_or_else(|| "/usr/bin/chromium".into());
        if !Path::new(&chromium).exists() {
            return Err(format!("there is no {}", chromium.display()));
        }
        Ok(vec!["node".into(), node_project("browser")])
    };
    let mut program = BROWSER.get_or_init(prepare).clone()?;
    if let Some(folder) = program.last_mut() {
        folder.push(script);
    }
    Ok(program)
}

/// The folder of a project for Node, with what it needs.
pub(crate) fn node_project(project: &str) -> PathBuf {
    let _alone = installing();
    let folder = source(project);
    let modified = |name: &str| std::fs::metadata(folder.join(name)).and_then(|file| file.modified());
    let locked = modified("package-lock.json").expect("the lock file is there");
    let is_installed = modified("node_modules/.package-lock.json").is_ok_and(|installed| installed >= locked);
    if !is_installed {
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
        run(npm.current_dir(&folder));
    }
    folder
}

/// Checks whether a tool is there; the error says that it isn't.
pub(crate) fn has(tool: &str, version: &str) -> Result<(), String> {
    match Command::new(tool).arg(version).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(format!("there is no {tool}")),
        _ => Ok(()), // whatever else is wrong shows when it is used
    }
}

/// As [`run`], for what a machine without a network may not be able to do.
fn try_run(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "{command:?}: {}",
        errors.lines().last().unwrap_or_default()
    ))
}

fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A client's sources.
pub(crate) fn source(client: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(client)
}

/// The folder where a client is prepared.
fn target(client: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target/clients")
        .join(client)
}
