//! A real gateway process.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use tempfile::TempDir;

use crate::built;
use crate::clock::Clock;
use crate::eventually::eventually;
use crate::http::{Request, Response, fetch, try_fetch};
use crate::jwt::ACCESS_KEY;
use crate::metrics::Metrics;
use crate::process::{Process, Signal};

/// The settings that a gateway is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    port: u16,
    redis: Option<String>,
    record: Option<PathBuf>,
    program: Option<PathBuf>,
    wrapper: Vec<String>,
    clock: Option<Clock>,
    variables: BTreeMap<String, String>,
}

impl Default for Settings {
    fn default() -> Self {
        let variables = BTreeMap::from([("HUBCAST_ACCESS_KEY".to_owned(), ACCESS_KEY.to_owned())]);
        Self {
            port: 0,
            redis: None,
            record: None,
            program: None,
            wrapper: Vec::new(),
            clock: None,
            variables,
        }
    }
}

impl Settings {
    /// Sets a configuration key such as `timeouts.disconnect_seconds`.
    pub fn set(self, key: &str, value: impl Display) -> Self {
        self.variable(
            &format!("HUBCAST_{}", key.to_uppercase().replace('.', "__")),
            value,
        )
    }

    /// Sets an environment variable.
    pub fn variable(mut self, name: &str, value: impl Display) -> Self {
        self.variables.insert(name.to_owned(), value.to_string());
        self
    }

    /// Takes an environment variable away that every gateway has.
    pub fn without(mut self, name: &str) -> Self {
        self.variables.remove(name);
        self
    }

    /// Makes it a node of the cluster of this Redis.
    pub fn redis(mut self, url: &str) -> Self {
        self.redis = Some(url.to_owned());
        self
    }

    /// Runs the gateway that writes down in this file whose connections begin and end. Its hub has a part of the demo's
    /// methods.
    pub fn recording(mut self, file: &Path) -> Self {
        self.record = Some(file.to_owned());
        self
    }

    /// Runs this gateway in place of the one that was built for tests.
    pub fn program(mut self, program: &Path) -> Self {
        self.program = Some(program.to_owned());
        self
    }

    /// Has another program, with these arguments, run the gateway.
    pub fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Gives it another clock than the machine's.
    pub fn clock(mut self, clock: &Clock) -> Self {
        self.clock = Some(clock.clone());
        self
    }

    /// Listens on this port. Otherwise the kernel chooses one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Logs everything it can.
    pub fn trace(self) -> Self {
        self.set("log.level", "trace")
    }

    fn command(&self) -> Command {
        let program = match (&self.program, &self.record) {
            (Some(program), _) => program.clone(),
            (None, Some(_)) => built::recording_gateway(),
            (None, None) => built::gateway(),
        };
        let mut words = self.wrapper.iter().map(OsStr::new).chain([program.as_os_str()]);
        let mut command = built::without_settings(words.next().expect("a program"));
        command.args(words);
        match &self.record {
            Some(file) => drop(command.env("HUBCAST_RECORD", file)),
            None => drop(command.args(["serve", "--demo"])),
        }
        command.env("HUBCAST_LISTEN", format!("127.0.0.1:{}", self.port));
        if let Some(redis) = &self.redis {
            command.env("HUBCAST_REDIS", redis);
        }
        if let Some(clock) = &self.clock {
            clock.give_to(&mut command);
        }
        command.envs(&self.variables);
        command
    }
}

/// One gateway with the demo hub.
pub struct Gateway {
    settings: Settings,
    directory: TempDir,
    process: Process,
    address: SocketAddr,
}

impl Gateway {
    /// Starts one and waits until it is ready.
    pub async fn start(settings: Settings) -> Self {
        let mut gateway = Self::launch(settings).await;
        gateway.ready().await;
        gateway
    }

    /// Starts one and waits until it listens.
    pub async fn launch(settings: Settings) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let process = Process::start("gateway", &mut settings.command(), directory.path());
        let mut gateway = Self {
            settings,
            directory,
            process,
            address: SocketAddr::from(([0; 4], 0)),
        };
        gateway.address = gateway.announced(0).await;
        gateway
    }

    /// Starts it again with the same settings after it ended. Its logs go on.
    pub async fn restart(&mut self) {
        let written = self.process.output().len();
        self.process = Process::start("gateway", &mut self.settings.command(), self.directory.path());
        self.address = self.announced(written).await;
        self.ready().await;
    }

    /// The address on the first line that it writes.
    async fn announced(&mut self, from: usize) -> SocketAddr {
        let line = eventually("the gateway listens", async || {
            let ended = self.process.exited();
            let output = self.process.output();
            if let Some((line, _)) = output.get(from..).and_then(|fresh| fresh.split_once('\n')) {
                return Some(line.to_owned());
            }
            assert!(
                ended.is_none(),
                "the gateway has ended: {}{}",
                output,
                self.process.errors()
            );
            None
        })
        .await;
        let address = line
            .strip_prefix("listening on http://")
            .and_then(|address| address.parse().ok());
        address.unwrap_or_else(|| panic!("the first line is {line:?}"))
    }

    /// Waits until it says that it is ready.
    pub async fn ready(&mut self) {
        eventually("the gateway is ready", async || {
            (self.readiness().await == Some(200)).then_some(())
        })
        .await;
    }

    /// The status of `/readyz`; `None` if no node answers.
    pub async fn readiness(&self) -> Option<u16> {
        self.readyz().await.map(|response| response.status())
    }

    /// The answer of `/readyz`; `None` if no node answers.
    pub async fn readyz(&self) -> Option<Response> {
        try_fetch(self.address, &Request::get("/readyz")).await.ok()
    }

    /// The address where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of its demo hub.
    pub fn hub_url(&self) -> String {
        format!("http://{}/hubs/demo", self.address)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Bytes of memory that it has.
    pub fn resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<usize>().ok());
        kilobytes.expect("Linux tells") * 1024
    }

    /// Sends one request on a connection of its own.
    pub async fn fetch(&self, request: &Request) -> Response {
        fetch(self.address, request).await
    }

    /// Its metrics.
    pub async fn metrics(&self) -> Metrics {
        Metrics::parse(self.fetch(&Request::get("/metrics")).await.text())
    }

    /// Everything it wrote.
    pub fn log(&self) -> String {
        self.process.output() + &self.process.errors()
    }

    /// Kills it, as a power cut would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Sends SIGTERM, so that it leaves.
    pub fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Waits until it has left by itself.
    pub async fn exit(&mut self) -> ExitStatus {
        self.process.exit().await
    }

    /// Returns whether it is running.
    pub fn is_running(&mut self) -> bool {
        self.process.exited().is_none()
    }

    /// Stops it from running, with its sockets open.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// Lets it run again.
    pub fn resume(&self) {
        self.process.resume();
    }
}
