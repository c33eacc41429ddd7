//! SignalR clients without stateful reconnect: when their connection ends, they start anew, as automatic reconnect does.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::client::{Answer, Call, Client, Handle, PING, PING_AFTER, RETRY};
use super::kinds::ClientKind;
use super::ledger::CUT;
use super::link::{Negotiated, negotiate};
use super::transports::{Channel, Unsent};

const HANDSHAKE: &str = "{\"protocol\":\"json\",\"version\":1}\u{1e}";

/// Starts a client of this kind: the way to it, and what must run for it.
pub(crate) fn start(client: Client, kind: ClientKind) -> (Handle, impl Future<Output = ()> + Send) {
    let (handle, calls, cut) = Handle::new();
    let actor = Actor {
        client,
        kind,
        calls,
        cut,
        pending: HashMap::new(),
        next_id: 0,
    };
    (handle, actor.run())
}

enum Pending {
    Join(String),
    Call(oneshot::Sender<Answer>),
}

struct Actor {
    client: Client,
    kind: ClientKind,
    calls: mpsc::Receiver<Call>,
    cut: Arc<Notify>,
    pending: HashMap<String, Pending>,
    next_id: u64,
}

/// One connection.
struct Session {
    channel: Channel,
    heard: Instant,
    spoke: Instant,
    unjoined: usize,
    rejoin: Vec<String>,
    rejoin_at: Instant,
}

impl Actor {
    async fn run(mut self) {
        loop {
            let (id, mut session) = self.start().await;
            self.client.role.begins(Some(&id));
            let why = self.live(&mut session).await;
            self.client.role.ends();
            self.client.ledger.reset(self.kind, &self.client.name, &why);
            for (_, pending) in self.pending.drain() {
                if let Pending::Call(answer) = pending {
                    let _nobody_waits = answer.send(Answer::Reset);
                }
            }
        }
    }

    async fn start(&self) -> (String, Session) {
        loop {
            match timeout(self.client.server_timeout, self.try_start()).await {
                Ok(Ok(started)) => {
                    self.client.role.connects();
                    return started;
                }
                Ok(Err(why)) => self.client.role.refused(&why),
                Err(_) => self.client.role.refused("no answer in time"),
            }
            sleep(RETRY).await;
        }
    }

    async fn try_start(&self) -> Result<(String, Session), String> {
        let negotiated = negotiate(self.client.address, false).await?;
        let mut channel = Channel::open(self.client.address, self.kind, &negotiated).await?;
        let sent = channel.send(HANDSHAKE.to_owned()).await;
        sent.map_err(|_| "the handshake can't be sent".to_owned())?;
        let answer = channel.next().await?;
        if answer != "{}\u{1e}" {
            return Err(format!("the handshake was answered with {answer}"));
        }
        let Negotiated { id, .. } = negotiated;
        let now = Instant::now();
        let session = Session {
            channel,
            heard: now,
            spoke: now,
            unjoined: 0,
            rejoin: self.client.role.groups(),
            rejoin_at: now,
        };
        Ok((id, session))
    }

    /// Serves a connection until it ends; returns why.
    async fn live(&mut self, session: &mut Session) -> String {
        loop {
            let is_ready = session.unjoined == 0 && session.rejoin.is_empty() && self.pending.is_empty();
            let timer = self.next_timer(session);
            let cut = Arc::clone(&self.cut);
            let step = tokio::select! {
                text = session.channel.next() => match text {
                    Ok(text) => self.heard(session, &text),
                    Err(why) => Err(why),
                },
                Some(call) = self.calls.recv(), if is_ready => {
                    self.invoke(session, call.target, &call.arguments, Pending::Call(call.answer)).await
                }
                () = cut.notified() => {
                    session.channel.abort();
                    Err(CUT.to_owned())
                }
                () = sleep_until(timer) => self.timers(session).await,
            };
            if let Err(why) = step {
                return why;
            }
        }
    }

    fn next_timer(&self, session: &Session) -> Instant {
        let mut timer = session.heard + self.client.server_timeout;
        if self.kind == ClientKind::LongPolling {
            timer += 10 * self.client.server_timeout; // polls keep the connection alive
        } else {
            timer = timer.min(session.spoke + PING_AFTER);
        }
        match session.rejoin.is_empty() {
            true => timer,
            false => timer.min(session.rejoin_at),
        }
    }

    async fn timers(&mut self, session: &mut Session) -> Result<(), String> {
        let now = Instant::now();
        if self.kind != ClientKind::LongPolling {
            if now >= session.heard + self.client.server_timeout {
                session.channel.abort();
                return Err("the server is silent".to_owned());
            }
            if now >= session.spoke + PING_AFTER {
                session.spoke = now;
                let _refused_once = self.send(session, PING.to_owned()).await?;
            }
        }
        if now >= session.rejoin_at {
            let groups = std::mem::take(&mut session.rejoin);
            session.unjoined += groups.len();
            for group in groups {
                let arguments = json!([group]);
                self.invoke(session, "JoinGroup", &arguments, Pending::Join(group))
                    .await?;
            }
            self.notice_joined(session);
        }
        Ok(())
    }

    fn notice_joined(&self, session: &Session) {
        if session.unjoined == 0 && session.rejoin.is_empty() {
            self.client.role.joined();
        }
    }

    /// Returns whether it was sent; the error ends the connection.
    async fn send(&self, session: &mut Session, text: String) -> Result<bool, String> {
        session.spoke = Instant::now();
        // A POST waits while the backplane is away, and answers in the end.
        match timeout(4 * self.client.server_timeout, session.channel.send(text)).await {
            Ok(Ok(())) => Ok(true),
            Ok(Err(Unsent::Refused(why))) => {
                self.client.ledger.refused(self.kind, &why);
                Ok(false)
            }
            Ok(Err(Unsent::Gone)) => Err("the socket ended".to_owned()),
            Err(_) => Err("nothing can be sent".to_owned()),
        }
    }

    async fn invoke(
        &mut self,
        session: &mut Session,
        target: &str,
        arguments: &Value,
        pending: Pending,
    ) -> Result<(), String> {
        let id = self.next_id.to_string();
        self.next_id += 1;
        let message = json!({ "type": 1, "invocationId": id, "target": target, "arguments": arguments });
        self.pending.insert(id.clone(), pending);
        if !self.send(session, format!("{message}\u{1e}")).await? {
            self.completed(session, &id, Answer::Failed);
        }
        Ok(())
    }

    fn heard(&mut self, session: &mut Session, text: &str) -> Result<(), String> {
        session.heard = Instant::now();
        for message in text.split_terminator('\u{1e}') {
            let Ok(message) = serde_json::from_str::<Value>(message) else {
                return Err("not JSON".to_owned());
            };
            match message["type"].as_u64() {
                Some(1) => self.client.invoked(&message),
                Some(3) => {
                    let answer = match message.get("error") {
                        Some(_) => Answer::Failed,
                        None => Answer::Done(message["result"].clone()),
                    };
                    let id = message["invocationId"].as_str().unwrap_or("");
                    self.completed(session, id, answer);
                }
                Some(7) => {
                    let (error, again) = (&message["error"], &message["allowReconnect"]);
                    return Err(format!("hub Close: error {error}, allowReconnect {again}"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn completed(&mut self, session: &mut Session, id: &str, answer: Answer) {
        match self.pending.remove(id) {
            // The answer to a call whose POST was refused, which may have arrived all the same.
            None => {}
            Some(Pending::Join(group)) => {
                session.unjoined -= 1;
                if answer == Answer::Failed {
                    session.rejoin.push(group);
                    session.rejoin_at = Instant::now() + RETRY;
                }
                self.notice_joined(session);
            }
            Some(Pending::Call(sender)) => drop(sender.send(answer)),
        }
    }
}
