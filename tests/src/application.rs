//! Real processes of the gateway's examples: applications that mount the gateway.

use std::net::SocketAddr;
use std::process::{Command, ExitStatus};

use tempfile::TempDir;

use crate::built;
use crate::entry_point::{EntryPoint, Secrets};
use crate::eventually::eventually;
use crate::http::{Request, fetch};
use crate::process::{Process, Signal};

/// One application.
pub struct Application {
    address: SocketAddr,
    process: Process,
    _directory: TempDir,
}

impl Application {
    /// Starts `functional_tests`, which has several hubs, and waits until it listens.
    pub async fn start() -> Self {
        Self::of("functional_tests").await
    }

    /// Starts an example on a free port and waits until it listens.
    pub async fn of(example: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new(built::example(example));
        command.arg("127.0.0.1:0");
        let mut process = Process::start("application", &mut command, directory.path());
        let address = eventually("the application listens", async || {
            let (ended, output) = (process.exited(), process.output());
            if let Some((line, _)) = output.split_once('\n') {
                let address = line.strip_prefix("listening on http://");
                return Some(address.and_then(|address| address.parse().ok()).expect(line));
            }
            assert!(ended.is_none(), "the application has ended: {}", process.errors());
            None
        })
        .await;
        Self {
            address,
            process,
            _directory: directory,
        }
    }

    /// The address where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a hub.
    pub fn url(&self, hub: &str) -> String {
        format!("http://{}/hubs/{hub}", self.address)
    }

    /// A hub, for raw requests.
    pub fn entry(&self, hub: &str) -> EntryPoint {
        EntryPoint::new(&[self.address], &Secrets::default()).at(&format!("/hubs/{hub}"))
    }

    /// An access token from `functional_tests`.
    pub async fn token(&self, user: &str, role: &str) -> String {
        let target = format!("/generateJwtToken?user={user}&role={role}");
        let response = fetch(self.address, &Request::get(&target)).await;
        assert_eq!(response.status(), 200, "{}", response.text());
        response.text().to_owned()
    }

    /// Everything it wrote.
    pub fn log(&self) -> String {
        self.process.output() + &self.process.errors()
    }

    /// Sends SIGTERM, so that it leaves.
    pub fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Waits until it has left by itself.
    pub async fn exit(&mut self) -> ExitStatus {
        self.process.exit().await
    }
}
