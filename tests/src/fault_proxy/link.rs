//! One link of a proxy: what passes in each direction.

use std::future::pending;
use std::io;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::resp::{Command, Scanner};
use super::rules::{Action, Passing};

/// Accepts links until the proxy is closed.
pub(super) async fn accept(listener: StdListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).expect("the listener is a listener");
    let accepting = async {
        loop {
            match listener.accept().await {
                Ok((client, _)) => drop(tokio::spawn(Link::serve(client, Arc::clone(&shared)))),
                Err(_) => sleep(Duration::from_millis(10)).await, // too many open files
            }
        }
    };
    shared.closing.clone().run_until_cancelled(accepting).await;
}

/// Replies are counted against the commands that they answer.
const NEVER: u64 = u64::MAX;

/// Shared by the two directions.
struct Link {
    shared: Arc<Shared>,
    /// Ends both directions.
    cut: CancellationToken,
    held: watch::Sender<bool>,
    asked: AtomicU64,
    /// The number of the first reply that is not passed to the client.
    mute_from: AtomicU64,
    speaks_resp3: AtomicBool,
    is_subscribed: AtomicBool,
    /// A replica's link: no frames any more.
    is_raw: AtomicBool,
}

/// A direction is over.
struct Over;

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Self {
        Self
    }
}

impl Link {
    async fn serve(client: TcpStream, shared: Arc<Shared>) {
        let (server, cut) = {
            let route = shared.route();
            (route.server, route.cut.child_token())
        };
        let connecting = cut.run_until_cancelled(TcpStream::connect(server));
        let Some(Ok(server)) = connecting.await else {
            let _closed_anyway = client.set_zero_linger();
            return;
        };
        let link = Self {
            shared,
            cut,
            held: watch::Sender::new(false),
            asked: AtomicU64::new(0),
            mute_from: AtomicU64::new(NEVER),
            speaks_resp3: AtomicBool::new(false),
            is_subscribed: AtomicBool::new(false),
            is_raw: AtomicBool::new(false),
        };
        let _closed_anyway = (client.set_nodelay(true), server.set_nodelay(true));
        let (client_reads, client_writes) = client.into_split();
        let (server_reads, server_writes) = server.into_split();
        // When one direction is over, so is the other: half-open sockets mean nothing to Redis.
        tokio::select! {
            () = link.cut.cancelled() => {}
            _over = link.carry_requests(client_reads, server_writes) => {}
            _over = link.carry_answers(server_reads, client_writes) => {}
        }
    }

    /// Waits while everything or this link is held back.
    async fn opens(&self) {
        for held in [&self.shared.held, &self.held] {
            let mut opened = held.subscribe();
            let _the_sender_lives = opened.wait_for(|held| !held).await.is_ok();
        }
    }

    async fn pass(&self, to: &mut OwnedWriteHalf, bytes: &[u8]) -> Result<(), Over> {
        self.opens().await;
        Ok(to.write_all(bytes).await?)
    }

    async fn carry_requests(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> Result<(), Over> {
        let (mut scanner, mut buffer) = (Scanner::default(), BytesMut::new());
        loop {
            if from.read_buf(&mut buffer).await? == 0 {
                return Err(Over);
            }
            while let Some(frame) = next(&mut scanner, &mut buffer) {
                let command = Command::read(&frame);
                let decision = self.shared.book().decide(&Passing::Request(&command));
                let number = self.count(&command);
                match decision.map(|decision| (decision.action, decision.delay)) {
                    None => self.pass(&mut to, &frame).await?,
                    Some((Action::Swallow(cut_after), _)) => {
                        self.mute_from.fetch_min(number, Ordering::AcqRel);
                        self.pass(&mut to, &frame).await?;
                        self.cut_after(cut_after);
                    }
                    Some((action, delay)) => {
                        self.damage(action, delay, &mut to, &frame).await?;
                    }
                }
            }
        }
    }

    /// The number of the reply that a command will get.
    fn count(&self, command: &Command) -> u64 {
        if command.is("HELLO") && command.words().get(1).is_some_and(|version| version == "3") {
            self.speaks_resp3.store(true, Ordering::Release);
        }
        if command.is("PSYNC") {
            self.is_raw.store(true, Ordering::Release);
        }
        if command.is_subscription() {
            self.is_subscribed.store(true, Ordering::Release);
            return self.asked.load(Ordering::Acquire); // confirmed by pushes
        }
        self.asked.fetch_add(1, Ordering::AcqRel)
    }

    async fn carry_answers(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> Result<(), Over> {
        let (mut scanner, mut buffer) = (Scanner::default(), BytesMut::new());
        let mut answered = 0;
        loop {
            if from.read_buf(&mut buffer).await? == 0 {
                return self.ends().await;
            }
            if self.is_raw.load(Ordering::Acquire) {
                let bytes = buffer.split();
                self.pass(&mut to, &bytes).await?;
                continue;
            }
            while let Some(frame) = next(&mut scanner, &mut buffer) {
                let is_push = self.is_push(&frame);
                let is_mute = answered >= self.mute_from.load(Ordering::Acquire);
                answered += u64::from(!is_push);
                if is_mute {
                    continue;
                }
                let decision = match is_push {
                    true => self.shared.book().decide(&Passing::Push),
                    false => None,
                };
                match decision {
                    None => self.pass(&mut to, &frame).await?,
                    Some(decision) => {
                        self.damage(decision.action, decision.delay, &mut to, &frame)
                            .await?;
                    }
                }
            }
        }
    }

    /// The server has closed. A client whose answers are swallowed learns of it when its link is cut.
    async fn ends(&self) -> Result<(), Over> {
        match self.mute_from.load(Ordering::Acquire) {
            NEVER => Err(Over),
            _ => pending().await,
        }
    }

    fn is_push(&self, frame: &Bytes) -> bool {
        match frame.first() {
            Some(b'>') => true,
            Some(b'*') => {
                self.is_subscribed.load(Ordering::Acquire) && !self.speaks_resp3.load(Ordering::Acquire)
            }
            _ => false,
        }
    }

    async fn damage(
        &self,
        action: Action,
        delay: Duration,
        to: &mut OwnedWriteHalf,
        frame: &[u8],
    ) -> Result<(), Over> {
        match action {
            Action::Delay(..) => {
                sleep(delay).await;
                self.pass(to, frame).await
            }
            Action::Cut => Err(Over),
            Action::Truncate => {
                self.pass(to, &frame[..frame.len() / 2]).await?;
                Err(Over)
            }
            Action::Swallow(cut_after) => {
                // A push has no answer: itself and all after it are dropped.
                self.mute_from.store(0, Ordering::Release);
                self.cut_after(cut_after);
                Ok(())
            }
            Action::Hold(time) => {
                self.held.send_replace(true);
                sleep(time).await;
                self.held.send_replace(false);
                self.pass(to, frame).await
            }
            Action::HoldAndCut(time) => {
                self.held.send_replace(true);
                sleep(time).await;
                Err(Over)
            }
        }
    }

    fn cut_after(&self, time: Duration) {
        let cut = self.cut.clone();
        tokio::spawn(async move {
            cut.clone().run_until_cancelled(sleep(time)).await;
            cut.cancel();
        });
    }
}

fn next(scanner: &mut Scanner, buffer: &mut BytesMut) -> Option<Bytes> {
    let length = scanner.scan(buffer)?;
    Some(buffer.split_to(length).freeze())
}
