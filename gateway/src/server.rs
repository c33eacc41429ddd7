//! The HTTP server of a gateway: listeners that keep the limits of the options, from the first moment of a process.
//!
//! A gateway's [`router`](crate::Gateway::router) works in any axum server. This server also bounds what a peer costs
//! before its first request, and how slowly it may fetch its answers; it tells clients and load balancers to come back
//! while the gateway is still starting, and ends connections in order when the node drains.
//!
//! ```
//! use std::time::Duration;
//! use hubcast::server::Listener;
//! use hubcast::{Gateway, Hub, Options};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let options = Options::default();
//! let listener = Listener::bind("127.0.0.1:0").await?.for_clients(&options);
//! let gateway = Gateway::builder().hub(Hub::new("chat")).options(options).build().await?;
//! let serving = listener.serve(&gateway, axum::Router::new(), Duration::from_secs(30));
//!
//! // Before the process ends:
//! serving.stop();
//! gateway.shutdown(Duration::from_secs(30)).await;
//! serving.ended(Duration::from_secs(2)).await;
//! # Ok(())
//! # }
//! ```

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::gateway::Gateway;
use crate::http::{self, Rules};
use crate::limits::Doors;
use crate::options::Options;

pub use crate::http::Starting;

/// A bound socket, for clients or for operators. Several servers, one after another, may accept on it.
#[derive(Clone, Debug)]
pub struct Listener {
    socket: Arc<TcpListener>,
    address: SocketAddr,
    /// Counts the TCP connections of clients; `None` for operators.
    doors: Option<Arc<Doors>>,
}

/// The running server of one listener. Ends at once when dropped.
#[derive(Debug)]
pub struct Serving {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Listener {
    /// Binds a socket, such as `127.0.0.1:8080`, or port 0 for a free one. It is for operators and not bounded, unless
    /// [`for_clients`](Self::for_clients) is called.
    ///
    /// # Errors
    /// The socket can't be bound, for example because another process has it.
    pub async fn bind(address: &str) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        Ok(Self {
            address: socket.local_addr()?,
            socket: Arc::new(socket),
            doors: None,
        })
    }

    /// Bounds the TCP connections, by [`Limits::tcp_connections`](crate::options::Limits::tcp_connections) and
    /// [`Limits::tcp_connections_per_address`](crate::options::Limits::tcp_connections_per_address).
    #[must_use]
    pub fn for_clients(mut self, options: &Options) -> Self {
        self.doors = Some(Doors::new(options));
        self
    }

    /// The bound address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers every request that the node is starting: 200 for `/healthz`, 503 with the reason for `/readyz`, and that
    /// clients may come back for everything else. Requests that came before [`Serving::stop`] are answered within
    /// `deadline`.
    #[must_use]
    pub fn serve_starting(&self, starting: &Arc<Starting>, options: &Options, deadline: Duration) -> Serving {
        let router = match self.doors {
            Some(_) => http::starting_router(starting, options),
            None => http::starting_admin_router(starting),
        };
        let rules = Rules::starting(options, self.doors.clone(), starting.metrics());
        self.run(router, rules, deadline)
    }

    /// Serves a gateway's hubs and REST, and more pages, or for operators its probes and metrics. Requests that came
    /// before [`Serving::stop`] are answered within `deadline`.
    #[must_use]
    pub fn serve(&self, gateway: &Gateway, pages: Router, deadline: Duration) -> Serving {
        let router = match self.doors {
            Some(_) => gateway.router_with(pages),
            None => gateway.admin_router().merge(pages),
        };
        self.run(router, gateway.rules(self.doors.clone()), deadline)
    }

    fn run(&self, router: Router, rules: Rules, deadline: Duration) -> Serving {
        let stop = CancellationToken::new();
        let serving = http::serve(Arc::clone(&self.socket), router, rules, stop.clone(), deadline);
        Serving {
            stop,
            task: tokio::spawn(serving),
        }
    }
}

impl Serving {
    /// Accepts no more connections; requests are answered to their end.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until all requests are answered, for at most `patience`; then it ends the server.
    pub async fn ended(mut self, patience: Duration) {
        let _ = timeout(patience, &mut self.task).await;
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}
