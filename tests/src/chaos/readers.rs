//! Clients that only read, and hold their own place: `EventSource` and WebSockets without a subprotocol.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::client::{Client, Handle, RETRY};
use super::kinds::ClientKind;
use super::link::Link;
use crate::event_source::events;
use crate::http::{Body, Connection, Lines};

/// Starts a reader of this kind: the way to it, and what must run for it.
pub(crate) fn start(client: Client, kind: ClientKind) -> (Handle, impl Future<Output = ()> + Send) {
    let (handle, _calls_nothing, cut) = Handle::new();
    let reader = Reader {
        client,
        kind,
        cut,
        place: String::new(),
        is_open: false,
        has_joined: false,
    };
    (handle, reader.run())
}

struct Reader {
    client: Client,
    kind: ClientKind,
    cut: Arc<Notify>,
    /// The id of the last event.
    place: String,
    is_open: bool,
    has_joined: bool,
}

/// Something that comes.
enum Event {
    /// The connection has this id.
    Connected(String),
    /// A place in the log, without a message.
    Place(String),
    Message {
        place: String,
        target: String,
        arguments: Value,
    },
    Reset {
        place: String,
        reason: String,
    },
}

enum Source {
    Events(Box<Lines>),
    Socket(Box<Link>),
}

impl Reader {
    async fn run(mut self) {
        loop {
            match self.open().await {
                Ok(mut source) => {
                    self.client.role.connects();
                    self.read(&mut source).await;
                }
                Err(Some(refused)) => {
                    self.client.role.refused(&refused);
                    self.starts_anew(&refused);
                }
                Err(None) => self.client.role.refused("there is no node"),
            }
            sleep(RETRY).await;
        }
    }

    fn query(&self) -> String {
        let groups = self.client.role.groups();
        let groups: Vec<_> = groups.iter().map(|group| format!("group={group}")).collect();
        groups.join("&")
    }

    /// The error is a refusal that trying again can't mend, or none.
    async fn open(&mut self) -> Result<Source, Option<String>> {
        let query = self.query();
        if self.kind == ClientKind::EventSource {
            let request = events(&query, &self.place);
            let starting = async {
                let mut connection = Connection::open(self.client.address).await?;
                let head = connection.start(&request).await?;
                Ok::<_, std::io::Error>((head, connection))
            };
            return match starting.await {
                Ok((head, connection)) if head.status == 200 => {
                    Ok(Source::Events(Box::new(Lines::of(Body::Http1(connection)))))
                }
                Ok((head, _)) if head.status < 500 => Err(Some(format!("status {}", head.status))),
                Ok(_) | Err(_) => Err(None), // there is no node at the moment
            };
        }
        let place = match self.place.is_empty() {
            true => String::new(),
            false => format!("&lastEventId={}", self.place),
        };
        let target = format!("/client/hubs/demo?{query}{place}");
        match Link::open_at(self.client.address, &target, None).await {
            Ok(link) => Ok(Source::Socket(Box::new(link))),
            Err(why) if why.starts_with("status 4") => Err(Some(why)),
            Err(_) => Err(None),
        }
    }

    async fn read(&mut self, source: &mut Source) {
        loop {
            let cut = Arc::clone(&self.cut);
            let event = tokio::select! {
                event = source.next(&self.place) => event,
                () = cut.notified() => return source.abort(),
            };
            match event {
                Some(event) => self.event(event),
                None => return,
            }
        }
    }

    fn begins(&mut self, id: Option<&str>) {
        self.client.role.begins(id);
        self.is_open = true;
        self.has_joined = false;
    }

    fn starts_anew(&mut self, why: &str) {
        if self.is_open {
            self.client.role.ends();
        }
        self.client.ledger.reset(self.kind, &self.client.name, why);
        self.is_open = false;
        self.place.clear();
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Connected(id) => {
                if !self.is_open {
                    self.begins(Some(&id));
                }
                self.client.role.is(&id);
            }
            Event::Place(place) => self.is_at(place),
            Event::Reset { place, reason } => {
                self.starts_anew(&format!("reset: {reason}"));
                self.begins(None);
                self.is_at(place);
            }
            Event::Message {
                place,
                target,
                arguments,
            } => {
                self.is_at(place);
                self.client.called(&target, &arguments);
            }
        }
    }

    /// From a place on, no message is missed.
    fn is_at(&mut self, place: String) {
        if !self.is_open {
            self.begins(None);
        }
        if !std::mem::replace(&mut self.has_joined, true) {
            self.client.role.joined();
        }
        if !place.is_empty() {
            self.place = place;
        }
    }
}

impl Source {
    async fn next(&mut self, place: &str) -> Option<Event> {
        match self {
            Self::Events(lines) => next_event(lines, place).await,
            Self::Socket(link) => loop {
                let message: Value = serde_json::from_str(&link.next().await?).ok()?;
                let text = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
                match message["type"].as_str()? {
                    "connected" => return Some(Event::Connected(text("connectionId"))),
                    "place" => return Some(Event::Place(text("id"))),
                    "reset" => {
                        return Some(Event::Reset {
                            place: text("id"),
                            reason: text("reason"),
                        });
                    }
                    "message" => {
                        return Some(Event::Message {
                            place: text("id"),
                            target: text("target"),
                            arguments: message["arguments"].clone(),
                        });
                    }
                    "close" => return None,
                    _ => {}
                }
            },
        }
    }

    fn abort(&mut self) {
        if let Self::Socket(link) = self {
            link.abort();
        }
    }
}

/// Reads an event, or an id without one.
async fn next_event(lines: &mut Lines, before: &str) -> Option<Event> {
    let (mut place, mut target, mut data) = (before.to_owned(), String::new(), String::new());
    loop {
        let line = lines.next_whenever().await?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let line = line.trim_end_matches(['\r', '\n']);
        if !line.is_empty() {
            match line.split_once(": ") {
                Some(("id", id)) => id.clone_into(&mut place),
                Some(("event", name)) => name.clone_into(&mut target),
                Some(("data", text)) => data.push_str(text),
                _ => {} // a comment, or the time to wait
            }
            continue;
        }
        if data.is_empty() {
            if place != before {
                return Some(Event::Place(place));
            }
            continue;
        }
        let arguments: Value = serde_json::from_str(&data).ok()?;
        return match (target.as_str(), arguments.is_array()) {
            // Data of messages is always an array.
            ("reset", false) => Some(Event::Reset {
                place,
                reason: arguments["reason"].as_str().unwrap_or_default().to_owned(),
            }),
            ("close", false) => None,
            _ => Some(Event::Message {
                place,
                target,
                arguments,
            }),
        };
    }
}
