//! A client like a browser's `EventSource`: it reads events and remembers the last id.

use std::net::SocketAddr;

use serde_json::Value;

use crate::entry_point::EntryPoint;
use crate::eventually::within;
use crate::http::{Body, Connection, Head, Lines, Request, fetch};

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its id, or the last one before it.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its data.
    pub data: Value,
}

/// An open stream of events.
pub struct EventSource {
    lines: Lines,
    /// The last id.
    pub last_id: String,
    /// The wait before it would come back, in milliseconds.
    pub retry: Option<u64>,
}

/// A request for the demo hub's events.
pub fn events(query: &str, last_id: &str) -> Request {
    let request = Request::get(&format!("/sse/demo?{query}")).header("Accept", "text/event-stream");
    if last_id.is_empty() {
        request
    } else {
        request.header("Last-Event-ID", last_id)
    }
}

impl EventSource {
    /// Opens the demo hub's events on a node.
    pub async fn open(address: SocketAddr, query: &str) -> Self {
        Self::resume(address, query, "").await
    }

    /// The same after an id, and waits until the stream has begun.
    pub async fn resume(address: SocketAddr, query: &str, last_id: &str) -> Self {
        let (head, source) = Self::start(address, &events(query, last_id)).await;
        assert_eq!(head.status, 200);
        source
    }

    /// Sends a request and reads the head of its answer.
    pub async fn start(address: SocketAddr, request: &Request) -> (Head, Self) {
        let mut connection = Connection::open(address)
            .await
            .expect("the server accepts connections");
        let head = within("the stream opens", connection.start(request)).await;
        (
            head.expect("the server answers"),
            Self::new(Body::Http1(connection), request),
        )
    }

    /// The same through an entry point, with whatever its requests share.
    pub async fn through(entry: &EntryPoint, request: &Request) -> (Head, Self) {
        let (head, body) = entry.start(request).await;
        (head, Self::new(body, request))
    }

    fn new(body: Body, request: &Request) -> Self {
        let sent = request.headers.iter().find(|(name, _)| name == "Last-Event-ID");
        Self {
            lines: Lines::of(body),
            last_id: sent.map(|(_, id)| id.clone()).unwrap_or_default(),
            retry: None,
        }
    }

    /// The refusal of a request: status and text.
    pub async fn refusal(address: SocketAddr, request: &Request) -> (u16, String) {
        let response = fetch(address, request).await;
        (response.status(), response.text().to_owned())
    }

    /// Waits until it has a place in the log: from then on nothing is missed.
    pub async fn begun(mut self) -> Self {
        let before = self.last_id.clone();
        while self.last_id == before {
            let line = self.line().await.expect("the stream goes on");
            if let Some(id) = line.strip_prefix("id: ") {
                self.last_id = id.to_owned();
            } else if let Some(retry) = line.strip_prefix("retry: ") {
                self.retry = retry.parse().ok();
            }
        }
        assert_eq!(self.line().await.as_deref(), Some(""), "the id has no event");
        self
    }

    /// The next event; `None` at the end.
    pub async fn next(&mut self) -> Option<Event> {
        let (mut name, mut data) = (String::new(), Vec::new());
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                if !data.is_empty() {
                    let data = data.join("\n");
                    return Some(Event {
                        id: self.last_id.clone(),
                        name,
                        data: serde_json::from_str(&data).expect("data is JSON"),
                    });
                }
                name.clear(); // an event without data is none
                continue;
            }
            match line.split_once(": ") {
                Some(("id", id)) => self.last_id = id.to_owned(),
                Some(("event", text)) => name = text.to_owned(),
                Some(("data", text)) => data.push(text.to_owned()),
                Some(("retry", text)) => self.retry = text.parse().ok(),
                _ if line.starts_with(':') => {} // keeps the stream alive
                _ => panic!("not a line of an event stream: {line:?}"),
            }
        }
    }

    /// The next event, which must come.
    pub async fn event(&mut self) -> Event {
        self.next().await.expect("the stream goes on")
    }

    /// Waits for so many comments, and nothing else.
    pub async fn comments(&mut self, count: usize) {
        let mut seen = 0;
        while seen < count {
            let line = self.line().await.expect("the stream goes on");
            assert!(line.is_empty() || line.starts_with(':'), "no comment: {line:?}");
            seen += usize::from(!line.is_empty());
        }
    }

    /// The last argument of each of the next messages.
    pub async fn texts(&mut self, count: usize) -> Vec<Value> {
        let mut texts = Vec::new();
        for _ in 0..count {
            let event = self.event().await;
            let last = event
                .data
                .as_array()
                .and_then(|arguments| arguments.last().cloned());
            texts.push(last.unwrap_or_else(|| panic!("no message: {event:?}")));
        }
        texts
    }

    async fn line(&mut self) -> Option<String> {
        let line = self.lines.next().await?;
        let text = String::from_utf8_lossy(&line).into_owned();
        Some(text.trim_end_matches(['\r', '\n']).to_owned())
    }
}
