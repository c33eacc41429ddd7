//! Reliable Web PubSub clients, as the official ones recover.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::client::{Client, Handle, RETRY};
use super::kinds::ClientKind;
use super::link::Link;
use crate::webpubsub::{OVER, RELIABLE};

const TARGET: &str = "/client/hubs/demo";
/// The pace of acknowledgements and pings.
const PACE: Duration = Duration::from_secs(1);
/// How long the official clients try to recover.
const RECOVERY: Duration = Duration::from_secs(30);

/// Starts a client: the way to it, and what must run for it.
pub(crate) fn start(client: Client) -> (Handle, impl Future<Output = ()> + Send) {
    let (handle, _calls_nothing, cut) = Handle::new();
    (handle, Actor { client, cut }.run())
}

struct Actor {
    client: Client,
    cut: Arc<Notify>,
}

/// A connection, whatever socket it has.
struct Session {
    link: Link,
    id: String,
    token: String,
    /// The largest sequence id that came.
    newest: u64,
    acknowledged: u64,
    heard: Instant,
    next_tick: Instant,
    /// Joins without an answer, by their ackId.
    joining: Vec<(u64, String)>,
    ack_id: u64,
}

/// The reason why a socket is no longer served.
enum End {
    Broken,
    Over(String),
}

impl Actor {
    async fn run(self) {
        loop {
            let mut session = self.start().await;
            self.client.role.begins(Some(&session.id));
            let why = self.live(&mut session).await;
            self.client.role.ends();
            self.client
                .ledger
                .reset(ClientKind::WebPubSub, &self.client.name, &why);
        }
    }

    async fn start(&self) -> Session {
        loop {
            let opening = self.connect(TARGET);
            let opened = timeout(self.client.server_timeout, opening).await;
            if let Ok(Err((_, why))) = &opened {
                self.client.role.refused(why);
            }
            if let Ok(Ok((link, connected))) = opened {
                self.client.role.connects();
                let text = |name: &str| connected[name].as_str().unwrap_or_default().to_owned();
                let mut session = Session {
                    link,
                    id: text("connectionId"),
                    token: text("reconnectionToken"),
                    newest: 0,
                    acknowledged: 0,
                    heard: Instant::now(),
                    next_tick: Instant::now(),
                    joining: Vec::new(),
                    ack_id: 0,
                };
                for group in self.client.role.groups() {
                    session.ack_id += 1;
                    session.joining.push((session.ack_id, group));
                }
                return session;
            }
            sleep(RETRY).await;
        }
    }

    /// Opens a socket and reads the first message. The error is whether the connection is over, and why.
    async fn connect(&self, target: &str) -> Result<(Link, Value), (bool, String)> {
        let opened = Link::open_at(self.client.address, target, Some(RELIABLE)).await;
        let mut link = opened.map_err(|why| (why.starts_with("status 4"), why))?;
        let first = link.next().await;
        let Some(first) = first else {
            let is_over = link.code == Some(OVER);
            return Err((is_over, format!("closed with {:?}", link.code)));
        };
        let first: Value = serde_json::from_str(&first).unwrap_or_default();
        match first["event"].as_str() {
            Some("connected") => Ok((link, first)),
            _ => Err((true, format!("the first message is {first}"))),
        }
    }

    async fn live(&self, session: &mut Session) -> String {
        loop {
            match self.serve(session).await {
                End::Over(why) => return why,
                End::Broken => {
                    if let Err(why) = self.recover(session).await {
                        return format!("recovery: {why}");
                    }
                }
            }
        }
    }

    async fn recover(&self, session: &mut Session) -> Result<(), String> {
        let (id, token) = (&session.id, &session.token);
        let target = format!("{TARGET}?awps_connection_id={id}&awps_reconnection_token={token}");
        let deadline = Instant::now() + RECOVERY;
        loop {
            let refused = match timeout(self.client.server_timeout, self.connect(&target)).await {
                Ok(Ok((link, _))) => {
                    session.link = link;
                    session.heard = Instant::now();
                    session.next_tick = Instant::now();
                    self.client.role.connects();
                    return Ok(());
                }
                Ok(Err((true, why))) => {
                    self.client.role.refused(&why);
                    return Err(why);
                }
                Ok(Err((false, why))) => why,
                Err(_) => "no answer".to_owned(),
            };
            self.client.role.refused(&refused);
            if Instant::now() > deadline {
                return Err(format!("given up after {refused}"));
            }
            sleep(RETRY).await;
        }
    }

    async fn serve(&self, session: &mut Session) -> End {
        loop {
            let cut = Arc::clone(&self.cut);
            let tick = session.next_tick;
            let step = tokio::select! {
                text = session.link.next() => match text {
                    Some(text) => self.heard(session, &text),
                    None if session.link.code == Some(OVER) => Err(End::Over("closed with 1008".to_owned())),
                    None => Err(End::Broken),
                },
                () = cut.notified() => {
                    session.link.abort();
                    Err(End::Broken)
                }
                () = sleep_until(tick) => self.tick(session).await,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Repeats requests without an answer, acknowledges, and looks whether the server is there.
    async fn tick(&self, session: &mut Session) -> Result<(), End> {
        session.next_tick = Instant::now() + PACE;
        if session.heard.elapsed() > self.client.server_timeout {
            session.link.abort();
            return Err(End::Broken);
        }
        let mut requests = vec![json!({ "type": "ping" })];
        if session.acknowledged < session.newest {
            session.acknowledged = session.newest;
            requests.push(json!({ "type": "sequenceAck", "sequenceId": session.newest }));
        }
        let joins = session.joining.iter();
        requests.extend(joins.map(|(id, group)| json!({ "type": "joinGroup", "group": group, "ackId": id })));
        for request in requests {
            let sending = session.link.send(request.to_string());
            match timeout(self.client.server_timeout, sending).await {
                Ok(Ok(())) => {}
                Ok(Err(())) | Err(_) => return Err(End::Broken),
            }
        }
        Ok(())
    }

    fn heard(&self, session: &mut Session, text: &str) -> Result<(), End> {
        session.heard = Instant::now();
        let Ok(message) = serde_json::from_str::<Value>(text) else {
            return Err(End::Over("not JSON".to_owned()));
        };
        match message["type"].as_str() {
            Some("ack") => self.acknowledged(session, &message),
            Some("message") => {
                let number = message["sequenceId"].as_u64().unwrap_or(0);
                if number > session.newest {
                    session.newest = number;
                    let call = &message["data"];
                    self.client
                        .called(call["target"].as_str().unwrap_or_default(), &call["arguments"]);
                }
            }
            Some("system") if message["event"] == "disconnected" => {
                return Err(End::Over(format!("disconnected: {}", message["message"])));
            }
            _ => {}
        }
        Ok(())
    }

    fn acknowledged(&self, session: &mut Session, ack: &Value) {
        let is_done = ack["success"] == true || ack["error"]["name"] == "Duplicate";
        let Some(at) = session.joining.iter().position(|(id, _)| ack["ackId"] == *id) else {
            return; // requested twice, answered twice
        };
        if is_done {
            session.joining.remove(at);
            if session.joining.is_empty() {
                self.client.role.joined();
            }
        } else {
            session.ack_id += 1;
            session.joining[at].0 = session.ack_id;
        }
    }
}
