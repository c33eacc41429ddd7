//! A process in the middle between nodes and a Redis server. It delays, cuts, swallows answers, truncates pushes and holds
//! everything back, by rules and a seed. Without a rule it changes nothing.
//!
//! The proxy runs on a thread of its own, so that a busy test does not slow it down.

mod link;
mod resp;
mod rules;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::ports::free_port;

pub use resp::Command;
pub use rules::{Action, On, Rule};

use rules::Book;

/// A running proxy. Its links are cut when it is dropped.
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    route: Mutex<Route>,
    book: Mutex<Book>,
    held: watch::Sender<bool>,
    closing: CancellationToken,
}

/// The server that links lead to, and the end of all links to it.
struct Route {
    server: SocketAddr,
    cut: CancellationToken,
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("nobody panics while holding it")
    }

    fn route(&self) -> MutexGuard<'_, Route> {
        self.route.lock().expect("nobody panics while holding it")
    }
}

impl FaultProxy {
    /// Starts one in front of a server, which need not be there yet.
    pub fn start(server: SocketAddr, seed: u64) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let listener = TcpListener::bind(address).expect("the port is free");
        listener.set_nonblocking(true).expect("a listener has options");
        let closing = CancellationToken::new();
        let cut = closing.child_token();
        let shared = Arc::new(Shared {
            route: Mutex::new(Route { server, cut }),
            book: Mutex::new(Book::new(seed)),
            held: watch::Sender::new(false),
            closing,
        });
        let serving = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime can be built");
            runtime.block_on(link::accept(listener, serving));
        });
        Self {
            address,
            shared,
            thread: Some(thread),
        }
    }

    /// The address for nodes.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address for nodes, as a URL.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Adds a rule after those that are there. It concerns links that are open as well.
    pub fn rule(&self, rule: Rule) {
        self.shared.book().add(rule);
    }

    /// Takes all rules away. Links that a rule has damaged already end as it said.
    pub fn clear(&self) {
        self.shared.book().clear();
    }

    /// How often each kind of damage was done.
    pub fn fired(&self) -> BTreeMap<&'static str, u64> {
        self.shared.book().fired()
    }

    /// Lets nothing pass, on any link, until [`release`](Self::release). New links are accepted.
    pub fn hold(&self) {
        self.shared.held.send_replace(true);
    }

    /// Lets everything pass again that was held back.
    pub fn release(&self) {
        self.shared.held.send_replace(false);
    }

    /// Cuts every link. New ones are accepted.
    pub fn cut(&self) {
        let server = self.shared.route().server;
        self.lead_to(server);
    }

    /// Cuts every link, and leads new ones to another server: a failover behind one address.
    pub fn lead_to(&self, server: SocketAddr) {
        let mut route = self.shared.route();
        let cut = self.shared.closing.child_token();
        std::mem::replace(&mut *route, Route { server, cut }).cut.cancel();
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.closing.cancel();
        if let Some(thread) = self.thread.take() {
            let _it_panicked = thread.join();
        }
    }
}
