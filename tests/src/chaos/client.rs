//! A client that does what the official JavaScript client does with stateful and automatic reconnect: one task that owns
//! the sockets of one user, one after the other.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::kinds::ClientKind;
use super::ledger::Ledger;
use super::link::{Link, Negotiated, negotiate};
use super::member::Trouble;
use super::numbers::{Numbers, Receipt};

/// The handshake of a client that can resume.
const HANDSHAKE: &str = "{\"protocol\":\"json\",\"version\":2}\u{1e}";
pub(crate) const PING: &str = "{\"type\":6}\u{1e}";
/// The official client's pace.
const ACK_DELAY: Duration = Duration::from_secs(1);
pub(crate) const PING_AFTER: Duration = Duration::from_secs(15);
/// Between two attempts to start anew, or to join.
pub(crate) const RETRY: Duration = Duration::from_millis(200);

/// The user of a client: it decides what the client does.
pub(crate) trait Role: Send + Sync {
    /// The groups to join at each start.
    fn groups(&self) -> Vec<String>;
    /// A logical session begins, whose connection has this id if the client knows it.
    fn begins(&self, id: Option<&str>);
    /// The connection has this id by now: what holds its own place gets another with each socket.
    fn is(&self, _id: &str) {}
    /// The client has a socket, an event stream or a first poll, for the first time or again.
    fn connects(&self) {}
    /// An attempt to get one failed.
    fn refused(&self, _why: &str) {}
    /// All groups are joined.
    fn joined(&self);
    /// A message to a group has come.
    fn message(&self, group: &str, text: &str);
    /// The session is over.
    fn ends(&self);
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Done(Value),
    Failed,
    /// There will be none: the client had to start anew.
    Reset,
}

pub(crate) struct Call {
    pub(crate) target: &'static str,
    pub(crate) arguments: Value,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// The way to a running client.
#[derive(Clone)]
pub(crate) struct Handle {
    calls: mpsc::Sender<Call>,
    cut: Arc<Notify>,
}

impl Handle {
    /// The way to a client, and its end of that.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Call>, Arc<Notify>) {
        let (calls, receiver) = mpsc::channel(16);
        let cut = Arc::new(Notify::new());
        let handle = Self {
            calls,
            cut: Arc::clone(&cut),
        };
        (handle, receiver, cut)
    }

    /// Calls a method. Waits for as long as it takes.
    pub(crate) async fn call(&self, target: &'static str, arguments: Value) -> Answer {
        let (answer, answered) = oneshot::channel();
        let call = Call {
            target,
            arguments,
            answer,
        };
        let _ended = self.calls.send(call).await;
        answered.await.unwrap_or(Answer::Reset)
    }

    /// Breaks its TCP connection.
    pub(crate) fn cut(&self) {
        self.cut.notify_one();
    }
}

/// A client's name, address and times.
pub(crate) struct Client {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) server_timeout: Duration,
    /// True if its resets are counted: it may be hurt.
    pub(crate) is_hurt: bool,
    pub(crate) role: Arc<dyn Role>,
    pub(crate) ledger: Arc<Ledger>,
}

enum Pending {
    Join(String),
    Call(oneshot::Sender<Answer>),
}

/// The state of a connection, whatever socket it has.
struct Session {
    id: String,
    token: String,
    link: Link,
    sockets: usize,
    numbers: Numbers,
    unjoined: usize,
    heard: Instant,
    spoke: Instant,
    ack: Option<Instant>,
    rejoin: Option<(Instant, Vec<String>)>,
}

/// The reason why a socket is no longer served.
enum End {
    /// The connection may go on over another one.
    Broken,
    /// The client must start anew.
    Over(String),
}

struct Actor {
    client: Client,
    calls: mpsc::Receiver<Call>,
    cut: Arc<Notify>,
    pending: HashMap<String, Pending>,
    next_id: u64,
}

impl Client {
    /// An invocation by the hub has come.
    pub(crate) fn invoked(&self, message: &Value) {
        self.called(
            message["target"].as_str().unwrap_or_default(),
            &message["arguments"],
        );
    }

    /// The hub has called it.
    pub(crate) fn called(&self, target: &str, arguments: &Value) {
        let text = |index: usize| arguments[index].as_str();
        match (target, text(0), text(1)) {
            ("GroupMessage", Some(group), Some(text)) => self.role.message(group, text),
            _ => {
                let what = format!("nobody asked for {target} {arguments}");
                self.ledger.wrong(Trouble::Duplicated, &self.name, what);
            }
        }
    }

    /// The way to the client, and what must run for it.
    pub(crate) fn start(self) -> (Handle, impl Future<Output = ()> + Send) {
        let (handle, receiver, cut) = Handle::new();
        let actor = Actor {
            client: self,
            calls: receiver,
            cut,
            pending: HashMap::new(),
            next_id: 0,
        };
        (handle, actor.run())
    }
}

impl Actor {
    async fn run(mut self) {
        loop {
            let mut session = self.start().await;
            self.client.role.begins(Some(&session.id));
            let why = self.live(&mut session).await;
            self.client.role.ends();
            if self.client.is_hurt {
                let name = &self.client.name;
                self.client.ledger.reset(ClientKind::Stateful, name, &why);
            } else {
                self.client.ledger.control_reset(&self.client.name, &why);
            }
            for (_, pending) in self.pending.drain() {
                if let Pending::Call(answer) = pending {
                    let _nobody_waits = answer.send(Answer::Reset);
                }
            }
        }
    }

    /// Negotiates and shakes hands, for as long as it takes.
    async fn start(&self) -> Session {
        loop {
            match timeout(self.client.server_timeout, self.try_start()).await {
                Ok(Ok(session)) => {
                    self.client.role.connects();
                    return session;
                }
                Ok(Err(why)) => self.client.role.refused(&why),
                Err(_) => self.client.role.refused("no answer in time"),
            }
            sleep(RETRY).await;
        }
    }

    async fn try_start(&self) -> Result<Session, String> {
        let Negotiated { id, token } = negotiate(self.client.address, true).await?;
        let mut link = Link::open(self.client.address, &token).await?;
        let gone = |()| "gone during the handshake".to_owned();
        link.send(HANDSHAKE.to_owned()).await.map_err(gone)?;
        let answer = link.next().await.ok_or(()).map_err(gone)?;
        if answer != "{}\u{1e}" {
            // Counted messages must not come before the first frame after the handshake.
            return Err(format!("the handshake was answered with {answer}"));
        }
        link.send(PING.to_owned()).await.map_err(gone)?;
        Ok(Session {
            id,
            token,
            link,
            sockets: 1,
            numbers: Numbers::default(),
            unjoined: 0,
            heard: Instant::now(),
            spoke: Instant::now(),
            ack: None,
            rejoin: Some((Instant::now(), self.client.role.groups())),
        })
    }

    /// Serves a connection over all its sockets; returns why it has to start anew.
    async fn live(&mut self, session: &mut Session) -> String {
        loop {
            match self.serve(session).await {
                End::Over(why) => return why,
                End::Broken => {
                    let bound = self.client.server_timeout;
                    match timeout(bound, self.resume(session)).await {
                        Ok(Ok(())) => self.client.role.connects(),
                        Ok(Err(why)) => {
                            self.client.role.refused(&why);
                            return why;
                        }
                        Err(_) => return "resume: no answer in time".to_owned(),
                    }
                }
            }
        }
    }

    async fn serve(&mut self, session: &mut Session) -> End {
        loop {
            let is_ready = session.unjoined == 0 && session.rejoin.is_none() && !session.numbers.is_full();
            let timer = self.next_timer(session);
            let cut = Arc::clone(&self.cut);
            let step = tokio::select! {
                text = session.link.next() => match text {
                    Some(text) => self.heard(session, &text),
                    None => Err(End::Broken),
                },
                Some(call) = self.calls.recv(), if is_ready => {
                    self.invoke(session, call.target, &call.arguments, Pending::Call(call.answer)).await
                }
                () = cut.notified() => {
                    session.link.abort();
                    Err(End::Broken)
                }
                () = sleep_until(timer) => self.timers(session).await,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    fn next_timer(&self, session: &Session) -> Instant {
        let ping = session.spoke + PING_AFTER;
        let silence = session.heard + self.client.server_timeout;
        let rejoin = session.rejoin.as_ref().map(|(at, _)| *at);
        let others = [session.ack, rejoin].into_iter().flatten();
        others.fold(ping.min(silence), Instant::min)
    }

    async fn timers(&mut self, session: &mut Session) -> Result<(), End> {
        let now = Instant::now();
        if now >= session.heard + self.client.server_timeout {
            session.link.abort();
            return Err(End::Broken);
        }
        if session.ack.is_some_and(|at| now >= at) {
            session.ack = None;
            let ack = json!({ "type": 8, "sequenceId": session.numbers.newest() });
            self.send(session, format!("{ack}\u{1e}")).await?;
        }
        if now >= session.spoke + PING_AFTER {
            self.send(session, PING.to_owned()).await?;
        }
        if let Some((_, groups)) = session.rejoin.take_if(|(at, _)| now >= *at) {
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
        if session.unjoined == 0 && session.rejoin.is_none() {
            self.client.role.joined();
        }
    }

    async fn invoke(
        &mut self,
        session: &mut Session,
        target: &str,
        arguments: &Value,
        pending: Pending,
    ) -> Result<(), End> {
        let id = self.next_id.to_string();
        self.next_id += 1;
        let message = json!({ "type": 1, "invocationId": id, "target": target, "arguments": arguments });
        let text = format!("{message}\u{1e}");
        self.pending.insert(id, pending);
        session.numbers.send(&text);
        self.send(session, text).await
    }

    /// A peer that doesn't read for as long as the server's silence is borne is gone as well.
    async fn send(&self, session: &mut Session, text: String) -> Result<(), End> {
        session.spoke = Instant::now();
        match timeout(self.client.server_timeout, session.link.send(text)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(())) | Err(_) => Err(End::Broken),
        }
    }

    fn heard(&mut self, session: &mut Session, text: &str) -> Result<(), End> {
        session.heard = Instant::now();
        for message in text.split_terminator('\u{1e}') {
            let Ok(message) = serde_json::from_str::<Value>(message) else {
                return Err(End::Over("not JSON".to_owned()));
            };
            self.message(session, &message)?;
        }
        Ok(())
    }

    fn message(&mut self, session: &mut Session, message: &Value) -> Result<(), End> {
        let kind = message["type"].as_u64().unwrap_or(0);
        let receipt = session.numbers.receive(kind);
        if matches!(receipt, Receipt::Fresh | Receipt::Repeated { newest: true }) {
            session.ack.get_or_insert_with(|| Instant::now() + ACK_DELAY);
        }
        if matches!(receipt, Receipt::Repeated { .. } | Receipt::Early) {
            return Ok(());
        }
        let number = || message["sequenceId"].as_u64().unwrap_or(u64::MAX);
        match kind {
            1 => self.client.invoked(message),
            3 => self.completed(session, message),
            7 => {
                let (error, again) = (&message["error"], &message["allowReconnect"]);
                return Err(End::Over(format!(
                    "hub Close: error {error}, allowReconnect {again}"
                )));
            }
            8 => return session.numbers.acknowledged(number()).map_err(impossible),
            9 => return session.numbers.sequence(number()).map_err(impossible),
            _ => {}
        }
        Ok(())
    }

    fn completed(&mut self, session: &mut Session, message: &Value) {
        let has_failed = message.get("error").is_some();
        let id = message["invocationId"].as_str().unwrap_or("");
        match self.pending.remove(id) {
            None => {
                let what = format!("nobody waits for {message}");
                self.client
                    .ledger
                    .wrong(Trouble::Duplicated, &self.client.name, what);
            }
            Some(Pending::Join(group)) => {
                session.unjoined -= 1;
                if has_failed {
                    let again = session
                        .rejoin
                        .get_or_insert_with(|| (Instant::now() + RETRY, Vec::new()));
                    again.1.push(group);
                }
                self.notice_joined(session);
            }
            Some(Pending::Call(answer)) => {
                let _nobody_waits = answer.send(if has_failed {
                    Answer::Failed
                } else {
                    Answer::Done(message["result"].clone())
                });
            }
        }
    }

    /// One attempt to go on over another socket; the error says why the client must start anew.
    async fn resume(&mut self, session: &mut Session) -> Result<(), String> {
        let broken = Instant::now();
        session.numbers.disconnected();
        let link = Link::open(self.client.address, &session.token).await;
        session.link = link.map_err(|why| format!("resume: {why}"))?;
        session.sockets += 1;
        let gone = || "resume: gone before the Sequence".to_owned();
        let sent = session.link.send(session.numbers.resend()).await;
        sent.map_err(|()| gone())?;
        session.spoke = Instant::now();
        loop {
            let text = session.link.next().await.ok_or_else(gone)?;
            let answered = self.heard(session, &text);
            if let Err(End::Over(why)) = answered {
                return Err(format!("resume: {why}"));
            }
            if !session.numbers.awaits_sequence() {
                break;
            }
        }
        let (ledger, token) = (&self.client.ledger, &session.token);
        ledger.resumed(token, session.sockets - 1, broken.elapsed());
        Ok(())
    }
}

fn impossible(what: super::numbers::Impossible) -> End {
    End::Over(what.0.to_owned())
}
