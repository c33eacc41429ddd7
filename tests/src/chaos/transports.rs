//! The transports of SignalR clients, as the official client uses them. Everything may fail here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::kinds::ClientKind;
use super::link::{Link, Negotiated};
use crate::entry_point::HUB;
use crate::http::{Body, Connection, Lines, Request};

/// An open connection.
pub(crate) enum Channel {
    WebSocket(Box<Link>),
    /// Messages come by polls or by an event stream; the client's own are posted.
    Http {
        posts: Posts,
        incoming: mpsc::Receiver<Result<String, String>>,
        _receiving: AbortOnDropHandle<()>,
    },
}

/// How messages are posted.
#[derive(Clone)]
pub(crate) struct Posts {
    address: SocketAddr,
    target: Arc<str>,
}

/// A message could not be sent.
pub(crate) enum Unsent {
    /// The connection is gone.
    Gone,
    /// This message was refused, or not answered: the connection may live.
    Refused(String),
}

impl Channel {
    /// Opens one; the error says how that was refused.
    pub(crate) async fn open(
        address: SocketAddr,
        kind: ClientKind,
        negotiated: &Negotiated,
    ) -> Result<Self, String> {
        if kind == ClientKind::WebSocket {
            let link = Link::open(address, &negotiated.token).await?;
            return Ok(Self::WebSocket(Box::new(link)));
        }
        let posts = Posts {
            address,
            target: format!("{HUB}?id={}", negotiated.token).into(),
        };
        let (sender, incoming) = mpsc::channel(64);
        let receiving = if kind == ClientKind::LongPolling {
            let first = poll(&posts).await?;
            if !first.is_empty() {
                return Err(format!("the first poll was answered with {first:?}"));
            }
            tokio::spawn(receive_polls(posts.clone(), sender))
        } else {
            let lines = posts.stream().await?;
            tokio::spawn(receive_events(lines, sender))
        };
        Ok(Self::Http {
            posts,
            incoming,
            _receiving: AbortOnDropHandle::new(receiving),
        })
    }

    /// Sends text.
    pub(crate) async fn send(&mut self, text: String) -> Result<(), Unsent> {
        match self {
            Self::WebSocket(link) => link.send(text).await.map_err(|()| Unsent::Gone),
            Self::Http { posts, .. } => posts.post(text).await.map_err(Unsent::Refused),
        }
    }

    /// The next text; the error says how the connection ended.
    pub(crate) async fn next(&mut self) -> Result<String, String> {
        match self {
            Self::WebSocket(link) => link.next().await.ok_or_else(|| "the socket ended".to_owned()),
            Self::Http { incoming, .. } => incoming
                .recv()
                .await
                .unwrap_or_else(|| Err("the transport ended".to_owned())),
        }
    }

    /// Breaks it, as a network does that goes away.
    pub(crate) fn abort(&mut self) {
        if let Self::WebSocket(link) = self {
            link.abort();
        }
    }
}

impl Posts {
    async fn post(&self, text: String) -> Result<(), String> {
        let request = Request::post(&self.target, text).header("Content-Type", "text/plain;charset=UTF-8");
        let exchange = async { Connection::open(self.address).await?.fetch(&request).await };
        match exchange.await {
            Ok(response) if response.status() == 200 => Ok(()),
            Ok(response) => Err(format!("a POST was answered with {}", response.status())),
            Err(error) => Err(format!("a POST: {}", error.kind())),
        }
    }

    async fn stream(&self) -> Result<Lines, String> {
        let request = Request::get(&self.target).header("Accept", "text/event-stream");
        let starting = async {
            let mut connection = Connection::open(self.address).await?;
            let head = connection.start(&request).await?;
            Ok::<_, std::io::Error>((head, connection))
        };
        match starting.await {
            Ok((head, connection)) if head.status == 200 => Ok(Lines::of(Body::Http1(connection))),
            Ok((head, _)) => Err(format!("the event stream: status {}", head.status)),
            Err(error) => Err(format!("the event stream: {}", error.kind())),
        }
    }
}

async fn receive_events(mut lines: Lines, to: mpsc::Sender<Result<String, String>>) {
    let mut data = String::new();
    while let Some(line) = lines.next_whenever().await {
        let line = String::from_utf8_lossy(&line).into_owned();
        let line = line.trim_end_matches(['\r', '\n']);
        if let Some(piece) = line.strip_prefix("data: ") {
            data.push_str(piece);
        } else if line.is_empty() && !data.is_empty() && to.send(Ok(std::mem::take(&mut data))).await.is_err()
        {
            return;
        }
    }
    let _nobody_listens = to.send(Err("the event stream ended".to_owned())).await;
}

/// The body of one poll.
async fn poll(posts: &Posts) -> Result<String, String> {
    let request = Request::get(&posts.target);
    let exchange = async { Connection::open(posts.address).await?.fetch(&request).await };
    match exchange.await {
        Ok(response) if response.status() == 200 => Ok(response.text().to_owned()),
        Ok(response) => {
            let text = response.text().lines().next().unwrap_or_default();
            Err(format!("a poll was answered with {} {text}", response.status()))
        }
        Err(error) => Err(format!("a poll: {}", error.kind())),
    }
}

async fn receive_polls(posts: Posts, to: mpsc::Sender<Result<String, String>>) {
    loop {
        let outcome = poll(&posts).await;
        let is_over = outcome.is_err();
        if outcome.as_ref().is_ok_and(String::is_empty) {
            sleep(Duration::from_millis(1)).await; // a node that answers at once is not called without end
            continue;
        }
        if to.send(outcome).await.is_err() || is_over {
            return;
        }
    }
}
